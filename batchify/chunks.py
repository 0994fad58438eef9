"""Rows out of chunks: several chunks at once in threads, and each of them once where it is kept."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.indexing import Rows
from batchify.processes import usable_cpus

Chunk = Callable[[int], NDArray[Any]]
"""Returns the rows of a chunk, given its number."""


def gather_chunks(chunk: Chunk, starts: Rows | None, rows: Rows, out: NDArray[Any]) -> None:
    """Read some rows chunk by chunk, several at once: reading and inflating hold no lock.

    Parameters
    ----------
    chunk : callable
    starts : ndarray of intp, or None
        The first row of each chunk; None where each row is one.
    rows : ndarray of intp, shape (n,)
    out : ndarray, shape (n, H, W, C)
    """
    if not len(rows):
        return
    chunks = rows if starts is None else np.searchsorted(starts, rows, side="right") - 1
    within = np.zeros_like(rows) if starts is None else rows - starts[chunks]
    order = np.argsort(chunks, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(chunks[order])) + 1)

    def copy(wanted: Rows) -> None:
        out[wanted] = chunk(int(chunks[wanted[0]]))[within[wanted]]

    if len(pieces) == 1 or usable_cpus() == 1:
        for piece in pieces:
            copy(piece)
    else:
        for _ in _pool().map(copy, pieces):
            pass


_pools: dict[int, ThreadPoolExecutor] = {}


def _pool() -> ThreadPoolExecutor:
    """Return the threads of this process; those of a parent are not there after a fork."""
    pid = os.getpid()
    pool = _pools.get(pid)
    if pool is None:
        threads = ThreadPoolExecutor(usable_cpus(), thread_name_prefix="batchify")
        pool = _pools.setdefault(pid, threads)
    return pool


class ChunkCache:
    """Keeps the chunks that were inflated last; each is inflated by one thread, others wait.

    Parameters
    ----------
    chunk : callable
    starts : ndarray of intp, shape (K,)
    count : int
        Number of rows of all chunks.
    most_rows : int
        How many rows are kept, at most.
    """

    def __init__(self, chunk: Chunk, starts: Rows, count: int, most_rows: int) -> None:
        self._chunk = chunk
        self._lengths = np.diff(starts, append=count)
        self._most_rows = most_rows
        self._kept = _Kept(most_rows)

    @property
    def kept_rows(self) -> int:
        """How many rows are in memory, or on their way there."""
        return self._most_rows - self._kept.room

    def __call__(self, index: int) -> NDArray[Any]:
        """Return the rows of a chunk."""
        length = int(self._lengths[index])
        if length == 1:  # a row of a mapped file among others
            return self._chunk(index)
        kept = self._kept
        if kept.pid != os.getpid():  # what a parent's threads had begun is not done after a fork
            kept = self._kept = _Kept(self._most_rows)
        with kept.lock:
            future = kept.chunks.get(index)
            mine = future is None
            if future is None:
                future = kept.chunks[index] = Future()
                kept.room -= length
                while kept.room < 0 and len(kept.chunks) > 1:  # drop what was used longest ago
                    dropped, _ = kept.chunks.popitem(last=False)
                    kept.room += int(self._lengths[dropped])
            else:
                kept.chunks.move_to_end(index)
        if mine:
            self._inflate(index, future, kept)
        return future.result()

    def _inflate(self, index: int, future: Future[NDArray[Any]], kept: _Kept) -> None:
        """Inflate a chunk; one that fails or is interrupted is forgotten, and tried again."""
        try:
            future.set_result(self._chunk(index))
        except Exception as error:
            future.set_exception(error)
            raise
        finally:
            failed = future.cancel() or future.exception() is not None
            if failed:
                with kept.lock:
                    if kept.chunks.get(index) is future:
                        del kept.chunks[index]
                        kept.room += int(self._lengths[index])


class _Kept:
    """The chunks that one process keeps."""

    def __init__(self, room: int) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.room = room
        self.chunks: OrderedDict[int, Future[NDArray[Any]]] = OrderedDict()
