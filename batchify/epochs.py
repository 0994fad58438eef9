"""Batches of a split, epoch after epoch: cut, read into buffers, and read ahead."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import RandomState  # now: a fork must not find it half imported
from numpy.typing import NDArray

from batchify.fetch import Batch, ReadingThread, Source
from batchify.indexing import Rows
from batchify.orders import shuffled
from batchify.values import at_least

if TYPE_CHECKING:
    from batchify.splits import Split

Buffer = Callable[[int], NDArray[Any]]
"""Returns memory for the images of a batch, given how many."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a split is cut into batches.

    Parameters
    ----------
    batch_size : int
    shuffle : bool
        Another order each epoch, drawn from `seed`.
    seed : int
    drop_last : bool
        Leave a last batch out that is not full.
    scaled : bool
        float32 pixels times ``scale_factor``, and float32 labels, as Keras' generators yield them;
        else both as they are stored.
    reuse : bool
        Yield the same arrays again and again: a batch holds until the next is asked for.
    prefetch : int
        Batches that are read ahead, each by a thread.
    """

    batch_size: int = 32
    shuffle: bool = False
    seed: int = 0
    drop_last: bool = False
    scaled: bool = True
    reuse: bool = False
    prefetch: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "seed", "prefetch"):
            if isinstance(getattr(self, name), np.integer):
                object.__setattr__(self, name, int(getattr(self, name)))
        at_least("batch size", self.batch_size, 1)
        at_least("seed", self.seed, 0)
        at_least("prefetch", self.prefetch, 0)


class Batches:
    """The batches of a split: each iteration is an epoch.

    ``len()`` is the number of batches of an epoch. `epoch` is the number of the next one, and may
    be set: the order of an epoch depends on it and the seed alone. `dtype` and `labels_dtype`
    are those of X and y. It is picklable; a copy in another process begins with the same epoch.

    Parameters
    ----------
    split : Split
    options : BatchOptions
    float_labels : bool, optional
        float32 labels, as Keras' generators yield them, or as stored; by default as `scaled`.

    Notes
    -----
    Memory: the batches that are alive; of compressed images that share chunks also
    twice `batchify.orders.MIXED_NBYTES`, in each process that reads, as long as this is alive.
    """

    def __init__(
        self, split: Split, options: BatchOptions, float_labels: bool | None = None
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
        self._source = Source(split, self.dtype, self.labels_dtype, options.batch_size)

    def __reduce__(self) -> tuple[Any, ...]:
        float_labels = self.labels_dtype == np.float32
        return _unpickled, (self.split, self.options, float_labels, self.epoch)

    def __len__(self) -> int:
        count = len(self.split) / self.options.batch_size
        return math.floor(count) if self.options.drop_last else math.ceil(count)

    def order(self, epoch: int) -> Rows:
        """Return the row numbers of an epoch, in their order; shape (N,).

        See `batchify.orders.shuffled`.
        """
        if not self.options.shuffle:
            return np.arange(len(self.split), dtype=np.intp)
        random = RandomState([self.options.seed % 2**32, epoch % 2**32])
        return shuffled(self.split.images, random)

    def cut(self, order: Rows) -> list[Rows]:
        """Return the rows of each batch."""
        size = self.options.batch_size
        return [order[start : start + size] for start in range(0, len(self) * size, size)]

    def read(self, rows: Any) -> Batch:
        """Return the batch of some rows, any number of them.

        Parameters
        ----------
        rows : sequence of int, slice, or mask

        Raises
        ------
        IndexError
        """
        numbers = self.split.row_numbers(rows)
        return self._source.read(numbers, self._source.array(len(numbers)))

    def __iter__(self) -> Iterator[Batch]:
        order = self.order(self.epoch)
        self.epoch += 1
        return self.serve(self.cut(order))

    def serve(self, batches: Iterable[Rows], buffer: Buffer | None = None) -> Iterator[Batch]:
        """Yield batches, given the rows of each; into memory from `buffer` where given."""
        options = self.options
        if buffer is None:
            buffer = self._ring() if options.reuse else self._source.array
        if options.prefetch:
            return self._ahead(batches, buffer)
        return (self._source.read(rows, buffer(len(rows))) for rows in batches)

    def _ring(self) -> Buffer:
        """Return memory again: of those read ahead, the one handed over, and the caller's."""
        size = min(self.options.batch_size, len(self.split))
        count = min(self.options.prefetch, len(self)) + 2
        arrays = itertools.cycle([self._source.array(size) for _ in range(count)])
        return lambda length: next(arrays)[:length]

    def _ahead(self, batches: Iterable[Rows], buffer: Buffer) -> Iterator[Batch]:
        """Yield batches in their order, read ahead by threads, which take turns.

        Queues in C rather than an executor: what Python does for a batch is done by one thread at
        a time, so there has to be little of it.
        """
        readers: list[ReadingThread] = []
        waiting: deque[ReadingThread] = deque()
        try:
            while len(readers) < min(self.options.prefetch, len(self)):
                readers.append(ReadingThread(self._source))
            turns = itertools.cycle(readers)
            for rows in batches:
                reader = next(turns)
                reader.tasks.put((rows, buffer(len(rows))))
                waiting.append(reader)
                if len(waiting) > len(readers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # not joined: whoever collects an epoch may be what its threads wait for
            for reader in readers:
                reader.tasks.put(None)


def _unpickled(split: Split, options: BatchOptions, float_labels: bool, epoch: int) -> Batches:
    batches = Batches(split, options, float_labels)
    batches.epoch = epoch
    return batches
