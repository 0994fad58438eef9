"""Export to TFRecord files of ``tf.train.Example``, with the feature names of TFDS.

https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from batchify.exporting.crc32c import crc32c
from batchify.exporting.huggingface import column_name
from batchify.exporting.layout import Format, Piece, WrittenFile, write_shard
from batchify.exporting.rows import Contents, Sample, utf8_text
from batchify.exporting.tfds import UNLABELLED, write_tfds
from batchify.exporting.webdataset import write_classes

_BYTES, _FLOATS, _INTS = 1, 2, 3
"""The fields of tf.train.Feature."""


class TFRecord(Format):
    """A TFRecord file per shard, and what TFDS needs to read them."""

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


def _checksum(data: bytes) -> bytes:
    """Return the masked CRC-32C of some bytes."""
    crc = crc32c(data)
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
