"""Exclude rows that a list names from a plan, if it is the plan of the same build."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from batchify.common.excluded import RowList, SplitRows, paths_digest
from batchify.common.text import plural, printable
from batchify.errors import OptionError
from batchify.planning.plan import BuildPlan
from batchify.planning.split_plan import SplitPlan


def without_listed(plan: BuildPlan) -> BuildPlan:
    """Return a plan without the rows of --exclude-rows; all others stay in their order.

    Several lists apply one after another: the rows of the second one are numbered as in the file
    that was built with the first one.

    Raises
    ------
    OptionError
        If a list is about another build, or a split would be empty.

    Notes
    -----
    Memory: one byte per row, and the rows of the lists.
    """
    lists = plan.options.split.exclude_rows
    for number, rows in enumerate(lists):
        if not isinstance(rows, RowList):
            raise OptionError("the file records which list of rows it was built without, not rows")
        if rows in lists[:number]:
            raise OptionError(f"--exclude-rows: {rows.shown} is given twice; give it once")
        plan = _without(plan, rows)
    return plan


def listed_rows(plan: BuildPlan, listed: frozenset[bytes], skipped: frozenset[bytes]) -> RowList:
    """Return the list of the rows of some paths, in the file of a plan that skips some files."""
    splits = {}
    for split in plan.splits:
        paths = [path for _, some in plan.paths(split) for path in some if path not in skipped]
        rows = {row: path for row, path in enumerate(paths) if path in listed}
        splits[split.name] = SplitRows(len(paths), paths_digest([paths]), rows)
    return RowList(splits, skipped, "")


def _without(plan: BuildPlan, rows: RowList) -> BuildPlan:
    dropped = {split.name: np.zeros(len(split), np.bool_) for split in plan.splits}
    splits = {split.name: split for split in plan.splits}
    for name, found in rows.splits.items():
        if not found.listed:
            continue
        if name not in splits:
            raise _refusal(rows, f"there is no {printable(name)} split")
        split = splits[name]
        # The build of the list had no rows for files that it skipped.
        there = np.array(
            [path not in rows.skipped for _, paths in plan.paths(split) for path in paths], np.bool_
        )
        numbers = np.flatnonzero(there)  # of the rows of that build
        if len(numbers) != found.rows:
            raise _refusal(rows, f"{name} has {len(numbers):,} rows, not {found.rows:,}")
        if paths_digest(_paths(plan, split, there)) != found.paths_sha256:
            raise _refusal(rows, f"the rows of {name} are other images, or in another order")
        listed = np.fromiter(found.listed, np.int64, len(found.listed))
        if listed.max() >= len(numbers):
            raise _refusal(rows, f"{name} has no row {listed.max():,}")
        for row, path in found.listed.items():
            if plan.path(name, int(numbers[row])) != path:
                raise _refusal(rows, f"row {row:,} of {name} is not {printable(path)}")
        dropped[name][numbers[listed]] = True
        if dropped[name].all():
            raise OptionError(f"--exclude-rows: {rows.shown} leaves no rows in {name}")
    count = sum(int(each.sum()) for each in dropped.values())
    return replace(plan.without(dropped, []), excluded=plan.excluded + count)


def _paths(plan: BuildPlan, split: SplitPlan, there: NDArray[np.bool_]) -> Iterator[list[bytes]]:
    """Yield the paths of some rows of a split, some thousand at a time."""
    for start, paths in plan.paths(split):
        kept = there[start : start + len(paths)].tolist()
        yield [path for path, is_there in zip(paths, kept, strict=True) if is_there]


def _refusal(rows: RowList, reason: str) -> OptionError:
    total = plural(sum(len(each.listed) for each in rows.splits.values()), "row")
    return OptionError(
        f"--exclude-rows: {rows.shown} lists {total} of another build than this one: {reason}; "
        "build with the options of that build, or download the paths, for --exclude @FILE"
    )
