"""Stream batches from a folder of images, as a Keras generator does.

A build stores the same batches: `batchify.planning.policies.keras_order` gives the order of both,
and `batchify.decoding.batch.BatchReader` reads both.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from batchify.common.keywords import OptionKeywords, make_options, shows_options
from batchify.common.text import printable
from batchify.datasets.dataset import Dataset, sample_labels
from batchify.datasets.manifest import read_dataset
from batchify.decoding.batch import BatchReader
from batchify.decoding.formats import check_extensions
from batchify.errors import BadImagesError, OptionError, Skipped, issue_warnings
from batchify.loading.indexing import count_batches, cut_batches
from batchify.options import BuildOptions
from batchify.planning.doubts import plan_warnings
from batchify.planning.planner import draw_splits
from batchify.planning.policies import Indices, keras_order
from batchify.workers.engine import Workers


class Loader:
    """An endless stream of the batches of one split, as a Keras generator yields them.

    ``len(loader)`` is the number of batches in an epoch; the last one may be partial. Iteration
    never ends: the next epoch follows, in another order. Images are decoded when their batch is
    asked for: memory is one batch, one decoded image and the table of the files.

    Parameters
    ----------
    dataset : Dataset
    rows : ndarray of int32
        Samples of the split, unshuffled.
    options : BuildOptions, optional
        Target size, color mode, batch size, class mode, rescale, shuffle and seed.

    Examples
    --------
    >>> loader = Loader.from_directory("photos", subset="train", batch_size=32)  # doctest: +SKIP
    >>> for images, labels in itertools.islice(loader, len(loader)):             # doctest: +SKIP
    ...     model.train_on_batch(images, labels)
    """

    def __init__(
        self, dataset: Dataset, rows: Indices, options: BuildOptions | None = None
    ) -> None:
        self._options = options or BuildOptions()
        self._dataset = dataset
        self._rows = rows
        self._reader = BatchReader(
            dataset.source.open_reader(),
            self._options.decode,
            store=replace(
                self._options.store, dtype="float32", store="decoded", compression="none"
            ),
        )
        self._batch_index = 0
        self._batches_seen = 0
        self._batches: list[Indices] = []

    @classmethod
    @shows_options
    def from_directory(
        cls,
        directory: str | os.PathLike[str],
        options: BuildOptions | None = None,
        *,
        subset: str = "train",
        **keywords: Unpack[OptionKeywords],
    ) -> Self:
        """Make a loader for one split of a dataset folder, with Keras' parameters.

        Parameters
        ----------
        directory : path
        options : BuildOptions, optional
            All options at once, to use them again.
        **keywords
            Single options, as for `batchify.build`, which override those of `options`. How a file
            stores images makes no difference here: batches are float32.
        subset : str
            ``train``, ``validation`` or ``test``; Keras' ``training`` is ``train``.

        Raises
        ------
        OptionError
            If there is no such split, or an option is not valid.
        DatasetNotFoundError, DatasetError
            As `batchify.discover`.
        """
        options = make_options(options, keywords)
        check_extensions(options.discover.extensions)
        found = read_dataset(directory, options)
        found.check_linked("pass follow_links=True to read it")
        with Workers(None) as workers:
            dataset, splits = draw_splits(found, options, workers, lambda _: None)
        name = "train" if subset == "training" else subset
        if name not in splits:
            raise OptionError(f"there is no split {subset!r}, only {', '.join(splits)}")
        issue_warnings(plan_warnings(dataset, splits, options))
        return cls(dataset, splits[name], options)

    @property
    def seed(self) -> int:
        """The random seed for the order of each epoch."""
        return self._options.split.seed

    @property
    def batch_size(self) -> int:
        """Images in a full batch."""
        return self._options.batch_size

    @property
    def class_indices(self) -> dict[str, int]:
        """Class name to index."""
        return self._dataset.class_to_idx

    @property
    def filenames(self) -> list[str]:
        """Paths relative to the dataset folder, unshuffled."""
        return [os.fsdecode(path) for path in self._dataset.samples.paths(self._rows)]

    @property
    def classes(self) -> NDArray[np.int32]:
        """Class index of each of `filenames`, shape (n,); zeros if the labels are not classes."""
        return self._dataset.samples.labels[self._rows]

    @property
    def samples(self) -> int:
        """Images in an epoch."""
        return len(self._rows)

    def __len__(self) -> int:
        return count_batches(self.samples, self.batch_size)

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | NDArray[np.float32]:
        """Return the next batch; after the last one of an epoch, the first of the next epoch.

        Returns
        -------
        images : ndarray of float32, shape (n, H, W, C)
            Pixels times rescale.
        labels : ndarray of float32, shape (n,), (n, classes) or, for masks, (n, H, W)
            float32 as in Keras. Without labels (class mode none), images alone.

        Raises
        ------
        BadImagesError
            If an image of the batch cannot be read or decoded.
        StopIteration
            If the split is empty.
        """
        if not len(self._rows):
            raise StopIteration
        if self._batch_index == 0:
            order = keras_order(
                len(self._rows),
                shuffle=self._options.split.shuffle,
                seed=self.seed,
                batches_seen=self._batches_seen,
            )
            self._batches = cut_batches(self._rows[order], self.batch_size)
        chosen = self._batches[self._batch_index]
        self._batch_index = (self._batch_index + 1) % len(self)
        self._batches_seen += 1
        columns = self._columns(chosen)
        images: NDArray[np.float32] = columns["images"]
        labels = sample_labels(self._dataset, chosen, self._options.store.class_mode)
        if labels is None:
            labels = columns.get("labels")
        return images if labels is None else (images, labels.astype(np.float32, copy=False))

    def reset(self) -> None:
        """Start a new epoch with the next batch.

        As in Keras, the new order depends on the number of batches seen so far; only a new loader
        repeats the first epoch.
        """
        self._batch_index = 0

    def _columns(self, rows: Indices) -> dict[str, NDArray[Any]]:
        files = self._dataset.samples.files(rows)
        masks = self._dataset.annotations.mask_files(rows)
        batch = self._reader.read(files, masks=masks)
        if batch.bad:
            bad = tuple(Skipped(files[i].path, reason) for i, reason in batch.bad)
            first = bad[0]
            raise BadImagesError(
                f"{len(bad)} of {len(files)} images of a batch failed, "
                f"the first {printable(first.path)}: {first.reason}",
                bad,
            )
        return batch.columns
