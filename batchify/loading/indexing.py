"""Turn an index into row numbers, and find rows in joined files."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]
"""Row numbers, from 0 up."""

Selected = range | Rows
"""Rows that are selected of others, in their order; a range, step 1, if they are adjacent."""

IntT = TypeVar("IntT", bound=np.integer[Any])


def row_numbers(key: Any, count: int) -> Rows:
    """Return the row numbers, from 0 up, that an index selects; shape () for an integer.

    Raises
    ------
    IndexError
        If there is no such row, or `key` is not an index.
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


def compact(rows: Rows) -> Selected:
    """Return row numbers, shape (n,), as a range if they are adjacent."""
    if not len(rows):
        return range(0)
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows) and (np.diff(rows) == 1).all():
        return range(first, last + 1)
    return rows


def rows_of(selected: Selected, rows: Rows) -> Rows:
    """Return the numbers, among all rows, of some of the selected rows."""
    return rows + selected.start if isinstance(selected, range) else selected[rows]


class Chain:
    """The rows of several parts, one part after another.

    Parameters
    ----------
    lengths : iterable of int
        Rows of each part; at least one part.
    """

    def __init__(self, lengths: Iterable[int]) -> None:
        ends = np.cumsum(list(lengths))
        self.count = int(ends[-1])
        self.firsts: Rows = np.concatenate([[0], ends[:-1]])

    def chained(self, parts: Sequence[Rows]) -> Rows:
        """Return the numbers, among all rows, of some rows of each part."""
        return np.concatenate(
            [first + rows for first, rows in zip(self.firsts, parts, strict=True)]
        )

    def owners(self, rows: Rows) -> Rows:
        """Return the part that each row is in; never an empty part."""
        return np.searchsorted(self.firsts, rows, side="right") - 1

    def find(self, row: int) -> tuple[int, int]:
        """Return the part that a row is in, and the row's number in that part."""
        part = int(self.owners(np.asarray(row)))
        return part, row - int(self.firsts[part])
