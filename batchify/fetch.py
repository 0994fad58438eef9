"""Reads batches of a split: gathers rows, multiplies pixels; in threads that read ahead."""

from __future__ import annotations

import atexit
import math
import os
import threading
import weakref
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchify.chunks import ChunkCache, gather_chunks
from batchify.images import RowArray, gather
from batchify.indexing import Rows
from batchify.orders import chunk_starts, mixed_rows

if TYPE_CHECKING:
    from batchify.splits import Split

_BLOCK_NBYTES = 256 << 10
"""Mapped rows that are multiplied at once: they stay in the processor's cache."""
_READ_NBYTES = 8 << 20
"""Other rows that are multiplied at once: enough for all threads to have some."""

Batch = tuple[NDArray[Any], NDArray[Any]] | NDArray[Any]


class Source:
    """Reads batches of a split; from several threads at once.

    Parameters
    ----------
    split : Split
    dtype, labels_dtype : numpy.dtype
        Of what is read: float32 pixels are multiplied by ``scale_factor``.
    batch_size : int
        As many rows as are read at once, as a rule.
    """

    def __init__(
        self, split: Split, dtype: np.dtype[Any], labels_dtype: np.dtype[Any], batch_size: int
    ) -> None:
        images = split.images
        self._split = split
        self._dtype = dtype
        self._labels_dtype = labels_dtype
        row_nbytes = max(1, math.prod(images.shape[1:]) * images.dtype.itemsize)
        at_once = _READ_NBYTES if isinstance(images, RowArray) else _BLOCK_NBYTES
        self._block_rows = max(1, at_once // row_nbytes)
        self._cache: ChunkCache | None = None
        starts = chunk_starts(images)
        if starts is not None and isinstance(images, RowArray):
            longest = int(np.diff(starts, append=len(images)).max(initial=1))
            # What is mixed now, or in a batch, and what comes next.
            room = 2 * (max(mixed_rows(images), batch_size) + longest)
            self._cache = ChunkCache(images.chunk, starts, len(images), room)

    def array(self, count: int) -> NDArray[Any]:
        """Return memory for the images of a batch."""
        return np.empty((count, *self._split.images.shape[1:]), self._dtype)

    def read(self, rows: Rows, out: NDArray[Any]) -> Batch:
        """Read the images of some rows into `out`, and return it with their labels."""
        if self._dtype == self._split.images.dtype:
            self._gather(rows, out)
        else:
            self._multiply(rows, out)
        if self._split.labels is None:
            return out
        return out, self._split.labels[rows].astype(self._labels_dtype, copy=False)

    def _multiply(self, rows: Rows, out: NDArray[Any]) -> None:
        """Read rows, and multiply them, a block at a time."""
        images, scale = self._split.images, self._split.scale_factor
        size = min(self._block_rows, len(rows))
        block = np.empty((size, *images.shape[1:]), images.dtype)
        for start in range(0, len(rows), max(1, size)):
            some = rows[start : start + size]
            self._gather(some, block[: len(some)])
            floats = out[start : start + len(some)]
            np.copyto(floats, block[: len(some)])
            if scale is not None:
                np.multiply(floats, scale, out=floats)

    def _gather(self, rows: Rows, out: NDArray[Any]) -> None:
        if self._cache is None:
            gather(self._split.images, rows, out)
        else:
            gather_chunks(self._cache, chunk_starts(self._split.images), rows, out)


_reading: weakref.WeakSet[ReadingThread] = weakref.WeakSet()


@atexit.register
def _end_reading() -> None:
    """End the threads of epochs that are not over: NumPy does not survive the interpreter."""
    for thread in list(_reading):
        thread.tasks.put(None)
    for thread in list(_reading):
        thread.join()


class ReadingThread(threading.Thread):
    """Reads batches in the order that they are asked for, until it gets None."""

    def __init__(self, source: Source) -> None:
        super().__init__(name="batchify", daemon=True)
        self._pid = os.getpid()
        self.tasks: SimpleQueue[tuple[Rows, NDArray[Any]] | None] = SimpleQueue()
        self._source = source
        self._results: SimpleQueue[Batch | Exception] = SimpleQueue()
        self.start()
        _reading.add(self)

    def run(self) -> None:
        """Read."""
        while (task := self.tasks.get()) is not None:
            try:
                self._results.put(self._source.read(*task))
            except Exception as error:  # noqa: BLE001 - raised again by result()
                self._results.put(error)

    def result(self) -> Batch:
        """Return the next batch, or raise what reading it raised."""
        if os.getpid() != self._pid:
            raise RuntimeError("an epoch that is read ahead goes on in the process that began it")
        found = self._results.get()
        if isinstance(found, Exception):
            raise found
        return found
