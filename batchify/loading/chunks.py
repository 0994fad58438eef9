"""Gather rows of chunks: several chunks at once, in threads, and each decompressed once."""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from batchify.common.system import in_order, usable_cpus
from batchify.loading.indexing import Rows

Chunk = Callable[[int], NDArray[Any]]
"""Returns the rows of a chunk, given its number."""

_Row = TypeVar("_Row")


def gather_chunks(chunk: Chunk, starts: Rows | None, rows: Rows, out: NDArray[Any]) -> None:
    """Read some rows chunk by chunk, in threads: reading and decompressing release the GIL.

    `starts` is the first row of each chunk, or None if each row is a chunk.
    """
    if not len(rows):
        return
    chunks = rows if starts is None else np.searchsorted(starts, rows, side="right") - 1
    within = np.zeros_like(rows) if starts is None else rows - starts[chunks]
    order = np.argsort(chunks, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(chunks[order])) + 1)

    def copy(wanted: Rows) -> None:
        out[wanted] = chunk(int(chunks[wanted[0]]))[within[wanted]]

    if isinstance(chunk, ChunkCache):  # to copy takes less time than to hand over
        cached = [chunk.has(int(chunks[piece[0]])) for piece in pieces]
        for piece in itertools.compress(pieces, cached):
            copy(piece)
        pieces = [piece for piece, done in zip(pieces, cached, strict=True) if not done]
    if len(pieces) <= 1 or usable_cpus() == 1:
        for piece in pieces:
            copy(piece)
    else:
        for _ in _pool().map(copy, pieces):
            pass


def read_ahead(read: Callable[[int], _Row], rows: Iterable[int]) -> Iterator[_Row]:
    """Yield what `read` returns for each row, in their order; threads read a few rows ahead."""
    return map(read, rows) if usable_cpus() == 1 else in_order(_pool(), read, rows)


_pools: dict[int, ThreadPoolExecutor] = {}


def _pool() -> ThreadPoolExecutor:
    """Return the threads of this process: a parent's threads do not survive a fork."""
    pid = os.getpid()
    pool = _pools.get(pid)
    if pool is None:
        threads = ThreadPoolExecutor(usable_cpus(), thread_name_prefix="batchify")
        pool = _pools.setdefault(pid, threads)
    return pool


class ChunkCache:
    """A cache of recently decompressed chunks; one thread decompresses a chunk, others wait for it.

    Parameters
    ----------
    chunk : callable
        Inflates a chunk.
    starts : ndarray of intp, shape (K,)
        The first row of each chunk.
    count : int
        Rows of all chunks.
    most_rows : int
        The most rows to cache.
    """

    def __init__(self, chunk: Chunk, starts: Rows, count: int, most_rows: int) -> None:
        self._chunk = chunk
        self._lengths = np.diff(starts, append=count)
        self._most_rows = most_rows
        self._cached = _CachedChunks(most_rows)

    @property
    def cached_rows(self) -> int:
        """The number of rows that are in memory or being read."""
        return self._most_rows - self._cached.room

    def has(self, index: int) -> bool:
        """Tell whether a chunk is in memory."""
        future = self._cached.chunks.get(index)
        return future is not None and future.done()

    def __call__(self, index: int) -> NDArray[Any]:
        """Return the rows of a chunk."""
        length = int(self._lengths[index])
        if length == 1:  # a row of a mapped file among others
            return self._chunk(index)
        cached = self._cached
        if cached.pid != os.getpid():  # a fork does not finish what its parent's threads began
            cached = self._cached = _CachedChunks(self._most_rows)
        with cached.lock:
            future = cached.chunks.get(index)
            mine = future is None
            if future is None:
                future = cached.chunks[index] = Future()
                cached.room -= length
                while cached.room < 0 and len(cached.chunks) > 1:  # drop the least recently used
                    dropped, _ = cached.chunks.popitem(last=False)
                    cached.room += int(self._lengths[dropped])
            else:
                cached.chunks.move_to_end(index)
        if mine:
            self._inflate(index, future, cached)
        return future.result()

    def _inflate(self, index: int, future: Future[NDArray[Any]], cached: _CachedChunks) -> None:
        """Decompress a chunk; if it fails or is interrupted, forget it, so that it is retried."""
        try:
            future.set_result(self._chunk(index))
        except Exception as error:
            future.set_exception(error)
            raise
        finally:
            failed = future.cancel() or future.exception() is not None
            if failed:
                with cached.lock:
                    if cached.chunks.get(index) is future:
                        del cached.chunks[index]
                        cached.room += int(self._lengths[index])


class _CachedChunks:
    """The chunks that one process has cached."""

    def __init__(self, room: int) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.room = room
        self.chunks: OrderedDict[int, Future[NDArray[Any]]] = OrderedDict()
