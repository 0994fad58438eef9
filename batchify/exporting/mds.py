"""Export to the shards of MosaicML Streaming, which ``streaming.StreamingDataset`` reads.

A shard is the number of samples, where each begins and the last ends (uint32), a JSON text about
the columns, and the samples: the sizes (uint32) of the columns of variable size, then their bytes.
https://docs.mosaicml.com/projects/streaming/en/stable/preparing_datasets/dataset_format.html
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from batchify.errors import OptionError
from batchify.exporting.formats import Format, Piece, WrittenFile, write_shard, write_text
from batchify.exporting.huggingface import column_name
from batchify.exporting.rows import Contents, Sample, utf8_text
from batchify.exporting.webdataset import write_classes

_SIZES = {"int": 8, "int64": 8, "float32": 4, "float64": 8, "uint8": 1}
_KEPT = {"int64": "int64", "float64": "float64", "bool": "uint8", "text": "str"}
_DTYPES = {"float32": "<f4", "float64": "<f8", "uint8": "u1"}
_MOST_NBYTES = (1 << 32) - 1


class Mds(Format):
    """A folder per split with shards and their ``index.json``."""

    def __init__(self, contents: Contents) -> None:
        super().__init__(contents)
        encodings = {"image": "png"}  # which Pillow decodes, whatever format it is
        if contents.label:
            numbers = f"ndarray:float32:{contents.numbers or 1}"
            encodings["label"] = {"class": "int", "mask": "png", "numbers": numbers}[contents.label]
        if contents.has_weights:
            encodings["weight"] = "float32"
        encodings["path"] = "str"
        self._kept = {}
        for name, kind in contents.columns.items():
            self._kept[name] = column_name(name, encodings)
            encodings[self._kept[name]] = _KEPT[kind]
        self._encodings = dict(sorted(encodings.items()))

    def _size(self, encoding: str) -> int | None:
        """Return the bytes of a column; None if they vary."""
        if encoding.startswith("ndarray"):
            return 4 * int(encoding.rpartition(":")[2])
        return _SIZES.get(encoding)

    def _config(self, split_has_labels: bool) -> dict[str, Any]:
        columns = self._columns(split_has_labels)
        return {
            "column_encodings": list(columns.values()),
            "column_names": list(columns),
            "column_sizes": [self._size(encoding) for encoding in columns.values()],
            "compression": None,
            "format": "mds",
            "hashes": [],
            "size_limit": None,
            "version": 2,
        }

    def _columns(self, has_labels: bool) -> dict[str, str]:
        return {
            name: encoding
            for name, encoding in self._encodings.items()
            if name != "label" or has_labels
        }

    def write(self, folder: bytes, piece: Piece, samples: Iterable[Sample]) -> list[WrittenFile]:
        """Write a shard.

        Notes
        -----
        Memory: 4 bytes per row.
        """

        def write(path: bytes) -> None:
            count = piece.stop - piece.start
            ends = np.zeros(count + 1, np.int64)
            with open(path, "wb") as file:
                config = b""
                for i, sample in enumerate(samples):
                    if i == 0:
                        columns = self._columns(sample.label is not None)
                        text = json.dumps(self._config(sample.label is not None), sort_keys=True)
                        config = text.encode()
                        ends[0] = 4 + 4 * len(ends) + len(config)
                        file.write(bytes(int(ends[0])))
                    data = self._encode(sample, columns)
                    file.write(data)
                    ends[i + 1] = ends[i] + len(data)
                if ends[-1] > _MOST_NBYTES:
                    raise OptionError("a shard of MDS has at most 4 GiB; use a smaller shard size")
                file.seek(0)
                file.write(struct.pack("<I", count) + ends.astype("<u4").tobytes() + config)

        return write_shard(folder, f"{piece.split}/shard.{piece.number:05}.mds", write)

    def _encode(self, sample: Sample, columns: Mapping[str, str]) -> bytes:
        """Return a sample: the sizes of its variable columns, and all columns by name."""
        values: dict[str, Any] = {
            "image": sample.image,
            "label": sample.label,
            "weight": sample.weight,
            "path": utf8_text(sample.path),
            **{self._kept[name]: value for name, value in sample.columns.items()},
        }
        sizes, parts = [], []
        for name, encoding in columns.items():
            data = _datum(values[name], encoding)
            if self._size(encoding) is None:
                sizes.append(len(data))
            parts.append(data)
        return np.array(sizes, "<u4").tobytes() + b"".join(parts)

    def finish(
        self,
        folder: bytes,
        written: Mapping[str, list[list[WrittenFile]]],
        rows: Mapping[str, list[int]],
    ) -> None:
        """Write the index of each split, and the names of the classes."""
        for split, pieces in written.items():
            shards = []
            for (file,), count in zip(pieces, rows[split], strict=True):
                name = file.name.partition("/")[2]
                raw = {"basename": name, "bytes": file.nbytes, "hashes": {}}
                has_labels = split not in self.contents.unlabelled
                shards.append(
                    {
                        **self._config(has_labels),
                        "raw_data": raw,
                        "samples": count,
                        "zip_data": None,
                    }
                )
            index = {"shards": shards, "version": 2}
            write_text(folder, f"{split}/index.json", json.dumps(index, sort_keys=True))
        write_classes(folder, self.contents.classes)


def _datum(value: Any, encoding: str) -> bytes:
    if encoding == "str":
        return utf8_text(value).encode()
    if encoding in ("int", "int64"):
        return struct.pack("<q", value)
    if encoding.startswith("ndarray"):
        return np.asarray(value, "<f4").tobytes()
    if encoding in _DTYPES:
        return np.array(value, _DTYPES[encoding]).tobytes()
    found: bytes = value
    return found
