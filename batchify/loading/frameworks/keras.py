"""Make a Keras PyDataset from a split.

https://keras.io/api/utils/python_utils/#pydataset-class
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from batchify.loading.batches import Batches, BatchOptions
from batchify.loading.prefetching import Batch
from batchify.loading.progress import Position, Progress
from batchify.loading.split_data import SplitData


def make_dataset(
    split: SplitData,
    options: BatchOptions,
    workers: int,
    use_multiprocessing: bool,
    max_queue_size: int,
) -> KerasBatches:
    """Return a ``keras.utils.PyDataset`` of the batches of a split."""
    return KerasBatches(Batches(split, options), workers, use_multiprocessing, max_queue_size)


class KerasBatches(keras.utils.PyDataset):
    """The batches of a split; item i is the i-th batch of an epoch, of this rank.

    ``len()`` is the number of batches of this epoch: fewer while it is one that was resumed.

    Keras takes items, (X, y). Iteration, which Keras does not use, also yields the row numbers if
    the options ask for them.
    """

    def __init__(
        self, batches: Batches, workers: int, use_multiprocessing: bool, max_queue_size: int
    ) -> None:
        super().__init__(workers, use_multiprocessing, max_queue_size)
        self._batches = batches
        self._at_start = True
        self._begun = self._read = False
        self._draw()

    def _draw(self) -> None:
        self._begins = self._batches.begins(self.epoch)
        self._rows = self._batches.cut(self._batches.order(self.epoch), self._begins.row)

    @property
    def epoch(self) -> int:
        """The number of this epoch, from 0."""
        return self._batches.epoch

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Batch:
        """Return a batch: (X, y), float32."""
        self._read = True
        found = self._batches.read(self._rows[index])
        if not self._batches.options.with_rows:
            return found
        *batch, _ = found
        return tuple(batch) if len(batch) > 1 else batch[0]

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of this epoch, with their row numbers if they are asked for."""
        self._read = True
        return self._batches.serve(self._rows)

    def on_epoch_begin(self) -> None:
        """Note that Keras reads; it calls this."""
        self._begun = True

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch; Keras calls this.

        ``fit`` also calls it before its first epoch, if it builds the model after it looked at one
        batch. This is not the end of an epoch.
        """
        before_first = self._at_start and self._begun
        is_end = not before_first and (self._begun or self._read)
        self._at_start = self._begun = self._read = False
        if is_end:
            self._batches.epoch += 1
            self._draw()

    def state_dict(self, batches: int) -> dict[str, Any]:
        """Return a position in this epoch as JSON values, for `load_state_dict`.

        Parameters
        ----------
        batches : int
            How many batches the model has trained on since the epoch began or was resumed: in a
            callback, ``batch + 1``. What Keras reads ahead does not count.

        Raises
        ------
        OptionError
            If this epoch has fewer batches.
        """
        progress = Progress(self._begins, self._batches.ends(self._begins.row))
        return self._batches.state_at(progress.at(batches))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state was saved: this epoch then has the batches that are left.

        If none are left, it is the next epoch.

        Raises
        ------
        OptionError
            As `batchify.loading.batches.Batches.load_state_dict`.
        """
        position = self._batches.position_in(state)
        if len(self._batches.ends(position.row)) == 1:
            position = Position(position.epoch + 1)
        self._batches.resume(position)
        self._at_start = True
        self._begun = self._read = False
        self._draw()

    def __repr__(self) -> str:
        return f"<Keras batches of {self._batches.split!r}>"


@functools.cache
def as_py_dataset(own: type) -> type:
    """Return a class that is also ``keras.utils.PyDataset``, only for ``isinstance``."""
    return type(own.__name__, (own, keras.utils.PyDataset), {"__module__": own.__module__})
