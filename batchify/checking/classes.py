"""Find classes that are empty, small or unbalanced, or whose names or folders are suspicious."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batchify.checking.facts import Facts
from batchify.checking.findings import CheckLimits, Finding, Found
from batchify.common.text import plural, printable
from batchify.datasets.classes import similar_names

_LEAST_IMAGES = 10
"""Fewer images of a class are a warning."""

_MOST_IMBALANCE = 10
"""A higher ratio of the largest to the smallest class is a warning."""


def find_empty_splits(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find splits without a readable image."""
    for name, split in facts.splits.items():
        if len(split.flags) == len(facts.unreadable.get(name, ())):
            yield Found(f"the {name} split has no images", 1)


def find_empty_classes(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find classes without an image."""
    yield from _classes(facts, facts.class_totals == 0, "have no images")


def find_tiny_classes(facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Find classes with fewer images than the limit."""
    totals, least = facts.class_totals, limits.min_class_size or _LEAST_IMAGES
    few = (totals > 0) & (totals < least)
    yield from _classes(facts, few, f"have fewer than {least} images")


def find_missing_classes(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find classes that are missing in a split, but not in others."""
    for name, counts in facts.class_counts.items():
        if counts.any():
            missing = (counts == 0) & (facts.class_totals > 0)
            yield from _classes(facts, missing, f"have no images in {name}")


def find_imbalance(facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Compare the largest with the smallest class, in train if it exists."""
    counts = facts.class_counts
    where, train = ("train", counts["train"]) if "train" in counts else ("all", facts.class_totals)
    some = np.flatnonzero(train)
    if not len(some):
        return
    small, large = some[np.argmin(train[some])], np.argmax(train)
    ratio = train[large] / train[small]
    if ratio > (limits.max_imbalance or _MOST_IMBALANCE):
        message = (
            f"class {printable(facts.classes[large])} has {ratio:,.1f} times the images of "
            f"{printable(facts.classes[small])} in {where}: {train[large]:,} and {train[small]:,}"
        )
        yield Found(message, 1)


def _classes(facts: Facts, mask: NDArray[np.bool_], problem: str) -> Iterator[Found]:
    """Yield the marked classes as one problem, if there are any."""
    totals = facts.class_totals
    if count := int(mask.sum()):
        examples = (
            Finding("", plural(totals[i], "image"), path=facts.classes[i])
            for i in np.flatnonzero(mask).tolist()
        )
        yield Found(f"{count:,} of {len(totals):,} classes {problem}", count, examples)


def find_linked(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find folders of classes that are links out of the dataset."""
    if count := len(facts.linked):
        examples = (Finding("", "a link out of the dataset", path=path) for path in facts.linked)
        yield Found(f"{plural(count, 'class folder')} outside of the dataset", count, examples)


def find_similar(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find classes whose names are nearly the same."""
    if pairs := similar_names(facts.classes):
        examples = (Finding("", f"is like {printable(one)}", path=other) for one, other in pairs)
        pair = plural(len(pairs), "pair")
        message = f"{pair} of classes differ by case, spaces or Unicode form only"
        yield Found(message, len(pairs), examples)


def find_warnings(code: str, facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Report the warnings from reading the folders of the dataset."""
    for warning in facts.warnings:
        if warning.code == code:
            yield Found(str(warning), 1)
