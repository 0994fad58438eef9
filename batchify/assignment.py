"""Who goes where: samples and options give each split its members. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batchify.grouped import keep_groups
from batchify.groups import Units
from batchify.options import SplitOptions
from batchify.split import Indices, by_points, keras, stratified, wanted


def assign(
    labels: NDArray[np.int32], options: SplitOptions, units: Units | None = None
) -> dict[str, Indices]:
    """Return the samples of each split, in class order and file order.

    Parameters
    ----------
    labels : ndarray of int32, shape (n,)
        Class index of each sample, ascending.
    options : SplitOptions
    units : Units, optional
        What is put into a split as a whole; needed where `options` are of ``hash`` or groups.

    Returns
    -------
    dict of str to ndarray of int32
        Sample indices of train, and of validation and test where their share is not 0.
    """
    units = units or Units()
    if units.points is not None:
        return by_points(units.points, options)
    if units.groups is not None:
        return keep_groups(labels, units.groups, options)
    policy = keras if options.policy == "keras" else stratified
    parts: dict[str, list[Indices]] = {split: [] for split in wanted(options)}
    counts = np.bincount(labels)
    first = 0
    for class_index, count in enumerate(counts.tolist()):
        chosen = policy(class_index, count, options)
        for split, members in parts.items():
            members.append(chosen[split] + np.int32(first))
        first += count
    empty = np.empty(0, np.int32)
    return {split: np.concatenate([empty, *members]) for split, members in parts.items()}
