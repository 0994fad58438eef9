"""The fill job: decode the images of some rows and put them in their places."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from batchify.batches import BatchReader
from batchify.channels import ChannelSums, channel_sums
from batchify.decode import own_pillow
from batchify.errors import FileAccessError, FileFormatError, FileMissingError, Skipped
from batchify.names import printable
from batchify.options import DecodeOptions, StoreOptions
from batchify.places import Places
from batchify.rows import OldRow, Rows, RowWriter
from batchify.storage import Source, SourceFile
from batchify.worker import NOTHING, Mark


@dataclass(frozen=True, slots=True)
class FillTask:
    """Some consecutive rows of a split, and the files they are made of.

    Parameters
    ----------
    split : str
    start : int
        First row.
    files : tuple of SourceFile
        Of each row.
    given_up : tuple of (int, str)
        Position and reason of files that ended a worker: not to be touched again.
    """

    split: str
    start: int
    files: tuple[SourceFile, ...]
    given_up: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class FillJob:
    """What a worker needs to know of a build: nothing that grows with the dataset."""

    source: Source
    decode: DecodeOptions
    store: StoreOptions
    batch_size: int
    path: bytes
    places: Mapping[str, Places]
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
    def open(self, mark: Mark) -> Iterator[Callable[[FillTask], Rows]]:
        """Open the work file; the value fills a task."""
        with contextlib.ExitStack() as lifetime:
            writer = RowWriter(self.path, self.places)
            lifetime.callback(writer.close)
            files = lifetime.enter_context(contextlib.closing(self.source.open()))
            reader = BatchReader(
                files,
                self.decode,
                dtype=self.store.dtype,
                scale=self.store.scale,
                known=self._known(lifetime),
            )
            lifetime.enter_context(own_pillow())
            yield lambda task: self._fill(task, reader, writer, mark)

    def _known(
        self, lifetime: contextlib.ExitStack
    ) -> Callable[[bytes, NDArray[Any]], OldRow | None]:
        """Return who knows images that need not be decoded again."""
        if self.old is None:
            return lambda *_: None
        from batchify.reuse import OldRows  # needs HDF5, which a fresh build's workers never load

        try:
            rows = OldRows(self.old)
        except (FileFormatError, FileMissingError, FileAccessError):
            return lambda *_: None  # somebody damaged or removed it meanwhile: all is decoded
        lifetime.callback(rows.close)
        return rows.take

    def _fill(self, task: FillTask, reader: BatchReader, writer: RowWriter, mark: Mark) -> Rows:
        copied = 0
        sums = ChannelSums()
        bad: list[tuple[int, Skipped]] = []
        for first in range(0, len(task.files), self.batch_size):
            files = task.files[first : first + self.batch_size]
            refused = {i - first: reason for i, reason in task.given_up}
            batch = reader.read(files, mark=_from(first, mark), refused=refused)
            mark(NOTHING)
            start = task.start + first
            writer.put(task.split, start, batch.columns)
            copied += batch.copied
            good = len(files) - len(batch.bad)
            sums += channel_sums(batch.columns["images"], self.store.scale, images=good)
            bad += [(start + i, Skipped(files[i].path, reason)) for i, reason in batch.bad]
        stop = task.start + len(task.files)
        return Rows(task.split, task.start, stop, tuple(bad), copied, sums)

    def name(self, task: FillTask, item: int) -> str:
        """Name the file of an item."""
        return name_file(task, item)

    def without(self, task: FillTask, item: int, reason: str) -> FillTask | None:
        """Leave a file out, if files may be skipped."""
        if not self.skip:
            return None
        return replace(task, given_up=(*task.given_up, (item, reason)))


def _from(first: int, mark: Mark) -> Mark:
    return lambda i: mark(first + i)


def name_file(task: FillTask, item: int) -> str:
    """Name a file of a task; for `NOTHING` the first and the last."""
    if item != NOTHING:
        return printable(task.files[item].path)
    first, last = printable(task.files[0].path), printable(task.files[-1].path)
    return first if len(task.files) == 1 else f"{first} … {last} ({len(task.files)} files)"
