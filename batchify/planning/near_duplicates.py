"""Find images that look alike, by the Hamming distance of their perceptual hashes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from batchify.planning.duplicates import Repeated, grouped_rows
from batchify.planning.groups import repeat_numbers

Positions = NDArray[np.int32]
Places = NDArray[np.int64]
Hashes = NDArray[np.uint64]
"""Perceptual hashes (`batchify.decoding.appearance.phash`), shape (n,)."""

_BITS = 64
_LEAST_BITS = 8
"""Hashes with fewer bits are those of solid colors and even gradients, which are all alike."""

_SORT_COST = 100.0
"""What sorting costs per hash, compared with one comparison of two hashes (measured)."""

_SKEW = 8.0
"""How many times more hashes of real images share some bits than random ones (measured)."""

_LONG_RUN = 256
"""Runs of more hashes are compared one by one: that is faster, and skips what is joined."""

_PAIRS_AT_ONCE = 1 << 16
"""Pairs of hashes that are compared at once: they stay in the cache of a processor."""

_MOST_NOTED = 1 << 16
"""Near pairs that are noted before they are connected, which takes time for all hashes."""


def find_near(
    hashes: Mapping[str, Hashes], digests: Mapping[str, NDArray[np.uint8]], distance: int
) -> Repeated:
    """Return groups of different files whose images look alike, in the order of their first row.

    A group has only the first of several files with the same bytes.

    Parameters
    ----------
    hashes, digests : dict of str to ndarray
        Those of the rows of each split: perceptual hashes, and SHA-256, shape (n, 32).
    distance : int
        See `near_numbers`.
    """
    same = repeat_numbers(np.concatenate(list(digests.values())))
    rows = np.sort(np.unique(same, return_index=True)[1])
    return grouped_rows(
        digests, rows, near_numbers(np.concatenate(list(hashes.values()))[rows], distance)
    )


def near_numbers(hashes: Hashes, distance: int) -> NDArray[np.int32]:
    """Return a number for each hash, shape (n,), the same for those that are near each other.

    Hashes are near if they differ in at most `distance` bits, or are connected by others that are.
    Hashes of images without detail, and zeros, are near no other.

    Parameters
    ----------
    hashes : ndarray of uint64, shape (n,)
    distance : int
        At most `choices.MAX_NEAR_DISTANCE`.

    Notes
    -----
    Memory: 100 bytes per hash. Time: see the page `check` of the documentation. If two hashes
    differ in at most d bits, they are equal in all but d of some bands of bits; so they follow each
    other when they are sorted by some of their bands.
    """
    values, places = np.unique(hashes, return_inverse=True)
    labels = np.arange(len(values), dtype=np.int32)
    is_detailed = has_detail(values)
    detailed = np.flatnonzero(is_detailed).astype(np.int32)
    if distance and len(detailed) > 1:
        near = _Components(values[detailed])
        for mask in _masks(len(detailed), distance):
            near.join(mask, distance)
        labels[detailed] = detailed[near.labels]
    found = labels[places]
    alone = np.flatnonzero(~is_detailed[places])
    found[alone] = len(values) + np.arange(len(alone), dtype=np.int32)
    return found


def _masks(count: int, distance: int) -> Iterator[np.uint64]:
    """Yield masks of bits: any two hashes that are near are equal in the bits of one of them.

    The 64 bits are cut into bands. The more bands, the fewer hashes share those of a mask, but the
    more masks there are; the number of bands is the one for which a search costs least. Bits that
    are next to each other are often equal together, so they are in different bands.
    """

    def cost(bands: int) -> float:
        shared = _BITS * (bands - distance) / bands
        pairs = count / 2 * _SKEW / 2**shared
        return math.comb(bands, distance) * (_SORT_COST + pairs)

    bands = min(range(distance + 1, distance + 7), key=cost)
    parts = [sum(1 << bit for bit in range(first, _BITS, bands)) for first in range(bands)]
    for some in combinations(parts, bands - distance):
        yield np.uint64(sum(some))


class _Components:
    """Joins near hashes to connected components.

    Parameters
    ----------
    values : ndarray of uint64, shape (n,)
        Different hashes.

    Attributes
    ----------
    labels : ndarray of int32, shape (n,)
        The lowest position of a hash of the same component.
    """

    def __init__(self, values: Hashes) -> None:
        self._values = values
        self.labels = np.arange(len(values), dtype=np.int32)
        self._near: list[Positions] = []
        self._noted = 0

    def join(self, mask: np.uint64, distance: int) -> None:
        """Join the hashes that are near each other and equal in the bits of a mask."""
        keys = self._values & mask
        order = np.argsort(keys).astype(np.int32)
        keys = keys[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        lengths = np.diff(starts, append=len(keys))
        for shift in range(1, _LONG_RUN + 1):
            if shift & (shift - 1) == 0:  # a power of two
                self._connect()
                order, starts, lengths = self._unjoined(order, starts, lengths, shift)
                values = self._values[order]
            if not len(order):
                return
            near = np.flatnonzero(bit_counts(values[:-shift] ^ values[shift:]) <= distance)
            self._add(order[near], order[near + shift])
        self._connect()
        order, starts, lengths = self._unjoined(order, starts, lengths, _LONG_RUN)
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            self._join_run(order[start : start + length], distance)
        self._connect()

    def _unjoined(
        self, order: Positions, starts: Places, lengths: Places, shortest: int
    ) -> tuple[Positions, Places, Places]:
        """Return the runs that are longer than `shortest` and of several components.

        Parameters
        ----------
        order : ndarray of int32, shape (m,)
            Positions of hashes, run by run.
        starts, lengths : ndarray of int64, shape (k,)
            Where the runs start in `order`.
        """
        if not len(starts):
            return order, starts, lengths
        labels = self.labels[order]
        kept = np.minimum.reduceat(labels, starts) != np.maximum.reduceat(labels, starts)
        kept &= lengths > shortest
        order, lengths = order[np.repeat(kept, lengths)], lengths[kept]
        return order, np.cumsum(lengths) - lengths, lengths

    def _join_run(self, run: Positions, distance: int) -> None:
        """Join the hashes of a run that are near each other.

        Those of its largest component are only compared with others.
        """
        labels, counts = np.unique(self.labels[run], return_counts=True)
        values = self._values[run]
        others = np.flatnonzero(self.labels[run] != labels[counts.argmax()])
        at_once = max(1, _PAIRS_AT_ONCE // len(run))
        for start in range(0, len(others), at_once):
            some = others[start : start + at_once]
            bits = bit_counts(values[some, np.newaxis] ^ values)
            rows, columns = np.nonzero(bits <= distance)
            self._add(run[some[rows]], run[columns])

    def _add(self, some: Positions, others: Positions) -> None:
        """Note that some hashes are near others; connect them when there are many."""
        differ = np.flatnonzero(self.labels[some] != self.labels[others])
        if len(differ):
            self._near.append(np.stack([some[differ], others[differ]]))
            self._noted += len(differ)
        if self._noted > _MOST_NOTED:
            self._connect()

    def _connect(self) -> None:
        """Give the components of each pair that was noted their lowest label."""
        pairs = np.concatenate([np.zeros((2, 0), np.int32), *self._near], axis=1)
        self._near.clear()
        self._noted = 0
        while True:
            labels = self.labels[pairs]
            differ = labels[0] != labels[1]
            if not differ.any():
                return
            pairs, labels = pairs[:, differ], labels[:, differ]
            np.minimum.at(self.labels, labels.max(axis=0), labels.min(axis=0))
            while not np.array_equal(roots := self.labels[self.labels], self.labels):
                self.labels = roots


def has_detail(hashes: Hashes) -> NDArray[np.bool_]:
    """Return which hashes say something about their image; those of solid colors do not."""
    found: NDArray[np.bool_] = bit_counts(hashes) >= _LEAST_BITS
    return found


def bit_counts(values: Hashes) -> NDArray[np.uint8]:
    """Return how many bits of each value are set."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        counts: NDArray[np.uint8] = np.bitwise_count(values)
        return counts
    bits = np.unpackbits(values[..., np.newaxis].view(np.uint8), axis=-1)
    found: NDArray[np.uint8] = bits.sum(axis=-1, dtype=np.uint8)
    return found
