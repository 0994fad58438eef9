"""Print results; tables, plans and reports as text."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from batchify import choices
from batchify.cli.style import with_labels
from batchify.cli.verbosity import is_quiet
from batchify.common.text import columns_of, counts_text, labelled, plural, printable, size_text

if TYPE_CHECKING:
    from batchify.building.outcome import BuildReport, Changes
    from batchify.errors import BatchifyWarning
    from batchify.planning.plan import BuildPlan
    from batchify.sharding.merge import MergeReport
    from batchify.sharding.shards import Shard, ShardsReport


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return rows as aligned columns, those numbered in `right` flush right; the head is bold."""
    widths = [max(map(columns_of, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        spaces = [" " * (width - columns_of(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [
            space + cell if i in right else cell + space
            for i, (cell, space) in enumerate(zip(row, spaces, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines[0] = click.style(lines[0], bold=True)
    return "\n".join(lines)


MOST_CLASSES = 20
"""If there are more classes, only the largest and the smallest are shown."""

_ENDS = 8
_BAR_WIDTH = 20


def class_table(
    what: str,
    names: Sequence[bytes],
    counts: Mapping[str, Sequence[int]],
    *,
    show_all: bool,
) -> str:
    """Return a table with the counts and a bar of each class, or label column.

    Parameters
    ----------
    what : str
        ``class`` or ``label``.
    counts : Mapping of str to sequence of int
        The images of each class, by split.
    show_all : bool
        Show every class, in the order of the labels, however many there are.
    """
    totals = [sum(of_splits) for of_splits in zip(*counts.values(), strict=True)]
    most = max([*totals, 1])

    def row(index: int) -> list[str]:
        bar = "█" * -(-totals[index] * _BAR_WIDTH // most)
        numbers = [f"{of_split[index]:,}" for of_split in counts.values()]
        return [f"  {index}", printable(names[index]), *numbers, bar]

    rows = [["", what, *counts, ""]]
    if show_all or len(names) <= MOST_CLASSES:
        rows += map(row, range(len(names)))
    else:
        order = sorted(range(len(names)), key=lambda index: -totals[index])
        others = order[_ENDS:-_ENDS]
        sums = [f"{sum(of_split[i] for i in others):,}" for of_split in counts.values()]
        each = dict.fromkeys(f"{totals[index]:,}" for index in (others[-1], others[0]))
        rows += map(row, order[:_ENDS])
        rows.append(["  …", f"{len(others):,} more, {' to '.join(each)} each", *sums, ""])
        rows += map(row, order[-_ENDS:])
    return table(rows, right=(0, *range(2, 2 + len(counts))))


def echo(result: str | Mapping[str, Any], *, always: bool = False) -> None:
    """Print a text, or plain values as JSON, to stdout; with ``--quiet``, a text only if `always`.

    Characters that its encoding lacks are escaped (a Windows pipe may be cp1252).
    """
    if isinstance(result, str):
        if is_quiet() and not always:
            return
        result = with_labels(result)
    else:
        import json  # not for the help

        result = json.dumps(result, indent=2)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        result.encode(encoding)
    except UnicodeEncodeError:
        for fancy, plain in (("█", "#"), ("×", "x"), ("…", "...")):
            result = result.replace(fancy, plain)
        result = result.encode(encoding, "backslashreplace").decode(encoding)
    click.echo(result)


def plan_text(
    plan: BuildPlan,
    sizes: Mapping[tuple[int, int], int] | None,
    shards: Sequence[Shard] = (),
    *,
    show_all: bool,
) -> str:
    """Return a plan as text.

    Parameters
    ----------
    sizes : Mapping, or None
        How many of some images have each size (height, width); None if none was looked at.
    shards : sequence of Shard
        The shards that it is cut into.
    show_all : bool
        Show all classes, and how the file is laid out.
    """
    compressed = " before compression" if plan.options.store.compression != "none" else ""
    lines = [
        f"plan of {plan.dataset.name}: {_counts(_rows(plan))} images, {_labels(plan)}",
        "",
        *_planned_classes(plan, show_all=show_all),
        f"sizes     {_sizes_text(sizes, plan.images)}",
        f"disk      {size_text(plan.nbytes)} ({plan.nbytes:,} bytes{compressed})",
        f"memory    at most {size_text(plan.memory_nbytes)} per process, and one decoded image",
        *_ignored_and_skipped(plan),
    ]
    if shards:
        lines.append(f"shards    {len(shards):,}: {shards[0].name} … {shards[-1].name}")
    lines += _warnings(plan.warnings)
    return "\n".join([*lines, *(_planned_columns(plan) if show_all else ())])


def _planned_classes(plan: BuildPlan, *, show_all: bool) -> list[str]:
    """Return lines with the images of each class and split, if labels are classes."""
    found = {split.name: plan.class_counts(split) for split in plan.splits}
    counts = {name: of_split for name, of_split in found.items() if of_split is not None}
    if not counts:
        return []
    lines = [class_table("class", plan.dataset.classes, counts, show_all=show_all)]
    if len(plan.dataset.classes) > MOST_CLASSES and not show_all:
        lines.append("  (--verbose shows all classes)")
    return [*lines, ""]


def _sizes_text(sizes: Mapping[tuple[int, int], int] | None, images: int) -> str:
    """Return the smallest, the largest and the most frequent of some sizes of images."""
    if sizes is None:
        return "not known: images of a remote dataset are not read"
    if not sizes:
        return "not known: no image could be read"
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    frequent = max(ordered, key=lambda size: sizes[size])
    least, most, often = (f"{h}×{w}" for h, w in (ordered[0], ordered[-1], frequent))
    text = f"{least} pixels" if len(sizes) == 1 else f"{least} to {most}, most often {often} pixels"
    return f"{text} ({sum(sizes.values()):,} of {plural(images, 'image')} looked at)"


def _planned_columns(plan: BuildPlan) -> list[str]:
    """Return lines with the columns of the file, and its identity."""
    rows = [["split", "column", "shape", "dtype"]]
    for split in plan.splits:
        for column in split.columns:
            shape = "×".join(map(str, column.shape))
            rows.append([split.name, column.name, shape, column.dtype.lstrip("<|")])
    return ["", table(rows), "", f"identity  {plan.identity}"]


def report_text(report: BuildReport, seconds: float) -> str:
    """Return the report of a build as text."""
    plan = report.plan
    if report.up_to_date:
        lines = [f"{printable(report.path)} is up to date: {_counts(_rows(plan))} images"]
    else:
        lines = [
            f"{printable(report.path)}: {_made(plan, _rows(plan), report.nbytes, seconds)}",
            *_ignored_and_skipped(plan),
            *_done(report),
        ]
    return "\n".join([*lines, *_warnings(report.warnings)])


def shards_text(report: ShardsReport, seconds: float) -> str:
    """Return the report of a build of shards as text."""
    rows, files = report.index.rows, report.index.files
    where = f"{printable(report.path)}, {plural(len(files), 'shard')}"
    if report.up_to_date:
        lines = [f"{where}: up to date: {_counts(rows)} images"]
    else:
        plan = replace(report.plan, skipped=(*report.plan.skipped, *report.skipped))
        lines = [
            f"{where}: {_made(plan, rows, report.nbytes, seconds)}",
            *_ignored_and_skipped(plan),
        ]
        if report.shards_kept:
            kept = plural(report.shards_kept, "shard")
            lines.append(f"  kept: {kept}, intact and up to date")
        lines += _done(report)
    return "\n".join([*lines, *_warnings(report.warnings)])


def merged_text(report: MergeReport, seconds: float) -> str:
    """Return the report of a merge as text."""
    return (
        f"{printable(report.path)}: {_counts(report.rows)} images of "
        f"{plural(report.shards, 'shard')}, {size_text(report.nbytes)} in {seconds:.1f} s"
    )


def _rows(plan: BuildPlan) -> dict[str, int]:
    return {split.name: len(split) for split in plan.splits}


def _counts(rows: Mapping[str, int]) -> str:
    return " + ".join(f"{count:,} {name}" for name, count in rows.items())


def _made(plan: BuildPlan, rows: Mapping[str, int], nbytes: int, seconds: float) -> str:
    height, width, channels = plan.options.decode.image_shape
    stored = " (as encoded files)" if plan.options.store.is_encoded else ""
    dtype = plan.options.store.dtype
    return (
        f"{_counts(rows)} images of {height}×{width}×{channels} {dtype}{stored}, "
        f"{_labels(plan)}, {size_text(nbytes)} in {seconds:.1f} s "
        f"({sum(rows.values()) / seconds:,.0f} images/s)"
    )


def _done(report: BuildReport | ShardsReport) -> list[str]:
    """Return lines that say where the rows come from."""
    lines = []
    if report.kept:
        lines.append(f"  continued: {report.kept:,} rows of an earlier build were kept")
    if report.redone:
        lines.append(f"  redone: {report.redone:,} of its rows, damaged or from changed files")
    if report.copied:
        lines.append(f"  copied: {report.copied:,} rows of the old file, not decoded again")
    special = [f"{n:,} {name.replace('_', ' ')}" for name, n in report.flags.items() if n]
    if special:
        lines.append("  sources: " + ", ".join(special))
    return lines


def _labels(plan: BuildPlan) -> str:
    if plan.options.store.class_mode in choices.MANIFEST_MODES:
        return labelled(plan.options.store.class_mode, len(plan.dataset.classes))
    return labelled("sparse", len(plan.dataset.classes))


def changes_text(changes: Changes) -> str:
    """Return the reasons to build again as text."""
    if not changes.is_due:
        return f"{printable(changes.path)} is up to date"
    lines = [f"  - {line}" for line in changes.lines()]
    return "\n".join([f"{printable(changes.path)} is not up to date:", *lines])


def _ignored_and_skipped(plan: BuildPlan) -> list[str]:
    """Return lines that say what is not in the file."""
    dataset = plan.dataset
    lines = []
    if dataset.entered:
        lines.append(f"  dataset: {printable(dataset.entered)}, the only folder in it")
    lines += [
        f"  {split.name}: {plural(len(split), 'image')} taken from train"
        for split in plan.splits
        if split.name in plan.from_train
    ]
    if dataset.undrawn:
        drawn = len(dataset.samples)
        total = drawn + dataset.undrawn
        lines.append(f"  drawn: {drawn:,} of {total:,} images (--limit, --max-per-class, --seed)")
    if dataset.hidden:
        lines.append(f"  ignored: {_entries(dataset.hidden, 'hidden or system ')} (--hidden)")
    if dataset.excluded:
        lines.append(f"  ignored: {_entries(dataset.excluded)} by --include or --exclude")
    if dataset.loose:
        lines.append(f"  ignored: {plural(dataset.loose, 'file')} outside of the class folders")
    # of those that look like images, a warning tells
    if other := {k: n for k, n in dataset.other.items() if k not in dataset.image_endings}:
        lines.append(f"  ignored because of their ending: {counts_text(other)}")
    if plan.skipped:
        lines.append(f"  skipped: {len(plan.skipped):,}")
        lines += [f"    - {printable(entry.path)}: {entry.reason}" for entry in plan.skipped[:10]]
        if len(plan.skipped) > 10:
            lines.append(f"    … and {len(plan.skipped) - 10:,} more (batchify inspect lists them)")
    return lines


def _entries(count: int, kind: str = "") -> str:
    return plural(count, f"{kind}file or folder", f"{kind}files and folders")


def _warnings(found: Sequence[BatchifyWarning]) -> list[str]:
    """Return the lines of warnings: the last that a command prints."""
    return [f"  warning: {warning}" for warning in found]
