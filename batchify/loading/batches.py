"""Batches of a split: one epoch per iteration, read ahead by threads on request."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from batchify.choices import check_at_least, check_flag
from batchify.common.text import plural
from batchify.loading.arrays import RowArray, gather, underlying
from batchify.loading.chunks import ChunkCache, gather_chunks
from batchify.loading.epoch_order import chunk_starts, mixed_rows, shuffled_rows
from batchify.loading.indexing import Rows, count_batches, cut_batches, rows_of
from batchify.loading.prefetching import (
    REUSED_NBYTES,
    Batch,
    BatchMemory,
    Buffer,
    Prefetcher,
)
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
        See `BatchOptions`.
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
        if self._split.labels is not None:
            found += (self._split.labels[rows].astype(self._labels_dtype, copy=False),)
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


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a split is cut into batches.

    Parameters
    ----------
    shuffle : bool
        Use another order each epoch, drawn from `seed`.
    drop_last : bool
        Drop the last batch if it is not full.
    scaled : bool
        Yield float32 pixels times ``scale_factor`` and float32 labels, as Keras' generators do;
        otherwise both as they are stored.
    reuse : bool
        Yield the same arrays again and again: a batch is valid until you ask for the next one.
    prefetch : int
        How many batches to read ahead, each in a thread, while that saves time.
    with_rows : bool
        Add the row numbers of each batch, int64, shape (n,): ``split.paths[rows]`` are its files.
    """

    batch_size: int = 32
    shuffle: bool = False
    seed: int = 0
    drop_last: bool = False
    scaled: bool = True
    reuse: bool = False
    prefetch: int = 0
    with_rows: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "seed", "prefetch"):
            if isinstance(getattr(self, name), np.integer):
                object.__setattr__(self, name, int(getattr(self, name)))
        check_at_least("batch size", self.batch_size, 1)
        check_at_least("seed", self.seed, 0)
        check_at_least("prefetch", self.prefetch, 0)
        for name in ("shuffle", "drop_last", "with_rows"):
            check_flag(name.replace("_", " "), getattr(self, name))


class Batches:
    """The batches of a split: each iteration is an epoch.

    ``len()`` is the number of batches in an epoch. `epoch` is the number of the next epoch, and you
    may set it: the order of an epoch depends only on it and the seed. `dtype` and `labels_dtype`
    are those of X and y. It is picklable; a copy in another process starts with the same epoch.

    Parameters
    ----------
    split : Split
    options : BatchOptions
    float_labels : bool, optional
        Yield float32 labels, as Keras' generators do, or labels as stored; by default as `scaled`.

    Notes
    -----
    Memory: the batches that are alive, and up to `prefetch` + 2 whose memory is used again. If
    compressed images share chunks, also twice
    `batchify.loading.epoch_order.MIXED_NBYTES` in each process that reads, while this is alive.
    """

    def __init__(
        self, split: SplitData, options: BatchOptions, float_labels: bool | None = None
    ) -> None:
        self.split = split
        self.options = options
        self.epoch = 0
        floats = np.dtype(np.float32)
        self.dtype = floats if options.scaled else split.images.dtype
        if float_labels is None:
            float_labels = options.scaled
        stored = floats if split.labels is None else split.labels.dtype
        self.labels_dtype = floats if float_labels else stored
        self._reader = BatchServer(
            split, self.dtype, self.labels_dtype, options.batch_size, options.with_rows
        )
        threads = min(options.prefetch, max(1, len(self)))
        self._prefetcher = Prefetcher(self._reader, threads)
        self._memory: Buffer = self._reader.array
        size = min(options.batch_size, len(split))
        if size * math.prod(split.images.shape[1:]) * self.dtype.itemsize >= REUSED_NBYTES:
            self._memory = BatchMemory(self._reader.array, size, threads + 2)

    def __reduce__(self) -> tuple[Any, ...]:
        float_labels = self.labels_dtype == np.float32
        return _unpickled, (self.split, self.options, float_labels, self.epoch)

    def __len__(self) -> int:
        options = self.options
        return count_batches(len(self.split), options.batch_size, drop_last=options.drop_last)

    def __repr__(self) -> str:
        options = self.options
        order = f", shuffled with seed {options.seed}" if options.shuffle else ""
        count = plural(len(self), "batch", "batches")
        return f"<batchify {count} of {options.batch_size} rows of {self.split!r}{order}>"

    def order(self, epoch: int) -> Rows:
        """Return the row numbers of an epoch in their order, shape (N,).

        See `batchify.loading.epoch_order`.
        """
        if not self.options.shuffle:
            return np.arange(len(self.split), dtype=np.intp)
        random = RandomState([self.options.seed % 2**32, epoch % 2**32])
        return shuffled_rows(self.split.images, random)

    def cut(self, order: Rows) -> list[Rows]:
        """Return the rows of each batch."""
        options = self.options
        return cut_batches(order, options.batch_size, drop_last=options.drop_last)

    def read(self, rows: Any) -> Batch:
        """Return one batch of the rows that an index selects, any number of them.

        Parameters
        ----------
        rows : sequence of int, slice, or mask

        Raises
        ------
        IndexError
            If there is no such row.
        """
        numbers = self.split.row_numbers(rows)
        return self._reader.read(numbers, self._reader.array(len(numbers)))

    def columns(self, rows: Rows) -> tuple[NDArray[Any], ...]:
        """Return what the batch of some rows has in addition to its images."""
        return self._reader.columns(rows)

    def __iter__(self) -> Iterator[Batch]:
        order = self.order(self.epoch)
        self.epoch += 1
        return self.serve(self.cut(order))

    def serve(self, batches: Iterable[Rows], buffer: Buffer | None = None) -> Iterator[Batch]:
        """Yield batches, given the rows of each; `buffer` provides their memory, if given."""
        options = self.options
        if buffer is None:
            buffer = self._ring() if options.reuse else self._memory
        if options.prefetch:
            return self._prefetcher.serve(batches, buffer)
        return (self._reader.read(rows, buffer(len(rows))) for rows in batches)

    def _ring(self) -> Buffer:
        """Return a buffer that reuses memory: for batches read ahead, and the last two yielded."""
        size = min(self.options.batch_size, len(self.split))
        count = min(self.options.prefetch, len(self)) + 2
        arrays = itertools.cycle([self._reader.array(size) for _ in range(count)])
        return lambda length: next(arrays)[:length]


def _unpickled(split: SplitData, options: BatchOptions, float_labels: bool, epoch: int) -> Batches:
    batches = Batches(split, options, float_labels)
    batches.epoch = epoch
    return batches
