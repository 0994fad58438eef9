"""Mean and deviation of the pixels of a split, and weights that balance its classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.decoding.channels import ChannelSums, channel_sums, mean_and_std
from batchify.errors import OptionError
from batchify.loading.arrays import gather, underlying
from batchify.loading.split_data import SplitData, Statistics

_BLOCK_NBYTES = 8 << 20
"""Images that are read together: enough to keep all threads busy."""


def measured_statistics(split: SplitData) -> Statistics:
    """Return mean and standard deviation of each channel of a split, reading all its images.

    Notes
    -----
    Memory: some MiB of images, or one larger image.
    """
    images = split.images
    _, selected = underlying(images)
    # Rows of a chunk one after another, so that it is decompressed once.
    order = np.arange(len(images)) if selected is None else np.argsort(selected, kind="stable")
    row_nbytes = max(1, math.prod(images.shape[1:]) * images.dtype.itemsize)
    at_once = max(1, _BLOCK_NBYTES // row_nbytes)
    block = np.empty((min(at_once, len(images)), *images.shape[1:]), images.dtype)
    total = ChannelSums()
    for start in range(0, len(order), at_once):
        rows = order[start : start + at_once]
        gather(images, rows, block[: len(rows)])
        total += channel_sums(block[: len(rows)], 1.0, images=len(rows))
    height, width, channels = images.shape[1:]
    scale = 1.0 if split.scale_factor is None else float(split.scale_factor)
    return mean_and_std(total, (height, width, channels), scale)


def joined_statistics(rows: Sequence[int], parts: Sequence[Statistics]) -> Statistics:
    """Return mean and standard deviation of several splits together, given the rows of each.

    NaN if there are no rows.
    """
    filled = [(count, *part) for count, part in zip(rows, parts, strict=True) if count]
    if not filled:
        return parts[0]
    counts, means, deviations = (np.array(values) for values in zip(*filled, strict=True))
    shares = (counts / counts.sum())[:, np.newaxis]
    mean = (shares * means).sum(0)
    square = (shares * (deviations**2 + means**2)).sum(0)
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def class_indices(split: SplitData) -> NDArray[np.int64]:
    """Return the class of each row, shape (N,).

    Raises
    ------
    OptionError
        If the labels of the split are not one class a row.
    """
    if split.labels is None or split.class_mode == "none":
        raise OptionError(f"{split.name} has no labels, and so no classes to count")
    if split.class_mode == "multilabel":
        raise OptionError(
            f"rows of {split.name} have several classes each (multilabel); split.labels.sum(0) "
            "counts the rows of each"
        )
    if split.class_mode not in choices.INDEXED_MODES:
        what = {"mask": "masks", "regression": "numbers (regression)"}[split.class_mode]
        raise OptionError(f"labels of {split.name} are {what}, not classes to count")
    labels = np.asarray(split.labels)
    return labels if labels.ndim == 1 else labels.argmax(axis=1)


def class_counts(split: SplitData) -> NDArray[np.int64]:
    """Return how many rows each class has, shape (classes,).

    Raises
    ------
    OptionError
        As `class_indices`.
    """
    return np.bincount(class_indices(split), minlength=len(split.classes))


def class_weights(split: SplitData) -> NDArray[np.float32]:
    """Return the balanced weight of each class, shape (classes,): see `Split.class_weights`.

    Raises
    ------
    OptionError
        As `class_indices`.
    """
    counts = class_counts(split)
    weights = np.zeros(len(counts), np.float64)
    has_rows = counts > 0
    weights[has_rows] = len(split) / (np.count_nonzero(has_rows) * counts[has_rows])
    return weights.astype(np.float32)
