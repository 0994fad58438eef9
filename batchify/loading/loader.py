"""Stream batches from a folder of images, like a Keras generator.

A build stores the same batches: `batchify.planning.policies.keras_random` draws the order of both,
and `batchify.decoding.batch.BatchReader` reads both.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import replace
from typing import Any, Self, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from batchify.common.keywords import LoaderKeywords, OptionKeywords, make_options, shows_options
from batchify.common.text import labelled, plural, printable
from batchify.datasets.dataset import Dataset, sample_labels
from batchify.datasets.manifest import read_dataset
from batchify.decoding.batch import BatchReader
from batchify.decoding.damage import check_strict_decode
from batchify.decoding.formats import check_extensions
from batchify.decoding.pixel_writer import Transform
from batchify.errors import BadImagesError, OptionError, Skipped, issue_warnings
from batchify.loading.keras_iterator import KerasIterator, LoaderBatch
from batchify.options import BuildOptions
from batchify.planning.limits import draw_samples
from batchify.planning.plan_warnings import plan_warnings
from batchify.planning.planner import draw_splits
from batchify.planning.policies import Indices
from batchify.workers.engine import Workers


class Loader(KerasIterator):
    """An endless stream of the batches of one split, like a Keras generator.

    Use it as Keras' directory iterator: ``model.fit(loader)`` takes it as a
    ``keras.utils.PyDataset``, ``next(loader)`` is the next batch, and ``loader[i]`` is batch i of
    the current epoch. ``len(loader)`` is the number of batches in an epoch; the last one may be
    partial. Iteration never ends: the next epoch follows, in another order. Images are decoded when
    their batch is asked for: memory is one batch, one decoded image and the table of the files.

    It is picklable, and safe in threads.

    Parameters
    ----------
    dataset : Dataset
    rows : ndarray of int32
        Samples of the split, unshuffled.
    options : BuildOptions, optional
        Target size, color mode, batch size, class mode, rescale, shuffle and seed.
    transform : callable, optional
        See `from_directory`.
    images_as_labels : bool
        Each batch is (images, the same images), whatever the class mode is.

    Attributes
    ----------
    samples, n : int
        Images in an epoch.
    batch_size : int
        Images in a full batch.
    index_array, batch_index, total_batches_seen, workers, use_multiprocessing, max_queue_size
        See `batchify.loading.keras_iterator.KerasIterator`.

    Examples
    --------
    >>> loader = Loader.from_directory("photos", subset="train", batch_size=32)  # doctest: +SKIP
    >>> model.fit(loader, epochs=3)                                              # doctest: +SKIP
    >>> for images, labels in itertools.islice(loader, len(loader)):             # doctest: +SKIP
    ...     model.train_on_batch(images, labels)
    """

    def __init__(
        self,
        dataset: Dataset,
        rows: Indices,
        options: BuildOptions | None = None,
        *,
        transform: Transform | None = None,
        images_as_labels: bool = False,
    ) -> None:
        self._options = options or BuildOptions()
        split = self._options.split
        super().__init__(
            len(rows), self._options.batch_size, shuffle=split.shuffle, seed=split.seed
        )
        self._dataset = dataset
        self._rows = rows
        self._transform = transform
        self._images_as_labels = images_as_labels
        self._readers = threading.local()
        self._files_checksum: str | None = None

    @classmethod
    @shows_options
    def from_directory(
        cls,
        directory: str | os.PathLike[str],
        options: BuildOptions | None = None,
        *,
        subset: str | None = "train",
        transform: Transform | None = None,
        **keywords: Unpack[LoaderKeywords],
    ) -> Self:
        """Make a loader for one split of a dataset folder, with Keras' parameters.

        Parameters
        ----------
        directory : path
        options : BuildOptions, optional
            All options at once, to use them again.
        **keywords
            Single options, as for `batchify.build`, which override those of `options`. How a file
            stores images makes no difference here: batches are float32. As in Keras, the class mode
            may also be None, which is ``none``, or ``input``: the labels of a batch are its images;
            and the classes may be None, which is all of them.
        subset : str or None
            ``train``, ``validation`` or ``test``; Keras' ``training`` is ``train``. None takes all
            images.
        transform : callable, optional
            Keras' ``preprocessing_function``: called with each image, an ndarray of float32 of
            shape (H, W, C), before `rescale`; returns an array of that shape.

        Raises
        ------
        OptionError
            If there is no such split, or an option is not valid.
        DatasetNotFoundError, DatasetError
            As `batchify.discover`.
        """
        if transform is not None and not callable(transform):
            raise TypeError(f"transform must be a function, not {transform!r}")
        mode = keywords.get("class_mode", "")
        if mode is None or mode == "input":
            keywords["class_mode"] = "none"
        if keywords.get("classes", ()) is None:
            keywords["classes"] = ()
        options = make_options(options, cast("OptionKeywords", keywords))
        if options.split.exclude_rows:
            raise OptionError(
                "exclude_rows lists rows of a build, and a loader has none; pass the paths, "
                "exclude=['@FILE']"
            )
        check_extensions(options.discover.extensions)
        check_strict_decode(options.decode)
        found = read_dataset(directory, options)
        found.check_linked("pass follow_links=True to read it")
        if subset is None:
            _check_labels(found, options.store.class_mode)
            found = replace(found, splits=None)
            all_rows = np.arange(len(found.samples), dtype=np.int32)
            dataset, splits = draw_samples(found, {"train": all_rows}, options.split)
        else:
            with Workers(None) as workers:
                dataset, splits = draw_splits(found, options, workers, lambda _: None)
        name = "train" if subset in (None, "training") else subset
        if name not in splits:
            raise OptionError(f"there is no split {subset!r}, only {', '.join(splits)}")
        issue_warnings(plan_warnings(dataset, splits, options))
        as_labels = mode == "input"
        return cls(dataset, splits[name], options, transform=transform, images_as_labels=as_labels)

    @property
    def target_size(self) -> tuple[int, int]:
        """(height, width)."""
        return self._options.decode.target_size

    @property
    def color_mode(self) -> str:
        """See `batchify.choices`."""
        return self._options.decode.color_mode

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of an image of a batch."""
        return self._options.decode.image_shape

    @property
    def class_mode(self) -> str:
        """``input``, or the kind of the labels; see `batchify.choices`."""
        return "input" if self._images_as_labels else self._options.store.class_mode

    @property
    def class_indices(self) -> dict[str, int]:
        """Class name to index."""
        return self._dataset.class_to_idx

    @property
    def num_classes(self) -> int:
        """How many classes the dataset has."""
        return len(self._dataset.classes)

    @property
    def filenames(self) -> list[str]:
        """Paths relative to the dataset folder, unshuffled."""
        return [os.fsdecode(path) for path in self._dataset.samples.paths(self._rows)]

    @property
    def filepaths(self) -> list[str]:
        """`filenames` with the path of the dataset in front."""
        folder = os.fsdecode(self._dataset.source.location)
        return [os.path.join(folder, name) for name in self.filenames]

    @property
    def classes(self) -> NDArray[np.int32]:
        """Class index of each of `filenames`, shape (n,); zeros if labels are not classes."""
        return self._dataset.samples.labels[self._rows]

    @property
    def labels(self) -> NDArray[np.int32]:
        """The same as `classes`."""
        return self.classes

    def __repr__(self) -> str:
        height, width, channels = self.image_shape
        found = labelled(self._options.store.class_mode, self.num_classes)
        return (
            f"<batchify loader of {self._dataset.name}: {plural(self.samples, 'image')} of "
            f"{height}×{width}×{channels}, {plural(len(self), 'batch', 'batches')} of "
            f"{self.batch_size}, {found}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        make, given, state = super().__reduce__()
        return make, given, {**state, "_readers": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._readers = threading.local()

    def _checksum(self) -> str:
        if self._files_checksum is None:
            names = b"".join(path + b"\0" for path in self._dataset.samples.paths(self._rows))
            self._files_checksum = hashlib.sha256(names).hexdigest()[:16]
        return self._files_checksum

    def _read(self, numbers: Indices) -> LoaderBatch:
        rows = self._rows[numbers]
        columns = self._columns(rows)
        images: NDArray[np.float32] = columns["images"]
        if self._images_as_labels:
            return images, images.copy()
        labels = sample_labels(self._dataset, rows, self._options.store.class_mode)
        if labels is None:
            labels = columns.get("labels")
        return images if labels is None else (images, labels.astype(np.float32, copy=False))

    def _columns(self, rows: Indices) -> dict[str, NDArray[Any]]:
        files = self._dataset.samples.files(rows)
        masks = self._dataset.annotations.mask_files(rows)
        batch = self._reader().read(files, masks=masks)
        if batch.bad:
            bad = tuple(Skipped(files[i].path, reason) for i, reason in batch.bad)
            first = bad[0]
            raise BadImagesError(
                f"{len(bad)} of {len(files)} images of a batch failed, "
                f"the first {printable(first.path)}: {first.reason}",
                bad,
            )
        return batch.columns

    def _reader(self) -> BatchReader:
        """Return a reader of this thread and process: two must not share a connection."""
        pid, reader = getattr(self._readers, "opened", (0, None))
        if reader is None or pid != os.getpid():
            reader = BatchReader(
                self._dataset.source.open_reader(),
                self._options.decode,
                store=replace(self._options.store.as_pixels(), dtype="float32", compression="none"),
                transform=self._transform,
            )
            self._readers.opened = os.getpid(), reader
        found: BatchReader = reader
        return found


def _check_labels(dataset: Dataset, class_mode: str) -> None:
    """Refuse to mix images with and without labels."""
    if dataset.unlabelled and class_mode != "none":
        raise OptionError(
            f"{' and '.join(dataset.unlabelled)} has no labels: name a subset, or pass "
            'class_mode="none"'
        )
