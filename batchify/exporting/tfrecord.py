"""Export to TFRecord files of ``tf.train.Example``, with the feature names of TFDS.

https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
https://www.tensorflow.org/datasets/external_tfrecord
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from batchify.common.system import missing_extra
from batchify.exporting.formats import Format, Piece, WrittenFile, write_shard, write_text
from batchify.exporting.huggingface import column_name
from batchify.exporting.rows import Contents, Sample, utf8_text
from batchify.exporting.webdataset import write_classes

UNLABELLED = -1
"""The label of rows without one, as in the test splits of TFDS."""

_MODULES = {
    "Image": "image_feature", "ClassLabel": "class_label_feature", "Text": "text_feature",
    "Tensor": "tensor_feature", "Scalar": "scalar", "FeaturesDict": "features_dict",
}  # fmt: skip
_SCALARS = {"int64": "int64", "float64": "float32", "bool": "bool"}
"""dtype of a kept column -> what a tf.train.Example stores."""

_BYTES, _FLOATS, _INTS = 1, 2, 3
"""The fields of tf.train.Feature."""


class TFRecord(Format):
    """A TFRecord file per shard, and what TFDS needs to read them."""

    @staticmethod
    def load_library() -> None:
        """Import google-crc32c."""
        _load_crc32c()

    def __init__(self, contents: Contents) -> None:
        super().__init__(contents)
        names = ["image", "image/filename", "label", "weight"]
        self._kept: dict[str, str] = {}
        for name in contents.columns:
            self._kept[name] = column_name(name, names)
            names.append(self._kept[name])

    def write(self, folder: bytes, piece: Piece, samples: Iterable[Sample]) -> list[WrittenFile]:
        """Write a shard."""

        def write(path: bytes) -> None:
            with open(path, "wb") as file:
                for sample in samples:
                    record = example(self._features(sample))
                    length = struct.pack("<Q", len(record))
                    file.write(length + _checksum(length))
                    file.write(record + _checksum(record))

        return write_shard(folder, f"{piece.stem}.tfrecord", write)

    def _features(self, sample: Sample) -> Iterator[tuple[str, Any]]:
        yield "image", sample.image
        yield "image/filename", utf8_text(sample.path)
        if sample.label is not None:
            yield "label", sample.label
        elif self.contents.label == "class":
            yield "label", UNLABELLED
        if sample.weight is not None:
            yield "weight", sample.weight
        for name, value in sample.columns.items():
            yield self._kept[name], value

    def finish(
        self,
        folder: bytes,
        written: Mapping[str, list[list[WrittenFile]]],
        rows: Mapping[str, list[int]],
    ) -> None:
        """Write the names of the classes, and the description of the features for TFDS."""
        write_classes(folder, self.contents.classes)
        write_tfds(folder, self.contents, self._kept, written, rows)


def _load_crc32c() -> Any:
    try:
        import google_crc32c
    except ImportError as error:
        raise missing_extra("this format needs google-crc32c, which", "tfrecord", error) from error
    return google_crc32c


def _checksum(data: bytes) -> bytes:
    """Return the masked CRC-32C of some bytes."""
    crc = _load_crc32c().value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def example(features: Iterable[tuple[str, Any]]) -> bytes:
    """Return a serialized ``tf.train.Example``; features are sorted by name."""
    entries = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, _feature(value)))
        for name, value in sorted(features)
    )
    return _field(1, entries)


def _feature(value: Any) -> bytes:
    """Return a ``tf.train.Feature`` of bytes, text, whole numbers or floats."""
    if isinstance(value, str):
        value = utf8_text(value).encode()
    if isinstance(value, bytes):
        return _field(_BYTES, _field(1, value))
    if isinstance(value, int):  # and bool
        return _field(_INTS, _field(1, _varint(int(value))))
    floats = np.atleast_1d(np.asarray(value, "<f4")).tobytes()
    return _field(_FLOATS, _field(1, floats))


def _field(number: int, data: bytes) -> bytes:
    """Return a field of protocol buffers that has a length: bytes, a message, packed numbers."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # two's complement
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def write_tfds(
    folder: bytes,
    contents: Contents,
    kept: Mapping[str, str],
    written: Mapping[str, list[list[WrittenFile]]],
    rows: Mapping[str, list[int]],
) -> None:
    """Write ``features.json``, ``dataset_info.json`` and the names of the classes.

    Parameters
    ----------
    kept : Mapping of str to str
        The feature of each column of --keep-columns.
    written, rows
        As for `Format.finish`.
    """
    height, width, channels = contents.image_shape
    size = (-1, -1) if contents.is_encoded else (height, width)
    depth = "uint16" if contents.dtype == "uint16" else "uint8"
    features = {"image": _image((*size, channels), depth), "image/filename": _text()}
    if contents.label == "class":
        count = {"numClasses": str(len(contents.classes))}
        features["label"] = {**_class("ClassLabel"), "classLabel": count}
        lines = [utf8_text(name).replace("\n", "\\n") for name in contents.classes]
        write_text(folder, "label.labels.txt", "".join(f"{line}\n" for line in lines))
    elif contents.label == "mask":
        features["label"] = _image((height, width, 1), "uint8")
    elif contents.label:
        features["label"] = _numbers("float32", contents.numbers)
    if contents.has_weights:
        features["weight"] = _numbers("float32")
    for name, dtype in contents.columns.items():
        features[kept[name]] = _text() if dtype == "text" else _numbers(_SCALARS[dtype])
    _write_json(
        folder, "features.json", {**_class("FeaturesDict"), "featuresDict": {"features": features}}
    )
    info: dict[str, Any] = {
        "name": "batchify_export",
        "version": "1.0.0",
        "description": "Exported by batchify.",
        "disableShuffling": True,  # rows keep their order
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": name,
                "filepathTemplate": "{SPLIT}-{SHARD_INDEX}.{FILEFORMAT}",
                "numBytes": str(sum(file.nbytes for files in pieces for file in files)),
                "shardLengths": list(map(str, rows[name])),
            }
            for name, pieces in written.items()
            if pieces
        ],
    }
    if "label" in features:
        items = [{"featureKey": "image"}, {"featureKey": "label"}]
        info["supervisedKeys"] = {"tuple": {"items": items}}
    _write_json(folder, "dataset_info.json", info)


def _write_json(folder: bytes, name: str, value: Any) -> None:
    write_text(folder, name, json.dumps(value, indent=4, sort_keys=True) + "\n")


def _class(name: str) -> dict[str, Any]:
    module = f"tensorflow_datasets.core.features.{_MODULES[name]}"
    return {"pythonClassName": f"{module}.{name}"}


def _image(shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    return {**_class("Image"), "image": {"dtype": dtype, "shape": _shape(shape)}}


def _text() -> dict[str, Any]:
    return {**_class("Text"), "text": {}}


def _numbers(dtype: str, count: int = 0) -> dict[str, Any]:
    """Return a feature of a number, or of `count` numbers."""
    shape = _shape((count,)) if count else {}
    tensor = {"dtype": dtype, "encoding": "none", "shape": shape}
    return {**_class("Tensor" if count else "Scalar"), "tensor": tensor}


def _shape(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"dimensions": list(map(str, shape))}
