"""Cut the rows of splits into the pieces that are written together."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Generator, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from batchify.common.paths import is_relative, is_url
from batchify.datasets.discovery import holds_shards
from batchify.exporting.layout import Piece
from batchify.exporting.task import original_error
from batchify.format.reader import Reader
from batchify.loading.files import find_paths
from batchify.loading.shards import open_copy, open_folder
from batchify.loading.split import Split
from batchify.storage.source import SourceFile
from batchify.storage.tree import NO_FILE, Tree


def open_readers(path: str | os.PathLike[str]) -> Generator[Reader, None, None]:
    """Yield the open files of a path or URL, one after the other; at a URL without images."""
    if not is_url(path):
        for each in find_paths(path):
            with Reader(each) as reader:
                yield reader
    elif holds_shards(path):
        with open_folder(path, "records") as (_, shards):
            for shard in shards:
                with shard.here() as copy, Reader(copy) as reader:
                    yield reader
    else:
        with open_copy(path, "records") as name, Reader(name) as reader:
            yield reader


def row_digests(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """Return the recorded SHA-256 of the image file of each row, by split.

    Notes
    -----
    Memory: 32 bytes per row.
    """
    found: dict[str, list[bytes]] = {}
    with contextlib.closing(open_readers(path)) as readers:
        for reader in readers:
            for split in reader.splits:
                found.setdefault(split, []).append(reader.column(split, "source_sha256").tobytes())
    return {split: b"".join(parts) for split, parts in found.items()}


def file_sizes(path: str | os.PathLike[str]) -> dict[str, NDArray[np.int64]]:
    """Return the size of the stored image file of each row, by split.

    Notes
    -----
    Memory: 8 bytes per row.
    """
    found: dict[str, list[NDArray[np.int64]]] = {}
    with contextlib.closing(open_readers(path)) as readers:
        for reader in readers:
            for split in reader.splits:
                sizes = np.diff(reader.ends(split), prepend=0)
                found.setdefault(split, []).append(sizes)
    return {split: np.concatenate(parts) for split, parts in found.items()}


def cut(
    split: Split, sizes: NDArray[np.int64] | None, limit: int, most_rows: int
) -> Iterator[tuple[int, int]]:
    """Yield [start, stop) of the pieces of a split: as many rows as fit, at least one.

    Parameters
    ----------
    sizes : ndarray of int64, shape (N,), or None
        The bytes of each row; None if all have as many as their pixels.
    limit : int
        The most bytes of the images of a piece.
    """
    count = len(split)
    if sizes is None:
        row_nbytes = split.images.dtype.itemsize * math.prod(split.images.shape[1:])
        step = max(1, min(limit // row_nbytes, most_rows))
        yield from ((start, min(start + step, count)) for start in range(0, count, step))
        return
    ends = np.cumsum(sizes)
    start = 0
    while start < count:
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + limit, "right"))
        stop = min(max(stop, start + 1), start + most_rows)
        yield start, stop
        start = stop


def with_originals(
    pieces: Iterator[Piece], splits: Mapping[str, Split], tree: Tree, digests: Mapping[str, bytes]
) -> Iterator[Piece]:
    """Yield pieces with the files of a dataset that their rows were made from.

    Raises
    ------
    DatasetError
        If one is not there.
    """
    for piece in pieces:
        paths = [os.fsencode(path) for path in splits[piece.split].paths[piece.start : piece.stop]]
        reasons, extents = tree.find_files([p if is_relative(p) else b"" for p in paths])
        for i, path in enumerate(paths):
            if i in reasons or not is_relative(path):
                raise original_error(path, reasons.get(i, NO_FILE))
        numbers = [None] * len(paths) if extents is None else list(map(tuple, extents.tolist()))
        yield Piece(
            piece.split,
            piece.number,
            piece.start,
            piece.stop,
            piece.names,
            tuple(map(SourceFile, paths, numbers)),
            digests[piece.split][32 * piece.start : 32 * piece.stop],
        )
