"""Find leaks (images or groups in several splits) and duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from batchify.checking.facts import Facts
from batchify.checking.findings import CheckLimits, Finding, Found, Rows, allowed
from batchify.checking.repeats import classes_of
from batchify.common.text import plural, printable
from batchify.planning.duplicates import Repeat, find_repeats
from batchify.planning.groups import group_names, name_digests

Location = tuple[str, int]
"""Split and row."""


def find_leaks(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images that are in several splits."""
    if leaks := facts.repeat_counts.leaks:
        message = f"{plural(leaks, 'image')} in several splits"
        found = _found(facts, message, leaks, lambda: _across(facts.repeats))
        yield replace(found, rows=lambda: _rows(_outside(facts.repeats)))


def find_label_conflicts(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images that are in several classes."""
    if conflicts := facts.repeat_counts.conflicts:
        labels = facts.labels

        def pairs() -> Iterator[tuple[Location, Location]]:
            found = (each for each in facts.repeats if len(classes_of(each, labels)) > 1)
            return ((row, each[0]) for each in found for row in islice(each, 1, None))

        yield _found(facts, f"{plural(conflicts, 'image')} in several classes", conflicts, pairs)


def find_duplicates(facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Find more copies of images within a split than the limit."""
    copies = facts.repeat_counts.copies
    if copies > allowed(limits.max_duplicates, facts.images):
        message = f"{copies:,} of {plural(facts.images, 'image')} are copies of others in a split"

        def pairs() -> Iterator[tuple[Location, Location]]:
            for each in facts.repeats:
                firsts = each.firsts
                for split, row in each:
                    if row != firsts[split]:
                        yield (split, row), (split, firsts[split])

        yield _found(facts, message, copies, pairs)


def find_group_leaks(facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Find groups, by the pattern of the limits, that are in several splits."""
    if not limits.group_by:
        return
    starts = np.cumsum([len(split.flags) for split in facts.splits.values()])
    digests = name_digests(_all_paths(facts), facts.images, limits.group_by)
    groups = find_repeats(dict(zip(facts.splits, np.split(digests, starts), strict=False)))
    if leaks := sum(len(group.splits) > 1 for group in groups):

        def examples() -> Iterator[Finding]:
            for row, first in _across(groups):
                found = facts.finding("", row)
                (group,) = group_names([found.path], limits.group_by)
                yield facts.finding(f"{printable(group)}, as {facts.finding('', first).where}", row)

        message = f"{plural(leaks, 'group')} in several splits"
        yield Found(message, leaks, examples(), lambda: _rows(_outside(groups)))


def _across(repeats: Iterable[Repeat]) -> Iterator[tuple[Location, Location]]:
    """Yield the first row of images in each other split, with their first row."""
    for repeat in repeats:
        for location in list(repeat.firsts.items())[1:]:
            yield location, repeat[0]


def _outside(repeats: Iterable[Repeat]) -> Iterator[tuple[Location, Location]]:
    """Yield all rows of images that are not in the split of their first row, with that row."""
    for repeat in repeats:
        first = repeat[0]
        if len(repeat.splits) > 1:
            yield from ((location, first) for location in repeat if location[0] != first[0])


Pairs = Callable[[], Iterator[tuple[Location, Location]]]
"""Yields copies, each with its original."""


def _found(facts: Facts, message: str, count: int, pairs: Pairs) -> Found:
    """Return copies as a problem."""
    examples = (
        facts.finding(f"the same bytes as {facts.finding('', original).where}", copy)
        for copy, original in pairs()
    )
    return Found(message, count, examples, lambda: _rows(pairs()))


def _rows(pairs: Iterable[tuple[Location, Location]]) -> Rows:
    """Return the rows of copies, by split."""
    found: dict[str, list[int]] = {}
    for (split, row), _ in pairs:
        found.setdefault(split, []).append(row)
    return {split: np.unique(np.array(rows, np.int64)) for split, rows in found.items()}


def _all_paths(facts: Facts) -> Iterator[tuple[int, list[bytes]]]:
    """Yield runs of paths, each with the number of its first; numbers continue across splits."""
    before = 0
    for split in facts.splits.values():
        for start, paths in split.paths(0, len(split.flags)):
            yield before + start, paths
        before += len(split.flags)
