"""Read the images and labels of some rows as one batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.loading.arrays import RowArray, gather, underlying
from batchify.loading.chunks import ChunkCache, gather_chunks
from batchify.loading.epoch_order import chunk_starts, mixed_rows
from batchify.loading.indexing import Rows, rows_of
from batchify.loading.prefetching import Batch
from batchify.loading.split_data import SplitData

_BLOCK_NBYTES = 256 << 10
"""Mapped rows multiplied together: few enough to stay in the processor's cache."""

_READ_NBYTES = 8 << 20
"""Other rows multiplied together: enough to keep all threads busy."""


class BatchServer:
    """Reads the images and labels of some rows; usable from several threads at once.

    Parameters
    ----------
    dtype, labels_dtype : numpy.dtype
        The dtypes to read into: float32 pixels are multiplied by ``scale_factor``.
    batch_size : int
        How many rows are usually read at once.
    with_rows : bool
        See `batchify.loading.batches.BatchOptions`.
    """

    def __init__(
        self,
        split: SplitData,
        dtype: np.dtype[Any],
        labels_dtype: np.dtype[Any],
        batch_size: int,
        with_rows: bool,
    ) -> None:
        images, _ = underlying(split.images)
        self._split = split
        self._dtype = dtype
        self._labels_dtype = labels_dtype
        self._with_rows = with_rows
        row_nbytes = max(1, math.prod(images.shape[1:]) * images.dtype.itemsize)
        at_once = _READ_NBYTES if isinstance(images, RowArray) else _BLOCK_NBYTES
        self._block_rows = max(1, at_once // row_nbytes)
        self._cache: ChunkCache | None = None
        starts = chunk_starts(images)
        if starts is not None and isinstance(images, RowArray):
            longest = int(np.diff(starts, append=len(images)).max(initial=1))
            # The rows that are mixed now, or in one batch, and those that come next.
            room = 2 * (max(mixed_rows(images), batch_size) + longest)
            self._cache = ChunkCache(images.chunk, starts, len(images), room)

    def array(self, count: int) -> NDArray[Any]:
        """Return memory for the images of a batch."""
        return np.empty((count, *self._split.images.shape[1:]), self._dtype)

    def read(self, rows: Rows, out: NDArray[Any]) -> Batch:
        """Read the images of some rows into `out`, and return their batch."""
        if self._dtype == self._split.images.dtype:
            self._gather(rows, out)
        else:
            self._multiply(rows, out)
        columns = self.columns(rows)
        return (out, *columns) if columns else out

    def columns(self, rows: Rows) -> tuple[NDArray[Any], ...]:
        """Return what a batch has in addition to its images."""
        found: tuple[NDArray[Any], ...] = ()
        labels = self._split.labels
        if labels is not None:
            some = np.empty((len(rows), *labels.shape[1:]), labels.dtype)
            gather(labels, rows, some)
            found += (some.astype(self._labels_dtype, copy=False),)
        if self._with_rows:
            found += (rows.astype(np.int64),)
        return found

    def _multiply(self, rows: Rows, out: NDArray[Any]) -> None:
        """Read and multiply rows, a block at a time."""
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
        images, selected = underlying(self._split.images)
        if selected is not None:
            rows = rows_of(selected, rows)
        if self._cache is None:
            gather(images, rows, out)
        else:
            gather_chunks(self._cache, chunk_starts(images), rows, out)
