"""Collect what `batchify check` finds about single rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchify.checking.check import find_problems
from batchify.checking.facts import Facts
from batchify.checking.findings import CheckLimits, Problem

MOST_NOTES = 20_000
"""The most rows of one problem that have a note each."""


@dataclass(frozen=True, eq=False)
class FoundRows:
    """The rows that a problem is about.

    Parameters
    ----------
    numbers : ndarray of int64, shape (n,)
        All of them, ascending.
    notes : dict of int to str
        What is found about each of the first rows.
    """

    problem: Problem
    numbers: NDArray[np.int64]
    notes: dict[int, str]

    def __contains__(self, number: int) -> bool:
        at = int(np.searchsorted(self.numbers, number))
        return at < len(self.numbers) and int(self.numbers[at]) == number


def find_rows(facts: Facts, firsts: Mapping[str, int]) -> Iterator[FoundRows]:
    """Run all checks, and yield the problems that are about rows.

    Parameters
    ----------
    firsts : Mapping of str to int
        The number of the first row of each split.
    """
    for problem in find_problems(facts, CheckLimits(), most=MOST_NOTES):
        notes = {
            firsts[each.split] + each.row: each.message
            for each in problem.examples
            if each.row is not None
        }
        rows = [firsts[split] + rows.astype(np.int64) for split, rows in problem.rows.items()]
        numbers = np.unique(np.concatenate([*rows, np.array(list(notes), np.int64)]))
        if len(numbers):
            yield FoundRows(problem, numbers, notes)
