"""Pack files into tasks for workers, and hash files."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchify.common.progress import Progress, ProgressCallback
from batchify.common.text import printable
from batchify.errors import BadImageError
from batchify.storage.source import FileReader, Source, SourceFile, StampedReader
from batchify.storage.stamps import UNKNOWN
from batchify.workers.pool import NOTHING, Job, Mark

if TYPE_CHECKING:  # a worker needs neither
    from batchify.datasets.dataset import Dataset
    from batchify.workers.engine import Workers

_MASK_FACTOR = 0x9E3779B97F4A7C15
"""Any odd number: a file and its mask that change places have another stamp."""


@dataclass(frozen=True, slots=True)
class FileTask:
    """Some consecutive rows of a split, and the files they are made of.

    Parameters
    ----------
    start : int
        First row.
    files : tuple of SourceFile
        The file of each row.
    masks : tuple of SourceFile
        The mask of each row; empty if there are none.
    refused : tuple of (int, str)
        Position and reason of files that ended a worker, and must not be read again.
    stamps : tuple of int
        The stamp of each row when it was made (see `row_stamps`); empty if all files are to be
        read.
    """

    split: str
    start: int
    files: tuple[SourceFile, ...]
    masks: tuple[SourceFile, ...] = ()
    refused: tuple[tuple[int, str], ...] = ()
    stamps: tuple[int, ...] = ()

    @property
    def wanted(self) -> list[SourceFile]:
        """The files that are to be read."""
        refused = {i for i, _ in self.refused}
        return [file for i, file in enumerate(self.files) if i not in refused]

    def row_stamps(self, stamps: Mapping[SourceFile, int]) -> tuple[int, ...]:
        """Return the stamp of each row, given those of files: of its file, and its mask."""
        found = [stamps.get(file, UNKNOWN) for file in self.files]
        masks = [stamps.get(mask, UNKNOWN) for mask in self.masks]
        for i, (own, mask) in enumerate(zip(found, masks, strict=False)):
            found[i] = (own + _MASK_FACTOR * mask) % 2**64 if own and mask else UNKNOWN
        return tuple(found)


class StampKeeper:
    """A reader that notes the stamps of the files that it reads.

    Attributes
    ----------
    stamps : dict of SourceFile to int
        Of a file that was read several times, the first.
    """

    def __init__(self, reader: StampedReader) -> None:
        self._reader = reader
        self.stamps: dict[SourceFile, int] = {}

    def read_files(
        self, files: Sequence[SourceFile], max_nbytes: int
    ) -> Iterator[bytes | BadImageError]:
        """Yield the content of each file, or why it cannot be read."""
        contents = self._reader.read_files(files, max_nbytes)
        for file, content in zip(files, contents, strict=True):
            self.stamps.setdefault(file, self._reader.stamp)
            yield content

    def file_sizes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each file."""
        return self._reader.file_sizes(files)

    def close(self) -> None:
        """Close what is open."""
        self._reader.close()


def name_file(task: FileTask, item: int) -> str:
    """Name a file of a task; for `NOTHING` the first and the last."""
    if item != NOTHING:
        return printable(task.files[item].path)
    first, last = printable(task.files[0].path), printable(task.files[-1].path)
    return first if len(task.files) == 1 else f"{first} … {last} ({len(task.files)} files)"


class ReadingJob:
    """The common part of jobs that read files without decoding them."""

    advice = "check that it can be read, and run the same command again"
    """What a user can do about a file that ends a worker."""

    def describe(self, task: FileTask, item: int) -> str:
        """Name the file of an item."""
        return name_file(task, item)

    def without_item(self, _task: FileTask, _item: int, _reason: str) -> FileTask | None:
        """Return None: a file is never skipped, since no decoder is involved."""
        return None


class DecodingJob(ReadingJob):
    """The common part of jobs that decode files."""

    def without_item(self, task: FileTask, item: int, reason: str) -> FileTask | None:
        """Return the task with a file marked as refused: the reason is its result."""
        return replace(task, refused=(*task.refused, (item, reason)))


TASK_SAMPLES = 256


@dataclass(frozen=True)
class HashJob(ReadingJob):
    """What a worker needs to hash files."""

    source: Source
    max_file_size: int

    @contextlib.contextmanager
    def open_handler(self, mark: Mark) -> Iterator[Callable[[FileTask], bytes]]:
        """Open the source; the value hashes a task, with zeros for files that cannot be read."""
        with contextlib.closing(self.source.open_reader()) as reader:
            yield lambda task: b"".join(self._hash(reader, task, mark))

    def _hash(self, reader: FileReader, task: FileTask, mark: Mark) -> Iterator[bytes]:
        contents = reader.read_files(task.files, self.max_file_size)
        for i in range(len(task.files)):
            mark(i)
            data = next(contents)
            yield bytes(32) if isinstance(data, BadImageError) else hashlib.sha256(data).digest()


def hash_samples(
    dataset: Dataset,
    max_file_size: int,
    workers: Workers,
    report: ProgressCallback = lambda _: None,
) -> NDArray[np.uint8]:
    """Return the SHA-256 of each sample's content, shape (n, 32); zeros if it cannot be read.

    Parameters
    ----------
    max_file_size : int
        Larger files are not read.
    report : callable
        Called with a `Progress` now and then.

    Raises
    ------
    WorkerDiedError
        If a file cannot be read in time.

    Notes
    -----
    Memory: 32 bytes per sample.
    """
    job = HashJob(dataset.source, max_file_size)
    return run_samples(
        job, dataset, np.zeros((len(dataset.samples), 32), np.uint8), workers, report
    )


def run_samples(
    job: Job[FileTask, bytes],
    dataset: Dataset,
    found: NDArray[Any],
    workers: Workers,
    report: ProgressCallback,
    wanted: NDArray[np.int64] | None = None,
) -> NDArray[Any]:
    """Run a job on the files of all samples, or of those wanted; return `found` with their rows."""
    count = len(found)
    if wanted is None:
        wanted = np.arange(count)
    starts = range(0, len(wanted), TASK_SAMPLES)
    tasks = (
        FileTask("", start, dataset.samples.files(wanted[start : start + TASK_SAMPLES]))
        for start in starts
    )
    done = count - len(wanted)
    report(Progress("hash", done, count))
    for task, data in workers.run(job, tasks, total=len(starts)):
        rows = wanted[task.start : task.start + len(task.files)]
        found[rows] = np.frombuffer(data, found.dtype).reshape(-1, *found.shape[1:])
        done += len(rows)
        report(Progress("hash", done, count))
    return found
