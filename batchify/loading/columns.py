"""The columns of a split that are texts and numbers: its paths, and the columns that were kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from batchify.common.text import plural, printable
from batchify.errors import OptionError
from batchify.loading.indexing import Chain, Selected, row_numbers


class _ArrayLike(Protocol):
    """An array of NumPy, or a tensor in memory."""

    def __array__(self) -> NDArray[Any]: ...


class Paths(Sequence[str]):
    """The paths of the rows as text, decoded when they are read.

    Parameters
    ----------
    stored : sequence of ndarray of bytes
        The paths in each file.
    selected : range or ndarray of intp, optional
        The rows of the files that these are; all by default.
    """

    def __init__(
        self, stored: Sequence[NDArray[np.bytes_]], selected: Selected | None = None
    ) -> None:
        self.stored = tuple(stored)
        self._chain = Chain(map(len, stored))
        self._selected = range(self._chain.count) if selected is None else selected

    def __len__(self) -> int:
        return len(self._selected)

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | _ArrayLike) -> list[str]: ...
    def __getitem__(self, key: int | slice | Sequence[int] | _ArrayLike) -> str | list[str]:
        """Return the path of a row, relative to the dataset folder, or a list of those of several.

        Parameters
        ----------
        key : int, slice, list, array or tensor of int, or mask
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
        part, inner = self._chain.find(int(self._selected[row]))
        return os.fsdecode(bytes(self.stored[part][inner]))


class KeptColumns(Mapping[str, NDArray[Any]]):
    """The columns of --keep-columns, by name; texts are decoded when they are read.

    Parameters
    ----------
    stored : Mapping of str to sequence of ndarray
        Each column in each file, as it is stored.
    selected : range or ndarray of intp, optional
        The rows of the files that these are; all by default.
    """

    def __init__(
        self, stored: Mapping[str, Sequence[NDArray[Any]]], selected: Selected | None = None
    ) -> None:
        self.stored = {name: tuple(parts) for name, parts in stored.items()}
        self._selected = selected
        self._found: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return all rows of a column: int64, float64 or bool, or str objects."""
        if name not in self._found:
            if name not in self.stored:
                there = ", ".join(self.stored) or "none"
                raise KeyError(f"there is no column {name!r}, only {there} (see --keep-columns)")
            self._found[name] = _texts(joined_rows(self.stored[name], self._selected))
        return self._found[name]

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return adjacent rows of a column, without keeping the others in memory."""
        rows = range(start, stop)
        some = rows if self._selected is None else self._selected[start:stop]
        return _texts(joined_rows(self.stored[name], some))

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def __repr__(self) -> str:
        kinds = [f"{printable(name)} ({kind})" for name, kind in kept_kinds(self).items()]
        return f"<columns: {', '.join(kinds) or 'none'}>"


def _texts(values: NDArray[Any]) -> NDArray[Any]:
    """Return a column as it is read: texts as str objects."""
    if values.dtype.kind != "S":
        return values
    return np.array([text.decode("utf-8", "replace") for text in values.tolist()], object)


class ColumnsByName(Mapping[str, NDArray[Any]]):
    """Columns by name, each read when it is asked for.

    Parameters
    ----------
    readers : Mapping of str to callable
        Return all rows of a column.
    """

    def __init__(self, readers: Mapping[str, Callable[[], NDArray[Any]]]) -> None:
        self._readers = readers

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return all rows of a column."""
        if name not in self._readers:
            raise KeyError(f"there is no column {name!r}, only {', '.join(self)}")
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


_OPERATORS = "combine conditions with &, | and ~ instead of and, or and not; np.isin replaces in"


def mask_of(keep: Callable[[ColumnsByName], ArrayLike], columns: ColumnsByName) -> ArrayLike:
    """Return what the function of a filter chooses.

    Raises
    ------
    OptionError
        If it raises a ValueError, as NumPy does if a column is used as one truth value.
    """
    try:
        return keep(columns)
    except ValueError as error:
        raise OptionError(f"the function of filter failed: {error} ({_OPERATORS})") from error


def checked_mask(found: ArrayLike, count: int) -> NDArray[np.bool_]:
    """Return a mask of so many rows; refuse anything else."""
    mask = np.asarray(found)
    if not mask.size and not count:
        mask = np.zeros(0, bool)
    if mask.dtype != bool or mask.shape != (count,):
        advice = "select takes row numbers" if mask.ndim else _OPERATORS
        raise OptionError(
            f"filter needs one True or False for each of the {plural(count, 'row')}, "
            f"not {mask.dtype} of shape {mask.shape}; {advice}"
        )
    return mask


def kept_kinds(columns: KeptColumns) -> dict[str, str]:
    """Return the kind of each column, by name: int64, float64, bool or text."""
    found = {name: parts[0].dtype for name, parts in columns.stored.items()}
    return {name: "text" if kind.kind == "S" else kind.name for name, kind in found.items()}


def joined_rows(parts: Sequence[Any], selected: Selected | None) -> NDArray[Any]:
    """Return some rows of a column that is in several files; all rows by default.

    Adjacent rows of one file are not copied. Files without any of the rows are not read.
    """
    values: NDArray[Any]
    if selected is None or len(parts) == 1:
        values = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if isinstance(selected, range):
            return values[selected.start : selected.stop]
        return values if selected is None else values[selected]
    if not len(selected):
        return np.asarray(parts[0][:0])
    chain = Chain(map(len, parts))
    if isinstance(selected, range):
        found = [
            part[max(selected.start - first, 0) : selected.stop - first]
            for part, first in zip(parts, chain.firsts.tolist(), strict=True)
            if selected.start < first + len(part) and first < selected.stop
        ]
        return np.concatenate(found) if len(found) > 1 else found[0]
    owners = chain.owners(selected).astype(np.int32 if len(parts) >> 15 else np.int16)
    order = np.argsort(owners, kind="stable")  # of int16: in a time that is linear
    found = []
    for mine in np.split(order, np.flatnonzero(np.diff(owners[order])) + 1):
        owner = owners[mine[0]]
        found.append(parts[owner][selected[mine] - chain.firsts[owner]])
    ordered = np.concatenate(found)
    values = np.empty_like(ordered)
    values[order] = ordered
    return values
