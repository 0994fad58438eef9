"""Make a Keras PyDataset from a split.

https://keras.io/api/utils/python_utils/#pydataset-class
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import keras

from batchify.loading.batches import Batches, BatchOptions
from batchify.loading.prefetching import Batch
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
    """The batches of a split; item i is the i-th batch of an epoch.

    Keras takes items, (X, y). Iteration, which Keras does not use, also yields the row numbers if
    the options ask for them.
    """

    def __init__(
        self, batches: Batches, workers: int, use_multiprocessing: bool, max_queue_size: int
    ) -> None:
        super().__init__(workers, use_multiprocessing, max_queue_size)
        self._batches = batches
        self._rows = batches.cut(batches.order(batches.epoch))

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        """Return a batch: (X, y), float32."""
        found = self._batches.read(self._rows[index])
        if not self._batches.options.with_rows:
            return found
        *batch, _ = found
        return tuple(batch) if len(batch) > 1 else batch[0]

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of this epoch, with their row numbers if they are asked for."""
        return self._batches.serve(self._rows)

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch; Keras calls this."""
        self._batches.epoch += 1
        if self._batches.options.shuffle:
            self._rows = self._batches.cut(self._batches.order(self._batches.epoch))

    def __repr__(self) -> str:
        return f"<Keras batches of {self._batches.split!r}>"


@functools.cache
def as_py_dataset(own: type) -> type:
    """Return a class that is also ``keras.utils.PyDataset``, only for ``isinstance``."""
    return type(own.__name__, (own, keras.utils.PyDataset), {"__module__": own.__module__})
