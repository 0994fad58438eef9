"""Count the classes of labeled rows, or return the class of each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.text import printable
from batchify.errors import FileFormatError
from batchify.format.reader import Reader


def has_classes(reader: Reader, split: str) -> bool:
    """Return whether a split has labels that are classes."""
    return reader.class_mode(split) in choices.INDEXED_MODES


def class_counts(reader: Reader, split: str) -> NDArray[np.int64] | None:
    """Return the number of rows of each class, shape (classes,); None without such labels.

    Raises
    ------
    FileFormatError
        If a label is not one of the classes.

    Notes
    -----
    Memory: some thousand labels at a time.
    """
    if not has_classes(reader, split):
        return None
    counts = np.zeros(len(reader.header.classes), np.int64)
    for piece in _index_pieces(reader, split):
        counts += np.bincount(piece, minlength=len(counts))
    return counts


def class_indices(reader: Reader, split: str) -> NDArray[np.int32]:
    """Return the class of every row of a labeled split, for every form of labels.

    Raises
    ------
    FileFormatError
        If a label is not one of the classes.

    Notes
    -----
    Memory: 4 bytes per row.
    """
    indices = np.empty(len(reader.splits[split]["labels"]), np.int32)
    start = 0
    for piece in _index_pieces(reader, split):
        indices[start : start + len(piece)] = piece
        start += len(piece)
    return indices


def _index_pieces(reader: Reader, split: str) -> Iterator[NDArray[np.intp]]:
    """Yield the classes of the rows, some thousand at a time, after checking each."""
    n_classes = len(reader.header.classes)
    for piece in reader.pieces(split, "labels"):
        if piece.ndim == 2:
            is_class = np.count_nonzero(piece, axis=1) == 1
        else:
            is_class = (piece >= 0) & (piece < n_classes)
        if not is_class.all():
            raise FileFormatError(
                f"{printable(reader.path)}: {split}/labels has labels that are not class indices"
            )
        yield piece.argmax(axis=1) if piece.ndim == 2 else piece
