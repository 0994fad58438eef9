"""Count duplicate images, by split and by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.planning.duplicates import Repeat, Repeated

Labels = Mapping[str, NDArray[np.int32]]
"""The class of each row, for each split that has classes."""


@dataclass(frozen=True, slots=True)
class RepeatCounts:
    """How many images are repeated, and where.

    Parameters
    ----------
    leaks, others : int
        Images in several splits, and images repeated in one split alone.
    within : int
        Images with several rows in one split, whether or not they are in other splits as well.
    copies : int
        Rows that repeat an earlier row of their split.
    conflicts : int
        Images in several classes.
    between : tuple of (tuple of str, int, int)
        Splits, how many images exactly these have in common, and their rows; a single split is
        for images repeated in it alone. Most splits first.
    """

    leaks: int
    others: int
    within: int
    copies: int
    conflicts: int
    between: tuple[tuple[tuple[str, ...], int, int], ...]


def classes_of(repeat: Repeat, labels: Labels) -> list[int]:
    """Return the classes of an image, ascending; none where no labels are classes."""
    return sorted({int(labels[split][row]) for split, row in repeat if split in labels})


def count_repeats(repeats: Repeated, labels: Labels) -> RepeatCounts:
    """Count the images that several rows have.

    Notes
    -----
    Memory: that of one image at a time.
    """
    images: Counter[tuple[str, ...]] = Counter()
    rows: Counter[tuple[str, ...]] = Counter()
    within = conflicts = 0
    for repeat in repeats:
        splits = repeat.splits
        images[splits] += 1
        rows[splits] += len(repeat)
        within += len(repeat) > len(splits)
        conflicts += len(classes_of(repeat, labels)) > 1
    leaks = sum(count for splits, count in images.items() if len(splits) > 1)
    order = sorted(images, key=lambda each: (-len(each), list(map(choices.SPLITS.index, each))))
    return RepeatCounts(
        leaks=leaks,
        others=len(repeats) - leaks,
        within=within,
        copies=sum(rows[splits] - images[splits] * len(splits) for splits in images),
        conflicts=conflicts,
        between=tuple((splits, images[splits], rows[splits]) for splits in order),
    )
