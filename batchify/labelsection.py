"""The section of a page about labels that are no classes."""

from __future__ import annotations

from batchify.dossier import Dossier
from batchify.markup import Html, escape, join, named, paragraph, table
from batchify.names import printable
from batchify.summary import SplitSummary

LISTED = 1000


def labels(dossier: Dossier) -> Html:
    """Return what each label column has in each split."""
    summary = dossier.summary
    mode = summary.config["class_mode"]
    if mode == "mask":
        column = printable(summary.classes[0])
        return paragraph(f"The labels are masks, of the column {column} of a manifest.")
    is_counted = mode == "multilabel"
    text = "How many images have each label." if is_counted else (
        "Numbers: from least to largest, and their mean."
    )  # fmt: skip
    rows = [
        [named(name), *(escape(_told(split, index, is_counted)) for split in summary.splits)]
        for index, name in enumerate(summary.classes[:LISTED])
    ]
    head = ["Label", *(split.name for split in summary.splits)]
    parts = [paragraph(text), table("Labels", head, rows, numbers=range(1, len(head)))]
    if len(summary.classes) > LISTED:
        more = len(summary.classes) - LISTED
        parts.append(paragraph(f"… and {more:,} more: batchify inspect --json lists all.", "note"))
    return join(parts)


def _told(split: SplitSummary, index: int, is_counted: bool) -> str:
    assert split.labels is not None
    stats = split.labels[index]
    if is_counted:
        return f"{stats.positives:,}"
    return f"{stats.low:.6g} to {stats.high:.6g}, mean {stats.mean:.6g}"
