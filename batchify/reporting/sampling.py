"""Choose which rows of a split to show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.choices import check_at_least
from batchify.errors import OptionError
from batchify.format.class_labels import class_indices, has_classes
from batchify.format.reader import Reader


@dataclass(frozen=True, slots=True)
class Shown:
    """The rows of a class that are shown.

    Parameters
    ----------
    class_index : int or None
        None if labels are not classes.
    count : int
        How many rows of the class the split has.
    rows : tuple of int
        The rows that are shown, ascending.
    """

    class_index: int | None
    count: int
    rows: tuple[int, ...]


def sample_rows(
    reader: Reader, split: str, *, per_class: int, most_classes: int, seed: int
) -> list[Shown]:
    """Draw rows of a split: at most `per_class` of each class, of at most `most_classes` classes.

    If there are more classes, ``RandomState([seed])`` permutes all classes of the file, and the
    first ones that the split has are taken, so that all splits show the same classes. If a class
    has more rows, ``RandomState([seed, split, class])`` chooses among them; split and class are
    numbered as in `choices.SPLITS` and in the file.

    Parameters
    ----------
    per_class : int
        At least 1; if labels are not classes, rows of the whole split.
    most_classes : int
        At least 1.
    seed : int
        0 to 2**32 - 1.

    Returns
    -------
    list of Shown
        The classes that have rows in the split, in their order; one whose class is None if
        labels are not classes.

    Raises
    ------
    FileFormatError
        If a label is not that of a class.

    Notes
    -----
    Memory: 30 bytes per row.
    """
    check_at_least("images of a class", per_class, 1)
    check_at_least("classes", most_classes, 1)
    check_seed(seed)
    count = reader.rows(split)
    if not count:
        return []
    draws = [seed, choices.SPLITS.index(split)]
    if not has_classes(reader, split):
        return [Shown(None, count, _drawn(np.arange(count), per_class, draws))]
    labels = class_indices(reader, split)
    by_class = np.argsort(labels, kind="stable")  # within a class rows stay in order
    counts = np.bincount(labels, minlength=len(reader.header.classes))
    ends = np.cumsum(counts)
    classes = np.flatnonzero(counts)
    if len(classes) > most_classes:
        order = np.random.RandomState([seed]).permutation(len(counts))
        classes = np.sort(order[counts[order] > 0][:most_classes])
    return [
        Shown(
            index,
            int(counts[index]),
            _drawn(by_class[ends[index] - counts[index] : ends[index]], per_class, [*draws, index]),
        )
        for index in classes.tolist()
    ]


def check_seed(seed: int) -> None:
    """Refuse a seed that NumPy does not accept."""
    check_at_least("seed", seed, 0)
    if seed >= 2**32:
        raise OptionError(f"seed must be less than 2**32, not {seed}")


def _drawn(rows: NDArray[np.intp], most: int, seeds: list[int]) -> tuple[int, ...]:
    if len(rows) > most:
        rows = np.sort(np.random.RandomState(seeds).choice(rows, most, replace=False))
    return tuple(rows.tolist())
