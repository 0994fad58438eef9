"""Datasets that hold images and labels together: their images as a tree, the rest as a table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.common.text import printable, shown_names
from batchify.datasets.columns import split_number
from batchify.datasets.manifest_errors import ManifestErrors
from batchify.datasets.tables import Row, plain_text
from batchify.errors import BatchifyWarning, DatasetError
from batchify.format.schema import MAX_CLASSES
from batchify.storage.archive import refusal
from batchify.storage.listed_tree import ListedTree
from batchify.storage.packed import PackedSource
from batchify.storage.patterns import PathFilter
from batchify.storage.source import Extent

_AT_ONCE = 10_000
"""Rows that are added together."""


class PackedTable:
    """The labels, splits and other columns of a packed dataset, in memory; rows count from 1.

    Parameters
    ----------
    columns : Mapping of str to sequence
        Texts, numbers and truth values; None for a missing one.
    class_names : Mapping of str to tuple of str
        For columns of class numbers: the name of each number.
    names_from : str
        Where these names are from, for errors.
    warnings : sequence of BatchifyWarning
        Those of its columns.
    unfit : str
        Why its labels are not classes; it has no column of classes then.
    number_columns : sequence of str
        The columns of labels that are numbers.

    Attributes
    ----------
    excluded : int
        How many rows were ignored by `exclude`.
    mask_columns : tuple of str
        The columns of images that are labels.
    """

    def __init__(
        self,
        columns: Mapping[str, Sequence[Any]],
        *,
        class_names: Mapping[str, tuple[str, ...]] | None = None,
        names_from: str = "",
        warnings: Sequence[BatchifyWarning] = (),
        unfit: str = "",
        number_columns: Sequence[str] = (),
    ) -> None:
        self._values = dict(columns)
        self._class_names = class_names or {}
        self._names_from = names_from
        self.warnings = tuple(warnings)
        self.unfit = unfit
        self.number_columns = tuple(number_columns)
        self.excluded = 0
        self.mask_columns: tuple[str, ...] = ()
        self.columns: Sequence[str] = list(columns)
        self.plain_columns: Sequence[str] = self.columns
        self.text_columns: Collection[str] = [
            name for name in columns if isinstance(self.first(name), str)
        ]

    def first(self, column: str) -> Any:
        """Return the first value of a column that is not missing; None if all are."""
        return next((value for value in self._values[column] if value is not None), None)

    def exclude(self, patterns: PathFilter) -> None:
        """Ignore the rows whose paths --exclude has; warn of patterns that match nothing."""
        paths = self._values["path"]
        kept = [i for i, path in enumerate(paths) if not patterns.excludes(os.fsencode(path))]
        self.excluded = len(paths) - len(kept)
        if self.excluded:
            for name, values in self._values.items():
                self._values[name] = [values[i] for i in kept]
        self.warnings += tuple(patterns.warnings())

    def rows(self, names: Sequence[str], _errors: ManifestErrors) -> Iterator[Row]:
        """Yield the named columns of each row."""
        columns = [self._values[name] for name in names]
        for row, values in enumerate(zip(*columns, strict=True), 1):
            yield row, list(map(plain_text, values))

    def name_classes(self, column: str, listed: tuple[str, ...], where: str) -> tuple[str, ...]:
        """Replace the class numbers of a column by the names of the classes.

        Parameters
        ----------
        listed : tuple of str
            The classes of ``--classes``. If the numbers have no names, these are the names, unless
            one of them is a number.
        where : str
            ``dataset`` and its name, for errors.

        Returns
        -------
        tuple of str
            The names of 0, 1, …; empty if the column holds texts, and their order is not known.

        Raises
        ------
        DatasetError
            If a number has no name, a name is not known, or they are masks.
        """
        if column in self.mask_columns:
            raise DatasetError(f"{where}: column {printable(column)}: {MASKS_UNFIT}")
        values = self._values[column]
        numbers = [None if value is None else _whole(value) for value in values]
        names, names_from = self._class_names.get(column, ()), self._names_from
        if any(n is None and v is not None for n, v in zip(numbers, values, strict=True)):
            for row, value in enumerate(values if names else (), 1):
                if value is not None and value not in names:
                    raise DatasetError(
                        f"{where}: label {printable(str(value))} of row {row} "
                        f"({printable(self._path(row))}) is not in {names_from}"
                    )
            self._check_kinds(values, numbers, where)
            return names
        found = sorted({number for number in numbers if number is not None})
        if not found:
            return names
        if not names and listed and not any(name.isdecimal() for name in listed):
            names, names_from = listed, "--classes"
        low, high = found[0], found[-1]
        wrong = high if low >= 0 else low
        if low < 0 or high >= (len(names) if names else MAX_CLASSES):
            row = numbers.index(wrong) + 1
            known = f"{names_from} has {len(names):,} names" if names else "class numbers"
            raise DatasetError(
                f"{where}: label {wrong} of row {row} ({printable(self._path(row))}) is "
                f"out of range: {known}, which count from 0"
                + ("" if names else f", up to {MAX_CLASSES - 1:,}")
            )
        names = names or tuple(map(str, range(high + 1)))
        self._values[column] = [None if n is None else names[n] for n in numbers]
        return names

    def _check_kinds(
        self, values: Sequence[Any], numbers: Sequence[int | None], where: str
    ) -> None:
        """Refuse numbers among names: as names, they would get other numbers."""
        if any(number is not None for number in numbers):
            for row, value in enumerate(values, 1):
                if isinstance(value, str | bool):
                    raise DatasetError(
                        f"{where}: label {printable(str(value))} of row {row} "
                        f"({printable(self._path(row))}) is no number, but others are; labels are "
                        "all class numbers, or all names"
                    )

    def drop_labels(self, column: str, why: str) -> None:
        """Treat the labels of a column as missing, with a warning."""
        self._values[column] = [None] * len(self._values[column])
        self.warnings += (BatchifyWarning("unlabelled", f"stored without labels: {why}"),)

    def is_labelled(self, column: str) -> bool:
        """Return whether all rows have a label in a column."""
        return all(value is not None for value in self._values[column])

    def unlabelled_splits(self, column: str) -> tuple[str, ...]:
        """Return the names of splits without any label in a column, if others have labels.

        A split may have several names: ``val`` and ``validation``.
        """
        if "split" not in self._values:
            return ()
        names = list(map(plain_text, self._values["split"]))
        splits = {name: split_number(name) for name in names}
        found = zip(names, self._values[column], strict=True)
        labelled = {splits[name] for name, label in found if label is not None}
        others = (name for name, split in splits.items() if split not in labelled)
        return tuple(others) if labelled else ()

    def _path(self, row: int) -> str:
        return str(self._values["path"][row - 1])


def _whole(value: Any) -> int | None:
    """Return a whole number; None for other values."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if float(value).is_integer() else None


class PackedTree(ListedTree):
    """The images of a packed dataset, and its table.

    Parameters
    ----------
    paths : sequence of bytes
        As `image_paths` returns them.
    extents : ndarray of int64, shape (n, k)
    masks : Mapping of bytes to tuple of int
        Paths and extents of further images, which are labels.
    """

    def __init__(
        self,
        source: PackedSource,
        table: PackedTable,
        paths: Sequence[bytes],
        extents: NDArray[np.int64],
        masks: Mapping[bytes, Extent] | None = None,
    ) -> None:
        super().__init__(source)
        self.table = table
        masks = masks or {}
        firsts = ((name, table.first(name)) for name in table.text_columns)
        table.mask_columns = tuple(name for name, text in firsts if _path_bytes(text) in masks)
        for path, extent in masks.items():
            self.add_file(path, extent)
        for start in range(0, len(paths), _AT_ONCE):
            some = extents[start : start + _AT_ONCE].tolist()
            for path, extent in zip(paths[start : start + _AT_ONCE], some, strict=True):
                self.add_file(path, extent)

    def label_columns(self, mode: str) -> tuple[str, ...]:
        """Return the columns of labels that are not classes; empty if the table's names say it.

        Raises
        ------
        DatasetError
            If labels are masks, and there are none, or several that may be the labels; or if only
            some labels are lists of numbers.
        """
        if mode in ("multilabel", "regression"):
            if self.table.unfit and not self.table.number_columns:
                raise DatasetError(self.table.unfit)
            return self.table.number_columns
        if mode != "mask":
            return ()
        found = self.table.mask_columns
        named = [name for name in ("label", "mask") if name in found]
        if not found or (len(found) > 1 and not named):
            what = "several columns of masks" if found else "no column of masks, only"
            shown = shown_names(list(map(_path_bytes, found or self.table.columns)))
            raise DatasetError(
                f"dataset {printable(self.source.location)} has {what}: {shown}; "
                "--label-columns names the masks"
            )
        return tuple((named or found)[:1])


def _path_bytes(text: str) -> bytes:
    """Return a text as bytes; one that is no path with its escapes."""
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair, from JSON
        return text.encode(errors="backslashreplace")


def image_paths(
    given: Sequence[Any] | None, made: Sequence[str], masks: Mapping[bytes, Extent]
) -> list[bytes]:
    """Return the paths of images: those that a dataset gives, if they are valid and distinct.

    Parameters
    ----------
    given : sequence, optional
        Texts; some may be missing, or be something else.
    made : sequence of str
        Paths to take otherwise.
    masks : Mapping of bytes to tuple of int
        By their paths, which no image may have.
    """
    if given is not None and all(isinstance(text, str) for text in given):
        try:
            paths = list(map(os.fsencode, given))
        except UnicodeEncodeError:
            paths = []
        is_distinct = len(set(paths)) == len(paths) and masks.keys().isdisjoint(paths)
        if paths and is_distinct and not any(map(refusal, paths)):
            return paths
    return [os.fsencode(text) for text in made]


def split_numbers(
    labels: Sequence[Sequence[Any] | None], names: Sequence[str], taken: Collection[str], where: str
) -> dict[str, list[Any]]:
    """Return labels that are lists of numbers as columns, one for each number; maybe none.

    Parameters
    ----------
    names : sequence of str
        What the numbers are called; if these are not as many, ``label_0``, ``label_1``, …
    taken : collection of str
        Names of other columns.

    Raises
    ------
    DatasetError
        If the lists differ in length.
    """
    lengths = {len(label) for label in labels if label is not None}
    if len(lengths) > 1:
        shown = ", ".join(map(str, sorted(lengths)))
        raise DatasetError(f"{where}: labels are lists of different lengths: {shown}")
    count = max(lengths, default=0)
    made = ["label"] if count == 1 else [f"label_{i}" for i in range(count)]
    if len(set(names)) == count and len(names) == count and not set(names).intersection(taken):
        made = list(names)
    return {
        name: [None if label is None else label[i] for label in labels]
        for i, name in enumerate(made)
    }


NUMBERS_UNFIT = (
    "labels are lists of numbers, not classes: pass --class-mode multilabel or regression, or none"
)
MASKS_UNFIT = "labels are images, not classes: pass --class-mode mask, or none"


def check_lengths(where: str, lengths: Mapping[str, int]) -> None:
    """Refuse columns with different numbers of rows, by name."""
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{printable(name)} {count:,}" for name, count in lengths.items())
        raise DatasetError(f"dataset {where}: arrays must have a row for each image: {shown}")


def names_of(where: str, names: Sequence[str], names_from: str) -> tuple[str, ...]:
    """Return names of classes, or raise DatasetError if one is repeated or empty."""
    if "" in names:
        raise DatasetError(f"dataset {where}: name {names.index('')} of {names_from} is empty")
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        shown = shown_names(list(map(os.fsencode, repeated)))
        raise DatasetError(f"dataset {where}: {names_from} names {shown} more than once")
    return tuple(names)
