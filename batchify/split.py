"""The split policies, and the order of a split's rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from batchify import schema
from batchify.options import SplitOptions

Indices = NDArray[np.int32]


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


def stratified(
    class_index: int, count: int, options: SplitOptions, before: Mapping[str, int] | None = None
) -> Mapping[str, Indices]:
    """Split each class at random, by seed, with an image in every split where there are enough.

    Each share is rounded to the nearest count and is at least 1. Where a class has fewer files
    than there are splits, training is served first, then validation, then test.

    Parameters
    ----------
    class_index, count : int
    options : SplitOptions
    before : Mapping of str to int, optional
        Images of the class that are in the splits already; they count in the shares.
    """
    before = before or dict.fromkeys(schema.SPLITS, 0)
    total = count + sum(before.values())
    # RandomState's stream is frozen by NumPy's compatibility policy; Generator's is not.
    random = np.random.RandomState([options.seed, class_index])
    order = random.permutation(count).astype(np.int32)
    counts = {"validation": 0, "test": 0}
    spare = count if before["train"] else count - 1
    for split, share in (("validation", options.validation), ("test", options.test)):
        if share:
            missing = max(1, int(share * total + 0.5)) - before[split]
            counts[split] = min(max(missing, 0), max(spare, 0))
            # keep one for a test split that is still to be served
            least = 0 if before["validation"] else 1
            wanting = split == "validation" and options.test and not before["test"]
            if wanting and counts[split] == spare > least:
                counts[split] -= 1
            spare -= counts[split]
    first, second = counts["validation"], counts["validation"] + counts["test"]
    return {
        "train": np.sort(order[second:]),
        "validation": np.sort(order[:first]),
        "test": np.sort(order[first:second]),
    }


def by_points(points: NDArray[np.uint64], options: SplitOptions) -> dict[str, Indices]:
    """Split by hashes, spread evenly from 0 to 2**64: the lowest are validation, the highest test.

    A sample's split depends on its own hash and the shares alone, so that others may come and go.
    """
    validation = points < np.uint64(int(options.validation * 2**64))
    # counted from the top, so that the bound is less than 2**64 also where the share is 0
    test = np.uint64(2**64 - 1) - points < np.uint64(int(options.test * 2**64))
    parts = {"train": ~validation & ~test, "validation": validation, "test": test}
    return {split: np.flatnonzero(parts[split]).astype(np.int32) for split in wanted(options)}


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
