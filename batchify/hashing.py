"""The hash job: the SHA-256 of every sample of a dataset folder, at the speed of reading it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchify import engine
from batchify.dataset import Dataset
from batchify.errors import BadImageError
from batchify.fill import FillTask
from batchify.recheck import ReadingJob
from batchify.report import Progress
from batchify.storage import FileReader, Source
from batchify.worker import Mark

TASK_SAMPLES = 256


@dataclass(frozen=True)
class HashJob(ReadingJob):
    """What a worker needs to hash files.

    Notes
    -----
    Tasks are those of a fill.
    """

    source: Source
    max_file_size: int

    @contextlib.contextmanager
    def open(self, mark: Mark) -> Iterator[Callable[[FillTask], bytes]]:
        """Return who hashes a task: the 32 bytes of each file, zeros where it cannot be read."""
        with contextlib.closing(self.source.open()) as reader:
            yield lambda task: b"".join(self._hash(reader, task, mark))

    def _hash(self, reader: FileReader, task: FillTask, mark: Mark) -> Iterator[bytes]:
        contents = reader.fetch(task.files, self.max_file_size)
        for i in range(len(task.files)):
            mark(i)
            data = next(contents)
            yield bytes(32) if isinstance(data, BadImageError) else hashlib.sha256(data).digest()


def hash_samples(
    dataset: Dataset,
    max_file_size: int,
    crew: engine.Workers,
    report: Callable[[Progress], None] = lambda _: None,
) -> NDArray[np.uint8]:
    """Return the SHA-256 of each sample's content, shape (n, 32); zeros where it cannot be read.

    Parameters
    ----------
    dataset : Dataset
    max_file_size : int
        A file that is larger is not read.
    crew : engine.Workers
    report : callable
        Called with a `Progress` now and then.

    Raises
    ------
    WorkerDiedError
        If a file cannot be read to its end in time.

    Notes
    -----
    Memory: 32 bytes a sample.
    """
    count = len(dataset.samples)
    digests = np.zeros((count, 32), np.uint8)
    job = HashJob(dataset.source, max_file_size)
    done = 0
    report(Progress("hash", 0, count))
    for data in crew.run(job, _tasks(dataset), total=-(-count // TASK_SAMPLES)):
        rows = np.frombuffer(data, np.uint8).reshape(-1, 32)
        digests[done : done + len(rows)] = rows
        done += len(rows)
        report(Progress("hash", done, count))
    return digests


def _tasks(dataset: Dataset) -> Iterator[FillTask]:
    count = len(dataset.samples)
    for start in range(0, count, TASK_SAMPLES):
        files = dataset.samples.files(np.arange(start, min(start + TASK_SAMPLES, count)))
        yield FillTask("", start, files)
