"""One split of a file, for training: its batches, and its datasets in each framework."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from batchify.choices import check_flag
from batchify.common.system import missing_extra
from batchify.errors import BatchifyError
from batchify.loading.batches import Batches, BatchOptions
from batchify.loading.views import SplitViews


class Split(SplitViews):
    """One split of a file.

    ``split[i]`` is the ``(image, label)`` of a row as stored; with a slice, list or array,
    ``split[rows]`` is two arrays. Without labels, both are only images. It is picklable, and safe
    in threads and in processes, forked or not.

    Parameters
    ----------
    name : str
    images : ndarray or RowArray, shape (N, H, W, C)
        Memory-mapped, if the rows are contiguous in the file.
    labels : ndarray or RowArray, or None
        int64 class index, shape (N,), or float32 one-hot, shape (N, K). From a manifest also
        float32 numbers, shape (N,) or (N, K), or uint8 masks, shape (N, H, W).
    paths : Paths
    classes : tuple of str
    scale_factor : numpy.float32, or None
        The factor to multiply stored pixels by; None if they are floats already.
    origin : Origin
        How a copy in another process opens the split again.
    weights : ndarray of float32, shape (N,), or None
    class_mode : str
        The kind of the labels; see `batchify.choices`. If they are not classes, `classes` are the
        label columns.
    columns : KeptColumns
        The columns of ``--keep-columns``, by name: arrays of int64,
        float64, bool or str, shape (N,).
    """

    def batches(
        self,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        scaled: bool = True,
        reuse: bool = False,
        prefetch: int = 0,
        with_rows: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> Batches:
        """Return the batches of this split; each iteration over them is an epoch.

        Parameters
        ----------
        batch_size, shuffle, seed, drop_last, scaled, reuse, prefetch, with_rows, rank, world_size
            See `batchify.loading.batches.BatchOptions`.

        Returns
        -------
        Batches
            Batches ``(X, y)``. If `scaled`, X is float32, shape (n, H, W, C), and y is float32,
            shape (n,), (n, K) or, for masks, (n, H, W). Without labels, only X. With row numbers,
            ``(X, y, rows)`` or ``(X, rows)``.

        Examples
        --------
        >>> for X, y in split.batches(32, shuffle=True, seed=1):  # doctest: +SKIP
        ...     model.train_on_batch(X, y)
        """
        options = BatchOptions(
            batch_size, shuffle, seed, drop_last, scaled, reuse, prefetch, with_rows, rank,
            world_size,
        )  # fmt: skip
        return Batches(self, options)

    def to_torch(
        self,
        transform: Callable[[Any], Any] | None = None,
        *,
        original: bool = False,
        batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        scaled: bool = True,
        prefetch: int = 0,
        pin_memory: bool = False,
        with_rows: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> Any:
        """Return this split as a PyTorch dataset of rows, or of whole batches.

        Parameters
        ----------
        transform : callable, optional
            Receives the stored image, an ndarray of shape (H, W, C), or with `batch_size` the
            images of a batch, (n, H, W, C); its result is returned instead. By default images are
            tensors, (C, H, W) or (n, C, H, W), in channels-last memory.
        original : bool
            For rows: `transform` receives a PIL image, as torchvision's transforms for training
            expect, in the size of the image that is stored (`pil_image`). Without a transform,
            items are PIL images.
        batch_size : int, optional
            None makes a map-style dataset of rows, for ``DataLoader(rows, 32, shuffle=True)``. A
            number makes an iterable dataset of whole batches, many times faster, for
            ``DataLoader(batches, batch_size=None)``.
        shuffle, drop_last : bool
            For whole batches; the DataLoader shuffles rows.
        seed : int
            For whole batches: the order of an epoch depends only on it and the number of the epoch,
            not on workers or ranks, and not on ``torch.manual_seed``.
        scaled : bool
            float32 pixels times ``scale_factor``, or pixels as stored; a transform always
            receives them as stored.
        prefetch : int
            For whole batches: how many to read ahead, each in a thread.
        pin_memory : bool
            For whole batches without workers: use page-locked memory, if there is a GPU.
        with_rows : bool
            Add the row number to each item, or the int64 row numbers to each batch:
            ``split.paths[row]`` is its file.
        rank, world_size : int, optional
            For whole batches, if several processes train together: which one this is, from 0, and
            how many there are. By default as ``torch.distributed`` says, if it is initialized. Each
            row comes once an epoch over all ranks, and each rank gets as many batches; `batch_size`
            is that of one rank. Pass 0 and 1 to read every row in this process.

        Returns
        -------
        torch.utils.data.Dataset
            Of (X, y). Labels are as stored: int64 class index, float32 one-hot or numbers, uint8
            masks. Without labels, the items are only images. With row numbers, (X, y, rows) or
            (X, rows).

        Raises
        ------
        ExtraMissingError
            If PyTorch cannot be imported.
        OptionError
            If an option is for rows or for batches only, or not valid, or there are fewer rows than
            ranks; `original` for images that are not uint8.
        """
        check_flag("original", original)
        make_dataset = _adapter("torch").make_dataset
        options = BatchOptions(
            1 if batch_size is None else batch_size, shuffle, seed, drop_last,
            scaled and transform is None, prefetch=prefetch, with_rows=with_rows,
        )  # fmt: skip
        return make_dataset(
            self, options, transform, pin_memory, (rank, world_size),
            rows=batch_size is None, original=original,
        )  # fmt: skip

    def to_keras(
        self,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        scaled: bool = True,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
        with_rows: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> Any:
        """Return this split as a Keras dataset, for ``fit``, ``evaluate`` and ``predict``.

        Parameters
        ----------
        batch_size, shuffle, seed, drop_last, scaled, rank, world_size
            See `batchify.loading.batches.BatchOptions`. The dataset draws the order of each epoch
            itself. Pass ``fit(data, shuffle=False)``: otherwise Keras shuffles the batches again,
            and compressed chunks that several images share are decompressed repeatedly.
        workers, use_multiprocessing, max_queue_size
            See ``keras.utils.PyDataset``.
        with_rows : bool
            Yield (X, y, rows), as `batches` does, in a loop of your own. ``fit``, ``evaluate`` and
            ``predict`` take items, ``data[i]``, which are (X, y) even so: they would use a third
            value as sample weights.

        Returns
        -------
        keras.utils.PyDataset
            Batches (X, y), as `batches` yields them. Iterating over it yields those of one epoch,
            each time in the same order; ``on_epoch_end()``, which Keras calls, draws the next one.

        Raises
        ------
        ExtraMissingError
            If Keras, or its backend, cannot be imported.
        """
        make_dataset = _adapter("keras").make_dataset
        options = BatchOptions(
            batch_size, shuffle, seed, drop_last, scaled, with_rows=with_rows, rank=rank,
            world_size=world_size,
        )  # fmt: skip
        return make_dataset(self, options, workers, use_multiprocessing, max_queue_size)

    def to_tf(
        self,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        scaled: bool = True,
        prefetch: int = 1,
        with_rows: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> Any:
        """Return this split as a TensorFlow dataset of batches; each iteration is an epoch.

        Parameters
        ----------
        batch_size, shuffle, seed, drop_last, scaled, prefetch, with_rows, rank, world_size
            See `batchify.loading.batches.BatchOptions`. Before you pass a dataset with row numbers
            to Keras, drop them, ``data.map(lambda X, y, rows: (X, y))``: ``fit`` would use them as
            sample weights.

        Returns
        -------
        tf.data.Dataset
            Batches (X, y), as `batches` yields them, with their signature and their number.

        Raises
        ------
        ExtraMissingError
            If TensorFlow cannot be imported.
        """
        options = BatchOptions(
            batch_size, shuffle, seed, drop_last, scaled, prefetch=prefetch, with_rows=with_rows,
            rank=rank, world_size=world_size,
        )  # fmt: skip
        return _adapter("tensorflow").make_dataset(self, options)

    def to_hf(self) -> Any:
        """Return this split as a Hugging Face dataset; images are ndarrays, as stored.

        Returns
        -------
        datasets.Dataset
            Columns image (``Array3D``), label (``ClassLabel``, a list of float32 one-hot, a
            number, or ``Array2D`` for a mask), weight if the split has weights, and path. Images
            of an uncompressed file are not copied until Hugging Face does so: in ``map``, or to
            send the dataset to another process. Images of a compressed file, or of several files,
            are written to its cache.

        Raises
        ------
        ExtraMissingError
            If ``datasets`` cannot be imported.
        """
        return _adapter("huggingface").make_dataset(self)

    def _repr_html_(self) -> str | None:
        """Return what a notebook shows: a few images of each class."""
        return preview("split_html", self)


def preview(function: str, shown: Any) -> str | None:
    """Return HTML of a file or a split; None if it cannot be read, and the repr is shown.

    `batchify.reporting` is above this package and draws pictures with Pillow, which training does
    not need: as frameworks are, it is asked for by name.
    """
    try:
        found: str = getattr(importlib.import_module("batchify.reporting.preview"), function)(shown)
    except (BatchifyError, OSError):
        return None
    return found


_INSTALLED_BY = {
    "huggingface": ("datasets", ""),
    "keras": ("keras", ", and the backend that KERAS_BACKEND names"),
    "tensorflow": ("tensorflow", ""),
    "torch": ("torch", ""),
}
"""For each adapter in `batchify.loading.frameworks`: what to install, and what else it needs."""


def _adapter(name: str) -> Any:
    """Import an adapter, a module with ``make_dataset``, and its framework.

    Raises
    ------
    ExtraMissingError
        If the framework cannot be imported.
    """
    extra, also = _INSTALLED_BY[name]
    try:
        return importlib.import_module(f"batchify.loading.frameworks.{name}")
    except ImportError as error:
        raise missing_extra(f"this needs {extra}, which", extra, error, also) from error
