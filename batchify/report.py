"""What a build tells: progress, plan, result, or why one is due; as values and as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchify.names import printable
from batchify.plan import BuildPlan

JSON_VERSION = 1
NAMED = 5
"""Files of a kind that are named to people; JSON has all."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a build or a verification is.

    Parameters
    ----------
    stage : str
        Of a build: ``scan``, ``hash`` (where files of the same bytes stay together), ``allocate``,
        ``check`` (the rows of an earlier build), ``fill`` or ``seal``. Of a verification:
        ``verify``, ``hash`` or ``decode``; of a check ``scan`` and ``decode``.
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
    redone : int
        Rows of it that were made anew: damaged, or of a file that changed since.
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
    redone: int = 0
    copied: int = 0
    up_to_date: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {**plan_as_json(self.plan), "path": self.path, "bytes": self.nbytes} | {
            "sources": dict(self.flags),
            "kept": self.kept,
            "redone": self.redone,
            "copied": self.copied,
            "up_to_date": self.up_to_date,
        }


@dataclass
class Changes:
    """What makes a build due.

    Parameters
    ----------
    path : bytes
        The file.
    reasons : list of str
        Other options, classes or versions; no file, or a damaged one.
    new, changed, vanished : list of bytes
        Sources, relative to the dataset folder.
    every : bool
        All changes were looked for, not only whether there are any.
    damaged : bool
        What is there is not what was written.
    missing : bool
        There is no file.
    """

    path: bytes
    reasons: list[str] = field(default_factory=list)
    new: list[bytes] = field(default_factory=list)
    changed: list[bytes] = field(default_factory=list)
    vanished: list[bytes] = field(default_factory=list)
    every: bool = True
    damaged: bool = False
    missing: bool = False

    @property
    def is_due(self) -> bool:
        """Whether a build would make another file."""
        return bool(self.reasons or self.new or self.changed or self.vanished)

    def lines(self, named: int = NAMED) -> list[str]:
        """Return the reasons for people, the first files of each kind named."""
        found = list(self.reasons)
        for kind in ("new", "changed", "vanished"):
            paths: list[bytes] = getattr(self, kind)
            if paths:
                names = ", ".join(map(printable, paths[:named]))
                more = ", …" if len(paths) > named else ""
                least = "at least " if kind == "changed" and not self.every else ""
                found.append(f"{least}{len(paths):,} {kind}: {names}{more}")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the changes as plain JSON values; the schema is in the README."""
        return {
            "json_version": JSON_VERSION,
            "path": printable(self.path),
            "up_to_date": not self.is_due,
            "reasons": self.reasons,
            "new": list(map(printable, self.new)),
            "changed": list(map(printable, self.changed)),
            "vanished": list(map(printable, self.vanished)),
        }


def plan_as_json(plan: BuildPlan) -> dict[str, Any]:
    """Return a plan as plain JSON values; the schema is in the README."""
    dataset = plan.dataset
    return {
        "dataset": dataset.name,
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
