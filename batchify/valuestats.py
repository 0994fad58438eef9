"""What a person asks of labels that are numbers, and of weights: their range and their mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchify.reader import Reader


@dataclass(frozen=True, slots=True)
class ValueStats:
    """A column of numbers of one split.

    Parameters
    ----------
    low, high, mean : float
        NaN where there are no rows.
    positives : int
        How many are 1.
    """

    low: float
    high: float
    mean: float
    positives: int

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; null for what is not finite."""
        found = {"min": self.low, "mean": self.mean, "max": self.high}
        return {name: value if math.isfinite(value) else None for name, value in found.items()}


def value_stats(reader: Reader, split: str, column: str) -> tuple[ValueStats, ...]:
    """Return what a column has, one of each of its numbers a row; its rows are read in pieces.

    Raises
    ------
    FileFormatError
    """
    shape = reader.splits[split][column].shape
    width = shape[1] if len(shape) > 1 else 1
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    total, positives = np.zeros(width), np.zeros(width, np.int64)
    for piece in reader.pieces(split, column):
        rows = piece.reshape(len(piece), width).astype(np.float64)
        low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
        total += rows.sum(axis=0)
        positives += (rows == 1).sum(axis=0)
    if not shape[0]:
        return (ValueStats(math.nan, math.nan, math.nan, 0),) * width
    columns = zip(low, high, total / shape[0], positives, strict=True)
    return tuple(ValueStats(float(a), float(b), float(c), int(d)) for a, b, c, d in columns)


def joined_stats(
    parts: Sequence[tuple[int, tuple[ValueStats, ...] | None]],
) -> tuple[ValueStats, ...] | None:
    """Return what the columns of a split have that is in several files; rows and columns of each.

    None where they have none.
    """
    filled = [(rows, stats) for rows, stats in parts if stats is not None and rows]
    if not filled:
        return parts[0][1]
    total = sum(rows for rows, _ in filled)
    return tuple(
        ValueStats(
            min(stats[i].low for _, stats in filled),
            max(stats[i].high for _, stats in filled),
            sum(rows * stats[i].mean for rows, stats in filled) / total,
            sum(stats[i].positives for _, stats in filled),
        )
        for i in range(len(filled[0][1]))
    )
