"""Holds a file against a dataset folder: which sources are new, missing or changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from batchify import engine
from batchify.dataset import Dataset
from batchify.fill import FillTask
from batchify.plan import PATHS_AT_ONCE
from batchify.reader import Reader
from batchify.recheck import CheckJob, Stale
from batchify.resume import Masks
from batchify.structure import places

TASK_SOURCES = 256


def path_keys(paths: Iterable[bytes]) -> NDArray[np.int64]:
    """Return a 64-bit hash of each path: 8 bytes a file, however long their names.

    Python draws the hash anew in each process, so nobody can make two names collide; of a million
    names, two do in one of 40 million processes.
    """
    return np.fromiter(map(hash, paths), np.int64)


def stored_keys(reader: Reader, split: str) -> NDArray[np.int64]:
    """Return the `path_keys` of the rows of a split."""
    pieces = [path_keys(piece.tolist()) for piece in reader.pieces(split, "paths")]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)


def sample_keys(dataset: Dataset) -> NDArray[np.int64]:
    """Return the `path_keys` of all samples of a dataset."""
    count = len(dataset.samples)
    keys = np.empty(count, np.int64)
    for start in range(0, count, PATHS_AT_ONCE):
        stop = min(start + PATHS_AT_ONCE, count)
        keys[start:stop] = path_keys(dataset.samples.paths(np.arange(start, stop)))
    return keys


def present_rows(reader: Reader, keys: NDArray[np.int64]) -> Masks:
    """Return, for each split, which rows have a source of one of the keys."""
    return {name: np.isin(stored_keys(reader, name), keys) for name in reader.splits}


def new_samples(reader: Reader, dataset: Dataset, keys: NDArray[np.int64]) -> list[bytes]:
    """Return the paths of the samples that a file neither holds nor skipped."""
    known = [stored_keys(reader, name) for name in reader.splits]
    known.append(path_keys(entry.path for entry in reader.skipped()))
    fresh = np.flatnonzero(~np.isin(keys, np.concatenate(known)))
    return list(dataset.samples.paths(fresh))


def stored_tasks(reader: Reader, wanted: Masks) -> Iterator[FillTask]:
    """Yield some rows of a file as tasks, in the order of the file."""
    for split, start, stop in _runs(wanted):
        paths = reader.splits[split]["paths"][start:stop].tolist()
        yield FillTask(split, start, tuple(paths))


def count_stored_tasks(wanted: Masks) -> int:
    """Return how many tasks `stored_tasks` makes."""
    return sum(1 for _ in _runs(wanted))


def _runs(wanted: Masks) -> Iterator[tuple[str, int, int]]:
    for split, mask in wanted.items():
        edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
        for first, last in edges.reshape(-1, 2).tolist():
            for start in range(first, last, TASK_SOURCES):
                yield split, start, min(start + TASK_SOURCES, last)


def changed_rows(
    reader: Reader,
    root: bytes,
    max_file_size: int,
    wanted: Masks,
    crew: engine.Workers,
    step: Callable[[int], None],
) -> Iterator[Stale]:
    """Hash the sources of some rows; yield the rows whose source is another, or cannot be read.

    Parameters
    ----------
    reader : Reader
    root : bytes
        The dataset folder.
    max_file_size : int
        A source that is larger is not read.
    wanted : dict of str to ndarray of bool
    crew : engine.Workers
    step : callable
        Called with the number of rows that were checked, now and then.
    """
    job = CheckJob(
        root, max_file_size, os.path.abspath(reader.path), places(reader.path), images=False
    )
    checked = 0
    tasks, total = stored_tasks(reader, wanted), count_stored_tasks(wanted)
    for result in crew.run(job, tasks, total=total):
        checked += result.rows
        step(checked)
        yield from result.stale
