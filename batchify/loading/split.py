"""Split: images, labels, paths; to_torch, to_keras, to_tf, to_hf."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.system import import_adapter
from batchify.common.text import labelled
from batchify.errors import OptionError
from batchify.loading.arrays import RowArray, gather, only_pixels
from batchify.loading.batches import Batches, BatchOptions
from batchify.loading.indexing import Chain, Rows, row_numbers
from batchify.loading.origin import Origin, reopened


class Paths(Sequence[str]):
    """The paths of the rows, decoded when they are asked for.

    Parameters
    ----------
    stored : sequence of ndarray of bytes
        Of each file, one after another.
    """

    def __init__(self, stored: Sequence[NDArray[np.bytes_]]) -> None:
        self.stored = tuple(stored)
        self._chain = Chain(map(len, stored))

    def __len__(self) -> int:
        return self._chain.count

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> list[str]: ...
    def __getitem__(self, key: int | slice) -> str | list[str]:
        """Return a path, relative to the dataset folder, or a list of them."""
        rows = row_numbers(key, len(self))
        return self._path(int(rows)) if rows.ndim == 0 else list(map(self._path, rows.tolist()))

    def _path(self, row: int) -> str:
        part, inner = self._chain.find(row)
        return os.fsdecode(bytes(self.stored[part][inner]))


SplitT = TypeVar("SplitT", bound="EncodedAccess")


class EncodedAccess:
    """The files' own bytes, and other sizes to decode them at: a part of `Split`.

    Each raises `OptionError` where the file stores decoded images.
    """

    images: Images
    origin: Origin

    def encoded(self, row: int) -> bytes:
        """Return the file that a row was made of, byte by byte as it was.

        Raises
        ------
        OptionError, IndexError
        FileAccessError
            If it cannot be read.
        """
        images, number = self._at(row)
        return images.encoded(number)

    def decode(self, row: int) -> NDArray[Any]:
        """Return a row at the size of its source, shape (h, w, C), not resized.

        Colour mode, EXIF and dtype are those of the split.

        Raises
        ------
        OptionError, IndexError
        FileAccessError, FileFormatError
            If it cannot be read or decoded.
        """
        images, number = self._at(row)
        return images.decode(number)

    def resized(
        self: SplitT,
        target_size: tuple[int, int],
        *,
        interpolation: choices.Interpolation | None = None,
        fit: choices.Fit | None = None,
        scaled_decode: bool | None = None,
    ) -> SplitT:
        """Return this split with images of another size; nothing is decoded yet.

        Parameters
        ----------
        target_size : tuple of int
            (height, width).
        interpolation, fit, scaled_decode
            As for `build`; by default as the file was built.

        Raises
        ------
        OptionError
        """
        overrides = replace(
            self.origin.overrides,
            target_size=target_size,
            interpolation=interpolation,
            fit=fit,
            scaled_decode=scaled_decode,
        )
        images = self._row_array().decoded_with(overrides)
        found = object.__new__(type(self))  # all else of it is the same
        vars(found).update(vars(self))
        found.images, found.origin = images, images.origin
        return found

    def _at(self, row: int) -> tuple[RowArray, int]:
        number = row_numbers(row, len(self.images))
        if number.ndim:
            raise IndexError(f"one row at a time, not {row!r}")
        return self._row_array(), int(number)

    def _row_array(self) -> RowArray:
        if not isinstance(self.images, RowArray):
            raise only_pixels(self.origin)
        return self.images


Images = NDArray[Any] | RowArray


class Split(EncodedAccess):
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

    def __init__(
        self,
        name: str,
        images: Images,
        labels: NDArray[Any] | RowArray | None,
        paths: Paths,
        classes: tuple[str, ...],
        scale_factor: np.float32 | None,
        origin: Origin,
        *,
        weights: NDArray[np.float32] | None = None,
        class_mode: str = "sparse",
    ) -> None:
        self.name = name
        self.images = images
        self.labels = labels
        self.paths = paths
        self.classes = classes
        self.scale_factor = scale_factor
        self.origin = origin
        self.weights = weights
        self.class_mode = class_mode

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each class."""
        return {name: index for index, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Any) -> Any:
        """Return (image, label) of a row, or (images, labels) of several; copies, as stored."""
        rows = row_numbers(key, len(self))
        images = np.empty((rows.size, *self.images.shape[1:]), self.images.dtype)
        gather(self.images, rows.ravel(), images)
        images = images.reshape(*rows.shape, *self.images.shape[1:])
        return images if self.labels is None else (images, self.labels[rows])

    def __getitems__(self, rows: Sequence[int]) -> list[Any]:
        """Return ``[self[row] for row in rows]``, gathered together: what PyTorch's loader asks."""
        found = self[np.asarray(rows, np.intp)]
        return list(found) if self.labels is None else list(zip(*found, strict=True))

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

    def row_numbers(self, key: Any) -> Rows:
        """Return the row numbers, from 0 up, that an index selects.

        Raises
        ------
        IndexError
        """
        return row_numbers(key, len(self))

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
        torch = import_adapter("batchify.loading.frameworks.torch", "torch")
        options = BatchOptions(
            1 if batch_size is None else batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            scaled=scaled and transform is None,
            prefetch=prefetch,
        )
        batches = Batches(self, options, float_labels=False)
        if batch_size is None:
            if shuffle or drop_last or prefetch or pin_memory:
                raise OptionError(
                    "shuffle, drop_last, prefetch and pin_memory are for whole batches; give "
                    "batch_size, or give them to the DataLoader"
                )
            return torch.TorchRows(batches, transform)
        return torch.TorchBatches(batches, transform, pin_memory)

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
        keras = import_adapter(
            "batchify.loading.frameworks.keras",
            "keras",
            ", and the backend that KERAS_BACKEND names",
        )
        options = BatchOptions(batch_size, shuffle, seed, drop_last, scaled)
        return keras.KerasBatches(
            Batches(self, options), workers, use_multiprocessing, max_queue_size
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
        tensorflow = import_adapter("batchify.loading.frameworks.tensorflow", "tensorflow")
        options = BatchOptions(batch_size, shuffle, seed, drop_last, scaled, prefetch=prefetch)
        return tensorflow.dataset(Batches(self, options))

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
        return import_adapter("batchify.loading.frameworks.huggingface", "datasets").dataset(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return reopened, (self.origin,)

    def __copy__(self) -> Split:
        return self  # nothing of it changes

    def __deepcopy__(self, memo: dict[int, Any]) -> Split:
        return self

    def __repr__(self) -> str:
        height, width, channels = self.images.shape[1:]
        return (
            f"<batchify split {self.name!r}: {len(self):,} images of {height}×{width}×{channels} "
            f"{self.images.dtype}, {labelled(self.class_mode, len(self.classes))}>"
        )
