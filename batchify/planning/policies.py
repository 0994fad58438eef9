"""Split policies: keras, keras-utils, stratified, hash.

To add a policy, write a function like `split_by_hash`, add it to `POLICIES`, and its name to
`batchify.choices.Policy`. Groups of samples are refused for it unless
`batchify.choices.POLICY_GROUPS` says that it keeps them together; it gets them from
`batchify.planning.groups`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.text import plural
from batchify.dataset_options import SplitOptions
from batchify.datasets.dataset import Samples
from batchify.errors import OptionError
from batchify.planning.folds import fold_numbers
from batchify.planning.groups import Digests, GroupedSamples, long_runs

Indices = NDArray[np.int32]


def keras(_class_index: int, count: int, options: SplitOptions) -> Mapping[str, Indices]:
    """Split a class as Keras does: the first ``int(share * count)`` files are validation.

    Test, which Keras does not have, takes the next ``int(share * count)`` files, and train the
    rest. The product is truncated: a share of 0.29 of 100 files is 28.
    """
    validation = int(options.share("validation") * count)
    test = validation + int(options.share("test") * count)
    positions = np.arange(count, dtype=np.int32)
    return {
        "train": positions[test:],
        "validation": positions[:validation],
        "test": positions[validation:test],
    }


def stratified(
    class_index: int, count: int, options: SplitOptions, before: Mapping[str, int] | None = None
) -> Mapping[str, Indices]:
    """Split a class at random, by seed, with an image in every split if there are enough.

    Each share is rounded to the nearest count and is at least 1. If a class has fewer files than
    there are splits, train gets one first, then validation, then test.

    Parameters
    ----------
    before : Mapping of str to int, optional
        Images of the class that are already in the splits; they count in the shares.
    """
    before = before or dict.fromkeys(choices.SPLITS, 0)
    total = count + sum(before.values())
    # RandomState's stream is frozen by NumPy's compatibility policy; Generator's is not.
    random = np.random.RandomState([options.seed, class_index])
    order = random.permutation(count).astype(np.int32)
    counts = {"validation": 0, "test": 0}
    spare = count if before["train"] else count - 1
    for split in choices.SHARES:
        if share := options.share(split):
            missing = max(1, int(share * total + 0.5)) - before[split]
            counts[split] = min(max(missing, 0), max(spare, 0))
            # keep one for a test split that is still empty
            least = 0 if before["validation"] else 1
            wanting = split == "validation" and options.share("test") and not before["test"]
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
    """Split by hashes from 0 to 2**64: the lowest are validation, the highest are test.

    A sample's split depends only on its own hash and the shares, not on other samples.
    """
    validation = points < np.uint64(int(options.share("validation") * 2**64))
    # counted from the top, so that the bound is less than 2**64 even if the share is 0
    test = np.uint64(2**64 - 1) - points < np.uint64(int(options.share("test") * 2**64))
    parts = {"train": ~validation & ~test, "validation": validation, "test": test}
    return {split: np.flatnonzero(parts[split]).astype(np.int32) for split in split_names(options)}


def split_names(options: SplitOptions) -> tuple[str, ...]:
    """Return the splits that the options ask for, in file order."""
    return tuple(name for name in choices.SPLITS if name == "train" or options.share(name))


def keras_order(count: int, *, shuffle: bool, seed: int) -> Indices:
    """Return the order of a split's rows in the first epoch, as the iterator of Keras draws it."""
    if not shuffle:
        return np.arange(count, dtype=np.int32)
    return keras_random(seed, 0).permutation(count).astype(np.int32)


def keras_random(seed: int, batches_seen: int) -> np.random.RandomState:
    """Return the random stream that the iterator of Keras seeds before each batch.

    The seed of epoch e is therefore ``seed + e * ceil(count / batch_size)``.
    """
    return np.random.RandomState((seed + batches_seen) % 2**32)


def keep_groups(
    labels: NDArray[np.int32], groups: NDArray[np.int32], options: SplitOptions
) -> dict[str, Indices]:
    """Split at random, by seed, and keep groups together; they may span classes.

    Groups of several samples are assigned first, the largest first: each to a split with enough
    room, drawn in proportion to the missing images of its classes, or, if none has room, to the
    split that misses most. When the groups of a class that are left are only enough for the splits
    without it, they go to these splits, train first: every class is in train. Then single
    samples fill the rest of the shares, as in `stratified`.

    Parameters
    ----------
    labels : ndarray of int32, shape (n,)
        Class index of each sample, ascending.
    groups : ndarray of int32, shape (n,)
        Samples of the same number stay together.
    """
    splits = split_names(options)
    where = np.full(len(labels), -1, np.int8)
    members = np.argsort(groups, kind="stable")
    starts, stops = long_runs(groups[members])
    random = np.random.RandomState(options.seed)
    order = random.permutation(np.arange(len(starts)))
    counts_of_splits = _SplitCounts(labels, groups, options, random)
    for number in order[np.argsort((starts - stops)[order], kind="stable")].tolist():
        rows = members[starts[number] : stops[number]]
        where[rows] = counts_of_splits.place(*np.unique(labels[rows], return_counts=True))
    del members
    first = 0
    for class_index, count in enumerate(counts_of_splits.totals.tolist()):
        free = first + np.flatnonzero(where[first : first + count] < 0)
        placed = zip(splits, counts_of_splits.placed[:, class_index].tolist(), strict=True)
        before = {**dict.fromkeys(choices.SPLITS, 0), **dict(placed)}
        chosen = stratified(class_index, len(free), options, before)
        for number, split in enumerate(splits):
            where[free[chosen[split]]] = number
        first += count
    return {
        split: np.flatnonzero(where == number).astype(np.int32)
        for number, split in enumerate(splits)
    }


class _SplitCounts:
    """How many images of each class the splits have, and should have.

    Attributes
    ----------
    totals : ndarray of int64, shape (classes,)
    placed : ndarray of int64, shape (splits, classes)
    """

    def __init__(
        self,
        labels: NDArray[np.int32],
        groups: NDArray[np.int32],
        options: SplitOptions,
        random: np.random.RandomState,
    ) -> None:
        self._random = random
        self.totals = np.bincount(labels)
        rounded = [
            np.maximum(1, (options.share(split) * self.totals + 0.5).astype(np.int64))
            for split in split_names(options)[1:]
        ]
        self._due = np.array([self.totals - sum(rounded), *rounded])
        self.placed = np.zeros_like(self._due)
        # for each class, the groups that are not placed yet; a single sample is a group, too
        pairs = groups.astype(np.int64)
        pairs *= len(self.totals)
        pairs += labels
        pairs.sort()  # in place, which np.unique is not
        is_first = np.ones(len(pairs), np.bool_)
        is_first[1:] = pairs[1:] != pairs[:-1]
        firsts = pairs[is_first]
        firsts %= len(self.totals)
        self._unplaced = np.bincount(firsts, minlength=len(self.totals))

    def place(self, classes: NDArray[np.int32], counts: NDArray[np.int64]) -> int:
        """Choose the split of a group, given how many images of each class it has."""
        chosen = self._choose(classes, counts)
        self.placed[chosen, classes] += counts
        self._unplaced[classes] -= 1
        return chosen

    def _choose(self, classes: NDArray[np.int32], counts: NDArray[np.int64]) -> int:
        lacking = self.placed[:, classes] == 0
        urgent = lacking & (self._unplaced[classes] <= lacking.sum(0))
        if urgent[0].any():
            return 0
        weights = counts / self.totals[classes]
        due = (self._due[:, classes] - self.placed[:, classes]) * weights
        # NumPy's sum may differ between CPUs
        missing = np.array([math.fsum(of_split) for of_split in due.tolist()])
        if urgent.any():
            calls = urgent.sum(1)
            return int(np.argmax(np.where(calls == calls.max(), missing, -np.inf)))
        fits = np.where(missing >= math.fsum((counts * weights).tolist()), missing, 0.0)
        if not fits.any():
            return int(np.argmax(missing))
        return int(self._random.choice(len(fits), p=fits / fits.sum()))


def split_as_keras(grouped: GroupedSamples, options: SplitOptions) -> dict[str, Indices]:
    """Split each class as Keras does."""
    return _by_class(keras, grouped.samples, options)


def split_as_keras_utils(grouped: GroupedSamples, options: SplitOptions) -> dict[str, Indices]:
    """Split as ``keras.utils.image_dataset_from_directory`` of Keras 3 does.

    The files of all classes are shuffled together, unless `options` say not to; the last
    ``int(share * count)`` of them are validation. If these are none, it reads all of them for
    validation, and none for training: that is refused.
    """
    order = np.arange(len(grouped.samples), dtype=np.int32)
    if options.shuffle:
        np.random.RandomState(options.seed).shuffle(order)
    share = options.share("validation")
    cut = len(order) - int(share * len(order))
    if share and cut == len(order):
        raise OptionError(
            f"validation split {share} of {plural(len(order), 'image')} is less than one, and "
            "image_dataset_from_directory would read all images for validation: raise "
            "--validation-split, or choose another --split"
        )
    parts = {"train": order[:cut], "validation": order[cut:]}
    return {split: np.sort(parts[split]) for split in split_names(options)}


def split_stratified(grouped: GroupedSamples, options: SplitOptions) -> dict[str, Indices]:
    """Split each class at random, with groups kept whole if there are any."""
    groups = grouped.numbers(options)
    if groups is None:
        return _by_class(stratified, grouped.samples, options)
    return keep_groups(grouped.samples.labels, groups, options)


def split_by_hash(grouped: GroupedSamples, options: SplitOptions) -> dict[str, Indices]:
    """Split by a hash of each sample's group, content or path."""
    return by_points(grouped.points(options), options)


POLICIES: Mapping[str, Callable[[GroupedSamples, SplitOptions], dict[str, Indices]]] = {
    "keras": split_as_keras,
    "keras-utils": split_as_keras_utils,
    "stratified": split_stratified,
    "hash": split_by_hash,
}
"""The function of each of `choices.POLICIES`."""


def split_samples(
    samples: Samples,
    options: SplitOptions,
    digests: Digests | None = None,
    named: Digests | None = None,
) -> dict[str, Indices]:
    """Return the samples of each split, in class order and file order.

    Parameters
    ----------
    samples, digests, named
        See `batchify.planning.groups.GroupedSamples`.

    Returns
    -------
    dict of str to ndarray of int32
        Sample indices of train, and of validation and test if their share is not 0.

    Raises
    ------
    DatasetError
        If files have no group.
    OptionError
        If the groups of a manifest cannot be combined with `options`, there are more folds than
        images or groups, or Keras would have no images for training.
    """
    options.check_groups(column=named is not None)
    divide, grouped = POLICIES[options.policy], GroupedSamples(samples, digests, named)
    if options.folds is None:
        return divide(grouped, options)
    splits = divide(grouped, replace(options, folds=None, fold=None, validation=0.0))
    rest = splits.pop("train")
    is_chosen = fold_numbers(grouped, rest, options) == options.fold
    return {"train": rest[~is_chosen], "validation": rest[is_chosen], **splits}


def _by_class(
    split_class: Callable[[int, int, SplitOptions], Mapping[str, Indices]],
    samples: Samples,
    options: SplitOptions,
) -> dict[str, Indices]:
    """Split each class separately."""
    parts: dict[str, list[Indices]] = {split: [] for split in split_names(options)}
    first = 0
    for class_index, count in enumerate(np.bincount(samples.labels).tolist()):
        chosen = split_class(class_index, count, options)
        for split, members in parts.items():
            members.append(chosen[split] + np.int32(first))
        first += count
    empty = np.empty(0, np.int32)
    return {split: np.concatenate([empty, *members]) for split, members in parts.items()}
