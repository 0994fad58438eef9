"""The order of the rows in an epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from batchify.images import RowArray
from batchify.indexing import Rows

MIXED_NBYTES = 64 << 20
"""Compressed images that are mixed with each other, where chunks hold several."""


def shuffled(
    images: NDArray[Any] | RowArray, random: RandomState, cuts: Sequence[int] = ()
) -> Rows:
    """Return row numbers in a new order, shape (N,).

    Rows that are read one by one are permuted: every order is as likely. Where compressed images
    share chunks, the chunks are permuted, and then the rows of every `MIXED_NBYTES` of chunks
    among each other, so that each chunk needs to be inflated once.

    Parameters
    ----------
    images : ndarray or RowArray
    random : numpy.random.RandomState
    cuts : sequence of int
        Places of the order that rows of chunks do not cross: where one reader's share ends.
    """
    count = len(images)
    starts = chunk_starts(images)
    if starts is None:
        return random.permutation(count)
    chunks = random.permutation(len(starts))
    lengths = np.diff(starts, append=count)[chunks]
    before = np.cumsum(lengths) - lengths
    rows: Rows = np.arange(count) + np.repeat(starts[chunks] - before, lengths)
    changes = np.flatnonzero(np.diff(before // mixed_rows(images))) + 1
    ends = sorted({*before[changes].tolist(), *cuts})
    for mixed in np.split(rows, ends):  # views: they are shuffled where they are
        random.shuffle(mixed)
    return rows


def chunk_starts(images: NDArray[Any] | RowArray) -> Rows | None:
    """Return the first row of each chunk that several images share; None where none do."""
    return images.starts if isinstance(images, RowArray) else None


def mixed_rows(images: NDArray[Any] | RowArray) -> int:
    """Return how many rows are mixed with each other; more by up to a chunk."""
    return max(1, MIXED_NBYTES // max(1, math.prod(images.shape[1:]) * images.dtype.itemsize))
