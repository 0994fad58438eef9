"""The files by which TensorFlow Datasets reads TFRecords: ``tfds.builder_from_directory``.

https://www.tensorflow.org/datasets/external_tfrecord
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from batchify.exporting.layout import WrittenFile, write_text
from batchify.exporting.rows import Contents, utf8_text

UNLABELLED = -1
"""The label of rows without one, as in the test splits of TFDS."""

_MODULES = {
    "Image": "image_feature", "ClassLabel": "class_label_feature", "Text": "text_feature",
    "Tensor": "tensor_feature", "Scalar": "scalar", "FeaturesDict": "features_dict",
}  # fmt: skip
_SCALARS = {"int64": "int64", "float64": "float32", "bool": "bool"}
"""dtype of a kept column -> what a tf.train.Example stores."""


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
        As for `batchify.exporting.layout.Format.finish`.
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
