"""Match the rows of a file with a dataset's samples, and hash these again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from batchify.building.jobs import RecheckJob, RowFlags, Stale, runs
from batchify.common.keys import KeyIndex, join_path_keys, path_keys
from batchify.datasets.dataset import Dataset
from batchify.datasets.tasks import FileTask
from batchify.format.reader import Reader
from batchify.storage.source import SourceFile
from batchify.workers.engine import Workers

TASK_SOURCES = 256
"""Files that a worker hashes or decodes in one task."""


class SampleIndex:
    """The samples of a dataset, found by their paths.

    Notes
    -----
    Memory, from the first use on: 8 bytes per sample, 16 if samples have extents or masks.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @cached_property
    def _index(self) -> KeyIndex:
        """The `path_keys` of all samples; with positions, if tasks need more than paths."""
        samples = self.dataset.samples
        keys = join_path_keys((paths for _, paths in samples.pieces()), len(samples))
        return KeyIndex(keys, positions=not self._by_path)

    @property
    def _by_path(self) -> bool:
        """Whether the path of a sample is all that a task needs."""
        return self.dataset.samples.extents is None and self.dataset.annotations.masks is None

    def has(self, paths: Iterable[bytes]) -> NDArray[np.bool_]:
        """Return which paths belong to samples, shape (n,)."""
        return self._index.has(path_keys(paths))

    def task(self, split: str, start: int, paths: Sequence[bytes]) -> FileTask:
        """Return a task for rows from `start` on, given their paths in the dataset."""
        if self._by_path:
            return FileTask(split, start, tuple(map(SourceFile, paths)))
        numbers = self._index.last(path_keys(paths))
        masks = self.dataset.annotations.mask_files(numbers)
        return FileTask(split, start, self.dataset.samples.files(numbers), masks)


def present_rows(reader: Reader, index: SampleIndex) -> RowFlags:
    """Return the rows of a file whose source is in a dataset."""
    masks = {}
    for name in reader.splits:
        pieces = [index.has(piece.tolist()) for piece in reader.pieces(name, "paths")]
        masks[name] = np.concatenate(pieces) if pieces else np.zeros(0, np.bool_)
    return masks


def stored_keys(reader: Reader) -> NDArray[np.uint64]:
    """Return the `path_keys` of all sources that a file stored or skipped."""
    skipped = [entry.path for entry in reader.skipped()]
    stored = (piece.tolist() for name in reader.splits for piece in reader.pieces(name, "paths"))
    count = len(skipped) + sum(len(columns["paths"]) for columns in reader.splits.values())
    return join_path_keys(chain([skipped], stored), count)


def new_samples(keys: NDArray[np.uint64], dataset: Dataset) -> Iterator[bytes]:
    """Yield the paths of samples that are not in `stored_keys`; sorts them in place."""
    index = KeyIndex(keys, positions=False)
    for _, paths in dataset.samples.pieces():
        fresh = ~index.has(path_keys(paths))
        yield from (paths[i] for i in np.flatnonzero(fresh).tolist())


def stored_tasks(reader: Reader, wanted: RowFlags, index: SampleIndex) -> Iterator[FileTask]:
    """Yield marked rows of a file as tasks, in order; their sources must be in the dataset."""
    for split, start, stop in runs(wanted, TASK_SOURCES):
        paths = reader.splits[split]["paths"][start:stop].tolist()
        yield index.task(split, start, paths)


def count_stored_tasks(wanted: RowFlags) -> int:
    """Return how many tasks `stored_tasks` yields."""
    return sum(1 for _ in runs(wanted, TASK_SOURCES))


def changed_rows(
    reader: Reader,
    index: SampleIndex,
    max_file_size: int,
    wanted: RowFlags,
    workers: Workers,
    step: Callable[[int], None],
) -> Iterator[Stale]:
    """Hash the sources of marked rows; yield the rows whose source changed or cannot be read.

    `step` is called with the number of rows checked so far.
    """
    job = RecheckJob(
        index.dataset.source,
        max_file_size,
        os.path.abspath(reader.path),
        reader.row_offsets(),
        None,
        reader.identity,
    )
    checked = 0
    tasks, total = stored_tasks(reader, wanted, index), count_stored_tasks(wanted)
    for task, result in workers.run(job, tasks, total=total):
        checked += len(task.files)
        step(checked)
        yield from result.stale
