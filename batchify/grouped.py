"""The stratified split of groups that stay whole. Pure."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from batchify import schema
from batchify.options import SplitOptions
from batchify.split import Indices, stratified, wanted


def keep_groups(
    labels: NDArray[np.int32], groups: NDArray[np.int32], options: SplitOptions
) -> dict[str, Indices]:
    """Split each class at random, by seed, and keep groups whole; they may span classes.

    Groups of several samples go first, the largest first: each to a split that it fits into, drawn
    by how much the splits lack of its classes, or, where it fits into none, to the one that lacks
    most. Where the groups that are left of a class are no more than the splits that have none of
    it, they go there, training first: every class is in training. Then single samples fill what
    the shares still lack, as in `stratified`.

    Parameters
    ----------
    labels : ndarray of int32, shape (n,)
        Class index of each sample, ascending.
    groups : ndarray of int32, shape (n,)
        Samples of the same number stay together.
    options : SplitOptions
    """
    splits = wanted(options)
    where = np.full(len(labels), -1, np.int8)
    members = np.argsort(groups, kind="stable")
    starts, stops = _several(groups[members])
    random = np.random.RandomState(options.seed)
    order = random.permutation(np.arange(len(starts)))
    tally = _Tally(labels, groups, options, random)
    for number in order[np.argsort((starts - stops)[order], kind="stable")].tolist():
        rows = members[starts[number] : stops[number]]
        where[rows] = tally.place(*np.unique(labels[rows], return_counts=True))
    del members
    first = 0
    for class_index, count in enumerate(tally.totals.tolist()):
        free = first + np.flatnonzero(where[first : first + count] < 0)
        placed = zip(splits, tally.placed[:, class_index].tolist(), strict=True)
        before = {**dict.fromkeys(schema.SPLITS, 0), **dict(placed)}
        chosen = stratified(class_index, len(free), options, before)
        for number, split in enumerate(splits):
            where[free[chosen[split]]] = number
        first += count
    return {
        split: np.flatnonzero(where == number).astype(np.int32)
        for number, split in enumerate(splits)
    }


def _several(ordered: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each run of several equal numbers starts, and stops."""
    stops = np.append(np.flatnonzero(np.diff(ordered)) + 1, len(ordered))
    starts = np.roll(stops, 1)
    starts[0] = 0
    several = stops - starts > 1
    return starts[several], stops[several]


class _Tally:
    """How many images of each class the splits should have, and have.

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
        shares = {"validation": options.validation, "test": options.test}
        rounded = [
            np.maximum(1, (shares[split] * self.totals + 0.5).astype(np.int64))
            for split in wanted(options)[1:]
        ]
        self._due = np.array([self.totals - sum(rounded), *rounded])
        self.placed = np.zeros_like(self._due)
        # of each class, the groups that are not placed yet; a sample for itself is one, too
        pairs = groups.astype(np.int64)
        pairs *= len(self.totals)
        pairs += labels
        pairs.sort()  # in place, which np.unique is not
        is_first = np.ones(len(pairs), np.bool_)
        is_first[1:] = pairs[1:] != pairs[:-1]
        firsts = pairs[is_first]
        firsts %= len(self.totals)
        self._left = np.bincount(firsts, minlength=len(self.totals))

    def place(self, classes: NDArray[np.int32], counts: NDArray[np.int64]) -> int:
        """Choose the split of a group, by how many images of which classes it has."""
        chosen = self._choose(classes, counts)
        self.placed[chosen, classes] += counts
        self._left[classes] -= 1
        return chosen

    def _choose(self, classes: NDArray[np.int32], counts: NDArray[np.int64]) -> int:
        lacking = self.placed[:, classes] == 0
        urgent = lacking & (self._left[classes] <= lacking.sum(0))
        if urgent[0].any():
            return 0
        weights = counts / self.totals[classes]
        due = (self._due[:, classes] - self.placed[:, classes]) * weights
        # summed the same way by every CPU, which NumPy does not promise
        missing = np.array([math.fsum(of_split) for of_split in due.tolist()])
        if urgent.any():
            calls = urgent.sum(1)
            return int(np.argmax(np.where(calls == calls.max(), missing, -np.inf)))
        fits = np.where(missing >= math.fsum((counts * weights).tolist()), missing, 0.0)
        if not fits.any():
            return int(np.argmax(missing))
        return int(self._random.choice(len(fits), p=fits / fits.sum()))
