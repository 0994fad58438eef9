"""Opens one file: its structure by HDF5, which is closed again, its rows by their offsets.

Nothing stays open that a fork or a thread could break.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.errors import BatchifyError, FileAccessError, FileFormatError
from batchify.images import StoredArray
from batchify.names import printable
from batchify.paths import Origin, Paths
from batchify.reader import Reader
from batchify.serving import AS_RECORDED, Serving
from batchify.splits import Images, Split
from batchify.stored import StoredImages
from batchify.structure import dataset_places, filters

Mapped = np.memmap[Any, np.dtype[np.uint8]]
"""All bytes of a file."""


def open_splits(
    path: bytes, serving: Serving = AS_RECORDED
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Return the classes and the splits of one file, its images as `serving` asks.

    Raises
    ------
    FileMissingError, FileAccessError, FileFormatError
    """
    with Reader(path) as reader, accessing(path):
        with open(reader.fd, "rb", closefd=False) as file:  # what is open, not the name
            mapped = np.memmap(file, np.uint8, "r")
        classes = tuple(os.fsdecode(name) for name in reader.header.classes)
        return classes, {
            name: _split(reader, mapped, name, classes, serving) for name in reader.splits
        }


@contextlib.contextmanager
def accessing(path: bytes) -> Iterator[None]:
    """Turn what the system refuses, descriptors or memory, into an error that names the file."""
    try:
        yield
    except BatchifyError:
        raise
    except OSError as error:
        raise FileAccessError(f"{printable(path)} cannot be opened: {error}") from error


def _split(
    reader: Reader, mapped: Mapped, name: str, classes: tuple[str, ...], serving: Serving
) -> Split:
    columns = reader.splits[name]
    origin = Origin((reader.path,), name, (reader.digest,), reader.rows(name), serving)
    images = _images(reader, mapped, name, origin)
    scale = reader.scale_factor(name)
    if scale is None and images.dtype != np.float32:
        where = name if reader.is_encoded else f"{name}/images"
        raise FileFormatError(f"{printable(reader.path)}: {where} has no scale_factor")
    labels = _column(reader, mapped, name, "labels") if "labels" in columns else None
    weights = _column(reader, mapped, name, "weights") if "weights" in columns else None
    class_mode = reader.header.config["class_mode"]
    if labels is not None and class_mode in ("sparse", "binary"):
        known = (labels >= 0) & (labels < len(classes))
        if not known.all():
            raise FileFormatError(f"{printable(reader.path)}: {name} has labels without a class")
    paths = Paths([_column(reader, mapped, name, "paths")])
    return Split(
        name, images, labels, paths, classes, scale, origin, weights=weights, class_mode=class_mode
    )


def _images(reader: Reader, mapped: Mapped, name: str, origin: Origin) -> Images:
    """Return the images of a split: mapped, read, or decoded when they are read."""
    if reader.is_encoded:
        from batchify.served import EncodedArray, EncodedImages  # which need Pillow

        return EncodedArray(EncodedImages.of(reader, name, origin.serving), origin)
    if not filters(reader.splits[name]["images"]):
        found = _view(reader, mapped, name, "images")
        if found is not None:
            return found
    return StoredArray(StoredImages(reader, name), origin)


def _column(reader: Reader, mapped: Mapped, split: str, name: str) -> NDArray[Any]:
    """Return a small column: mapped, or in memory where its rows do not lie side by side."""
    found = _view(reader, mapped, split, name)
    if found is None:
        return np.concatenate(list(reader.pieces(split, name)))
    return found.view(np.ndarray)


def _view(reader: Reader, mapped: Mapped, split: str, name: str) -> NDArray[Any] | None:
    """Return a column whose rows lie side by side in the file; None where they do not.

    Raises
    ------
    FileFormatError
        If the file ends before its rows do.
    """
    dataset = reader.splits[split][name]
    with reader.refusing():
        where = dataset_places(dataset)
        dtype = np.dtype(dataset.dtype.str)  # without what h5py notes on it, of texts
        if not len(dataset):
            return np.empty(dataset.shape, dtype)
        if len(where.offsets) != 1:
            return None
        first, last = where.offsets[0], where.offsets[0] + len(dataset) * where.row_nbytes
        if first < 0 or last > len(mapped):
            raise FileFormatError(f"{split}/{name} has rows past the end of the file")
    rows: NDArray[Any] = mapped[first:last].view(dtype).reshape(dataset.shape)
    return rows
