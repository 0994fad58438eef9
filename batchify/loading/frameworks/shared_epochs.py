"""Agree with the worker processes of a loader on the number of an epoch.

PyTorch hands a copy of the dataset to each worker, for each epoch or once for all, and does
not say which epoch it is. So the number is in shared memory: the first worker of a loader takes the
next number, and its others the same one.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import get_spawning_popen
from typing import Any

from batchify.errors import OptionError

_NEXT, _BY_WORKERS = 0, 1
_HEAD = 2
"""The number of the next epoch, and whether workers took the last one."""

_OPEN = 16
"""The most loaders that begin an epoch at the same moment."""

_LOCK_S = 60.0


class _LocalTable(list[int]):
    """A table that only the threads of this process share."""

    def __init__(self, values: list[int]) -> None:
        super().__init__(values)
        self._lock = threading.RLock()

    def get_lock(self) -> threading.RLock:
        """Return the lock of the table."""
        return self._lock


class SharedEpochs:
    """The number of the next epoch, for the process that made this and for workers of its loaders.

    A copy counts on its own.
    """

    def __init__(self, epoch: int = 0) -> None:
        self._owner = os.getpid()
        self._table: Any
        try:  # made for "spawn", it can be sent to workers however they are started
            self._table = multiprocessing.get_context("spawn").Array("q", _HEAD + 3 * _OPEN)
        except OSError:  # a system without semaphores has no workers either
            self._table = _LocalTable([0] * (_HEAD + 3 * _OPEN))
        self._table[_NEXT] = epoch
        self._begun = 0

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:
            return SharedEpochs, (self.next,)
        return _shared, (self._owner, self._table)

    @property
    def next(self) -> int:
        """The number of the next epoch."""
        return int(self._table[_NEXT])

    @property
    def by_workers(self) -> bool:
        """Whether workers read the latest epoch."""
        return bool(self._table[_BY_WORKERS])

    def set(self, epoch: int, *, by_workers: bool = False) -> None:
        """Set the number of the next epoch."""
        with self._locked() as table:
            table[_NEXT], table[_BY_WORKERS] = epoch, by_workers
            if not by_workers:  # of workers that were ended before they began, none is waited for
                table[_HEAD:] = [0] * (len(table) - _HEAD)

    def take(self) -> int:
        """Begin an epoch in this process, and return its number."""
        if os.getpid() != self._owner:  # a fork counts on its own
            self.__init__(self.next)  # type: ignore[misc]
        with self._locked() as table:
            table[_NEXT] += 1
            table[_BY_WORKERS] = False
            return int(table[_NEXT]) - 1

    def take_with_others(self, loader_seed: int, workers: int) -> int:
        """Begin an epoch in a worker, and return the number that all workers of its loader get.

        Parameters
        ----------
        loader_seed : int
            Is the same in all workers of a loader, and another in other loaders.
        workers : int
            How many workers the loader has.

        Raises
        ------
        OptionError
            If the dataset came to the loader's process from another one.
        """
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid != self._owner:
            raise OptionError(
                "this dataset was made in another process: call to_torch() in the one that makes "
                "the DataLoader"
            )
        self._begun += 1
        key = hash((loader_seed, workers, self._begun)) & (1 << 63) - 1
        with self._locked() as table:
            slots = range(_HEAD, len(table), 3)
            for slot in slots:
                if table[slot] == key and table[slot + 2]:
                    table[slot + 2] -= 1
                    return int(table[slot + 1])
            epoch = int(table[_NEXT])
            table[_NEXT], table[_BY_WORKERS] = epoch + 1, True
            free = [slot for slot in slots if not table[slot + 2]]
            slot = free[0] if free else slots[epoch % _OPEN]
            table[slot : slot + 3] = key, epoch, workers - 1
            return epoch

    @contextmanager
    def _locked(self) -> Iterator[Any]:
        lock = self._table.get_lock()
        if not lock.acquire(timeout=_LOCK_S):
            raise RuntimeError("a process that was killed keeps the number of the epoch locked")
        try:
            yield self._table
        finally:
            lock.release()


def _shared(owner: int, table: Any) -> SharedEpochs:
    found = SharedEpochs.__new__(SharedEpochs)
    found._owner, found._table, found._begun = owner, table, 0
    return found
