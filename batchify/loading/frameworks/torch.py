"""Make PyTorch datasets from a split: of rows, or of whole batches.

The protocol is described at https://docs.pytorch.org/docs/stable/data.html. Images are tensors in
channels-last memory: (C, H, W) views of (H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info

from batchify.errors import OptionError
from batchify.loading.arrays import Column, pil_image
from batchify.loading.batches import Batches, BatchOptions
from batchify.loading.chunks import read_ahead
from batchify.loading.epoch_order import chunk_starts, shuffled_rows
from batchify.loading.frameworks.shared_memory import channels_first, label_tensor, lender, lent
from batchify.loading.indexing import Rows
from batchify.loading.split_data import SplitData

Transform = Callable[[Any], Any]


def make_dataset(
    split: SplitData,
    options: BatchOptions,
    transform: Transform | None,
    pin_memory: bool,
    *,
    rows: bool,
    original: bool,
) -> TorchRows | TorchBatches:
    """Return a PyTorch dataset of the rows of a split, or of whole batches.

    Raises
    ------
    OptionError
        If rows are asked for with options of batches, or batches with options of rows.
    """
    batches = Batches(split, options, float_labels=False)
    if not rows:
        if original:
            raise OptionError(
                "original is for rows: images of different sizes are not one batch; "
                "give batch_size to the DataLoader"
            )
        return TorchBatches(batches, transform, pin_memory)
    if options.shuffle or options.drop_last or options.prefetch or pin_memory:
        raise OptionError(
            "shuffle, drop_last, prefetch and pin_memory are for whole batches; give "
            "batch_size, or give them to the DataLoader"
        )
    if original:
        split.check_pil_images()
    return TorchRows(batches, transform, original)


class TorchRows(Dataset[Any]):
    """A split as a map-style dataset of (image, label).

    An image is a tensor (C, H, W), or the result of `transform` for the stored ndarray (H, W, C)
    or, with `original`, for a PIL image; a label is as stored. The row number follows if the
    options ask for it. If several rows are asked for together, by ``BatchSampler`` and
    ``batch_size=None``, an item is their batch, (n, C, H, W).

    Parameters
    ----------
    batches : Batches
        Reads the rows.
    original : bool
        See `batchify.loading.split.Split.to_torch`.

    Attributes
    ----------
    split : Split
    classes : tuple of str
    class_to_idx : dict of str to int
    targets : ndarray, or None
        The labels of all rows.
    """

    def __init__(
        self, batches: Batches, transform: Transform | None, original: bool = False
    ) -> None:
        self.split = batches.split
        self.classes = self.split.classes
        self.class_to_idx = self.split.class_to_idx
        self._batches = batches
        self._transform = transform
        self._original = original

    @property
    def targets(self) -> Column | None:
        """The labels of all rows, as they are stored."""
        return self.split.labels

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: Any) -> Any:
        """Return (image, label) of a row, or (images, labels) of several."""
        rows = self.split.row_numbers(key)
        if not rows.ndim:
            return self.__getitems__([int(rows)])[0]
        if self._transform is not None or self._original:
            return default_collate(self.__getitems__(rows))
        return next(_delivered(self._batches, [rows], None))

    def __getitems__(self, rows: Sequence[int] | Rows) -> list[Any]:
        """Return ``[self[row] for row in rows]``, gathered together."""
        images: Any
        columns: Sequence[NDArray[Any]]
        if self._original:
            numbers = self.split.row_numbers(rows)
            images, columns = self._pil_images(numbers), self._batches.columns(numbers)
        else:
            found = self._batches.read(rows)
            images, *columns = found if isinstance(found, tuple) else (found,)
            if self._transform is None:
                images = channels_first(images)
        items = list(images if self._transform is None else map(self._transform, images))
        return list(zip(items, *columns, strict=True)) if columns else items

    def _pil_images(self, rows: Rows) -> Iterator[Any]:
        """Yield rows as PIL images; without workers of the loader, threads decode them."""
        read = partial(pil_image, self.split.images)
        return (map if get_worker_info() else read_ahead)(read, rows.tolist())

    def __repr__(self) -> str:
        return f"<PyTorch rows of {self.split!r}>"


class TorchBatches(IterableDataset[Any]):
    """The batches of a split, for a ``DataLoader`` with ``batch_size=None``.

    Each epoch yields each row once, whatever the number of workers. The order of a shuffled epoch
    is drawn from torch's generator: the same ``torch.manual_seed`` and number of workers repeat it.

    Parameters
    ----------
    transform : callable, or None
        Receives the stored images of a batch, ndarray (n, H, W, C); None makes a tensor
        (n, C, H, W).
    pin_memory : bool
        Read into page-locked memory, if torch has a GPU to copy it to and there are no workers.

    Raises
    ------
    OptionError
        If several processes train together: each would get every row.
    """

    def __init__(self, batches: Batches, transform: Transform | None, pin_memory: bool) -> None:
        self.split = batches.split
        self._batches = batches
        self._transform = transform
        self._pin_memory = pin_memory and torch.cuda.is_available()
        self._epoch = 0
        _refuse_ranks()

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        _refuse_ranks()
        worker = get_worker_info()
        if worker is None:
            mine = self._batches.cut(self._order(None, [0]))
        else:
            count = worker.num_workers
            firsts = [len(self) * number // count for number in range(count)] + [len(self)]
            # The seed of each worker is that of the loader plus the worker's number.
            every = self._batches.cut(self._order(worker.seed - worker.id, firsts))
            self._epoch += 1  # a persistent worker keeps its seed for the next epoch
            if chunk_starts(self.split.images) is None:
                mine = every[worker.id :: count]  # the loader takes from the workers in turn
            else:  # adjacent batches, whose chunks no other worker inflates
                mine = every[firsts[worker.id] : firsts[worker.id + 1]]
        return _delivered(self._batches, mine, self._transform, self._pin_memory)

    def _order(self, seed: int | None, firsts: list[int]) -> Rows:
        """Return the order of an epoch; rows are not moved across the first batch of a worker."""
        options = self._batches.options
        if not options.shuffle:
            return self._batches.order(0)
        if seed is None:
            seed = int(torch.empty((), dtype=torch.int64).random_().item())
        words = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, self._epoch]
        cuts = [first * options.batch_size for first in firsts[1:-1]]
        return shuffled_rows(self.split.images, RandomState(words), cuts)

    def __repr__(self) -> str:
        return f"<PyTorch batches of {self.split!r}>"


def _refuse_ranks() -> None:
    ranks = torch.distributed
    if ranks.is_available() and ranks.is_initialized() and ranks.get_world_size() > 1:
        raise OptionError(
            "whole batches are for one process; where several train together, load to_torch() "
            "with DataLoader(rows, batch_size=None, sampler=BatchSampler(DistributedSampler(rows)"
            ", batch_size, drop_last))"
        )


def _delivered(
    batches: Batches, rows: list[Rows], transform: Transform | None, pin_memory: bool = False
) -> Iterator[Any]:
    """Yield batches as tensors, given the rows of each; a worker lends their memory."""
    in_worker = get_worker_info() is not None
    lending = in_worker and transform is None
    pieces: dict[int, Any] = {}

    def array(count: int) -> NDArray[Any]:
        shape = (count, *batches.split.images.shape[1:])
        if lending:
            found, pieces[id(found)] = lender().array(shape, batches.dtype)
            return found
        if pin_memory and not in_worker:
            kind = torch.from_numpy(np.empty(0, batches.dtype)).dtype
            return np.asarray(torch.empty(shape, dtype=kind, pin_memory=True))
        return np.empty(shape, batches.dtype)

    for found in batches.serve(rows, array):
        images, *columns = found if isinstance(found, tuple) else (found,)
        if transform is not None:
            x = transform(images)
        elif lending:
            x = lent(images, pieces.pop(id(images)))
        else:
            x = channels_first(images)
        if columns:
            yield x, *map(label_tensor if in_worker else torch.from_numpy, columns)
        else:
            yield x
