"""Who goes where: samples and a policy give each split its ordered rows. Pure.

A policy is a function of the number of files of one class; to add one, write it and name it in
`POLICIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from batchify import schema
from batchify.options import SplitOptions

Indices = NDArray[np.int32]
Policy = Callable[[int, int, SplitOptions], Mapping[str, Indices]]
"""(class index, files of the class, options) -> split name -> positions in the class, sorted."""


def keras(_class_index: int, count: int, options: SplitOptions) -> Mapping[str, Indices]:
    """Split as Keras does: the first ``int(share * count)`` files, by name, are validation.

    Test, which Keras lacks, takes the next ``int(share * count)``, training the rest. The product
    is a truncated float: a share of 0.29 of 100 files is 28.
    """
    validation = int(options.validation * count)
    test = validation + int(options.test * count)
    positions = np.arange(count, dtype=np.int32)
    return {
        "train": positions[test:],
        "validation": positions[:validation],
        "test": positions[validation:test],
    }


def stratified(class_index: int, count: int, options: SplitOptions) -> Mapping[str, Indices]:
    """Split each class at random, by seed, with an image in every split where there are enough.

    Each share is rounded to the nearest count and is at least 1. Where a class has fewer files
    than there are splits, training is served first, then validation, then test.
    """
    # RandomState's stream is frozen by NumPy's compatibility policy; Generator's is not.
    random = np.random.RandomState([options.seed, class_index])
    order = random.permutation(count).astype(np.int32)
    counts = {"validation": 0, "test": 0}
    spare = count - 1
    for split, share in (("validation", options.validation), ("test", options.test)):
        if share:
            counts[split] = min(max(1, int(share * count + 0.5)), max(spare, 0))
            # keep one for a test split that is still to be served
            if split == "validation" and options.test and counts[split] == spare > 1:
                counts[split] -= 1
            spare -= counts[split]
    first, second = counts["validation"], counts["validation"] + counts["test"]
    return {
        "train": np.sort(order[second:]),
        "validation": np.sort(order[:first]),
        "test": np.sort(order[first:second]),
    }


POLICIES: Mapping[str, Policy] = {"keras": keras, "stratified": stratified}


def assign(labels: NDArray[np.int32], options: SplitOptions) -> dict[str, Indices]:
    """Return the samples of each split, in class order and file order.

    Parameters
    ----------
    labels : ndarray of int32, shape (n,)
        Class index of each sample, ascending.
    options : SplitOptions

    Returns
    -------
    dict of str to ndarray of int32
        Sample indices of train, and of validation and test where their share is not 0.
    """
    policy = POLICIES[options.policy]
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


def wanted(options: SplitOptions) -> tuple[str, ...]:
    """Return the splits that the options ask for, in the order of the file."""
    shares = {"train": 1.0, "validation": options.validation, "test": options.test}
    return tuple(split for split in schema.SPLITS if shares[split])


def epoch_order(count: int, *, shuffle: bool, seed: int, batches_seen: int = 0) -> Indices:
    """Return the order of a split's rows in one epoch, as Keras' iterator draws it.

    Parameters
    ----------
    count : int
        Rows of the split.
    shuffle : bool
        Without, rows keep their order.
    seed : int
    batches_seen : int
        Batches served since the loader was made; Keras adds them to the seed, so that epoch e is
        seeded with ``seed + e * ceil(count / batch_size)``.
    """
    if not shuffle:
        return np.arange(count, dtype=np.int32)
    state = (seed + batches_seen) % 2**32
    return np.random.RandomState(state).permutation(count).astype(np.int32)
