"""Where rows come from, how they are served and indexed."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.errors import OptionError
from batchify.options import DecodeOptions

Rows = NDArray[np.intp]
"""Row numbers, from 0 up."""


def row_numbers(key: Any, count: int) -> Rows:
    """Return the row numbers, from 0 up, that an index selects; of its shape, () for an integer.

    Raises
    ------
    IndexError
        If there is no such row, or it is no index.
    """
    if isinstance(key, slice):
        return np.arange(*key.indices(count), dtype=np.intp)
    if isinstance(key, list | range) or hasattr(key, "__array__"):
        array = np.asarray(key)
        if array.size == 0 and isinstance(key, list):
            array = array.astype(np.intp)
    else:
        try:
            array = np.asarray(operator.index(key))
        except TypeError:
            raise IndexError(f"rows are not selected by {key!r}") from None
    if array.dtype == bool:
        if array.shape != (count,):
            raise IndexError(f"a mask of shape {array.shape} is not one of {count} rows")
        return np.flatnonzero(array)
    if array.dtype.kind not in "iu":
        raise IndexError(f"rows are selected by integers, not by {array.dtype}")
    wrong = (array >= count) | (array < -count)
    if wrong.any():
        raise IndexError(f"row {array[wrong].ravel()[0]} is out of range: there are {count}")
    rows = array.astype(np.intp)
    return np.where(rows < 0, rows + count, rows)


def owners(firsts: Rows, numbers: Rows) -> Rows:
    """Return which part each number is in, given the first of each part; of empty ones, none."""
    return np.searchsorted(firsts, numbers, side="right") - 1


_CAPS = ("max_pixels", "max_dimension")


_DEFAULTS = DecodeOptions()


@dataclass(frozen=True, slots=True)
class Serving:
    """What is asked of a file's images; None is what the file records.

    Parameters
    ----------
    trusted : bool
        Images that are larger than the default caps are decoded where the file records that its
        own were; a stranger's file could ask for all of the memory.
    target_size : tuple of int, or None
        (height, width).
    interpolation, fit : str or None
    scaled_decode : bool or None
        See `batchify.options.DecodeOptions`.
    """

    trusted: bool = False
    target_size: tuple[int, int] | None = None
    interpolation: choices.Interpolation | None = None
    fit: choices.Fit | None = None
    scaled_decode: bool | None = None

    def options(self, recorded: DecodeOptions) -> DecodeOptions:
        """Return how to decode, given how the file was built.

        Raises
        ------
        OptionError
            If the options do not go together, or what is served is larger than the caps.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "trusted"}
        changes = {name: value for name, value in given.items() if value is not None}
        if not self.trusted:
            for name in _CAPS:
                changes[name] = min(getattr(recorded, name), getattr(_DEFAULTS, name))
        options = replace(recorded, **changes)
        height, width = options.target_size
        if height * width > options.max_pixels:
            raise OptionError(
                f"images of {height}×{width} are more than {options.max_pixels:,} pixels; "
                "if the file is your own, open it with trusted=True"
            )
        return options


AS_RECORDED = Serving()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a split is from, for whoever opens it again.

    Parameters
    ----------
    files : tuple of bytes
        Absolute paths.
    split : str
    digests : tuple of bytes
        What identifies the content of each file.
    rows : int
    serving : Serving
        How its images are decoded, where they are when they are read.
    opener : callable
        Opens the split again, given this.
    """

    files: tuple[bytes, ...]
    split: str
    digests: tuple[bytes, ...]
    rows: int
    serving: Serving
    opener: Callable[[Origin], Any] = field(compare=False, repr=False)


def reopen_images(origin: Origin) -> Any:
    """Open the images of a split again, in another process.

    Raises
    ------
    FileFormatError
        If a file is not the one that it was.
    """
    return origin.opener(origin).images
