"""Join splits that go together: those of several files, and those that a view has rows of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from batchify.common.text import shown_names
from batchify.loading.arrays import ChainedArray, Column, ViewArray
from batchify.loading.columns import KeptColumns, Paths, joined_rows, kept_kinds
from batchify.loading.indexing import Selected
from batchify.loading.origin import Origin
from batchify.loading.split_data import SplitData, Statistics
from batchify.loading.statistics import joined_statistics

SplitT = TypeVar("SplitT", bound=SplitData)


def combined(parts: Sequence[SplitT], origin: Origin, selected: Selected | None = None) -> SplitT:
    """Return splits that go together as one, or some of their rows."""
    first = parts[0]
    labels = [part.labels for part in parts if part.labels is not None]
    weights = [part.weights for part in parts if part.weights is not None]
    counts = list(map(len, parts))
    has_all = selected is None or (isinstance(selected, range) and selected == range(sum(counts)))
    recorded = [part._recorded for part in parts]

    def statistics() -> Statistics | None:  # when asked for: files of a URL would be fetched
        found = [each() if callable(each) else each for each in recorded]
        known = [each for each in found if each is not None]
        return joined_statistics(counts, known) if len(known) == len(found) else None

    return type(first)(
        origin.split,
        _pixels([part.images for part in parts], origin, selected),
        _labels(labels, origin, selected),
        Paths([stored for part in parts for stored in part.paths.stored], selected),
        first.classes,
        first.scale_factor,
        origin,
        weights=joined_rows(weights, selected) if weights else None,
        class_mode=first.class_mode,
        columns=KeptColumns(
            {
                name: [stored for part in parts for stored in part.columns.stored[name]]
                for name in first.columns
            },
            selected,
        ),
        sizes=[stored for part in parts for stored in part._sizes],
        statistics=statistics if has_all else None,
    )


def _pixels(
    parts: Sequence[Column], origin: Origin, selected: Selected | None, column: str = "images"
) -> Column:
    """Return images, or masks: mapped, if they are adjacent rows of a mapped file."""
    base = parts[0] if len(parts) == 1 else ChainedArray(parts, origin, column)
    if selected is None:
        return base
    if isinstance(base, np.ndarray) and isinstance(selected, range):
        return joined_rows([base], selected)
    return ViewArray(base, selected, origin, column)


def _labels(parts: Sequence[Column], origin: Origin, selected: Selected | None) -> Column | None:
    """Return labels, in memory or mapped; masks, which are large, are not read."""
    if parts and len(parts[0].shape) > 2:
        return _pixels(parts, origin, selected, "labels")
    return joined_rows(parts, selected) if parts else None


def mismatch(one: SplitData, other: SplitData, names: tuple[str, str] | None = None) -> str | None:
    """Return how two splits differ in what parts of one split must share; None if they do not."""
    if names is None:
        first, second = (f"{each.name} of {each.origin.shown}" for each in (one, other))
        names = first, second
    if one.classes != other.classes:
        return other_classes(*names, one.classes, other.classes)
    expected = _kinds(other)
    for what, kind in _kinds(one).items():
        if kind != expected[what]:
            return f"{what} are {kind} in {names[0]}, {expected[what]} in {names[1]}"
    return None


def other_classes(name: str, other_name: str, classes: Sequence[str], others: Sequence[str]) -> str:
    """Return how the classes of two files or splits differ, as text."""
    more, fewer = (
        shown_names([os.fsencode(each) for each in some if each not in known], "and")
        for some, known in ((classes, others), (others, classes))
    )
    ways = [f"{verb} {some}" for verb, some in (("has", more), ("lacks", fewer)) if some]
    difference = " and ".join(ways) or "has them in another order"
    return f"{name} has other classes than {other_name}: it {difference}"


def _kinds(split: SplitData) -> dict[str, str]:
    """Return the properties that the parts of a split must share, as text."""
    size = "×".join(map(str, split.images.shape[1:]))
    labels = "none"
    if split.labels is not None:
        labels = f"{split.labels.dtype} of shape {split.labels.shape[1:]}"
    return {
        "images": f"{size} {split.images.dtype}",
        "scale factors": str(split.scale_factor),
        "labels": labels,
        "class modes": split.class_mode,
        "weights": "none" if split.weights is None else "given",
        "columns": ", ".join(map(" ".join, kept_kinds(split.columns).items())) or "none",
    }
