"""Feed whole batches of a split to PyTorch: shared among ranks and workers, and resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from batchify.choices import check_at_least
from batchify.errors import OptionError
from batchify.loading.batches import Batches
from batchify.loading.frameworks.shared_epochs import SharedEpochs
from batchify.loading.frameworks.shared_memory import channels_first, label_tensor, lender, lent
from batchify.loading.indexing import Rows
from batchify.loading.progress import VERSION, Position, Progress

Transform = Callable[[Any], Any]


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
            found = as_tensors(self._batches, mine, dataset._transform, dataset._pin_memory)
            self._serving = self._progress.count(found)
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


def as_tensors(
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
