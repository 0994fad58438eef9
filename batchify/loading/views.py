"""Make splits of some rows of others: select, filter and concatenate.

A view copies no pixels. It is made from the splits of opened files, its roots, and from row numbers
among all their rows; a view of a view is made from the same roots.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from batchify import choices
from batchify.common.text import plural
from batchify.errors import OptionError
from batchify.loading.columns import (
    ColumnsByName,
    checked_mask,
    joined_rows,
    mask_of,
)
from batchify.loading.indexing import Chain, Selected, compact, row_numbers, rows_of
from batchify.loading.joining import combined, mismatch
from batchify.loading.origin import Origin, ViewOrigin, reopened
from batchify.loading.split_data import SplitData, Statistics
from batchify.loading.statistics import (
    class_counts,
    class_indices,
    class_weights,
    measured_statistics,
)


class SplitViews(SplitData):
    """A split whose rows can be selected, concatenated with those of others, and measured."""

    _roots: tuple[Self, ...] = ()
    _selected: Selected = range(0)

    def close(self) -> None:
        """Close the files, with all views of them and resized splits; or a view alone.

        Reading rows is then an error. `batchify.DatasetFile.close` calls it; arrays that were
        taken out stay valid.
        """
        super().close()
        self._roots = ()

    @property
    def _parts(self) -> tuple[Self, ...]:
        """The splits of files that this is a view of; itself, if it is one."""
        return self._roots or (self,)

    @property
    def _chosen(self) -> Selected:
        """The row numbers of a view among all rows of its roots."""
        return self._selected if self._roots else range(len(self))

    def select(self, rows: Any) -> Self:
        """Return some rows, in the order given, as a split of their own; nothing is copied.

        Parameters
        ----------
        rows : sequence of int, slice, or mask
            Row numbers, from 0 up or, negative, from the end. A row may be taken repeatedly.

        Returns
        -------
        Split
            It is closed with the file. Its row numbers are its own, from 0 up.

        Raises
        ------
        IndexError
            If there is no such row.

        Notes
        -----
        Memory: 8 bytes a row, and its label and weight; none if the rows are adjacent. Adjacent
        rows of an uncompressed file are memory-mapped, as the split itself.
        """
        key = list(rows) if isinstance(rows, tuple) else rows
        numbers = row_numbers(key, len(self))
        if numbers.ndim != 1:
            raise IndexError(f"select takes a list of rows, not {rows!r}; for one, see split[row]")
        return _view(self._parts, compact(rows_of(self._chosen, numbers)))

    def filter(self, keep: ArrayLike | Callable[[Mapping[str, NDArray[Any]]], ArrayLike]) -> Self:
        """Return the rows where a mask is true, as a split of their own; nothing is copied.

        Parameters
        ----------
        keep : array_like of bool, shape (N,), or callable
            The mask; or a function that returns it, given the columns of all rows by name. These
            are arrays, shape (N,): those of ``--keep-columns``, and ``label`` (as stored),
            ``class`` (names), ``path``, ``weight``, and ``width`` and ``height`` of the image file.
            If a kept column has one of these names, it is the kept column. Combine conditions with
            ``&``, ``|`` and ``~``; ``np.isin(column, values)`` finds one of several values.

        Returns
        -------
        Split
            See `select`.

        Raises
        ------
        OptionError
            If the result is not a mask of all rows, or the function raises a ValueError, as from
            ``and``, ``or``, ``not`` and ``in``.
        KeyError
            If the function asks for a column that there is not.

        Examples
        --------
        >>> split.filter(lambda c: c["width"] > 300)  # doctest: +SKIP
        >>> split.filter(lambda c: c["class"] == "cat")  # doctest: +SKIP
        """
        found = mask_of(keep, _columns(self)) if callable(keep) else keep
        return self.select(checked_mask(found, len(self)))

    def __add__(self, other: Self) -> Self:
        """Return the rows of two splits, as `batchify.concatenate`."""
        if not isinstance(other, SplitViews):
            return NotImplemented
        return concatenate([self, other])

    @property
    def mean(self) -> NDArray[np.float32]:
        """The mean of each channel of the images times ``scale_factor``, shape (channels,).

        A file records it. That of a view or of a resized split is computed when you first ask for
        it, which reads all its images once.

        Raises
        ------
        OptionError
            If there are no images.
        """
        return self._measured()[0].astype(np.float32)

    @property
    def std(self) -> NDArray[np.float32]:
        """The standard deviation of each channel, shape (channels,); see `mean`."""
        return self._measured()[1].astype(np.float32)

    def _measured(self) -> Statistics:
        if not len(self):
            raise OptionError(f"{self.name} has no images, and so no mean and deviation")
        found = self._statistics
        if found is None:
            found = self._statistics = measured_statistics(self)
        return found

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """How many rows each class has, in the order of `classes`, shape (classes,).

        Raises
        ------
        OptionError
            If the labels are not one class a row: there are none, several, numbers or masks.
        """
        return class_counts(self)

    def class_weights(self) -> NDArray[np.float32]:
        """Return weights that balance the classes, in the order of `classes`, shape (classes,).

        They are N / (number of classes * rows of the class), as those of scikit-learn's
        ``compute_class_weight("balanced")``; classes without rows have 0, and do not count.

        Returns
        -------
        ndarray of float32
            For PyTorch, ``CrossEntropyLoss(torch.from_numpy(split.class_weights()))``; for Keras,
            ``fit(class_weight=dict(enumerate(split.class_weights())))``.

        Raises
        ------
        OptionError
            As `class_counts`.
        """
        return class_weights(self)

    def _decoded_with(self, **changes: Any) -> Self:
        if not self._roots:
            return super()._decoded_with(**changes)
        return _view([root._decoded_with(**changes) for root in self._roots], self._selected)

    def _size_text(self) -> str:
        total = sum(map(len, self._roots))
        if len(self) < total:
            return f"{len(self):,} of {plural(total, 'image')}"
        return super()._size_text()


SplitT = TypeVar("SplitT", bound=SplitViews)


def concatenate(splits: Iterable[SplitT]) -> SplitT:
    """Return the rows of several splits, one split after another, as one; nothing is copied.

    Parameters
    ----------
    splits : iterable of Split
        Splits of any files, and views of them: of the same classes, and the same kind of images,
        labels, weights and columns. A split may be given repeatedly.

    Returns
    -------
    Split
        Its name is theirs, joined by "+". It is closed with the first file that is closed.

    Raises
    ------
    OptionError
        If there are no splits, or they have different classes or kinds.

    Notes
    -----
    Memory: as for `Split.select`.
    """
    if isinstance(splits, SplitViews):
        raise OptionError("concatenate takes a list of splits: batchify.concatenate([a, b])")
    given = list(splits)
    for each in given:
        if not isinstance(each, SplitViews):
            raise OptionError(
                f"concatenate takes a list of splits, not of {type(each).__name__}: "
                "batchify.concatenate([a, b])"
            )
    if not given:
        raise OptionError("there are no splits to concatenate")
    for split in given[1:]:
        reason = mismatch(split, given[0])
        if reason is not None:
            raise OptionError(f"these splits cannot be concatenated: {reason}")
    roots: list[SplitT] = []
    for root in (root for split in given for root in split._parts):
        if root not in roots:
            roots.append(root)
    firsts = dict(zip(roots, Chain(map(len, roots)).firsts.tolist(), strict=True))
    rows = []
    for split in given:
        chain = Chain(map(len, split._parts))
        numbers = np.asarray(split._chosen, np.intp)
        moved = np.array([firsts[root] for root in split._parts]) - chain.firsts
        rows.append(numbers + moved[chain.owners(numbers)])
    return _view(roots, compact(np.concatenate(rows)))


def _view(roots: Sequence[SplitT], selected: Selected) -> SplitT:
    """Return the split of some rows of splits of files, concatenated."""
    first = roots[0]
    if isinstance(selected, range):
        numbers = repr(selected).encode()
    else:
        numbers = selected.astype("<i8", copy=False).tobytes()
    origin = ViewOrigin(
        tuple(dict.fromkeys(file for root in roots for file in root.origin.files)),
        "+".join(dict.fromkeys(root.name for root in roots)),
        tuple(digest for root in roots for digest in root.origin.digests),
        len(selected),
        first.origin.overrides,
        _reopen,
        tuple(root.origin for root in roots),
        selected,
        hashlib.sha256(numbers).hexdigest(),
    )
    view = combined(roots, origin, selected)
    view._roots, view._selected = tuple(roots), selected
    for root in roots:
        root._derived.add(view)
    return view


def _reopen(origin: Origin) -> Any:
    """Make a view again, in another process."""
    assert isinstance(origin, ViewOrigin)
    return _view([reopened(part) for part in origin.parts], origin.selected)


def _columns(split: SplitViews) -> ColumnsByName:
    """Return the columns that a filter chooses rows by."""
    names = {name: functools.partial(split.columns.__getitem__, name) for name in split.columns}
    found: dict[str, Callable[[], NDArray[Any]]] = {}
    if split.class_mode not in ("none", "mask"):
        found["label"] = lambda: np.asarray(split.labels)
    if split.class_mode in choices.INDEXED_MODES:
        found["class"] = lambda: np.array(split.classes, object)[class_indices(split)]
    found["path"] = lambda: np.array(list(split.paths), object)
    if split.weights is not None:
        found["weight"] = lambda: np.asarray(split.weights)
    found["width"] = lambda: joined_rows(split._sizes, split._chosen)[:, 1]
    found["height"] = lambda: joined_rows(split._sizes, split._chosen)[:, 0]
    return ColumnsByName({**found, **names})
