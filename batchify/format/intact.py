"""Check copies of a file: that all of it is intact, or all but its images."""

from __future__ import annotations

import os

import numpy as np
from h5py import h5d

from batchify.common.text import printable
from batchify.errors import FileFormatError
from batchify.format.checksums import content_digest
from batchify.format.images import damaged_images
from batchify.format.reader import Reader
from batchify.format.schema import IMAGE_COLUMNS

Extent = tuple[int, int]
"""The first byte of a range, and the number of its bytes."""


def check_intact(reader: Reader, digest: str = "") -> None:
    """Compare everything in a file, of which no process changes a byte, with its checksums.

    Parameters
    ----------
    digest : str
        The ``content_sha256`` that it must have, in hex, as the shard index records it.

    Raises
    ------
    FileFormatError
        If it is damaged, or another file.
    """
    _check_digest(reader, digest)
    for split in reader.splits:
        for _, damaged in damaged_images(reader, split, mapped=True):
            if damaged:
                row, reason = damaged[0]
                raise _damaged(reader, f"row {row:,} of {split}: {reason}")


def check_head(reader: Reader, digest: str = "") -> None:
    """Compare everything in a file, except images and masks, with its digest.

    The digest covers masks: if there are any, only the structure of the file is checked.

    Raises
    ------
    FileFormatError
        If it is damaged, or another file.
    """
    if not any(_is_large(reader, split, "labels") for split in reader.splits):
        _check_digest(reader, digest)


def _check_digest(reader: Reader, digest: str) -> None:
    if digest and reader.digest.hex() != digest:
        raise _damaged(reader, "it is not the file that the shard index lists")
    if content_digest(reader) != reader.digest:
        raise _damaged(reader, "content_sha256 mismatch")


def _damaged(reader: Reader, reason: str) -> FileFormatError:
    return FileFormatError(f"{printable(reader.shown)} is damaged: {reason}")


def head_extents(path: str | bytes | os.PathLike[str]) -> list[Extent]:
    """Return the bytes of a file that are neither images nor masks.

    The file needs its first bytes only: those that HDF5 reads to open it.

    Raises
    ------
    FileFormatError
        If it cannot be opened, because bytes are missing, say.
    """
    with Reader(path, structure_only=True) as reader, reader.refusing():
        large = [
            _stored(dataset.id)
            for split, columns in reader.splits.items()
            for name, dataset in columns.items()
            if _is_large(reader, split, name)
        ]
        nbytes = reader.nbytes
    stored = np.concatenate(large)
    stored = stored[np.argsort(stored[:, 0], kind="stable")]
    starts = np.append(stored[:, 0], nbytes)
    ends = np.maximum.accumulate(np.append(0, stored.sum(axis=1)))
    gaps = np.flatnonzero(starts > ends)
    return [(int(ends[gap]), int(starts[gap] - ends[gap])) for gap in gaps]


def _is_large(reader: Reader, split: str, name: str) -> bool:
    """Return whether a column has images or masks."""
    columns = reader.splits[split]
    return name in IMAGE_COLUMNS or (
        name == "labels" and name in columns and len(columns[name].shape) > 2
    )


def _stored(dataset: h5d.DatasetID) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Return offset and size of each chunk of a dataset, shape (chunks, 2)."""
    found: list[Extent] = []
    dataset.chunk_iter(lambda info: found.append((info.byte_offset, info.size)))
    return np.array(found, np.int64).reshape(-1, 2)
