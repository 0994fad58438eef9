"""Cut the rows of splits into pieces, and write each, in this process or in a worker."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchify.common.paths import is_relative, is_url
from batchify.common.text import printable
from batchify.datasets.discovery import holds_shards
from batchify.errors import BadImageError, DatasetError
from batchify.exporting.formats import Format, Piece, WrittenFile
from batchify.exporting.rows import read_samples
from batchify.format.reader import Reader
from batchify.loading.files import find_paths
from batchify.loading.shards import open_copy, open_folder
from batchify.loading.split import Split
from batchify.storage.source import Source, SourceFile, StampedReader
from batchify.storage.tree import NO_FILE, Tree
from batchify.workers.pool import Mark


def open_readers(path: str | os.PathLike[str]) -> Generator[Reader, None, None]:
    """Yield the open files of a path or URL, one after the other; at a URL without images."""
    if not is_url(path):
        for each in find_paths(path):
            with Reader(each).finished() as reader:
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


_MOST_NBYTES = 1 << 31
"""The size of an original: stored files cannot be as large."""


@dataclass(frozen=True)
class ExportJob:
    """Write pieces of splits into the folder of an unfinished target.

    Parameters
    ----------
    splits : Mapping of str to Split
        A worker opens them again.
    source : Source or None
        The dataset, if files are taken from it.
    url : str
        Where files are uploaded to, and removed here; empty to keep them here.
    """

    splits: Mapping[str, Split]
    format: Format
    folder: bytes
    image_format: str
    source: Source | None
    url: str = ""

    @contextlib.contextmanager
    def open_handler(self, mark: Mark) -> Iterator[Callable[[Piece], list[WrittenFile]]]:
        """Open the source; yield a function that writes a piece."""
        with contextlib.ExitStack() as lifetime:
            reader = None
            if self.source is not None:
                reader = lifetime.enter_context(contextlib.closing(self.source.open_reader()))
            yield lambda piece: self._write(piece, reader, mark)

    def _write(self, piece: Piece, reader: StampedReader | None, mark: Mark) -> list[WrittenFile]:
        originals = None if reader is None else self._originals(piece, reader)
        samples = read_samples(
            self.splits[piece.split], piece.start, piece.stop, self.image_format, mark, originals
        )
        files = self.format.write(self.folder, piece, samples)
        if self.url:
            from batchify.exporting.remote_target import send  # imports asyncio

            last = piece.stop - piece.start - 1
            send(self.url, self.folder, files, lambda: mark(last))
        return files

    def _originals(self, piece: Piece, reader: StampedReader) -> Iterator[bytes]:
        """Yield the image files of a piece, after comparing them with the recorded SHA-256."""
        contents = reader.read_files(piece.files, _MOST_NBYTES)
        for i, (file, content) in enumerate(zip(piece.files, contents, strict=True)):
            reason = str(content) if isinstance(content, BadImageError) else ""
            if not isinstance(content, BadImageError):
                digest = piece.digests[32 * i : 32 * i + 32]
                if hashlib.sha256(content).digest() == digest:
                    yield content
                    continue
                reason = "its content has changed since the file was built"
            raise original_error(file.path, reason)

    @property
    def advice(self) -> str:
        """What a user can do about an image whose decoder died."""
        return "check the file with batchify verify"

    def describe(self, task: Piece, item: int) -> str:
        """Name a row."""
        return f"{task.split} row {task.start + max(item, 0)}"

    def without_item(self, _task: Piece, _item: int, _reason: str) -> None:
        """No row may be skipped."""


def original_error(path: bytes, reason: str) -> DatasetError:
    """Return the error for an image of --source that is not the one that was built."""
    return DatasetError(
        f"{printable(path)} of --source: {reason}; build the file again, or export its rows "
        "without --source"
    )
