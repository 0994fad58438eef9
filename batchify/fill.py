"""The fill job: decode the images of some rows and put them in their places."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from batchify.batches import BatchReader
from batchify.decode import own_pillow
from batchify.engine import StoppedError
from batchify.errors import Skipped
from batchify.names import printable
from batchify.options import DecodeOptions, StoreOptions
from batchify.places import Places
from batchify.plan import BuildPlan, SplitPlan
from batchify.resume import Masks
from batchify.rows import Rows, RowWriter

TASK_NBYTES = 1 << 20
TASK_ROWS = 1024
"""Rows that go to a worker at once: small images several batches, large ones a single batch."""


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


def task_rows(plan: BuildPlan) -> int:
    """Return how many rows a task has: whole batches, about 1 MiB, and a 64th of all at most.

    The last bound is for large photos that become small rows.
    """
    rows = min(TASK_ROWS, TASK_NBYTES // plan.row_nbytes, plan.images // 64)
    return plan.options.batch_size * max(1, rows // plan.options.batch_size)


def count_tasks(plan: BuildPlan, wanted: Masks) -> int:
    """Return how many tasks some rows of a plan make."""
    return sum(1 for _ in _pieces(plan, wanted))


def fill_tasks(plan: BuildPlan, wanted: Masks) -> Iterator[FillTask]:
    """Yield the tasks of some rows of a plan, in the order of the file."""
    for split, start, stop in _pieces(plan, wanted):
        paths = plan.dataset.samples.paths(split.rows[start:stop])
        yield FillTask(split.name, start, tuple(paths))


def _pieces(plan: BuildPlan, wanted: Masks) -> Iterator[tuple[SplitPlan, int, int]]:
    """Yield runs of wanted rows, none longer than a task."""
    size = task_rows(plan)
    for split in plan.splits:
        edges = np.flatnonzero(np.diff(wanted[split.name], prepend=False, append=False))
        for first, last in edges.reshape(-1, 2).tolist():
            for start in range(first, last, size):
                yield split, start, min(start + size, last)
