"""Images that look alike: the groups are those of a comparison of all pairs."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchify.choices import MAX_NEAR_DISTANCE
from batchify.planning import near_duplicates
from batchify.planning.near_duplicates import bit_counts, find_near, near_numbers


def all_pairs(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    """Return the lowest position of each hash's group, by all pairs."""
    bits = np.unpackbits(hashes[:, np.newaxis].view(np.uint8), axis=1)
    near = (bits[:, np.newaxis] != bits[np.newaxis]).sum(axis=2) <= distance
    near &= (bits.sum(axis=1) >= 8)[:, np.newaxis] & (bits.sum(axis=1) >= 8)
    np.fill_diagonal(near, val=True)
    labels = np.arange(len(hashes))
    for _ in hashes:
        labels = np.where(near, labels, len(hashes)).min(axis=1)
    return labels


def clusters(count: int, flips: int, seed: int) -> NDArray[np.uint64]:
    """Return hashes of which many are copies of others, with some bits flipped."""
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, count, np.uint64)
    hashes[::17] &= np.uint64(0xFF)  # next to no detail
    for i in range(max(1, count // 3), count):
        hashes[i] = hashes[random.integers(0, i)]
        for bit in random.integers(0, 64, random.integers(0, flips + 1)):
            hashes[i] ^= np.uint64(1 << int(bit))
    return hashes


@given(
    count=st.integers(0, 90), flips=st.integers(0, 14), seed=st.integers(0, 10**6),
    distance=st.integers(0, MAX_NEAR_DISTANCE), long_run=st.sampled_from([1, 4, 256]),
)  # fmt: skip
def test_the_groups_are_those_of_all_pairs(
    count: int, flips: int, seed: int, distance: int, long_run: int
) -> None:
    """For any distance: hashes that are near, or connected by others; however they are compared."""
    hashes = clusters(count, flips, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "_LONG_RUN", long_run)
        patch.setattr(near_duplicates, "_PAIRS_AT_ONCE", 64)
        patch.setattr(near_duplicates, "_MOST_NOTED", 3)
        found = near_numbers(hashes, distance)
    firsts = {number: i for i, number in reversed(list(enumerate(found.tolist())))}
    mine = [firsts[number] for number in found.tolist()]
    assert mine == all_pairs(hashes, distance).tolist()


def test_bits_are_counted_without_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `int.bit_count` counts them."""
    values = np.random.default_rng(0).integers(0, 2**64, 100, np.uint64)
    wanted = [value.bit_count() for value in values.tolist()]
    assert bit_counts(values).tolist() == wanted
    assert bit_counts(values.reshape(4, 25)).tolist() == np.reshape(wanted, (4, 25)).tolist()
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert bit_counts(values).tolist() == wanted
    assert bit_counts(values.reshape(4, 25)).tolist() == np.reshape(wanted, (4, 25)).tolist()


def test_files_with_the_same_bytes_count_once() -> None:
    """A group has different files; the first of several with the same bytes is in it."""
    one, other = 0x00FF00FF00FF00FF, 0x00FF00FF00FF00FE
    hashes = {"train": [one, other, 7, one], "validation": [other, other, 7]}
    numbers = {"train": [1, 2, 3, 1], "validation": [2, 4, 5]}
    digests = {
        name: np.repeat(np.array(each, np.uint8), 32).reshape(-1, 32)
        for name, each in numbers.items()
    }
    found = find_near({k: np.array(v, np.uint64) for k, v in hashes.items()}, digests, 2)
    assert [list(group) for group in found] == [[("train", 0), ("train", 1), ("validation", 1)]]


@pytest.mark.parametrize(
    "count", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)], ids=lambda n: f"{n:,}"
)
def test_many_images_are_compared_quickly(count: int) -> None:
    """Random ones, as many that nearly all look alike, and half of each: a minute a million."""
    random = np.random.default_rng(0)
    others = random.integers(0, 2**64, count, np.uint64)
    alike = np.uint64(0x123456789ABCDEF0) ^ (
        np.uint64(1) << random.integers(0, 64, (3, count), np.uint64)
    ).sum(axis=0, dtype=np.uint64)
    mixed = np.where(np.arange(count) % 2, others, alike)
    for hashes in (others, alike, mixed):
        started = time.process_time()
        near_numbers(hashes, 4)
        assert time.process_time() - started < 60 * count / 1_000_000


@pytest.mark.long
def test_many_images_are_compared_with_many_bits() -> None:
    """A million within a minute, with the most bits: random hashes with as many ones as zeros."""
    random = np.random.default_rng(0)
    bits = np.zeros((1_000_000, 64), np.uint8)
    bits[:, :32] = 1
    hashes = np.packbits(random.permuted(bits, axis=1, out=bits), axis=1).view(np.uint64)[:, 0]
    started = time.process_time()
    near_numbers(hashes, MAX_NEAR_DISTANCE)
    assert time.process_time() - started < 60
