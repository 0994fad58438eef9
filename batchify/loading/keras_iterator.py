"""An endless iterator of batches that is also a sequence of them, as Keras' own.

https://github.com/keras-team/keras-preprocessing/blob/1.1.2/keras_preprocessing/image/iterator.py
"""

from __future__ import annotations

import importlib
import operator
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from batchify.errors import OptionError
from batchify.loading.progress import VERSION, check_same, check_state
from batchify.planning.policies import Indices, keras_random

LoaderBatch = tuple[NDArray[np.float32], NDArray[np.float32]] | NDArray[np.float32]
"""(images, labels), or images alone."""


Stream = list[int]
"""What was drawn from a generator since it was seeded: the number of batches seen by then, and
after it how many numbers were drawn each time, 0 for a permutation of the samples."""


class KerasIterator(ABC):
    """Batches in the order in which Keras' iterator draws them, by ``next`` and by their number.

    Safe in threads. Keras takes it as a ``keras.utils.PyDataset``.

    Attributes
    ----------
    index_array : ndarray of int32, or None
        The order of the current epoch; None before the first batch.
    batch_index : int
        The number of the batch that ``next`` returns, in its epoch.
    total_batches_seen : int
        Batches returned so far.
    workers, use_multiprocessing, max_queue_size
        How Keras reads the batches; see ``keras.utils.PyDataset``.
    """

    def __init__(self, samples: int, batch_size: int, *, shuffle: bool, seed: int) -> None:
        self.samples = self.n = samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.index_array: Indices | None = None
        self.batch_index = 0
        self.total_batches_seen = 0
        self.workers = 1
        self.use_multiprocessing = False
        self.max_queue_size = 10
        self._random = keras_random(seed, 0)
        self._stream: Stream = [0]
        self._drawn: Stream | None = None
        self._lock = threading.Lock()

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """What ``isinstance`` takes it for: also a ``keras.utils.PyDataset``, if Keras is imported.

        Keras asks for an instance of its own class. That cannot be a base class: a loader may be
        older than the import of Keras, which takes seconds that not everyone needs.
        """
        own = type(self)
        if sys.modules.get("keras") is None:
            return own
        try:
            adapter = importlib.import_module("batchify.loading.frameworks.keras")
        except (ImportError, AttributeError):  # no backend, or Keras 2, which takes generators
            return own
        found: type = adapter.as_py_dataset(own)
        return found

    @abstractmethod
    def _read(self, numbers: Indices) -> LoaderBatch:
        """Return the batch of some samples."""

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch, as ``len``; Keras reads it."""
        return len(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> LoaderBatch:
        """Return the next batch; after the last one of an epoch, the first of the next epoch.

        Returns
        -------
        images : ndarray of float32, shape (n, H, W, C)
            Pixels times rescale.
        labels : ndarray of float32, shape (n,), (n, classes) or, for masks, (n, H, W)
            float32 as in Keras; with class mode ``input``, a copy of the images. Without labels
            (class mode none), images alone.

        Raises
        ------
        BadImagesError
            If an image of the batch cannot be read or decoded.
        StopIteration
            If there are no samples.
        """
        if not self.samples:
            raise StopIteration
        with self._lock:
            self._seed_batch()
            order = self._order() if self.batch_index else self._draw()
            chosen = self._cut(order, self.batch_index)
            self.batch_index = (self.batch_index + 1) % len(self)
        return self._read(chosen)

    def next(self) -> LoaderBatch:
        """Return the next batch, as ``next(loader)``."""
        return self.__next__()

    def __getitem__(self, index: int) -> LoaderBatch:
        """Return a batch of the current epoch by its number; negative numbers count from the end.

        Raises
        ------
        OptionError
            If the epoch has no such batch; it is a ValueError, as in Keras.
        BadImagesError
            If an image of the batch cannot be read or decoded.
        """
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise OptionError(f"there is no batch {number}: an epoch has {len(self):,}")
        with self._lock:
            self._seed_batch()
            chosen = self._cut(self._order(), number % len(self))
        return self._read(chosen)

    def on_epoch_begin(self) -> None:  # noqa: B027 - a hook that Keras calls
        """Do nothing; Keras calls this."""

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch for ``loader[i]``; Keras calls this."""
        with self._lock:
            self._order()  # or it would come again, if other processes read this epoch
            self._draw()

    def reset(self) -> None:
        """Start a new epoch with the next batch.

        As in Keras, the new order depends on the number of batches seen so far; only a new loader
        repeats the first epoch.
        """
        self.batch_index = 0

    def state_dict(self) -> dict[str, Any]:
        """Return which batch ``next`` returns, as JSON values, for `load_state_dict`."""
        with self._lock:
            return {
                "version": VERSION,
                **self._described(),
                "batch_index": self.batch_index,
                "total_batches_seen": self.total_batches_seen,
                "drawn": self._drawn,
                "stream": self._stream,
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state was saved: ``next`` returns the batch that followed.

        Raises
        ------
        OptionError
            If it is a state of other images, or of another batch size or order: the message names
            what differs.
        """
        check_state(state, {"batch_index", "total_batches_seen", "drawn", "stream"})
        check_same(state, self._described())
        drawn: Stream | None = state["drawn"]
        with self._lock:
            self.index_array = None
            if drawn is not None:
                self._replay(drawn)
                self._draw()
            self._replay(state["stream"])
            self.batch_index = state["batch_index"]
            self.total_batches_seen = state["total_batches_seen"]

    def _described(self) -> dict[str, Any]:
        """Return what decides which batches follow."""
        return {
            "files": self._checksum(),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }

    @abstractmethod
    def _checksum(self) -> str:
        """Return a checksum of the samples and their order."""

    def _replay(self, stream: Stream) -> None:
        """Draw what was drawn."""
        self._random = keras_random(self.seed, stream[0])
        for count in stream[1:]:
            if count:
                self._random.random_sample(count)
            else:
                self._random.permutation(self.samples)
        self._stream = list(stream)

    def _seed_batch(self) -> None:
        self._random = keras_random(self.seed, self.total_batches_seen)
        self._stream = [self.total_batches_seen]
        self.total_batches_seen += 1

    def _order(self) -> Indices:
        return self._draw() if self.index_array is None else self.index_array

    def _draw(self) -> Indices:
        count = self.samples
        self._drawn = self._stream
        order = np.arange(count)
        if self.shuffle:
            order = self._random.permutation(count)
            self._stream = [*self._stream, 0]
        self.index_array = order.astype(np.int32)
        return self.index_array

    def _cut(self, order: Indices, number: int) -> Indices:
        found = order[number * self.batch_size :][: self.batch_size]
        # Keras draws whether to flip each image, even if it never does, and `on_epoch_end`
        # continues in the same stream.
        self._random.random_sample(2 * len(found))
        self._stream = [*self._stream, 2 * len(found)]
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return object.__new__, (type(self),), {**vars(self), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())
