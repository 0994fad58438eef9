"""The result of an export."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from batchify._version import JSON_VERSION
from batchify.building.outcome import plan_as_json
from batchify.common.text import plural, printable, rows_text, size_text
from batchify.errors import BatchifyWarning, warning_lines
from batchify.planning.plan import BuildPlan


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Parameters
    ----------
    path : str
        The target, as it was named.
    format : str
        Its format.
    rows : dict of str to int
        The rows of each split.
    files : int
        How many files hold rows.
    nbytes : int
        Their size; 0 if they are links.
    kept : int
        How many of them an interrupted run had finished.
    up_to_date : bool
        The target was complete already, so nothing was done.
    warnings : tuple of BatchifyWarning
        What the format has no place for, and the like; for a dataset also those of its plan.
    plan : BuildPlan, optional
        How a dataset was divided into rows.
    seconds : float
        How long it took.
    """

    path: str
    format: str
    rows: dict[str, int]
    files: int = 0
    nbytes: int = 0
    kept: int = 0
    up_to_date: bool = False
    warnings: tuple[BatchifyWarning, ...] = ()
    plan: BuildPlan | None = None
    seconds: float = field(default=0.0, compare=False)

    def __repr__(self) -> str:
        return f"<batchify export {printable(self.path)}: {rows_text(self.rows)} images>"

    def __str__(self) -> str:
        name = printable(self.path)
        if self.up_to_date:
            text = f"{name} is up to date: {rows_text(self.rows)} images as {self.format}"
        else:
            kept = f", {self.kept:,} kept" if self.kept else ""
            text = (
                f"{name}: {rows_text(self.rows)} images as {self.format}, "
                f"{plural(self.files, 'file')}{kept}, {size_text(self.nbytes)} in "
                f"{self.seconds:.1f} s"
            )
        left_out = [] if self.plan is None else self.plan.left_out_lines()
        return "\n".join([text, *left_out, *warning_lines(self.warnings)])

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "json_version": JSON_VERSION,
            "path": printable(self.path),
            "format": self.format,
            "rows": self.rows,
            "files": self.files,
            "bytes": self.nbytes,
            "kept": self.kept,
            "up_to_date": self.up_to_date,
            "warnings": [warning.as_json() for warning in self.warnings],
            **({} if self.plan is None else {"skipped": plan_as_json(self.plan)["skipped"]}),
        }
