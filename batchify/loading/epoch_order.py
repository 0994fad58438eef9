"""The order of a shuffled epoch."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import RandomState  # now: a fork must not find it half imported

from batchify.loading.arrays import Column, RowArray, underlying
from batchify.loading.indexing import Rows

MIXED_NBYTES = 64 << 20
"""Compressed images that are shuffled among each other, where a chunk holds several."""

MIXED_FILES = 8
"""Files whose rows are mixed, where files are fetched when their rows are read."""


def shuffled_rows(images: Column, random: RandomState) -> Rows:
    """Return the row numbers of a shuffled epoch in their order, shape (N,).

    Rows that are read one by one are permuted: every order is equally likely. Where compressed
    images share chunks, the chunks are permuted, and then the rows within every `MIXED_NBYTES` of
    chunks, so that each chunk needs to be inflated only once. Where files are fetched, they are
    permuted, and each row (or chunk) is moved by a random part of `MIXED_FILES` files: at any time,
    rows of that many files are mixed, and a file is needed for a part of the epoch only. It begins
    with the rows of one file, then two …: the first batch waits for one.
    """
    groups = _groups(images)
    files = _file_places(images, random)
    if groups is None:
        return random.permutation(len(images)) if files is None else _mixed(files, random)
    starts, sizes, order = groups
    if files is None:
        chunks = random.permutation(len(starts))
    else:
        chunks = _mixed(files[starts] if order is None else files[order[starts]], random)
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


def _file_places(images: Column, random: RandomState) -> Rows | None:
    """Return the place of each row's file in a random order of files; None if none are fetched."""
    base, selected = underlying(images)
    if not isinstance(base, RowArray) or base.files is None:
        return None
    numbers = np.arange(len(base)) if selected is None else np.asarray(selected, np.intp)
    owners = np.searchsorted(base.files, numbers, side="right") - 1
    return np.argsort(random.permutation(len(base.files)))[owners]


def _mixed(places: Rows, random: RandomState) -> Rows:
    """Return the order of rows, or chunks, given the place of the file of each.

    As ``py1e`` of MosaicML streaming does:
    https://docs.mosaicml.com/projects/streaming/en/stable/dataset_configuration/shuffling.html
    """
    return np.argsort(places + random.uniform(0, MIXED_FILES, len(places)), kind="stable")


def chunk_starts(images: Column) -> Rows | None:
    """Return the first row of each chunk; None if no images share a chunk.

    For selected rows, the chunks are those of the array that they are selected of.
    """
    base, _ = underlying(images)
    return base.starts if isinstance(base, RowArray) else None


def mixed_rows(images: Column) -> int:
    """Return how many rows are shuffled together, give or take a chunk."""
    return max(1, MIXED_NBYTES // max(1, math.prod(images.shape[1:]) * images.dtype.itemsize))
