"""Divide samples into the folds of a cross-validation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from batchify.dataset_options import SplitOptions
from batchify.errors import OptionError
from batchify.planning.groups import GroupedSamples, long_runs

Folds = NDArray[np.int32]
"""The fold of each sample, from 0."""


def fold_numbers(grouped: GroupedSamples, rest: NDArray[np.int32], options: SplitOptions) -> Folds:
    """Return the fold of some samples, shape (n,), whichever fold the options choose.

    Parameters
    ----------
    rest : ndarray of int32, shape (n,)
        The samples that are not test, ascending.

    Raises
    ------
    DatasetError
        If files have no group.
    OptionError
        If there are more folds than images or groups.
    """
    folds = options.folds or 1
    _check_enough(folds, len(rest), "images")
    if options.policy == "hash":
        points = grouped.points(options, use=b"fold\0")[rest]
        return (points // np.uint64(-(-(2**64) // folds))).astype(np.int32)
    labels = grouped.samples.labels[rest]
    if options.policy == "keras":
        return stratified_folds(labels, folds, None)
    random = np.random.RandomState(options.seed)
    groups = grouped.numbers(options)
    if groups is None:
        return stratified_folds(labels, folds, random)
    _check_enough(folds, len(np.unique(groups[rest])), "groups")
    return grouped_folds(labels, groups[rest], folds, random)


def _check_enough(folds: int, count: int, what: str) -> None:
    if count < folds:
        raise OptionError(f"{folds} folds need at least as many {what}, but there are {count:,}")


def stratified_folds(
    labels: NDArray[np.int32], folds: int, random: np.random.RandomState | None
) -> Folds:
    """Divide each class evenly: its numbers in the folds differ by at most one.

    The folds are those of ``sklearn.model_selection.StratifiedKFold``: runs of each class, or with
    `random`, which is its ``random_state``, a shuffle of them.

    Parameters
    ----------
    labels : ndarray of int32, shape (n,)
        Class index of each sample, ascending.
    """
    totals = np.bincount(labels)
    counts = [np.bincount(labels[i::folds], minlength=len(totals)) for i in range(folds)]
    found = []
    for of_class in np.transpose(counts):
        numbers = np.arange(folds, dtype=np.int32).repeat(of_class)
        if random is not None:
            random.shuffle(numbers)
        found.append(numbers)
    return np.concatenate(found)


def grouped_folds(
    labels: NDArray[np.int32], groups: NDArray[np.int32], folds: int, random: np.random.RandomState
) -> Folds:
    """Divide each class as evenly as whole groups allow.

    Groups of several samples are assigned first, the largest first, each to the fold that has the
    fewest images of its classes. Single samples then even out each class.

    Parameters
    ----------
    labels : ndarray of int32, shape (n,)
        Class index of each sample, ascending.
    groups : ndarray of int32, shape (n,)
        Samples of the same number stay together; they may span classes.
    """
    found = np.full(len(labels), -1, np.int32)
    members = np.argsort(groups, kind="stable")
    starts, stops = long_runs(groups[members])
    order = random.permutation(np.arange(len(starts)))
    totals = np.bincount(labels)
    placed = np.zeros((folds, len(totals)), np.int64)
    sizes = np.zeros(folds, np.int64)
    for number in order[np.argsort((starts - stops)[order], kind="stable")].tolist():
        rows = members[starts[number] : stops[number]]
        classes, counts = np.unique(labels[rows], return_counts=True)
        loads = placed[:, classes[0]]
        if len(classes) > 1:
            weighed = placed[:, classes] * (counts / totals[classes] ** 2)
            # NumPy's sum may differ between CPUs
            loads = np.array([math.fsum(of_fold) for of_fold in weighed.tolist()])
        fold = int(np.lexsort((sizes, loads))[0])
        found[rows] = fold
        placed[fold, classes] += counts
        sizes[fold] += len(rows)
    first = 0
    for class_index, count in enumerate(totals.tolist()):
        free = first + np.flatnonzero(found[first : first + count] < 0)
        taken = _even_out(placed[:, class_index], len(free), sizes)
        found[random.permutation(free)] = np.arange(folds).repeat(taken)
        sizes += taken
        first += count
    return found


def _even_out(placed: NDArray[np.int64], count: int, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many of `count` more samples each fold takes, so that all are as even as possible.

    Parameters
    ----------
    placed, sizes : ndarray of int64, shape (folds,)
        Samples of the class in each fold, and of all classes.
    """
    lowest = np.sort(placed)
    ends = np.cumsum(lowest)
    filled = np.arange(1, len(placed) + 1)
    able = np.flatnonzero(filled * lowest - ends <= count)[-1]  # so many reach the same level
    level = (count + ends[able]) // filled[able]
    taken: NDArray[np.int64] = np.maximum(level - placed, 0)
    rest = count - int(taken.sum())
    order = np.lexsort((sizes + taken, placed > level))
    taken[order[:rest]] += 1
    return taken
