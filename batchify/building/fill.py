"""The fill job: decode and put rows; copy rows of an old file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from batchify.building.jobs import Rows
from batchify.datasets.tasks import FillTask, name_file
from batchify.decoding.batch import BatchReader, MaskReader, OldRow, OriginalReader
from batchify.decoding.channels import ChannelSums, channel_sums, stored_sums
from batchify.decoding.image import own_pillow
from batchify.errors import FileAccessError, FileFormatError, FileMissingError, Skipped
from batchify.format.rows import ImageRows, RowWriter, put_images
from batchify.format.schema import RowOffsets
from batchify.options import DecodeOptions, StoreOptions
from batchify.storage.source import FileReader, ReadAhead, Source, SourceFile
from batchify.workers.pool import NOTHING, Mark

Known = Callable[[bytes, NDArray[Any]], OldRow | None]
"""Given the SHA-256 of a file and its row, what is known of the image, which is put there."""


@dataclass(frozen=True)
class FillJob:
    """What a worker needs to know of a build: nothing that grows with the dataset."""

    source: Source
    decode: DecodeOptions
    store: StoreOptions
    batch_size: int
    path: bytes
    row_offsets: Mapping[str, RowOffsets]
    skip: bool
    old: bytes | None = None
    """A finished file with rows that need not be decoded again."""

    @property
    def advice(self) -> str:
        """What a user can do about an image whose decoder died."""
        return (
            "what is decoded is kept: run the same command again to continue, and where the same "
            "file ends it again, remove the file or pass --on-error skip to leave it out"
        )

    @contextlib.contextmanager
    def open_handler(self, mark: Mark) -> Iterator[Callable[[FillTask], Rows]]:
        """Open the work file; the value fills a task."""
        with contextlib.ExitStack() as lifetime:
            writer = RowWriter(self.path, self.row_offsets)
            lifetime.callback(writer.close)
            raw = self.source.open_reader()
            files = lifetime.enter_context(contextlib.closing(ReadAhead(raw)))
            known = self._known(lifetime)
            filler: Filler
            if self.store.is_encoded:
                filler = _OriginalFiller(writer, files, self.decode, self.store, known)
            else:
                masks = MaskReader(raw, self.decode)  # beside the run of the images
                filler = _PixelFiller(writer, files, masks, self.decode, self.store, known)
            lifetime.enter_context(own_pillow())
            yield lambda task: self._fill(task, files, filler, mark)

    def _known(self, lifetime: contextlib.ExitStack) -> Known:
        """Return who knows images that need not be decoded again."""
        if self.old is None:
            return lambda *_: None
        from batchify.building.old_rows import (
            OldRows,  # needs HDF5, which a fresh build's workers never load
        )

        try:
            rows = OldRows(self.old)
        except (FileFormatError, FileMissingError, FileAccessError):
            return lambda *_: None  # somebody damaged or removed it meanwhile: all is decoded
        lifetime.callback(rows.close)
        return rows.take

    def _fill(self, task: FillTask, ahead: ReadAhead, filler: Filler, mark: Mark) -> Rows:
        copied = 0
        sums = ChannelSums()
        bad: list[tuple[int, Skipped]] = []
        ahead.begin(task.wanted, self.decode.max_file_size)
        for first in range(0, len(task.files), self.batch_size):
            files = task.files[first : first + self.batch_size]
            refused = {i - first: reason for i, reason in task.given_up}
            start = task.start + first
            masks = task.masks[first : first + self.batch_size]
            filled = filler.fill(task.split, start, files, masks, _from(first, mark), refused)
            copied += filled.copied
            sums += filled.sums
            bad += [(start + i, Skipped(files[i].path, reason)) for i, reason in filled.bad]
        stop = task.start + len(task.files)
        return Rows(task.split, task.start, stop, tuple(bad), copied, sums)

    def describe(self, task: FillTask, item: int) -> str:
        """Name the file of an item."""
        return name_file(task, item)

    def without_item(self, task: FillTask, item: int, reason: str) -> FillTask | None:
        """Leave a file out, if files may be skipped."""
        if not self.skip:
            return None
        return replace(task, given_up=(*task.given_up, (item, reason)))


class Filled(NamedTuple):
    """Rows in their places: which are bad, how many were copied, sums over the good ones."""

    bad: list[tuple[int, str]]
    copied: int
    sums: ChannelSums


class Filler(Protocol):
    """Makes rows of files and puts them in their places."""

    def fill(
        self,
        split: str,
        start: int,
        files: Sequence[SourceFile],
        masks: Sequence[SourceFile],
        mark: Mark,
        refused: Mapping[int, str],
    ) -> Filled:
        """Fill the rows of a batch, from `start` on; masks are of pixels alone."""
        ...


class _PixelFiller:
    """Stores what files are decoded to."""

    def __init__(
        self,
        writer: RowWriter,
        files: FileReader,
        masks: MaskReader,
        decode: DecodeOptions,
        store: StoreOptions,
        known: Known,
    ) -> None:
        self._writer = writer
        self._scale = store.scale
        self._masks = masks
        self._reader = BatchReader(files, decode, dtype=store.dtype, scale=store.scale, known=known)

    def fill(
        self,
        split: str,
        start: int,
        files: Sequence[SourceFile],
        masks: Sequence[SourceFile],
        mark: Mark,
        refused: Mapping[int, str],
    ) -> Filled:
        """Fill the rows of a batch."""
        batch = self._reader.read(files, mark=mark, refused=refused)
        batch = self._masks.complete(batch, files, masks, mark)
        mark(NOTHING)
        self._writer.put(split, start, batch.columns)
        good = len(files) - len(batch.bad)
        sums = channel_sums(batch.columns["images"], self._scale, images=good)
        return Filled(batch.bad, batch.copied, sums)


class _OriginalFiller:
    """Stores the files' own bytes, where the plan has made room for them."""

    def __init__(
        self,
        writer: RowWriter,
        files: FileReader,
        decode: DecodeOptions,
        store: StoreOptions,
        known: Known,
    ) -> None:
        self._writer = writer
        self._rows = ImageRows(writer)
        self._reader = OriginalReader(files, decode, store, known)

    def fill(
        self,
        split: str,
        start: int,
        files: Sequence[SourceFile],
        _masks: Sequence[SourceFile],
        mark: Mark,
        refused: Mapping[int, str],
    ) -> Filled:
        """Fill the rows of a batch; those of bad files, which are never read, are left as is."""
        sizes = self._rows.nbytes(split, start, start + len(files)).tolist()
        batch = self._reader.read(files, sizes, mark=mark, refused=refused)
        mark(NOTHING)
        self._writer.put(split, start, batch.columns)
        bad = {i for i, _ in batch.bad}
        for i, content in enumerate(batch.contents):
            if i not in bad:
                put_images(self._writer, split, start + i, content)
        good = len(files) - len(batch.bad)
        sums = stored_sums(batch.columns["channel_sums"], images=good)
        return Filled(batch.bad, batch.copied, sums)


def _from(first: int, mark: Mark) -> Mark:
    return lambda i: mark(first + i)
