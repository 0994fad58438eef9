"""Find images that look alike: near duplicates, between splits and within one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from batchify.checking.facts import Facts
from batchify.checking.findings import CheckLimits, Finding, Found, Rows
from batchify.common.text import plural
from batchify.planning.duplicates import Repeat
from batchify.planning.near_duplicates import Hashes, bit_counts, find_near

Location = tuple[str, int]
"""Split and row."""

Pair = tuple[Location, Location, int]
"""Two rows, and in how many bits their hashes differ."""

_BITS = 64
_HASHES_AT_ONCE = 4096
_ROWS_AT_ONCE = 16


def find_near_leaks(facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Find groups of images that look alike and are in several splits."""
    distance = int(limits.threshold("near-leak"))
    repeats = [repeat for repeat in near_groups(facts, distance) if len(repeat.splits) > 1]
    if repeats:
        message = f"{plural(len(repeats), 'group')} of images that look alike in several splits"
        yield _found(facts, message, len(repeats), [_Across(facts, r, distance) for r in repeats])


def find_near_duplicates(facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Find images that look like others of their split."""
    repeats = near_groups(facts, int(limits.threshold("near-duplicate")))
    if copies := sum(len(repeat) - len(repeat.splits) for repeat in repeats):
        message = f"{copies:,} of {plural(facts.images, 'image')} look like others in their split"
        yield _found(facts, message, copies, [_Within(facts, repeat) for repeat in repeats])


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


class _Within:
    """A group of images that look alike: its rows that are not the first in their split.

    Parameters
    ----------
    repeat : Repeat
        All rows of the group.
    """

    def __init__(self, facts: Facts, repeat: Repeat) -> None:
        self._facts, self._repeat = facts, repeat

    @cached_property
    def rows(self) -> Rows:
        """The rows that are found."""
        return {split: rows[1:] for split, rows in self._repeat.rows_of.items()}

    def pairs(self) -> Iterator[Pair]:
        """Yield each row that is found, with the most similar one of the group."""
        every = self._repeat.rows_of
        for split, found in self.rows.items():
            names = self._compared(split)
            others = [(name, every[name], self._hashes(name, every[name])) for name in names]
            for row, own in zip(found.tolist(), self._hashes(split, found), strict=True):
                yield (split, row), *_nearest((split, row), own, others)

    def _compared(self, split: str) -> list[str]:
        """Return in which splits a row of a split is compared."""
        return [split]

    def _hashes(self, split: str, rows: NDArray[np.int64]) -> Hashes:
        hashes: Hashes = self._facts.splits[split].appearance["phash"][rows]
        return hashes


class _Across(_Within):
    """A group in several splits: the rows after the first split that are near one of another."""

    def __init__(self, facts: Facts, repeat: Repeat, distance: int) -> None:
        super().__init__(facts, repeat)
        self._distance = distance

    @cached_property
    def rows(self) -> Rows:
        """The rows that are found: others are only connected by rows of their split.

        Notes
        -----
        Time: for a million pairs of rows, a millisecond. Memory: two hashes per row.
        """
        hashes = {name: self._hashes(name, rows) for name, rows in self._repeat.rows_of.items()}
        found: dict[str, NDArray[np.int64]] = {}
        for split, rows in list(self._repeat.rows_of.items())[1:]:
            others = np.concatenate([hashes[name] for name in self._compared(split)])
            is_near = _is_near(hashes[split], others, self._distance)
            if is_near.any():
                found[split] = rows[is_near]
        return found

    def _compared(self, split: str) -> list[str]:
        return [name for name in self._repeat.splits if name != split]


def _nearest(
    row: Location, own: np.uint64, others: Sequence[tuple[str, NDArray[np.int64], Hashes]]
) -> tuple[Location, int]:
    """Return the most similar of other rows, by split with their hashes, and how it differs."""
    best, least = row, _BITS + 1
    for split, rows, hashes in others:
        bits = bit_counts(hashes ^ own)
        if split == row[0]:
            bits[rows == row[1]] = _BITS + 1
        at = int(bits.argmin())
        if bits[at] < least:
            best, least = (split, int(rows[at])), int(bits[at])
    return best, least


def _is_near(hashes: Hashes, others: Hashes, distance: int) -> NDArray[np.bool_]:
    """Return which hashes differ in at most `distance` bits from one of the others."""
    found = np.zeros(len(hashes), np.bool_)
    for first in range(0, len(others), _HASHES_AT_ONCE):
        some = others[first : first + _HASHES_AT_ONCE]
        left = np.flatnonzero(~found)
        for start in range(0, len(left), _ROWS_AT_ONCE):
            own = left[start : start + _ROWS_AT_ONCE]
            bits = bit_counts(hashes[own, np.newaxis] ^ some)
            found[own] = (bits <= distance).any(axis=1)
    return found


def _found(facts: Facts, message: str, count: int, groups: Sequence[_Within]) -> Found:
    """Return groups as a problem; examples begin with one of each group."""

    def examples() -> Iterator[Finding]:
        firsts = (islice(group.pairs(), 1) for group in groups)
        others = (islice(group.pairs(), 1, None) for group in groups)
        for row, other, bits in chain.from_iterable(chain(firsts, others)):
            text = f"looks like {facts.finding('', other).where}: {bits} of {_BITS} bits differ"
            classes = {facts.class_of(*row), facts.class_of(*other)}
            if len(classes - {None}) > 1:
                text += ", in another class"
            yield replace(facts.finding(text, row), other=other)

    def rows() -> Rows:
        found: dict[str, list[NDArray[np.int64]]] = {}
        for group in groups:
            for split, some in group.rows.items():
                if len(some):
                    found.setdefault(split, []).append(some)
        return {split: np.sort(np.concatenate(some)) for split, some in found.items()}

    return Found(message, count, examples(), rows)
