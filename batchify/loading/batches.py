"""The batches of a split: one epoch per iteration, for one rank of several, and resumable."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from batchify.choices import check_at_least, check_flag
from batchify.common.text import plural
from batchify.loading.arrays import RowArray
from batchify.loading.batch_server import BatchServer
from batchify.loading.epoch_order import shuffled_rows
from batchify.loading.indexing import Rows
from batchify.loading.prefetching import REUSED_NBYTES, Batch, BatchMemory, Buffer, Prefetcher
from batchify.loading.progress import (
    Position,
    Progress,
    fingerprint,
    make_state,
    order_checksum,
    read_state,
)
from batchify.loading.ranks import check_ranks, largest_share, shares, step_ends
from batchify.loading.split_data import SplitData


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
    rank, world_size : int
        If several processes train together: which one this is, from 0, and how many there are. See
        `batchify.loading.ranks`.
    """

    batch_size: int = 32
    shuffle: bool = False
    seed: int = 0
    drop_last: bool = False
    scaled: bool = True
    reuse: bool = False
    prefetch: int = 0
    with_rows: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        for name in ("batch_size", "seed", "prefetch", "rank", "world_size"):
            if isinstance(getattr(self, name), np.integer):
                object.__setattr__(self, name, int(getattr(self, name)))
        check_at_least("batch size", self.batch_size, 1)
        check_at_least("seed", self.seed, 0)
        check_at_least("prefetch", self.prefetch, 0)
        check_ranks(self.rank, self.world_size)
        for name in ("shuffle", "drop_last", "scaled", "reuse", "with_rows"):
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

    Raises
    ------
    OptionError
        If there are fewer rows than ranks.

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
        self._ends = self.ends()
        self._resumed = Position(0)
        self._progress: Progress | None = None
        self._description: tuple[int, dict[str, Any]] = -1, {}
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
        self._prefetcher = Prefetcher(self._reader.read, threads)
        self._memory: Buffer = self._reader.array
        self._size = largest_share(len(split), options.batch_size, options.world_size)
        if self._size * math.prod(split.images.shape[1:]) * self.dtype.itemsize >= REUSED_NBYTES:
            self._memory = BatchMemory(self._reader.array, self._size, threads + 2)

    def __reduce__(self) -> tuple[Any, ...]:
        float_labels = self.labels_dtype == np.float32
        return _unpickled, (self.split, self.options, float_labels, self.epoch, self._resumed)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __repr__(self) -> str:
        options = self.options
        order = f", shuffled with seed {options.seed}" if options.shuffle else ""
        of = f", rank {options.rank} of {options.world_size}" if options.world_size > 1 else ""
        count = plural(len(self), "batch", "batches")
        return f"<batchify {count} of {options.batch_size} rows of {self.split!r}{order}{of}>"

    def order(self, epoch: int) -> Rows:
        """Return the row numbers of an epoch in their order, shape (N,): the same on every rank.

        See `batchify.loading.epoch_order`.
        """
        if not self.options.shuffle:
            return np.arange(len(self.split), dtype=np.intp)
        random = RandomState([self.options.seed % 2**32, epoch % 2**32])
        return shuffled_rows(self.split.images, random)

    def ends(self, start: int = 0) -> Rows:
        """Return the positions where the steps of an epoch end, from a position on.

        See `batchify.loading.ranks.step_ends`.
        """
        options = self.options
        return step_ends(
            len(self.split),
            options.batch_size,
            options.world_size,
            drop_last=options.drop_last,
            start=start,
        )

    def cut(self, order: Rows, start: int = 0) -> list[Rows]:
        """Return the rows of each batch of this rank, from a position in the order on."""
        return shares(order, self.ends(start), self.options.rank, self.options.world_size)

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
        begins = self.begins(self.epoch)
        progress = self._progress = Progress(begins, self.ends(begins.row))
        self.epoch = begins.epoch + 1
        return progress.count(self.serve(self.cut(self.order(begins.epoch), begins.row)))

    def begins(self, epoch: int) -> Position:
        """Return where an epoch begins: in the middle if it is the one that is resumed."""
        return self._resumed if self._resumed.epoch == epoch else Position(epoch)

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Return how far the latest iteration is, as JSON values, for `load_state_dict`.

        The state is the same on every rank.

        Parameters
        ----------
        batches : int, optional
            How many batches were used since the epoch began or was resumed. By default all that
            were yielded; those that were only read ahead do not count.

        Raises
        ------
        OptionError
            If the epoch has fewer batches.
        """
        progress = self._progress
        if progress is None or progress.start.epoch + 1 != self.epoch:
            begins = self.begins(self.epoch)
            progress = Progress(begins, self.ends(begins.row))
        return self.state_at(progress.at(batches))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration continue where a state was saved, and the others follow.

        The rest of the epoch is what it would have been; with another batch size or number of
        ranks, it is the same rows in the same order.

        Raises
        ------
        OptionError
            If it is a state of other rows or of another order: the message names what differs.
        """
        self.resume(self.position_in(state))

    def resume(self, position: Position) -> None:
        """Let the next iteration begin at a position."""
        self._resumed = position
        self._progress = None
        self.epoch = position.epoch

    def state_at(self, position: Position) -> dict[str, Any]:
        """Return a position as JSON values, and what it is of."""
        if self._description[0] != position.epoch:
            self._description = position.epoch, self._described(position.epoch)
        return make_state(position, self._description[1])

    def position_in(self, state: Mapping[str, Any]) -> Position:
        """Return the position that a state has.

        Raises
        ------
        OptionError
            If it is of other rows or of another order.
        """
        position = read_state(state, self._described)
        self.ends(position.row)  # refuses what the ranks cannot share
        return position

    def _described(self, epoch: int) -> dict[str, Any]:
        """Return what the order of an epoch depends on."""
        options = self.options
        found: dict[str, Any] = {
            "split": self.split.name,
            "rows": len(self.split),
            "content": fingerprint(self.split.origin),
            "shuffle": options.shuffle,
        }
        if options.shuffle:
            found |= {"seed": options.seed, "order": order_checksum(self.order(epoch))}
        return found

    def serve(self, batches: Iterable[Rows], buffer: Buffer | None = None) -> Iterator[Batch]:
        """Yield batches, given the rows of each; `buffer` provides their memory, if given."""
        options = self.options
        if buffer is None:
            buffer = self._ring() if options.reuse else self._memory
        if isinstance(self.split.images, RowArray):
            batches = self.split.images.ahead(batches)
        if options.prefetch:
            return self._prefetcher.serve(batches, buffer)
        return (self._reader.read(rows, buffer(len(rows))) for rows in batches)

    def _ring(self) -> Buffer:
        """Return a buffer that reuses memory: for batches read ahead, and the last two yielded."""
        count = min(self.options.prefetch, len(self)) + 2
        arrays = itertools.cycle([self._reader.array(self._size) for _ in range(count)])
        return lambda length: next(arrays)[:length]


def _unpickled(
    split: SplitData, options: BatchOptions, float_labels: bool, epoch: int, resumed: Position
) -> Batches:
    batches = Batches(split, options, float_labels)
    batches.epoch = epoch
    batches._resumed = resumed
    return batches
