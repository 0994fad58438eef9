"""The columns of one split: images, labels, weights and paths, by row."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.text import labelled, plural
from batchify.errors import OptionError
from batchify.loading.arrays import Column, RowArray, gather, only_pixels, pil_image
from batchify.loading.columns import KeptColumns, Paths
from batchify.loading.indexing import Rows, row_numbers
from batchify.loading.origin import Origin, closed, reopened, shown_files

if TYPE_CHECKING:
    from batchify.decoding.pil_image import PilImage

Statistics = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean and standard deviation of each channel of the images, times ``scale_factor``."""

_COLUMNS = ("images", "labels", "paths", "weights", "columns", "_sizes")
"""The attributes of a split that refer to its files."""


class SplitData:
    """The columns of one split, by row; `batchify.loading.split.Split` describes them."""

    def __init__(
        self,
        name: str,
        images: Column,
        labels: Column | None,
        paths: Paths,
        classes: tuple[str, ...],
        scale_factor: np.float32 | None,
        origin: Origin,
        *,
        weights: NDArray[np.float32] | None = None,
        class_mode: str = "sparse",
        columns: KeptColumns | None = None,
        sizes: Sequence[NDArray[np.int32]] = (),
        statistics: Statistics | Callable[[], Statistics | None] | None = None,
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
        self.columns = KeptColumns({}) if columns is None else columns
        self._sizes = tuple(sizes)
        self._recorded = statistics
        self._derived: weakref.WeakSet[Self] = weakref.WeakSet()

    if not TYPE_CHECKING:  # which would believe in every attribute

        def __getattr__(self, name: str) -> Any:
            if name in _COLUMNS:
                raise closed(self.origin.files)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def close(self) -> None:
        """Close the files; reading rows is then an error, also for resized splits and views.

        `batchify.DatasetFile.close` calls it; arrays that were taken out stay valid.
        """
        for column in (vars(self).pop(name, None) for name in _COLUMNS):
            if isinstance(column, RowArray):
                column.close()
        for split in list(self._derived):
            split.close()

    @property
    def _statistics(self) -> Statistics | None:
        """Mean and deviation, if they are recorded or were measured."""
        if callable(self._recorded):
            self._recorded = self._recorded()
        return self._recorded

    @_statistics.setter
    def _statistics(self, measured: Statistics) -> None:
        self._recorded = measured

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each class."""
        return {name: index for index, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Any) -> Any:
        """Return (image, label) of a row, or (images, labels) of several: copies, as stored."""
        rows = row_numbers(key, len(self))
        images = np.empty((rows.size, *self.images.shape[1:]), self.images.dtype)
        gather(self.images, rows.ravel(), images)
        images = images.reshape(*rows.shape, *self.images.shape[1:])
        return images if self.labels is None else (images, self.labels[rows])

    def __getitems__(self, rows: Sequence[int]) -> list[Any]:
        """Return ``[self[row] for row in rows]``, read together; PyTorch's loader calls this."""
        found = self[np.asarray(rows, np.intp)]
        return list(found) if self.labels is None else list(zip(*found, strict=True))

    def row_numbers(self, key: Any) -> Rows:
        """Return the row numbers, from 0 up, that an index selects.

        Raises
        ------
        IndexError
            If there is no such row, or `key` is not an index.
        """
        return row_numbers(key, len(self))

    def encoded(self, row: int) -> bytes:
        """Return the image file of a row, byte for byte, or what it was encoded again as.

        Raises
        ------
        OptionError
            If the file stores decoded images.
        IndexError
            If there is no such row.
        FileAccessError
            If the file cannot be read.
        """
        images, number = self._at(row)
        return images.encoded(number)

    def decode(self, row: int) -> NDArray[Any]:
        """Return a row at the size of the image that is stored, shape (h, w, C), not resized.

        Color mode, EXIF and dtype are those of the split.

        Raises
        ------
        OptionError
            If the file stores decoded images.
        IndexError
            If there is no such row.
        FileAccessError, FileFormatError
            If the image cannot be read or decoded.
        """
        images, number = self._at(row)
        return images.decode(number)

    def pil_image(self, row: int) -> PilImage:
        """Return a row as a PIL image, in the size of the image that is stored.

        Color mode and EXIF are those of the split.

        Returns
        -------
        PIL.Image.Image
            Mode RGB, RGBA or L; the caller's own.

        Raises
        ------
        OptionError
            If the images are not uint8.
        IndexError
            If there is no such row.
        FileAccessError, FileFormatError
            If the image cannot be read or decoded.
        """
        self.check_pil_images()
        return pil_image(self.images, self._number(row))

    def check_pil_images(self) -> None:
        """Refuse images that PIL does not have.

        Raises
        ------
        OptionError
            If they are not uint8.
        """
        if self.images.dtype != np.uint8:
            raise OptionError(
                f"{self.name} of {shown_files(self.origin.files)} has {self.images.dtype} images, "
                "and PIL images have 8 bits per channel: use arrays, or build with --dtype uint8"
            )

    def resized(
        self,
        target_size: tuple[int, int] | int,
        *,
        interpolation: choices.Interpolation | None = None,
        fit: choices.Fit | None = None,
        shorter_side: int | None = None,
        scaled_decode: bool | None = None,
    ) -> Self:
        """Return this split with images of another size; nothing is decoded yet.

        Parameters
        ----------
        target_size : tuple of int, or int
            (height, width), or the side of a square.
        interpolation, fit, shorter_side, scaled_decode
            As for `build`; by default as the file was built. If you give `fit` without
            `shorter_side`, that of the file is not used.

        Raises
        ------
        OptionError
            If the file stores decoded images, or the options are not valid.
        """
        return self._decoded_with(
            target_size=target_size, interpolation=interpolation, fit=fit,
            shorter_side=shorter_side, scaled_decode=scaled_decode,
        )  # fmt: skip

    def _decoded_with(self, **changes: Any) -> Self:
        """Return this split with other decoding options."""
        images = self._row_array().decoded_with(replace(self.origin.overrides, **changes))
        found = type(self)(
            self.name, images, self.labels, self.paths, self.classes, self.scale_factor,
            images.origin, weights=self.weights, class_mode=self.class_mode, columns=self.columns,
            sizes=self._sizes,
        )  # fmt: skip
        self._derived.add(found)
        return found

    def _at(self, row: int) -> tuple[RowArray, int]:
        return self._row_array().locate(self._number(row))

    def _number(self, row: int) -> int:
        number = row_numbers(row, len(self.images))
        if number.ndim:
            raise IndexError(f"one row at a time, not {row!r}")
        return int(number)

    def _row_array(self) -> RowArray:
        if not isinstance(self.images, RowArray):
            raise only_pixels(self.origin)
        return self.images

    def __reduce__(self) -> tuple[Any, ...]:
        return reopened, (self.origin,)

    def __copy__(self) -> Self:
        return self  # it never changes

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        if "images" not in vars(self):
            return f"<batchify split {self.name!r}: closed>"
        return f"<batchify split {self.name!r}: {self._size_text()} of {kind_text(self)}>"

    def _size_text(self) -> str:
        return plural(len(self), "image")


def kind_text(split: SplitData) -> str:
    """Return the size and dtype of the images of a split, and what its labels are."""
    height, width, channels = split.images.shape[1:]
    what = labelled(split.class_mode, len(split.classes))
    return f"{height}×{width}×{channels} {split.images.dtype}, {what}"
