"""Which rows an index selects."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
