"""Which rows of a split to show: a few of each class, drawn by a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchify import schema
from batchify.errors import FileFormatError, OptionError
from batchify.names import printable
from batchify.reader import Reader
from batchify.values import at_least


@dataclass(frozen=True, slots=True)
class Shown:
    """The rows of a class that are shown.

    Parameters
    ----------
    class_index : int or None
        None where no labels are classes.
    count : int
        Rows that the split has of the class.
    rows : tuple of int
        Those shown, ascending.
    """

    class_index: int | None
    count: int
    rows: tuple[int, ...]


def sample_rows(
    reader: Reader, split: str, *, per_class: int, most_classes: int, seed: int
) -> list[Shown]:
    """Draw rows of a split: of each class at most `per_class`, of at most `most_classes` classes.

    Where there are more classes, ``RandomState([seed])`` permutes all classes of the file, and
    the first of them that the split has are taken: so every split shows the same classes, as far
    as it has them. Where a class has more rows, ``RandomState([seed, split, class])`` chooses
    among them; split and class are numbered as in `schema.SPLITS` and in the file.

    Parameters
    ----------
    reader : Reader
    split : str
    per_class : int
        At least 1; without labels, of the whole split.
    most_classes : int
        At least 1.
    seed : int
        0 to 2**32 - 1.

    Returns
    -------
    list of Shown
        In the order of the classes, those without a row in the split left out; empty for a split
        without rows; one, whose class is None, where no labels are classes.

    Raises
    ------
    OptionError
    FileFormatError
        If there are labels that are not of a class.

    Notes
    -----
    Memory: 30 bytes a row.
    """
    at_least("images of a class", per_class, 1)
    at_least("classes", most_classes, 1)
    check_seed(seed)
    count = reader.rows(split)
    if not count:
        return []
    draws = [seed, schema.SPLITS.index(split)]
    if not has_classes(reader):
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


def has_classes(reader: Reader) -> bool:
    """Tell whether the labels of a file are classes."""
    return reader.header.config["class_mode"] in schema.INDEXED_MODES


def class_counts(reader: Reader, split: str) -> NDArray[np.int64] | None:
    """Return the rows of each class, shape (classes,); None where no labels are classes.

    Raises
    ------
    FileFormatError
        If there are labels that are not of a class.

    Notes
    -----
    Memory: some thousand labels at a time.
    """
    if not has_classes(reader):
        return None
    counts = np.zeros(len(reader.header.classes), np.int64)
    for piece in _index_pieces(reader, split):
        counts += np.bincount(piece, minlength=len(counts))
    return counts


def check_seed(seed: int) -> None:
    """Refuse a seed that NumPy does not take.

    Raises
    ------
    OptionError
    """
    at_least("seed", seed, 0)
    if seed >= 2**32:
        raise OptionError(f"seed must be less than 2**32, not {seed}")


def _drawn(rows: NDArray[np.intp], most: int, seeds: list[int]) -> tuple[int, ...]:
    if len(rows) > most:
        rows = np.sort(np.random.RandomState(seeds).choice(rows, most, replace=False))
    return tuple(rows.tolist())


def class_indices(reader: Reader, split: str) -> NDArray[np.int32]:
    """Return the class of every row of a split that has labels, whatever form they have.

    Raises
    ------
    FileFormatError
        If there are labels that are not of a class.

    Notes
    -----
    Memory: 4 bytes a row.
    """
    indices = np.empty(len(reader.splits[split]["labels"]), np.int32)
    start = 0
    for piece in _index_pieces(reader, split):
        indices[start : start + len(piece)] = piece
        start += len(piece)
    return indices


def _index_pieces(reader: Reader, split: str) -> Iterator[NDArray[np.intp]]:
    """Yield the classes of the rows, some thousand at a time, each held against the file's."""
    n_classes = len(reader.header.classes)
    for piece in reader.pieces(split, "labels"):
        if piece.ndim == 2:
            known = np.count_nonzero(piece, axis=1) == 1
        else:
            known = (piece >= 0) & (piece < n_classes)
        if not known.all():
            raise FileFormatError(
                f"{printable(reader.path)}: {split}/labels has labels that are not of a class"
            )
        yield piece.argmax(axis=1) if piece.ndim == 2 else piece
