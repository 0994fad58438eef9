"""Find images that look alike, by the Hamming distance of their perceptual hashes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from batchify.planning.duplicates import Repeated, grouped_rows
from batchify.planning.groups import repeat_numbers

Hashes = NDArray[np.uint64]
"""Perceptual hashes (`batchify.decoding.appearance.phash`), shape (n,)."""

_BITS = 64
_LEAST_BITS = 8
"""Hashes with fewer bits are those of solid colors and even gradients, which are all alike."""

_SORT_COST = 60.0
"""What sorting costs per hash, compared with one comparison of two hashes (measured)."""

_SKEW = 30.0
"""How many times more hashes of real images share some bits than random ones (measured)."""


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
    has_detail = bit_counts(values) >= _LEAST_BITS
    detailed = np.flatnonzero(has_detail).astype(np.int32)
    if distance and len(detailed) > 1:
        near = _Components(values[detailed])
        for mask in _masks(len(detailed), distance):
            near.join(mask, distance)
        labels[detailed] = detailed[near.labels]
    found = labels[places]
    alone = np.flatnonzero(~has_detail[places])
    found[alone] = len(values) + np.arange(len(alone), dtype=np.int32)
    return found


def _masks(count: int, distance: int) -> Iterator[np.uint64]:
    """Yield masks of bits: any two hashes that are near are equal in the bits of one of them.

    The 64 bits are cut into bands. The more bands, the fewer hashes share those of a mask, but the
    more masks there are; the number of bands is the one for which a search costs least.
    """

    def cost(bands: int) -> float:
        shared = _BITS * (bands - distance) / bands
        pairs = count / 2 * _SKEW / 2**shared
        return math.comb(bands, distance) * (_SORT_COST + pairs)

    bands = min(range(distance + 1, distance + 7), key=cost)
    edges = [round(_BITS * i / bands) for i in range(bands + 1)]
    parts = [(1 << stop) - (1 << start) for start, stop in pairwise(edges)]
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

    def join(self, mask: np.uint64, distance: int) -> None:
        """Join the hashes that are near each other and equal in the bits of a mask."""
        keys = self._values & mask
        order = np.argsort(keys).astype(np.int32)
        keys = keys[order]
        is_new = np.append(True, keys[1:] != keys[:-1])
        starts, runs = np.flatnonzero(is_new), np.cumsum(is_new, dtype=np.int32) - 1
        ends = np.append(starts[1:], len(keys)).astype(np.int32)
        values = self._values[order]
        first = np.flatnonzero(~is_new[1:]).astype(np.int32)
        shift = 1
        pairs: list[NDArray[np.int32]] = []
        while len(first):
            near = first[bit_counts(values[first] ^ values[first + shift]) <= distance]
            pairs.append(np.stack([order[near], order[near + shift]]))
            if shift & (shift - 1) == 0:  # a power of two
                self._connect(np.concatenate(pairs, axis=1))
                pairs.clear()
                labels = self.labels[order]
                is_joined = np.minimum.reduceat(labels, starts) == np.maximum.reduceat(
                    labels, starts
                )
                first = first[~is_joined[runs[first]]]
            shift += 1
            first = first[first + shift < ends[runs[first]]]
        if pairs:
            self._connect(np.concatenate(pairs, axis=1))

    def _connect(self, pairs: NDArray[np.int32]) -> None:
        """Give the components of each pair, shape (2, m), their lowest label."""
        while True:
            labels = self.labels[pairs]
            differ = labels[0] != labels[1]
            if not differ.any():
                return
            pairs, labels = pairs[:, differ], labels[:, differ]
            np.minimum.at(self.labels, labels.max(axis=0), labels.min(axis=0))
            while not np.array_equal(roots := self.labels[self.labels], self.labels):
                self.labels = roots


def bit_counts(values: Hashes) -> NDArray[np.uint8]:
    """Return how many bits of each value are set."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        counts: NDArray[np.uint8] = np.bitwise_count(values)
        return counts
    bits = np.unpackbits(values[:, np.newaxis].view(np.uint8), axis=1)
    found: NDArray[np.uint8] = bits.sum(axis=1, dtype=np.uint8)
    return found
