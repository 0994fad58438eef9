"""The order of a shuffled epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import RandomState  # now: a fork must not find it half imported

from batchify.loading.arrays import Column, RowArray
from batchify.loading.indexing import Rows

MIXED_NBYTES = 64 << 20
"""Compressed images that are shuffled among each other, where a chunk holds several."""


def shuffled_rows(images: Column, random: RandomState, cuts: Sequence[int] = ()) -> Rows:
    """Return the row numbers of a shuffled epoch in their order, shape (N,).

    Rows that are read one by one are permuted: every order is equally likely. Where compressed
    images share chunks, the chunks are permuted, and then the rows within every `MIXED_NBYTES` of
    chunks, so that each chunk needs to be inflated only once.

    Parameters
    ----------
    cuts : sequence of int
        Positions in the order that no row is moved across: where one reader's share ends.
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
    for mixed in np.split(rows, ends):  # views: shuffled in place
        random.shuffle(mixed)
    return rows


def chunk_starts(images: Column) -> Rows | None:
    """Return the first row of each chunk; None if no images share a chunk."""
    return images.starts if isinstance(images, RowArray) else None


def mixed_rows(images: Column) -> int:
    """Return how many rows are shuffled together, give or take a chunk."""
    return max(1, MIXED_NBYTES // max(1, math.prod(images.shape[1:]) * images.dtype.itemsize))
