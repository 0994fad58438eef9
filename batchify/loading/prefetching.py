"""Read batches ahead in threads, and use the memory of batches again."""

from __future__ import annotations

import atexit
import itertools
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.loading.indexing import Rows

Batch = tuple[NDArray[Any], ...] | NDArray[Any]
"""(X, y), or X without labels; with row numbers (X, y, rows) or (X, rows)."""

Buffer = Callable[[int], NDArray[Any]]
"""A function that returns memory for that many images."""

QUICK_S = 50e-6
"""Batches that are read in less time are not read ahead: to hand one over takes as long."""

SLOW_S = 2e-3
"""Batches that take longer are always read ahead: then it costs next to nothing."""

_BLOCK = 16
"""Batches after which the way that takes less time is chosen."""

_GAIN = 0.75
"""Batches are read ahead if the caller then waits this much less: it takes more CPU time, too."""

_RETRY = 16
"""Blocks after which the other way is tried again."""

REUSED_NBYTES = 128 << 10
"""The memory of batches from this size on is used again: malloc gets it from the kernel,
and the kernel takes longer to zero the pages than it takes to read a batch into them."""


Read = Callable[[Rows, NDArray[Any]], Batch]
"""Reads the images of some rows into memory, and returns their batch; used by several threads."""


_reading: weakref.WeakSet[ReadingThread] = weakref.WeakSet()


@atexit.register
def _end_reading() -> None:
    """End all threads: NumPy must not be used after the interpreter ends."""
    for thread in list(_reading):
        thread.tasks.put(None)
    for thread in list(_reading):
        thread.join()


class ReadingThread(threading.Thread):
    """A thread that reads batches in the order they are asked for, until it gets None."""

    def __init__(self, read: Read) -> None:
        super().__init__(name="batchify", daemon=True)
        self._pid = os.getpid()
        self.tasks: SimpleQueue[tuple[Rows, NDArray[Any]] | None] = SimpleQueue()
        self.took_s = 0.0
        """How long it took to read the batch that `result` returned."""
        self._read = read
        self._results: SimpleQueue[tuple[Batch | Exception, float]] = SimpleQueue()
        self.start()
        _reading.add(self)

    def run(self) -> None:
        """Read batches until there are no more tasks."""
        found: Batch | Exception
        while (task := self.tasks.get()) is not None:
            started = time.perf_counter()
            try:
                found = self._read(*task)
            except Exception as error:  # noqa: BLE001 - raised again by result()
                found = error
            self._results.put((found, time.perf_counter() - started))
            del task, found  # they are the caller's

    @property
    def is_here(self) -> bool:
        """Whether it runs in this process, and not in the one that this was forked from."""
        return os.getpid() == self._pid

    def result(self) -> Batch:
        """Return the next batch, or raise the error of reading it."""
        if not self.is_here:
            raise RuntimeError("an epoch that is read ahead continues in the process that began it")
        found, self.took_s = self._results.get()
        if isinstance(found, Exception):
            raise found
        return found


def _end(threads: Iterable[ReadingThread]) -> None:
    """End threads; not joined: the garbage collector may run in a thread that these wait for."""
    for thread in threads:
        thread.tasks.put(None)


class _Pace:
    """Chooses how batches are read, by the time that the caller has to wait for them.

    Attributes
    ----------
    is_ahead : bool
        Read ahead, not when they are asked for. Threads do not help if the processors are busy, or
        if the caller does nothing else.
    unwatched : int
        How many batches are read next without noting times, which takes 1 µs.
    """

    def __init__(self) -> None:
        self.is_ahead = False
        self.unwatched = 0
        self._waits: list[float] = []
        self._reads: list[float] = []
        self._means: dict[bool, float] = {}
        self._blocks = 0

    def note(self, waited_s: float, read_s: float) -> None:
        """Note how long the caller waited for a batch, and how long it took to read it."""
        self._waits.append(waited_s)
        self._reads.append(read_s)
        is_slow = not self.is_ahead and sum(self._reads) >= SLOW_S * max(2, len(self._reads))
        if is_slow or len(self._waits) == _BLOCK:
            self._choose(_mean(self._reads))

    def _choose(self, read_s: float) -> None:
        mean = _mean(self._waits)
        # Grows slowly: if the processors were busy in this block, it says little.
        self._means[self.is_ahead] = min(mean, 1.1 * self._means.get(self.is_ahead, mean))
        self._waits.clear()
        self._reads.clear()
        self._blocks += 1
        if read_s >= SLOW_S:
            self.is_ahead = True
        elif self.is_ahead or read_s >= QUICK_S:
            if len(self._means) < 2 or self._blocks % _RETRY == 0:
                self.is_ahead = not self.is_ahead
            else:
                self.is_ahead = self._means[True] < _GAIN * self._means[False]
        else:
            self.unwatched = _BLOCK * _RETRY


def _mean(times: list[float]) -> float:
    """Return the mean without the two largest: while another process ran, nothing was measured."""
    kept = sorted(times)[: max(1, len(times) - 2)]
    return sum(kept) / len(kept)


class Prefetcher:
    """Reads batches in order, ahead of time, in threads that take turns and outlive an epoch.

    Queues implemented in C, not an executor: only one thread runs Python at a time, so there has to
    be little Python for each batch. Where threads do not help, batches are read when they are asked
    for.

    Parameters
    ----------
    count : int
        How many threads.
    """

    def __init__(self, read: Read, count: int) -> None:
        self._read = read
        self._count = count
        self._pace = _Pace()
        self._idle: list[ReadingThread] = []
        weakref.finalize(self, _end, self._idle).atexit = False

    def serve(self, batches: Iterable[Rows], buffer: Buffer) -> Iterator[Batch]:
        """Yield batches, given the rows of each."""
        threads: list[ReadingThread] = []
        waiting: deque[ReadingThread] = deque()
        turns: Iterator[ReadingThread] = iter(())
        asked = time.perf_counter()
        try:
            for rows in batches:
                if self._pace.is_ahead:
                    if not threads:
                        threads = self._take()
                        turns = itertools.cycle(threads)
                    thread = next(turns)
                    thread.tasks.put((rows, buffer(len(rows))))
                    waiting.append(thread)
                    if len(waiting) > len(threads):
                        yield self._result(waiting.popleft(), asked)
                        asked = time.perf_counter()
                    continue
                while waiting:
                    yield self._result(waiting.popleft(), asked)
                    asked = time.perf_counter()
                if self._pace.unwatched:
                    self._pace.unwatched -= 1
                    yield self._read(rows, buffer(len(rows)))
                    asked = time.perf_counter()
                    continue
                started = time.perf_counter()
                batch = self._read(rows, buffer(len(rows)))
                read = time.perf_counter()
                self._pace.note(read - asked, read - started)
                yield batch
                asked = time.perf_counter()
                del batch  # its memory may be free for the next one
            while waiting:
                yield self._result(waiting.popleft(), asked)
                asked = time.perf_counter()
            self._idle += threads
            threads = []
        finally:
            _end(threads)

    def _result(self, thread: ReadingThread, asked: float) -> Batch:
        batch = thread.result()
        self._pace.note(time.perf_counter() - asked, thread.took_s)
        return batch

    def _take(self) -> list[ReadingThread]:
        """Return threads that have nothing to do, those of earlier epochs first."""
        taken: list[ReadingThread] = []
        while len(taken) < self._count:
            try:
                thread = self._idle.pop()
            except IndexError:
                thread = ReadingThread(self._read)
            if thread.is_here:
                taken.append(thread)
        return taken


class BatchMemory:
    """Memory for batches: that of a batch that is no longer used, or new memory.

    Parameters
    ----------
    array : callable
        Returns new memory for that many images.
    size : int
        Most images of a batch.
    most : int
        How many unused arrays are kept.
    """

    def __init__(self, array: Buffer, size: int, most: int) -> None:
        self._array = array
        self._size = size
        self._most = most
        self._free: list[NDArray[Any]] = []

    def __call__(self, count: int) -> NDArray[Any]:
        """Return memory for that many images."""
        try:
            owner = self._free.pop()
        except IndexError:
            owner = self._array(self._size)
        shape = (count, *owner.shape[1:])
        # Views of this array keep it alive, not the owner: the owner is no array for NumPy here.
        lent = np.frombuffer(owner.data, owner.dtype, math.prod(shape))
        weakref.finalize(lent, self._give_back, owner).atexit = False
        return lent.reshape(shape)

    def _give_back(self, owner: NDArray[Any]) -> None:
        if len(self._free) < self._most:
            self._free.append(owner)
