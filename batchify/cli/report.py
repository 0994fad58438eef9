"""Plans and reports of builds, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchify.cli.text import table
from batchify.names import printable
from batchify.units import size_text

if TYPE_CHECKING:
    from batchify.plan import BuildPlan
    from batchify.report import BuildReport, Changes


def plan_text(plan: BuildPlan) -> str:
    """Return a plan as text."""
    rows = [["split", "column", "shape", "dtype"]]
    for split in plan.splits:
        for column in split.columns:
            shape = "×".join(map(str, column.shape))
            rows.append([split.name, column.name, shape, column.dtype.lstrip("<|")])
    compressed = " before compression" if plan.options.store.compression != "none" else ""
    lines = [
        f"plan of {plan.dataset.name}: {plan.images:,} images, "
        f"{len(plan.dataset.classes):,} classes",
        "",
        table(rows),
        "",
        f"file      {plan.nbytes:,} bytes ({size_text(plan.nbytes)}){compressed}",
        f"memory    at most {size_text(plan.memory_nbytes)} a process, and one decoded image",
        f"identity  {plan.identity}",
        *_left_out(plan),
    ]
    return "\n".join(lines)


def report_text(report: BuildReport, seconds: float) -> str:
    """Return what was built as text."""
    plan = report.plan
    height, width, channels = plan.options.decode.image_shape
    stored = " (as encoded files)" if plan.options.store.is_encoded else ""
    counts = " + ".join(f"{len(split):,} {split.name}" for split in plan.splits)
    if report.up_to_date:
        return f"{printable(report.path)} is up to date: {counts} images"
    lines = [
        f"{printable(report.path)}: {counts} images of {height}×{width}×{channels} "
        f"{plan.options.store.dtype}{stored}, {len(plan.dataset.classes):,} classes, "
        f"{size_text(report.nbytes)} in {seconds:.1f} s ({plan.images / seconds:,.0f} images/s)",
        *_left_out(plan),
    ]
    if report.kept:
        lines.append(f"  continued: {report.kept:,} rows of an earlier build were kept")
    if report.redone:
        lines.append(f"  made anew: {report.redone:,} of its rows, damaged or of changed files")
    if report.copied:
        lines.append(f"  copied: {report.copied:,} rows of the file before, not decoded again")
    special = [f"{n:,} {name.replace('_', ' ')}" for name, n in report.flags.items() if n]
    if special:
        lines.append("  sources: " + ", ".join(special))
    return "\n".join(lines)


def changes_text(changes: Changes) -> str:
    """Return what makes a build due as text."""
    if not changes.is_due:
        return f"{printable(changes.path)} is up to date"
    lines = [f"  - {line}" for line in changes.lines()]
    return "\n".join([f"{printable(changes.path)} is not up to date:", *lines])


def _left_out(plan: BuildPlan) -> list[str]:
    """Return lines on what is not in the file, and on what a user should know of it."""
    dataset = plan.dataset
    lines = []
    if dataset.hidden:
        lines.append(f"  left out: {dataset.hidden:,} hidden files and folders (see --hidden)")
    if dataset.loose:
        lines.append(f"  left out: files outside of the class folders: {dataset.loose:,}")
    if dataset.other:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in list(dataset.other.items())[:8])
        lines.append(f"  left out: files of other kinds: {kinds} (see --extensions)")
    if plan.skipped:
        lines.append(f"  skipped: {len(plan.skipped):,}")
        lines += [f"    - {printable(entry.path)}: {entry.reason}" for entry in plan.skipped[:10]]
        if len(plan.skipped) > 10:
            lines.append(f"    … and {len(plan.skipped) - 10:,} more (batchify inspect lists them)")
    lines += [f"  warning: {text}" for text in plan.warnings]
    return lines
