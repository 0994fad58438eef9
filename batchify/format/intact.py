"""Find damaged images, and check that all of a file is intact, or all but its images."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from h5py import h5d
from numpy.typing import NDArray

from batchify.common.system import in_order, usable_cpus
from batchify.common.text import printable
from batchify.errors import FileFormatError
from batchify.format.checksums import content_digest
from batchify.format.images import StoredImages, stored_images
from batchify.format.reader import Reader
from batchify.format.schema import IMAGE_COLUMNS

Extent = tuple[int, int]
"""The first byte of a range, and the number of its bytes."""


class _MappedFile:
    """The bytes of a mapped file."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._data = data.data

    def read(self, extents: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of some ranges, which are not copied."""
        found: list[Any] = [self._data[start : start + nbytes] for start, nbytes in extents]
        if any(len(part) < nbytes for part, (_, nbytes) in zip(found, extents, strict=True)):
            raise OSError(errno.EIO, "the file is too short")
        return found


_MOST_NBYTES = 256 << 20
"""Memory for the pieces in all threads, unless a single row takes more."""

Damaged = list[tuple[int, str]]
"""Damaged rows, with the reason for each."""


def damaged_images(
    reader: Reader, split: str, *, mapped: bool = False
) -> Iterator[tuple[int, Damaged]]:
    """Read the stored images of a split in threads, and compare them with their checksums.

    Parameters
    ----------
    mapped : bool
        Read mapped memory, which copies nothing, if the file system can map the file. Only for
        files that no process truncates: a page that cannot be read ends the process.

    Yields
    ------
    rows : int
        How many were read, for each piece, in the order of the file.
    damaged : list of (int, str)
        Those that do not match their checksum, or cannot be read.
    """
    sums = reader.splits[split]["row_crc32"]
    with stored_images(reader, split) as images:
        if mapped and (data := reader.mapped()) is not None:
            images.read_from(_MappedFile(data))
        threads = max(1, min(usable_cpus(), _MOST_NBYTES // (2 * images.piece_nbytes)))

        def check(piece: tuple[int, NDArray[np.uint32]]) -> tuple[int, Damaged]:
            start, expected = piece
            return len(expected), _damaged(images, start, expected.tolist())

        pieces = (
            (start, sums[start:stop]) for start, stop in images.pieces()
        )  # HDF5 in one thread
        pool = ThreadPoolExecutor(threads)
        try:
            yield from in_order(pool, check, pieces, threads)
        finally:
            pool.shutdown(cancel_futures=True)


def _damaged(images: StoredImages, start: int, expected: list[int]) -> Damaged:
    """Return the damaged rows from `start` on; whole chunks, except at the end of the split."""
    try:
        _, damaged = images.checked(start, expected)
    except (OSError, FileFormatError) as error:
        step = images.chunk_rows
        if len(expected) <= step:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            return [(start + i, reason) for i in range(len(expected))]
        return [
            row
            for first in range(0, len(expected), step)
            for row in _damaged(images, start + first, expected[first : first + step])
        ]
    return [(row, "checksum mismatch (row_crc32)") for row in damaged]


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
                raise _refusal(reader, f"row {row:,} of {split}: {reason}")


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
        raise _refusal(reader, "it is not the file that the shard index lists")
    if content_digest(reader) != reader.digest:
        raise _refusal(reader, "content_sha256 mismatch")


def _refusal(reader: Reader, reason: str) -> FileFormatError:
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
