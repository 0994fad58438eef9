"""Make a Hugging Face dataset from a split.

https://huggingface.co/docs/datasets/package_reference/main_classes
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.table import InMemoryTable
from numpy.typing import NDArray

from batchify.loading.arrays import RowArray
from batchify.loading.split_data import SplitData

_PIECE_VALUES = 8 << 20
"""The most values in a record batch, unless one image has more."""


def make_dataset(split: SplitData) -> datasets.Dataset:
    """Return a ``datasets.Dataset`` of image, label and path, images as ndarrays.

    Mapped images are not copied. Others are written once, some at a time, to the cache of Hugging
    Face.
    """
    features = _features(split)
    if isinstance(split.images, RowArray) and len(split):
        found = datasets.Dataset.from_generator(
            _rows, features=features, gen_kwargs={"split": split}, split=split.name
        )
    else:
        pieces = list(_pieces(split, features.arrow_schema))
        table = InMemoryTable(pa.Table.from_batches(pieces, features.arrow_schema))
        # By default the fingerprint is computed from all images.
        fingerprint = hashlib.sha256(repr(split.origin).encode()).hexdigest()[:16]
        found = datasets.Dataset(table, split=split.name, fingerprint=fingerprint)
    return found.with_format("numpy", dtype=None)  # otherwise all integers would be int64


def _features(split: SplitData) -> datasets.Features:
    images = split.images
    columns: dict[str, Any] = {"image": datasets.Array3D(images.shape[1:], str(images.dtype))}
    if split.labels is not None:
        columns["label"] = _label_feature(split)
    if split.weights is not None:
        columns["weight"] = datasets.Value("float32")
    columns["path"] = datasets.Value("string")
    return datasets.Features(columns)


def _label_feature(split: SplitData) -> Any:
    """Return the Hugging Face type of the labels."""
    assert split.labels is not None
    shape = split.labels.shape[1:]
    if split.class_mode == "mask":
        return datasets.Array2D(shape, "uint8")
    if split.class_mode in ("sparse", "binary"):
        return datasets.ClassLabel(names=list(map(_text, split.classes)))
    floats = datasets.Value("float32")
    return datasets.Sequence(floats, length=shape[0]) if shape else floats


def _text(name: str) -> str:
    """Return a name with bytes that are not UTF-8 escaped: Arrow cannot store them."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _pieces(split: SplitData, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows in pieces whose pixels are those of the mapped file, not copies.

    Arrow stores where the values of each pixel begin. These numbers are the same in every piece, so
    all pieces share one copy.
    """
    _, height, width, channels = split.images.shape
    at_once = max(1, min(_at_once(split), len(split)))
    begins = [
        pa.array(np.arange(0, at_once * count * length + 1, length, dtype=np.int32))
        for count, length in ((height * width, channels), (height, width), (1, height))
    ]
    dtype = pa.from_numpy_dtype(split.images.dtype)
    for start in range(0, len(split), at_once):
        rows = slice(start, min(start + at_once, len(split)))
        images: NDArray[Any] = np.asarray(split.images[rows])
        pixels = pa.Array.from_buffers(dtype, images.size, [None, pa.py_buffer(images)])
        for begin, count in zip(begins, (height * width, height, 1), strict=True):
            pixels = pa.ListArray.from_arrays(begin[: len(images) * count + 1], pixels)
        columns = [pa.ExtensionArray.from_storage(schema.field("image").type, pixels)]
        if split.labels is not None:
            labels = np.asarray(split.labels[rows])
            column = pa.array(labels.ravel())
            if labels.ndim == 2:
                column = pa.FixedSizeListArray.from_arrays(column, labels.shape[1])
            elif labels.ndim == 3:
                for length in reversed(labels.shape[1:]):
                    ends = np.arange(0, len(column) + 1, length, dtype=np.int32)
                    column = pa.ListArray.from_arrays(pa.array(ends), column)
                column = pa.ExtensionArray.from_storage(schema.field("label").type, column)
            columns.append(column)
        if split.weights is not None:
            columns.append(pa.array(np.asarray(split.weights[rows])))
        columns.append(pa.array(list(map(_text, split.paths[rows])), pa.string()))
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _at_once(split: SplitData) -> int:
    return max(1, _PIECE_VALUES // max(1, math.prod(split.images.shape[1:])))


def _rows(split: SplitData) -> Iterator[dict[str, Any]]:
    for start in range(0, len(split), _at_once(split)):
        rows = slice(start, min(start + _at_once(split), len(split)))
        columns: dict[str, Any] = {"image": split.images[rows]}
        if split.labels is not None:
            columns["label"] = split.labels[rows]
        if split.weights is not None:
            columns["weight"] = split.weights[rows]
        columns["path"] = map(_text, split.paths[rows])
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))
