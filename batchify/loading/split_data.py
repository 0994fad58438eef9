"""The columns of one split: images, labels, weights and paths, by row."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.text import labelled, plural, printable
from batchify.loading.arrays import Column, RowArray, gather, only_pixels
from batchify.loading.indexing import Chain, Rows, row_numbers
from batchify.loading.origin import Origin, closed, reopened


class Paths(Sequence[str]):
    """The paths of the rows as text, decoded when they are read.

    Parameters
    ----------
    stored : sequence of ndarray of bytes
        The paths in each file.
    """

    def __init__(self, stored: Sequence[NDArray[np.bytes_]]) -> None:
        self.stored = tuple(stored)
        self._chain = Chain(map(len, stored))

    def __len__(self) -> int:
        return self._chain.count

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | NDArray[Any]) -> list[str]: ...
    def __getitem__(self, key: int | slice | Sequence[int] | NDArray[Any]) -> str | list[str]:
        """Return the path of a row, relative to the dataset folder, or a list of those of several.

        Parameters
        ----------
        key : int, slice, list or array of int, or mask
            ``split.paths[rows]`` are the files of the rows of a batch.

        Raises
        ------
        IndexError
            If there is no such row, or `key` does not select a list of rows.
        """
        rows = row_numbers(key, len(self))
        if rows.ndim > 1:
            raise IndexError(f"paths are listed by an array of one dimension, not {rows.ndim}")
        return self._path(int(rows)) if rows.ndim == 0 else list(map(self._path, rows.tolist()))

    def __repr__(self) -> str:
        first = f": {self[0]!r}, …" if len(self) else ""
        return f"<{plural(len(self), 'path')}{first}>"

    def _path(self, row: int) -> str:
        part, inner = self._chain.find(row)
        return os.fsdecode(bytes(self.stored[part][inner]))


class KeptColumns(Mapping[str, NDArray[Any]]):
    """The columns of --keep-columns, by name; texts are decoded when they are read.

    Parameters
    ----------
    stored : Mapping of str to sequence of ndarray
        Each column in each file, as it is stored.
    """

    def __init__(self, stored: Mapping[str, Sequence[NDArray[Any]]]) -> None:
        self.stored = {name: tuple(parts) for name, parts in stored.items()}
        self._found: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return all rows of a column: int64, float64 or bool, or str objects."""
        if name not in self._found:
            if name not in self.stored:
                there = ", ".join(self.stored) or "none"
                raise KeyError(f"there is no column {name!r}, only {there} (see --keep-columns)")
            parts = self.stored[name]
            values = np.concatenate(parts) if len(parts) > 1 else parts[0]
            if values.dtype.kind == "S":
                texts = [text.decode("utf-8", "replace") for text in values.tolist()]
                values = np.array(texts, object)
            self._found[name] = values
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def __repr__(self) -> str:
        kinds = [f"{printable(name)} ({kind})" for name, kind in kept_kinds(self).items()]
        return f"<columns: {', '.join(kinds) or 'none'}>"


def kept_kinds(columns: KeptColumns) -> dict[str, str]:
    """Return the kind of each column, by name: int64, float64, bool or text."""
    found = {name: parts[0].dtype for name, parts in columns.stored.items()}
    return {name: "text" if kind.kind == "S" else kind.name for name, kind in found.items()}


_COLUMNS = ("images", "labels", "paths", "weights", "columns")
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
        self._resized: weakref.WeakSet[Self] = weakref.WeakSet()

    if not TYPE_CHECKING:  # which would believe in every attribute

        def __getattr__(self, name: str) -> Any:
            if name in _COLUMNS:
                raise closed(self.origin.files)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def close(self) -> None:
        """Close the files; reading rows is then an error, also for resized splits.

        `batchify.DatasetFile.close` calls it; arrays that were taken out stay valid.
        """
        for column in (vars(self).pop(name, None) for name in _COLUMNS):
            if isinstance(column, RowArray):
                column.close()
        for split in self._resized:
            split.close()

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
        """Return the image file of a row, byte for byte.

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
        """Return a row at the size of its image file, shape (h, w, C), not resized.

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

    def resized(
        self,
        target_size: tuple[int, int],
        *,
        interpolation: choices.Interpolation | None = None,
        fit: choices.Fit | None = None,
        scaled_decode: bool | None = None,
    ) -> Self:
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
            If the file stores decoded images, or the options are not valid.
        """
        overrides = replace(
            self.origin.overrides,
            target_size=target_size,
            interpolation=interpolation,
            fit=fit,
            scaled_decode=scaled_decode,
        )
        images = self._row_array().decoded_with(overrides)
        resized = type(self)(
            self.name,
            images,
            self.labels,
            self.paths,
            self.classes,
            self.scale_factor,
            images.origin,
            weights=self.weights,
            class_mode=self.class_mode,
            columns=self.columns,
        )
        self._resized.add(resized)
        return resized

    def _at(self, row: int) -> tuple[RowArray, int]:
        number = row_numbers(row, len(self.images))
        if number.ndim:
            raise IndexError(f"one row at a time, not {row!r}")
        return self._row_array().locate(int(number))

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
        return f"<batchify split {self.name!r}: {plural(len(self), 'image')} of {kind_text(self)}>"


def kind_text(split: SplitData) -> str:
    """Return the size and dtype of the images of a split, and what its labels are."""
    height, width, channels = split.images.shape[1:]
    what = labelled(split.class_mode, len(split.classes))
    return f"{height}×{width}×{channels} {split.images.dtype}, {what}"
