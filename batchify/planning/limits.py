"""Draw the samples of a trial run by seed, from every class and every split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from batchify.common.text import plural
from batchify.dataset_options import SplitOptions
from batchify.datasets.dataset import Dataset
from batchify.errors import BatchifyWarning
from batchify.planning.groups import GroupedSamples
from batchify.planning.policies import Indices

Counts = NDArray[np.int64]
"""Images of each class (columns) in each split (rows)."""


def draw_samples(
    dataset: Dataset, splits: Mapping[str, Indices], options: SplitOptions
) -> tuple[Dataset, Mapping[str, Indices]]:
    """Return a dataset with no more samples than the options allow, and their splits, in order.

    A sample stays in the split that it has in a full build. It is drawn by a hash of the seed and
    its path, or the name of its group. Samples of a group are therefore drawn together as far as
    the numbers allow, and adding a file changes few others.

    Raises
    ------
    DatasetError
        If files have no group.

    Notes
    -----
    Memory: 60 bytes per sample.
    """
    if options.limit is None and options.max_per_class is None:
        return dataset, splits
    labels = dataset.samples.labels
    unlabelled = len(dataset.classes)  # in their own column
    split_numbers = np.zeros(len(labels), np.int64)
    for number, members in enumerate(splits.values()):
        split_numbers[members] = number
    shape = (len(splits), unlabelled + 1)
    cells = split_numbers * shape[1] + np.where(labels < 0, unlabelled, labels)
    found = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    wanted = found
    if options.max_per_class is not None:
        wanted = _cap_classes(wanted, options.max_per_class)
    if options.limit is not None:
        wanted = share_out(wanted, options.limit)
    if (wanted == found).all():
        return dataset, splits
    classes, left = (int(each[:, :-1].any(axis=0).sum()) for each in (found, wanted))
    if left < classes:
        message = (
            f"--limit {options.limit} is less than the {classes:,} classes: "
            f"{plural(classes - left, 'class', 'classes')} have no image in this file"
        )
        warnings = (*dataset.warnings, BatchifyWarning("small-limit", message))
        dataset = replace(dataset, warnings=warnings)
    grouped = GroupedSamples(dataset.samples, named=dataset.annotations.groups)
    points = grouped.points(options, use=b"draw\0")
    order = np.lexsort((points, cells))
    ordered = cells[order]
    ranks = np.arange(len(order)) - (np.cumsum(found) - found.ravel())[ordered]
    kept = np.sort(order[ranks < wanted.ravel()[ordered]])
    numbers = np.full(len(labels), -1, np.int32)
    numbers[kept] = np.arange(len(kept), dtype=np.int32)

    def renumbered(splits: Mapping[str, Indices]) -> dict[str, Indices]:
        found = {name: numbers[members] for name, members in splits.items()}
        return {name: members[members >= 0] for name, members in found.items()}

    own = None if dataset.splits is None else renumbered(dataset.splits)
    return replace(_only(dataset, kept), splits=own), renumbered(splits)


def _only(dataset: Dataset, kept: NDArray[np.int64]) -> Dataset:
    """Return a dataset with some of its samples, ascending, and the splits of all."""
    annotations = dataset.annotations.subset(kept)
    if (masks := dataset.annotations.masks) is not None:
        masks = masks.subset(kept, 1)
        annotations = replace(annotations, masks=replace(masks, width=masks.path_nbytes))
    return replace(
        dataset,
        samples=dataset.samples.subset(kept, 1),
        annotations=annotations,
        undrawn=dataset.undrawn + len(dataset.samples) - len(kept),
    )


def _cap_classes(found: Counts, most: int) -> Counts:
    """Return the counts with at most `most` images of each class; the last column is no class."""
    wanted = found.copy()
    for column in np.flatnonzero(found[:, :-1].sum(axis=0) > most).tolist():
        wanted[:, [column]] = share_out(found[:, [column]], most)
    return wanted


def share_out(found: Counts, most: int) -> Counts:
    """Return how many images to take, `most` in total: in proportion, at least one of each kind.

    Kinds are the classes of each split, or, if these are too many, the classes and the splits, or
    the classes. A class has its one image in the first split that has any.
    """
    total = int(found.sum())
    if total <= most:
        return found
    least = next(each for each in _least(found) if each.sum() <= most)

    def at(part: int) -> Counts:
        return np.clip(part * found // total, least, found)

    low, high = 0, total  # at(low) is not too many, at(high) is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle).sum() <= most else (low, middle)
    taken = at(low)
    more = np.flatnonzero(at(high).ravel() > taken.ravel())[: most - int(taken.sum())]
    taken.ravel()[more] += 1
    return taken


def _least(found: Counts) -> list[Counts]:
    """Return the minimum numbers to take, from the most to the fewest."""
    every = (found > 0).astype(np.int64)
    classes = np.zeros_like(every)
    some = np.flatnonzero(every.any(axis=0))
    classes[every[:, some].argmax(axis=0), some] = 1
    splits = classes.copy()
    bare = np.flatnonzero(every.any(axis=1) & ~classes.any(axis=1))
    splits[bare, found[bare].argmax(axis=1)] = 1
    return [every, splits, classes, np.zeros_like(every)]
