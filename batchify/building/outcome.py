"""Results of a build: BuildReport and Changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batchify._version import JSON_VERSION
from batchify.building.jobs import NO_ROWS
from batchify.common.text import printable, rows_text, size_text
from batchify.decoding.fidelity import Fidelity, fidelity_of
from batchify.decoding.losses import Lost, flag_counts, flags_text, loss_warnings
from batchify.errors import BatchifyWarning, Skipped, warning_lines
from batchify.format.rows import RowReader
from batchify.planning.plan import BuildPlan

_STORED = {
    "encoded": " (as encoded files)", "jpeg": " (as JPEG)", "webp": " (as WebP)", "png": " (as PNG)"
}  # fmt: skip

NAMED = 5
"""How many files of a kind are named in text; JSON lists all."""


class MadeImages:
    """Counts and warnings about the images of a build, in one file or in shards."""

    plan: BuildPlan
    sources: Mapping[int, int]
    lost: Lost | None
    fidelity: Mapping[str, Fidelity]
    kept: int
    redone: int
    copied: int
    seconds: float

    @property
    def flags(self) -> dict[str, int]:
        """How many images have each flag of `batchify.choices.FLAGS`."""
        return flag_counts(self.sources)

    @property
    def warnings(self) -> tuple[BatchifyWarning, ...]:
        """Warnings about what may not be intended."""
        options = self.plan.options
        found = loss_warnings(self.sources, options.decode, options.store, self.lost)
        return (*self.plan.warnings, *found)

    def _made_text(self, rows: Mapping[str, int], nbytes: int) -> str:
        """Return what was made, and how fast, as text."""
        height, width, channels = self.plan.options.decode.image_shape
        stored = _STORED.get(self.plan.options.store.store, "")
        dtype = self.plan.options.store.dtype
        spent = ""
        if self.seconds:
            rate = sum(rows.values()) / self.seconds
            spent = f" in {self.seconds:.1f} s ({rate:,.0f} images/s)"
        return (
            f"{rows_text(rows)} images of {height}×{width}×{channels} {dtype}{stored}, "
            f"{self.plan.labels_text}, {size_text(nbytes)}{spent}"
        )

    def _origin_lines(self) -> list[str]:
        """Return the lines of a report that say where the rows come from."""
        lines = []
        if self.kept:
            lines.append(f"  continued: {self.kept:,} rows of an earlier build were kept")
        if self.redone:
            lines.append(f"  redone: {self.redone:,} of its rows, damaged or from changed files")
        if self.copied:
            lines.append(f"  copied: {self.copied:,} rows of the old file, not decoded again")
        if self.fidelity:
            store = self.plan.options.store
            total = sum(self.fidelity.values(), start=Fidelity())
            lost = total.text(sum(self.plan.rows.values()))
            lines.append(f"  {store.store}, quality {store.quality}: {lost}")
        if special := flags_text(self.flags):
            lines.append(f"  {special}")
        return lines


@dataclass(frozen=True)
class BuildReport(MadeImages):
    """The result of a build.

    Parameters
    ----------
    path : str
    plan : BuildPlan
        Plan of the published file.
    nbytes : int
        Size of the file.
    sources : Mapping of int to int
        How many images have each value of ``source_flags``.
    kept : int
        Rows that an interrupted build had decoded.
    redone : int
        Rows of that build that were decoded again: damaged, or their file changed.
    copied : int
        Rows that were copied from the file that was replaced.
    up_to_date : bool
        Nothing had changed, so nothing was done.
    lost : Lost or None
        How much the images lost; None if some were not decoded by this build.
    fidelity : Mapping of str to Fidelity
        What the images of each split lost, if they are encoded again with loss.
    seconds : float
        How long it took; 0 if that was not measured.
    """

    path: str
    plan: BuildPlan
    nbytes: int
    sources: Mapping[int, int]
    kept: int
    redone: int = 0
    copied: int = 0
    up_to_date: bool = False
    lost: Lost | None = None
    fidelity: Mapping[str, Fidelity] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False)

    def __repr__(self) -> str:
        done = "is up to date" if self.up_to_date else "was built"
        return f"<batchify {printable(self.path)} {done}: {rows_text(self.plan.rows)} images>"

    def __str__(self) -> str:
        plan = self.plan
        if self.up_to_date:
            lines = [f"{printable(self.path)} is up to date: {rows_text(plan.rows)} images"]
        else:
            lines = [
                f"{printable(self.path)}: {self._made_text(plan.rows, self.nbytes)}",
                *plan.left_out_lines(),
                *self._origin_lines(),
            ]
        return "\n".join([*lines, *warning_lines(self.warnings)])

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {**plan_as_json(self.plan), "path": self.path, "bytes": self.nbytes} | {
            "warnings": [warning.as_json() for warning in self.warnings],
            "sources": self.flags,
            "kept": self.kept,
            "redone": self.redone,
            "copied": self.copied,
            "up_to_date": self.up_to_date,
            **psnr_json(self.fidelity),
        }


@dataclass
class Changes:
    """Why an existing file is out of date.

    Parameters
    ----------
    path : bytes
        The file.
    reasons : list of str
        Changed options, classes or versions; a missing or damaged file.
    new, changed, vanished : list of bytes
        Image files, relative to the dataset folder.
    every : bool
        The lists are complete; otherwise the search stopped at the first change.
    damaged : bool
        The file is not as it was written.
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

    def __repr__(self) -> str:
        found = "is out of date" if self.is_due else "is up to date"
        return f"<batchify {printable(self.path)} {found}>"

    def __str__(self) -> str:
        if not self.is_due:
            return f"{printable(self.path)} is up to date"
        lines = [f"  - {line}" for line in self.lines()]
        return "\n".join([f"{printable(self.path)} is not up to date:", *lines])

    @property
    def is_due(self) -> bool:
        """Whether a build would make a different file."""
        return bool(self.reasons or self.new or self.changed or self.vanished)

    def lines(self, named: int = NAMED) -> list[str]:
        """Return the reasons as text, with the first `named` files of each kind."""
        found = list(self.reasons)
        kinds = {"new": self.new, "changed": self.changed, "missing": self.vanished}
        for kind, paths in kinds.items():
            if paths:
                names = ", ".join(map(printable, paths[:named]))
                more = ", …" if len(paths) > named else ""
                least = "at least " if kind == "changed" and not self.every else ""
                found.append(f"{least}{len(paths):,} {kind}: {names}{more}")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the changes as plain JSON values; see the page `json` of the documentation."""
        return {
            "json_version": JSON_VERSION,
            "path": printable(self.path),
            "up_to_date": not self.is_due,
            "reasons": self.reasons,
            "new": list(map(printable, self.new)),
            "changed": list(map(printable, self.changed)),
            "missing": list(map(printable, self.vanished)),
        }


def psnr_json(fidelity: Mapping[str, Fidelity]) -> dict[str, Any]:
    """Return the PSNR of each split as plain JSON values; nothing if it is not known."""
    return {"psnr": {name: each.as_json() for name, each in fidelity.items()}} if fidelity else {}


def count_fidelity(
    rows: RowReader, plan: BuildPlan, bad: Mapping[str, list[tuple[int, Skipped]]] = NO_ROWS
) -> dict[str, Fidelity]:
    """Return what the images of each split lost, without failed ones; empty if it is not stored."""
    if not plan.options.store.is_lossy:
        return {}
    found = {}
    for split in plan.splits:
        values = np.frombuffer(rows.get(split.name, "psnr", 0, len(split)), "<f4")
        good = np.delete(values, [row for row, _ in bad.get(split.name, [])])
        found[split.name] = fidelity_of(good)
    return found


def plan_as_json(plan: BuildPlan) -> dict[str, Any]:
    """Return a plan as plain JSON values; see the page `json` of the documentation."""
    dataset = plan.dataset
    return {
        "json_version": JSON_VERSION,
        "dataset": dataset.name,
        "identity": plan.identity,
        "layout": dataset.layout,
        "classes": [printable(name) for name in dataset.classes],
        "splits": {
            split.name: {
                "rows": len(split),
                "class_counts": plan.class_counts(split),
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
        "entered": printable(dataset.entered),
        "ignored": {
            "hidden": dataset.hidden,
            "excluded": dataset.excluded,
            "loose": dataset.loose,
            "other": dict(dataset.other),
            **{name: n for name in ("undrawn", "unlisted") if (n := getattr(dataset, name))},
        },
        "warnings": [warning.as_json() for warning in plan.warnings],
    }
