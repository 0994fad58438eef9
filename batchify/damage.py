"""Finds damage in what a file stores: labels of no class, images that are not what was written."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.encoded import EncodedFiles
from batchify.errors import FileFormatError
from batchify.processes import usable_cpus
from batchify.reader import Reader
from batchify.stored import StoredImages
from batchify.threads import in_order

_MOST_NBYTES = 256 << 20
"""What the pieces in all threads take, unless a single row takes more."""
Damaged = list[tuple[int, str]]
"""Rows, and what is wrong with each."""


def bad_labels(
    labels: NDArray[Any], class_mode: str, n_classes: int
) -> tuple[NDArray[np.bool_], str]:
    """Return which labels cannot be, shape (n,), and what is wrong with them.

    Parameters
    ----------
    labels : ndarray
        As `schema.split_columns` has them.
    class_mode : str
    n_classes : int
    """
    rows = labels.reshape(len(labels), -1)
    if class_mode == "mask":  # any value may be one
        return np.zeros(len(labels), np.bool_), ""
    if class_mode == "regression":
        return ~np.isfinite(rows).all(axis=1), "its label is not a finite number"
    is_truth = ((rows == 0) | (rows == 1)).all(axis=1)
    if class_mode == "multilabel":
        return ~is_truth, "its label has values beside 0 and 1"
    message = f"its label is not one of {n_classes} classes"
    if class_mode == "categorical":
        return ~(is_truth & (rows.sum(axis=1) == 1)), message
    return np.asarray((labels < 0) | (labels >= n_classes)), message


def bad_weights(weights: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which weights are not finite numbers of at least 0, shape (n,)."""
    return np.asarray(~(np.isfinite(weights) & (weights >= 0)))


def mask_crc32(reader: Reader, split: str, row: int) -> int:
    """Return the CRC-32 of a stored mask; 0 in a file without."""
    if "label_sha256" not in reader.splits[split]:
        return 0
    with reader.refusing():
        return zlib.crc32(reader.splits[split]["labels"][row].tobytes())


def damaged_images(reader: Reader, split: str) -> Iterator[tuple[int, Damaged]]:
    """Read the stored images of a split, in threads, and hold them against their checksums.

    Yields
    ------
    rows : int
        How many were read, piece by piece, in the order of the file.
    damaged : list of (int, str)
        Those whose checksum is another, or that cannot be read.
    """
    images = EncodedFiles(reader, split) if reader.is_encoded else StoredImages(reader, split)
    sums = reader.splits[split]["row_crc32"]
    threads = max(1, min(usable_cpus(), _MOST_NBYTES // (2 * images.piece_nbytes)))

    def check(piece: tuple[int, NDArray[np.uint32]]) -> tuple[int, Damaged]:
        start, expected = piece
        return len(expected), _damaged(images, start, expected.tolist())

    pieces = ((start, sums[start:stop]) for start, stop in images.pieces())  # HDF5 in one thread
    pool = ThreadPoolExecutor(threads)
    try:
        yield from in_order(pool, check, pieces, threads)
    finally:
        pool.shutdown(cancel_futures=True)
        images.close()


def _damaged(images: StoredImages | EncodedFiles, start: int, expected: list[int]) -> Damaged:
    """Return the damaged ones of the rows from `start`, a whole number of chunks or to the end."""
    try:
        data = images.get(start, start + len(expected))
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
    rows = images.cut(data, start, start + len(expected))
    reason = "its checksum (row_crc32) is another"
    return [
        (start + i, reason)
        for i, (row, crc32) in enumerate(zip(rows, expected, strict=True))
        if zlib.crc32(row) != crc32
    ]
