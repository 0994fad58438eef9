"""Labels and weights as text: for ``batchify inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchify.cli.text import table
from batchify.names import printable

if TYPE_CHECKING:
    from batchify.summary import SplitSummary, Summary
    from batchify.valuestats import ValueStats

BAR_WIDTH = 20


def labels_text(summary: Summary) -> str:
    """Return the classes with their balance, or what the labels are instead."""
    counted = [split for split in summary.splits if split.class_counts is not None]
    mode = summary.config["class_mode"]
    if counted:
        counts = {split.name: list(split.class_counts or ()) for split in counted}
        head = f"classes: {len(summary.classes):,}"
        text = head + "\n" + _bars(summary, "class", counts)
    elif mode == "none":
        text = f"classes: {len(summary.classes):,} (no labels are stored)"
    elif mode == "mask":
        text = f"labels: masks (column {printable(summary.classes[0])})"
    elif mode == "multilabel":
        counts = {
            split.name: [stats.positives for stats in split.labels or ()]
            for split in summary.splits
        }
        text = f"labels: {len(summary.classes):,}, each 0 or 1; how many are 1\n"
        text += _bars(summary, "label", counts)
    else:
        text = "labels: numbers, from least to largest and their mean\n" + _ranges(summary)
    weighted = [f"  {split.name:12}{_range(split.weights)}" for split in summary.splits
                if split.weights is not None]  # fmt: skip
    return "\n".join([text, "weights:", *weighted]) if weighted else text


def _bars(summary: Summary, what: str, counts: dict[str, list[int]]) -> str:
    """Return a table of counts, a row for each class or label column, with a bar."""
    totals = [sum(of_splits) for of_splits in zip(*counts.values(), strict=True)]
    largest = max([*totals, 1])
    rows = [["", what, *counts, ""]]
    for index, name in enumerate(summary.classes):
        bar = "█" * -(-totals[index] * BAR_WIDTH // largest)
        numbers = [f"{of_split[index]:,}" for of_split in counts.values()]
        rows.append([f"  {index}", printable(name), *numbers, bar])
    return table(rows, right=(0, *range(2, 2 + len(counts))))


def _ranges(summary: Summary) -> str:
    rows = [["", "label", *(split.name for split in summary.splits)]]
    for index, name in enumerate(summary.classes):
        ranges = [_range(_stats(split, index)) for split in summary.splits]
        rows.append([f"  {index}", printable(name), *ranges])
    return table(rows, right=(0,))


def _stats(split: SplitSummary, index: int) -> ValueStats:
    assert split.labels is not None
    return split.labels[index]


def _range(stats: ValueStats) -> str:
    return f"{stats.low:.6g} to {stats.high:.6g}, mean {stats.mean:.6g}"
