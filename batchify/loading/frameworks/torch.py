"""Make PyTorch datasets from a split: of rows, or of whole batches.

The protocol is described at https://docs.pytorch.org/docs/stable/data.html. Images are tensors in
channels-last memory: (C, H, W) views of (H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info

from batchify.choices import check_at_least
from batchify.errors import OptionError
from batchify.loading.arrays import Column, pil_image
from batchify.loading.batches import Batches, BatchOptions
from batchify.loading.chunks import read_ahead
from batchify.loading.frameworks.shared_epochs import SharedEpochs
from batchify.loading.frameworks.shared_memory import channels_first, label_tensor, lender, lent
from batchify.loading.indexing import Rows
from batchify.loading.progress import VERSION, Position, Progress
from batchify.loading.split_data import SplitData

Transform = Callable[[Any], Any]


def make_dataset(
    split: SplitData,
    options: BatchOptions,
    transform: Transform | None,
    pin_memory: bool,
    ranks: tuple[int | None, int | None],
    *,
    rows: bool,
    original: bool,
) -> TorchRows | TorchBatches:
    """Return a PyTorch dataset of the rows of a split, or of whole batches.

    Parameters
    ----------
    ranks : (int or None, int or None)
        Rank and world size; None finds both.

    Raises
    ------
    OptionError
        If rows are asked for with options of batches, batches with options of rows, or the ranks
        are not valid.
    """
    given = [value for value in ranks if value is not None]
    if rows:
        if options.shuffle or options.drop_last or options.prefetch or pin_memory or given:
            raise OptionError(
                "shuffle, drop_last, prefetch, pin_memory, rank and world_size are for whole "
                "batches; give batch_size, or give them to the DataLoader and its sampler"
            )
        if original:
            split.check_pil_images()
        return TorchRows(Batches(split, options, float_labels=False), transform, original)
    if original:
        raise OptionError(
            "original is for rows: images of different sizes are not one batch; "
            "give batch_size to the DataLoader"
        )
    if len(given) == 1:
        raise OptionError("rank and world_size go together: give both, or neither")
    rank, world_size = given or find_ranks()
    batches = Batches(split, replace(options, rank=rank, world_size=world_size), float_labels=False)
    return TorchBatches(batches, transform, pin_memory, ranks_found=not given)


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
        in_threads = len(rows) > 1 and get_worker_info() is None
        return (read_ahead if in_threads else map)(read, rows.tolist())

    def __repr__(self) -> str:
        return f"<PyTorch rows of {self.split!r}>"


class TorchBatches(IterableDataset[Any]):
    """The batches of a split, for a ``DataLoader`` with ``batch_size=None``.

    Each epoch yields each row once over all ranks. Its order depends only on the seed and the
    number of the epoch, whatever the number of ranks and of workers.

    Parameters
    ----------
    transform : callable, or None
        Receives the stored images of a batch, ndarray (n, H, W, C); None makes a tensor
        (n, C, H, W).
    pin_memory : bool
        Read into page-locked memory, if torch has a GPU to copy it to and there are no workers.
    ranks_found : bool
        The rank is that of ``torch.distributed``, and must stay so.
    """

    def __init__(
        self,
        batches: Batches,
        transform: Transform | None,
        pin_memory: bool,
        *,
        ranks_found: bool = False,
    ) -> None:
        self.split = batches.split
        self._batches = batches
        self._transform = transform
        self._pin_memory = pin_memory and torch.cuda.is_available()
        self._ranks_found = ranks_found
        self._epochs = SharedEpochs()
        self._progress: Progress | None = None

    @property
    def epoch(self) -> int:
        """The number of the next epoch, from 0; it counts up, and you may set it."""
        return self._epochs.next

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        epoch = int(epoch) if isinstance(epoch, np.integer) else epoch
        check_at_least("epoch", epoch, 0)
        self._epochs.set(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next epoch; trainers that shuffle call this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        """Begin an epoch; with workers, each yields its share of the batches.

        Raises
        ------
        OptionError
            If ``torch.distributed`` was initialized after this was made.
        """
        self._check_ranks()
        worker = get_worker_info()
        if worker is None:
            epoch = self._epochs.take()
        else:  # the seed of a worker is that of its loader plus its number
            epoch = self._epochs.take_with_others(worker.seed - worker.id, worker.num_workers)
        return TorchEpoch(self, self._batches.begins(epoch))

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Return how far the latest epoch is, as JSON values, for `load_state_dict`.

        The state is the same on every rank. StatefulDataLoader of torchdata calls this itself.

        Parameters
        ----------
        batches : int, optional
            How many batches were used since the epoch began or was resumed. By default those that
            this process got; give it if a DataLoader reads with workers.

        Raises
        ------
        OptionError
            If workers read this epoch and `batches` is not given, or is too large.
        """
        if get_worker_info() is not None:
            return {"version": VERSION}  # that of the iterator says the rest
        latest, progress = self._epochs.next - 1, self._progress
        if progress is None or progress.start.epoch != latest:
            if batches is None and self._epochs.by_workers:
                raise OptionError(
                    "workers read this epoch: pass state_dict(batches=N), the number of batches "
                    "that you used, or use StatefulDataLoader of torchdata"
                )
            if batches is None:
                return self._batches.state_at(self._batches.begins(latest + 1))
            begins = self._batches.begins(max(0, latest))
            progress = Progress(begins, self._batches.ends(begins.row))
        return self._batches.state_at(progress.at(batches))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next epoch continue where a state was saved, with any number of workers.

        The rest of the epoch is what it would have been; with another batch size or number of
        ranks, it is the same rows in the same order.

        Raises
        ------
        OptionError
            If it is a state of other rows or of another order: the message names what differs.
        """
        if get_worker_info() is None:
            position = self._batches.position_in(state)
            self._batches.resume(position)
            self._progress = None
            self._epochs.set(position.epoch)

    def _check_ranks(self) -> None:
        options = self._batches.options
        found = find_ranks()
        if self._ranks_found and found != (options.rank, options.world_size):
            raise OptionError(
                f"this was made for rank {options.rank} of {options.world_size}, but "
                f"torch.distributed says rank {found[0]} of {found[1]}: call to_torch() after "
                "init_process_group()"
            )

    def __repr__(self) -> str:
        return f"<PyTorch batches of {self.split!r}>"


class TorchEpoch(Iterator[Any]):
    """One epoch of `TorchBatches` in one process; its state is for StatefulDataLoader.

    The state of a worker depends on the number of workers: torchdata keeps one for each.
    """

    def __init__(self, dataset: TorchBatches, begins: Position) -> None:
        worker = get_worker_info()
        self._worker: int = 0 if worker is None else worker.id
        self._workers: int = 1 if worker is None else worker.num_workers
        self._dataset = dataset
        self._batches = dataset._batches
        self._move(begins, 0)

    def _move(self, begins: Position, served: int) -> None:
        self._progress = Progress(begins, self._batches.ends(begins.row))
        self._progress.served = served
        self._dataset._progress = self._progress
        self._serving: Iterator[Any] | None = None

    def __next__(self) -> Any:
        if self._serving is None:
            begins = self._progress.start
            every = self._batches.cut(self._batches.order(begins.epoch), begins.row)
            # The loader takes from the workers in turn.
            mine = every[self._worker + self._workers * self._progress.served :: self._workers]
            dataset = self._dataset
            delivered = _delivered(self._batches, mine, dataset._transform, dataset._pin_memory)
            self._serving = self._progress.count(delivered)
        return next(self._serving)

    def state_dict(self) -> dict[str, Any]:
        """Return how far this is, as JSON values."""
        progress = self._progress
        if self._workers == 1:
            return self._batches.state_at(progress.at(progress.served))
        return {
            **self._batches.state_at(progress.start),
            **self._share(),
            "served": progress.served,
        }

    def _share(self) -> dict[str, Any]:
        """Return what decides which batches are those of this worker."""
        options = self._batches.options
        return {
            "worker": self._worker,
            "workers": self._workers,
            "rows_per_step": options.batch_size * options.world_size,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state was saved.

        Raises
        ------
        OptionError
            If it is a state of other batches, or of another number of workers.
        """
        begins = self._batches.position_in(state)
        wanted = self._share() if self._workers > 1 else {"workers": 1}
        for key, value in wanted.items():
            if state.get(key, 1) != value:
                raise OptionError(
                    f"this state was saved with {key}={state.get(key, 1)}, not {value}: "
                    "StatefulDataLoader needs the same number of workers and, with workers, the "
                    "same number of rows in a step of all ranks; load_state_dict() of the dataset "
                    "needs neither"
                )
        self._move(begins, state.get("served", 0))
        self._dataset._epochs.set(begins.epoch + 1, by_workers=get_worker_info() is not None)


def find_ranks() -> tuple[int, int]:
    """Return the rank and the world size of ``torch.distributed``; (0, 1) without it."""
    ranks = torch.distributed
    if ranks.is_available() and ranks.is_initialized():
        return ranks.get_rank(), ranks.get_world_size()
    return 0, 1


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
