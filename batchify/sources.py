"""Holds a file against a dataset folder: which sources are new, missing or changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from batchify import engine
from batchify.dataset import Dataset
from batchify.fill import FillTask
from batchify.keys import path_keys
from batchify.plan import PATHS_AT_ONCE
from batchify.reader import Reader
from batchify.recheck import CheckJob, Stale
from batchify.resume import Masks, runs
from batchify.storage import SourceFile

TASK_SOURCES = 256


class SampleIndex:
    """Finds the samples of a dataset by their paths.

    Parameters
    ----------
    dataset : Dataset

    Notes
    -----
    Memory: 8 bytes a sample, 16 where samples have extents or masks; none before it is needed.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.uint64], NDArray[np.intp] | None]:
        """The `path_keys` of all samples, sorted; and the sample of each, where that counts."""
        keys = np.empty(len(self.dataset.samples), np.uint64)
        for start, paths in _samples(self.dataset):
            keys[start : start + len(paths)] = path_keys(paths)
        if self.dataset.samples.extents is None and self.dataset.annotations.masks is None:
            keys.sort()
            return keys, None
        order = np.argsort(keys)
        return keys[order], order

    def has(self, paths: Iterable[bytes]) -> NDArray[np.bool_]:
        """Return which of some paths are of samples, shape (n,)."""
        return _among(path_keys(paths), self._sorted[0])

    def task(self, split: str, start: int, paths: Sequence[bytes]) -> FillTask:
        """Return a task of rows from `start` on, given paths that the dataset has."""
        if self.dataset.samples.extents is None and self.dataset.annotations.masks is None:
            return FillTask(split, start, tuple(map(SourceFile, paths)))
        keys, order = self._sorted
        assert order is not None
        numbers = order[np.searchsorted(keys, path_keys(paths))]
        masks = self.dataset.annotations.mask_files(numbers)
        return FillTask(split, start, self.dataset.samples.files(numbers), masks)


def present_rows(reader: Reader, index: SampleIndex) -> Masks:
    """Return, for each split, which rows have a source that is in a dataset."""
    masks = {}
    for name in reader.splits:
        pieces = [index.has(piece.tolist()) for piece in reader.pieces(name, "paths")]
        masks[name] = np.concatenate(pieces) if pieces else np.zeros(0, np.bool_)
    return masks


def stored_keys(reader: Reader) -> NDArray[np.uint64]:
    """Return the `path_keys` of all that a file holds or skipped."""
    skipped = path_keys(entry.path for entry in reader.skipped())
    count = sum(len(columns["paths"]) for columns in reader.splits.values())
    keys = np.empty(len(skipped) + count, np.uint64)
    keys[: len(skipped)] = skipped
    start = len(skipped)
    for name in reader.splits:
        for piece in reader.pieces(name, "paths"):
            keys[start : start + len(piece)] = path_keys(piece.tolist())
            start += len(piece)
    return keys


def new_samples(keys: NDArray[np.uint64], dataset: Dataset) -> Iterator[bytes]:
    """Yield the paths of the samples that are not among some `stored_keys`, which it sorts."""
    keys.sort()
    for _, paths in _samples(dataset):
        fresh = ~_among(path_keys(paths), keys)
        yield from (paths[i] for i in np.flatnonzero(fresh).tolist())


def _samples(dataset: Dataset) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (first sample, paths), some thousand at a time."""
    count = len(dataset.samples)
    for start in range(0, count, PATHS_AT_ONCE):
        stop = min(start + PATHS_AT_ONCE, count)
        yield start, dataset.samples.paths(np.arange(start, stop))


def _among(keys: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which keys are among the sorted ones; np.isin would sort anew, 40 bytes a key."""
    if not len(known):
        return np.zeros(len(keys), np.bool_)
    found = known[np.minimum(np.searchsorted(known, keys), len(known) - 1)]
    return np.asarray(found == keys)


def stored_tasks(reader: Reader, wanted: Masks, index: SampleIndex) -> Iterator[FillTask]:
    """Yield some rows of a file as tasks, in the order of the file; all must be in the dataset."""
    for split, start, stop in runs(wanted, TASK_SOURCES):
        paths = reader.splits[split]["paths"][start:stop].tolist()
        yield index.task(split, start, paths)


def count_stored_tasks(wanted: Masks) -> int:
    """Return how many tasks `stored_tasks` makes."""
    return sum(1 for _ in runs(wanted, TASK_SOURCES))


def changed_rows(
    reader: Reader,
    index: SampleIndex,
    max_file_size: int,
    wanted: Masks,
    crew: engine.Workers,
    step: Callable[[int], None],
) -> Iterator[Stale]:
    """Hash the sources of some rows; yield the rows whose source is another, or cannot be read.

    Parameters
    ----------
    reader : Reader
    index : SampleIndex
        Of the dataset.
    max_file_size : int
        A source that is larger is not read.
    wanted : dict of str to ndarray of bool
        Rows whose source is in the dataset.
    crew : engine.Workers
    step : callable
        Called with the number of rows that were checked, now and then.
    """
    job = CheckJob(
        index.dataset.source,
        max_file_size,
        os.path.abspath(reader.path),
        reader.places(),
        None,
        reader.identity,
    )
    checked = 0
    tasks, total = stored_tasks(reader, wanted, index), count_stored_tasks(wanted)
    for result in crew.run(job, tasks, total=total):
        checked += result.rows
        step(checked)
        yield from result.stale
