"""The order of a shuffled epoch."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import RandomState  # now: a fork must not find it half imported

from batchify.loading.arrays import Column, RowArray, underlying
from batchify.loading.indexing import Rows

MIXED_NBYTES = 64 << 20
"""Compressed images that are shuffled among each other, where a chunk holds several."""


def shuffled_rows(images: Column, random: RandomState) -> Rows:
    """Return the row numbers of a shuffled epoch in their order, shape (N,).

    Rows that are read one by one are permuted: every order is equally likely. Where compressed
    images share chunks, the chunks are permuted, and then the rows within every `MIXED_NBYTES` of
    chunks, so that each chunk needs to be inflated only once.
    """
    groups = _groups(images)
    if groups is None:
        return random.permutation(len(images))
    starts, sizes, order = groups
    chunks = random.permutation(len(starts))
    lengths = np.diff(starts, append=len(images))[chunks]
    before = np.cumsum(lengths) - lengths
    rows: Rows = np.arange(len(images)) + np.repeat(starts[chunks] - before, lengths)
    inflated = np.cumsum(sizes[chunks]) - sizes[chunks]
    changes = np.flatnonzero(np.diff(inflated // mixed_rows(images))) + 1
    for mixed in np.split(rows, before[changes]):  # views: shuffled in place
        random.shuffle(mixed)
    return rows if order is None else order[rows]


def _groups(images: Column) -> tuple[Rows, Rows, Rows | None] | None:
    """Return how rows share chunks; None if no images share one.

    Returns
    -------
    starts, sizes : ndarray of intp, shape (K,)
        For each chunk that has rows: the first of them, and how many rows it inflates to.
    order : ndarray of intp, shape (N,), or None
        The rows by chunk, which `starts` counts; None if they are in this order.
    """
    base, selected = underlying(images)
    firsts = chunk_starts(base)
    if firsts is None:
        return None
    sizes = np.diff(firsts, append=len(base))
    if selected is None:
        return firsts, sizes, None
    chunks = np.searchsorted(firsts, np.asarray(selected, np.intp), side="right") - 1
    order = None
    if (np.diff(chunks) < 0).any():
        order = np.argsort(chunks, kind="stable")
        chunks = chunks[order]
    starts = np.flatnonzero(np.diff(chunks, prepend=-1))
    return starts, sizes[chunks[starts]], order


def chunk_starts(images: Column) -> Rows | None:
    """Return the first row of each chunk; None if no images share a chunk.

    For selected rows, the chunks are those of the array that they are selected of.
    """
    base, _ = underlying(images)
    return base.starts if isinstance(base, RowArray) else None


def mixed_rows(images: Column) -> int:
    """Return how many rows are shuffled together, give or take a chunk."""
    return max(1, MIXED_NBYTES // max(1, math.prod(images.shape[1:]) * images.dtype.itemsize))
