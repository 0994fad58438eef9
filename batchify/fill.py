"""The fill job: decode the images of some rows and put them in their places."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from batchify.batches import BatchReader
from batchify.decode import own_pillow
from batchify.engine import StoppedError
from batchify.errors import Skipped
from batchify.names import printable
from batchify.options import DecodeOptions, StoreOptions
from batchify.places import Places
from batchify.rows import Rows, RowWriter


@dataclass(frozen=True, slots=True)
class FillTask:
    """Some consecutive rows of a split, and the files they are made of."""

    split: str
    start: int
    paths: tuple[bytes, ...]


@dataclass(frozen=True)
class FillJob:
    """What a worker needs to know of a build: nothing that grows with the dataset."""

    root: bytes
    decode: DecodeOptions
    store: StoreOptions
    batch_size: int
    path: bytes
    places: Mapping[str, Places]

    @contextlib.contextmanager
    def open(self, stopped: Callable[[], bool]) -> Iterator[Callable[[FillTask], Rows]]:
        """Open the work file; the value fills a task."""
        reader = BatchReader(self.root, self.decode, dtype=self.store.dtype, scale=self.store.scale)
        writer = RowWriter(self.path, self.places)
        try:
            with own_pillow():
                yield lambda task: self._fill(task, reader, writer, stopped)
        finally:
            writer.close()

    def _fill(
        self,
        task: FillTask,
        reader: BatchReader,
        writer: RowWriter,
        stopped: Callable[[], bool],
    ) -> Rows:
        bad: list[tuple[int, Skipped]] = []
        for first in range(0, len(task.paths), self.batch_size):
            if stopped():
                raise StoppedError
            paths = task.paths[first : first + self.batch_size]
            batch = reader.read(paths)
            start = task.start + first
            writer.put(task.split, start, batch.columns)
            bad += [(start + i, Skipped(paths[i], reason)) for i, reason in batch.bad]
        return Rows(task.split, task.start, task.start + len(task.paths), tuple(bad))

    def describe(self, task: FillTask) -> str:
        """Name the first and the last file of a task."""
        return describe(task)


def describe(task: FillTask) -> str:
    """Name the first and the last file of a task."""
    first, last = printable(task.paths[0]), printable(task.paths[-1])
    return first if len(task.paths) == 1 else f"{first} … {last} ({len(task.paths)} files)"
