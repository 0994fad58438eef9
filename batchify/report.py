"""What a build tells: its progress, its plan and its result, as values and as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchify.names import printable
from batchify.plan import BuildPlan


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a build or a verification is.

    Parameters
    ----------
    stage : str
        Of a build: ``scan``, ``allocate``, ``check`` (the rows of an earlier build), ``fill`` or
        ``seal``. Of a verification: ``verify``, ``hash`` or ``decode``.
    done, total : int
        Images; 0 before the check.
    bad : int
        Images that could not be used so far.
    split : str
        The split in hand, in the fill.
    """

    stage: str
    done: int = 0
    total: int = 0
    bad: int = 0
    split: str = ""


@dataclass(frozen=True)
class BuildReport:
    """What a build made.

    Parameters
    ----------
    path : str
    plan : BuildPlan
        Of the file as published.
    nbytes : int
        Size of the file.
    flags : Mapping of str to int
        How many source images were special, by `schema.FLAGS`.
    kept : int
        Rows that an unfinished build had decoded.
    copied : int
        Rows that were taken from the file that was replaced.
    up_to_date : bool
        Nothing had changed, and nothing was done.
    """

    path: str
    plan: BuildPlan
    nbytes: int
    flags: Mapping[str, int]
    kept: int
    copied: int = 0
    up_to_date: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {**plan_as_json(self.plan), "path": self.path, "bytes": self.nbytes} | {
            "sources": dict(self.flags),
            "kept": self.kept,
            "copied": self.copied,
            "up_to_date": self.up_to_date,
        }


def plan_as_json(plan: BuildPlan) -> dict[str, Any]:
    """Return a plan as plain JSON values; the schema is in the README."""
    dataset = plan.dataset
    return {
        "dataset": printable(dataset.root),
        "identity": plan.identity,
        "layout": dataset.layout,
        "classes": [printable(name) for name in dataset.classes],
        "splits": {
            split.name: {
                "rows": len(split),
                "columns": {
                    column.name: {"shape": list(column.shape), "dtype": column.dtype}
                    for column in split.columns
                },
            }
            for split in plan.splits
        },
        "bytes": plan.nbytes,
        "memory_bytes": plan.memory_nbytes,
        "config": plan.config,
        "skipped": [
            {"path": printable(entry.path), "reason": entry.reason} for entry in plan.skipped
        ],
        "left_out": {
            "hidden": dataset.hidden,
            "loose": dataset.loose,
            "other": dict(dataset.other),
        },
        "warnings": list(plan.warnings),
    }
