"""Find images that look alike: near duplicates, between splits and within one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice

import numpy as np

from batchify.checking.facts import Facts
from batchify.checking.findings import CheckLimits, Finding, Found, Rows
from batchify.common.text import plural
from batchify.planning.duplicates import Repeat
from batchify.planning.near_duplicates import bit_counts, find_near

Location = tuple[str, int]
"""Split and row."""

Pair = tuple[Location, Location, int]
"""Two rows, and in how many bits their hashes differ."""

_MOST_COMPARED = 4096
"""With how many images of its group in each split an image is compared, for the most similar."""

_BITS = 64


def find_near_leaks(facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Find groups of images that look alike and are in several splits."""
    distance = int(limits.threshold("near-leak"))
    groups = [group for group in near_groups(facts, distance) if len(group.splits) > 1]
    if groups:
        message = f"{plural(len(groups), 'group')} of images that look alike in several splits"
        yield _found(
            facts,
            message,
            len(groups),
            lambda: (_across(facts, group, distance) for group in groups),
        )


def find_near_duplicates(facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Find images that look like others of their split."""
    groups = near_groups(facts, int(limits.threshold("near-duplicate")))
    if copies := sum(len(group) - len(group.splits) for group in groups):
        message = f"{copies:,} of {plural(facts.images, 'image')} look like others in their split"
        yield _found(facts, message, copies, lambda: (_within(facts, group) for group in groups))


def has_hashes(facts: Facts) -> bool:
    """Return whether the perceptual hashes of the images are known."""
    return all("phash" in split.appearance for split in facts.splits.values())


def near_groups(facts: Facts, distance: int) -> Sequence[Repeat]:
    """Return groups of images that look alike; none if the hashes are not known.

    See `batchify.planning.near_duplicates.find_near`.
    """
    if not has_hashes(facts):
        return ()
    if distance not in facts.near:
        hashes = {name: split.appearance["phash"] for name, split in facts.splits.items()}
        digests = {name: split.digests for name, split in facts.splits.items()}
        facts.near[distance] = find_near(hashes, digests, distance)
    return facts.near[distance]


Pairs = Callable[[], Iterator[Iterator[Pair]]]
"""Yields the rows of each group, each with the one that it looks like."""


def _found(facts: Facts, message: str, count: int, pairs: Pairs) -> Found:
    """Return pairs as a problem; examples begin with one of each group."""

    def examples() -> Iterator[Finding]:
        firsts = (islice(each, 1) for each in pairs())
        others = (islice(each, 1, None) for each in pairs())
        for row, other, bits in chain.from_iterable(chain(firsts, others)):
            text = f"looks like {facts.finding('', other).where}: {bits} of {_BITS} bits differ"
            yield replace(facts.finding(text, row), other=other)

    def rows() -> Rows:
        found: dict[str, list[int]] = {}
        for (split, row), _, _ in chain.from_iterable(pairs()):
            found.setdefault(split, []).append(row)
        return {split: np.array(sorted(some), np.int64) for split, some in found.items()}

    return Found(message, count, examples(), rows)


def _across(facts: Facts, group: Repeat, distance: int) -> Iterator[Pair]:
    """Yield the rows of a group that are not in its first split and near one of another."""
    nearest = _Nearest(facts, group)
    for row in group:
        if row[0] != group[0][0]:
            other, bits = nearest.find(row, same_split=False)
            if bits <= distance:
                yield row, other, bits


def _within(facts: Facts, group: Repeat) -> Iterator[Pair]:
    """Yield the rows of a group that are not the first in their split."""
    firsts, nearest = group.firsts, _Nearest(facts, group)
    for split, row in group:
        if row != firsts[split]:
            yield (split, row), *nearest.find((split, row), same_split=True)


class _Nearest:
    """Finds the most similar row of a group."""

    def __init__(self, facts: Facts, group: Repeat) -> None:
        self._hashes = {name: split.appearance["phash"] for name, split in facts.splits.items()}
        by_split: dict[str, list[Location]] = {}
        for row in group:
            if len(some := by_split.setdefault(row[0], [])) < _MOST_COMPARED:
                some.append(row)
        self._some = [row for some in by_split.values() for row in some]
        self._known = np.array([self._hashes[split][row] for split, row in self._some])
        self._splits = np.array([split for split, _ in self._some])
        self._rows = np.array([row for _, row in self._some])

    def find(self, row: Location, *, same_split: bool) -> tuple[Location, int]:
        """Return the most similar of the other rows in the same split, or in others."""
        split, number = row
        bits = bit_counts(self._known ^ self._hashes[split][number])
        is_same = self._splits == split
        excluded = (~is_same | (self._rows == number)) if same_split else is_same
        bits[excluded] = _BITS + 1
        best = int(bits.argmin())
        return self._some[best], int(bits[best])
