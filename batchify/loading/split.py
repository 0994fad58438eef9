"""Split: the batches of a split, and the datasets of the frameworks it trains with."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from batchify.common.system import missing_extra
from batchify.loading.batches import Batches, BatchOptions
from batchify.loading.split_data import SplitData


class Split(SplitData):
    """One split of a file.

    ``split[i]`` is ``(image, label)`` of a row as it is stored, ``split[rows]`` arrays of several,
    by slice, list or array; without labels images alone. It is picklable, and safe in threads and
    in processes, forked or not.

    Parameters
    ----------
    name : str
    images : ndarray or RowArray, shape (N, H, W, C)
        Mapped, where the rows lie side by side in the file.
    labels : ndarray or RowArray, or None
        int64 class index, shape (N,), or float32 one-hot, shape (N, K). Of a manifest also float32
        numbers, shape (N,) or (N, K), or uint8 masks, shape (N, H, W).
    paths : Paths
    classes : tuple of str
    scale_factor : numpy.float32, or None
        What stored pixels are to be multiplied by; None where they are floats already.
    origin : Origin
        How a copy of this in another process opens it again.
    weights : ndarray of float32, shape (N,), or None
    class_mode : str
        What the labels are; see `batchify.choices`. Where they are no classes, `classes` are the
        label columns.
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
    ) -> Batches:
        """Return the batches of this split; each iteration over them is an epoch.

        Parameters
        ----------
        batch_size, shuffle, seed, drop_last, scaled, reuse, prefetch
            See `batchify.loading.batches.BatchOptions`.

        Returns
        -------
        Batches
            Of ``(X, y)``: float32, shape (n, H, W, C), and float32, shape (n,), (n, K) or, of
            masks, (n, H, W), where `scaled`. Without labels, of X alone.

        Examples
        --------
        >>> for X, y in split.batches(32, shuffle=True, seed=1):  # doctest: +SKIP
        ...     model.train_on_batch(X, y)
        """
        options = BatchOptions(batch_size, shuffle, seed, drop_last, scaled, reuse, prefetch)
        return Batches(self, options)

    def to_torch(
        self,
        transform: Callable[[NDArray[Any]], Any] | None = None,
        *,
        batch_size: int | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
        scaled: bool = True,
        prefetch: int = 0,
        pin_memory: bool = False,
    ) -> Any:
        """Return this split as a PyTorch dataset: of rows, or of whole batches.

        Parameters
        ----------
        transform : callable, optional
            Makes of the stored image, an ndarray of shape (H, W, C), what is to be returned; with
            `batch_size`, of the images of a batch, (n, H, W, C). By default images are tensors,
            (C, H, W) or (n, C, H, W), in channels-last memory.
        batch_size : int, optional
            None makes a map-style dataset of rows, for ``DataLoader(rows, 32, shuffle=True)``. A
            number makes an iterable dataset of whole batches, many times faster, for
            ``DataLoader(batches, batch_size=None)``.
        shuffle, drop_last : bool
            For whole batches; rows are shuffled by the loader. The order comes from torch's
            generator: ``torch.manual_seed`` makes it again.
        scaled : bool
            float32 pixels times ``scale_factor``, or the stored ones; a transform is always given
            the stored ones.
        prefetch : int
            For whole batches: how many are read ahead, each by a thread.
        pin_memory : bool
            For whole batches without workers: page-locked memory, where there is a GPU.

        Returns
        -------
        torch.utils.data.Dataset
            Labels are as they are stored: int64 class index, float32 one-hot or numbers, uint8
            masks. Without labels the items are images alone.

        Raises
        ------
        ExtraMissingError
            If PyTorch cannot be imported.
        """
        return _adapter("torch").make_dataset(
            self,
            transform,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            scaled=scaled,
            prefetch=prefetch,
            pin_memory=pin_memory,
        )

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
    ) -> Any:
        """Return this split as a Keras dataset, for ``fit``, ``evaluate`` and ``predict``.

        Parameters
        ----------
        batch_size, shuffle, seed, drop_last, scaled
            See `batchify.loading.batches.BatchOptions`. It draws the order of each epoch itself.
            Pass ``fit(data, shuffle=False)``: Keras would shuffle the batches once more, and
            compressed chunks that several images share would be inflated again and again.
        workers, use_multiprocessing, max_queue_size
            See ``keras.utils.PyDataset``.

        Returns
        -------
        keras.utils.PyDataset
            Of (X, y), as `batches` yields them.

        Raises
        ------
        ExtraMissingError
            If Keras, or its backend, cannot be imported.
        """
        return _adapter("keras").make_dataset(
            self,
            BatchOptions(batch_size, shuffle, seed, drop_last, scaled),
            workers,
            use_multiprocessing,
            max_queue_size,
        )

    def to_tf(
        self,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        scaled: bool = True,
        prefetch: int = 1,
    ) -> Any:
        """Return this split as a TensorFlow dataset of batches; each iteration is an epoch.

        Parameters
        ----------
        batch_size, shuffle, seed, drop_last, scaled, prefetch
            See `batchify.loading.batches.BatchOptions`.

        Returns
        -------
        tf.data.Dataset
            Of (X, y), as `batches` yields them; with its signature and its number of batches.

        Raises
        ------
        ExtraMissingError
            If TensorFlow cannot be imported.
        """
        return _adapter("tensorflow").make_dataset(
            self, BatchOptions(batch_size, shuffle, seed, drop_last, scaled, prefetch=prefetch)
        )

    def to_hf(self) -> Any:
        """Return this split as a Hugging Face dataset; images come as ndarrays, as stored.

        Returns
        -------
        datasets.Dataset
            Columns image (``Array3D``), label (``ClassLabel``, a list of float32 one-hot, a
            number, or ``Array2D`` for a mask), weight where there are any, and path. Images of an
            uncompressed file stay where they are in it, until Hugging Face copies them: in
            ``map``, or to send the dataset to another process. Those of a compressed one, or of
            several files, are written into its cache.

        Raises
        ------
        ExtraMissingError
            If ``datasets`` cannot be imported.
        """
        return _adapter("huggingface").make_dataset(self)


_INSTALLED_BY = {
    "huggingface": ("datasets", ""),
    "keras": ("keras", ", and the backend that KERAS_BACKEND names"),
    "tensorflow": ("tensorflow", ""),
    "torch": ("torch", ""),
}
"""For each module of `batchify.loading.frameworks`: what to install, and what it needs besides."""


def _adapter(name: str) -> Any:
    """Import the module whose ``make_dataset`` makes a framework's dataset of a split.

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
