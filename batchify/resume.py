"""Continuing an earlier build: what its journal says, and whether it was of the same plan. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.errors import ResumeError
from batchify.names import printable
from batchify.plan import BuildPlan

VERSION = 1
Masks = dict[str, NDArray[np.bool_]]
"""For each split, one truth value a row."""
LearntSum = Callable[[str, int, int], int]


def header(plan: BuildPlan) -> dict[str, Any]:
    """Return the first record of a journal: the plan, in parts that can be told apart later."""
    return {
        "format": "batchify-journal",
        "version": VERSION,
        "plan": plan.identity,
        "decoder": plan.decoder,
        "config": plain_config(plan),
        "classes": plan.classes_digest,
        "skipped": plan.skipped_digest,
        "splits": {split.name: [len(split), plan.row_digests[split.name]] for split in plan.splits},
    }


def plain_config(plan: BuildPlan) -> dict[str, Any]:
    """Return the options of a plan as JSON gives them back."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in plan.config.items()
    }


def check_same(found: Mapping[str, Any], plan: BuildPlan) -> None:
    """Refuse to continue a build of another plan.

    Parameters
    ----------
    found : Mapping
        First record of a journal.
    plan : BuildPlan

    Raises
    ------
    ResumeError
        With all that differs.
    """
    mine = header(plan)
    if (
        not isinstance(found, dict)
        or found.get("version") != VERSION
        or found.get("format") != mine["format"]
    ):
        raise ResumeError("it was begun by another version of batchify")
    if found.get("plan") == mine["plan"]:
        return
    changes = differences(found.get("config", {}), mine["config"])
    changes += differences({"decoder": found.get("decoder")}, {"decoder": mine["decoder"]})
    if found.get("classes") != mine["classes"]:
        changes.append("the classes changed")
    if found.get("skipped") != mine["skipped"]:
        changes.append("the files that are left out changed")
    before, now = found.get("splits", {}), mine["splits"]
    sizes = " or sizes" if plan.options.store.is_encoded else ""
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            counts = [str(rows.get(name, [0])[0]) for rows in (before, now)]
            same = counts[0] == counts[1]
            changes.append(
                f"the files of {name} changed, or their order{sizes}"
                if same
                else f"{name} had {counts[0]} files, now {counts[1]}"
            )
    raise ResumeError("; ".join(changes))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return, for people, which values of two mappings differ."""
    return [
        f"{printable(name)} was {printable(str(before.get(name, 'not given')))}, "
        f"now {printable(str(now.get(name, 'not given')))}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def committed(
    records: Iterable[Mapping[str, Any]], plan: BuildPlan, learnt_crc32: LearntSum
) -> Masks:
    """Return which rows a journal says are durable and good.

    Parameters
    ----------
    records : iterable of Mapping
        Without the first. ``rows`` lists [split, start, stop, crc32] that became durable, the last
        of what was learnt of them; ``bad`` the rows among them whose file could not be used.
        ``anew`` says that the records before do not count any more.
    plan : BuildPlan
    learnt_crc32 : callable
        Returns that checksum of (split, start, stop), as the rows are now.
    """
    masks = {split.name: np.zeros(len(split), np.bool_) for split in plan.splits}
    for record in records:
        if record.get("anew"):
            for mask in masks.values():
                mask[:] = False
        for split, start, stop, crc32 in record.get("rows", ()):
            if learnt_crc32(split, start, stop) == crc32:
                masks[split][start:stop] = True
        for split, row, *_ in record.get("bad", ()):
            masks[split][row] = False
    return masks


def runs(masks: Masks, most: int) -> Iterator[tuple[str, int, int]]:
    """Yield (split, first row, last row + 1) of runs of marked rows, none longer than `most`."""
    for split, mask in masks.items():
        edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
        for first, last in edges.reshape(-1, 2).tolist():
            for start in range(first, last, most):
                yield split, start, min(start + most, last)
