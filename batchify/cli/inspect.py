"""The command `batchify inspect`: a summary as text or JSON, a sheet, a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from batchify import choices
from batchify.cli.boundary import boundary
from batchify.cli.help import Command, option
from batchify.cli.options import JSON, give_options
from batchify.cli.text import echo, table
from batchify.common.text import counts_text, plural, printable, size_text

if TYPE_CHECKING:
    from batchify.reporting.inspection import Inspection
    from batchify.reporting.sheet import Sheet
    from batchify.reporting.summary import Summary


SKIPPED_SHOWN = 20


@click.command(cls=Command)
@click.argument("file", metavar="OUT", type=click.Path())
@option(
    "--sheet",
    type=click.Path(),
    metavar="FILE",
    help="Write a contact sheet, .png or .webp: images of every split with class and path.",
)
@option(
    "--report",
    type=click.Path(),
    metavar="FILE",
    help="Write a report, .html: balance, images, duplicates, leaks, how it was built.",
)
@option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    metavar="N",
    help="Random seed that chooses the images to show, if there are many.",
)
@option(
    "--font",
    type=click.Path(),
    metavar="FILE",
    help="Font of the sheet, .ttf, .otf or .ttc, for scripts other than Latin, Greek and Cyrillic; "
    "without it, a system font.",
)
@give_options((JSON,))
def inspect(
    file: str, sheet: str | None, report: str | None, seed: int, font: str | None, json: bool
) -> None:
    """Show what a file contains.

    OUT is a file that `batchify build` made. You see splits with their rows, shape and bytes;
    classes with their balance; how the file was built; and what was skipped. You can inspect files
    that you do not trust: links out of them, plugins and lengths that do not fit are refused, and
    no image is read except for a sheet or a report.

    \b
    Examples:
        batchify inspect out.h5
        batchify inspect out.h5 --sheet sheet.png
        batchify inspect out.h5 --report report.html
    """
    with boundary(json=json):
        from batchify.reporting.inspection import inspect

        if font is not None and sheet is None:
            raise click.UsageError("--font requires --sheet")
        found = inspect(file, sheet_path=sheet, report_path=report, seed=seed, font=font)
        echo(found.summary.as_json() if json else render(found, report, seed))


def render(found: Inspection, report: str | None, seed: int) -> str:
    """Return an inspection as text."""
    parts = [render_summary(found.summary)]
    if found.sheet is not None:
        parts.append(render_sheet(found.sheet))
    if found.report_nbytes is not None:
        size = size_text(found.report_nbytes)
        parts.append(f"report: {printable(str(report))}, {size}, seed {seed}")
    return "\n\n".join(parts)


def render_sheet(sheet: Sheet) -> str:
    """Return what was written, and which images could not be shown, as text."""
    lines = [
        f"sheet: {printable(sheet.path)}, {sheet.width:,}×{sheet.height:,} pixels, "
        f"{sheet.images:,} image{'s' * (sheet.images != 1)}, seed {sheet.seed}"
    ]
    if sheet.damaged:
        lines.append(
            f"  {len(sheet.damaged):,} of them damaged; `batchify verify` lists all damage"
        )
        lines += [f"  - {where}" for where in sheet.damaged[:SKIPPED_SHOWN]]
        if len(sheet.damaged) > SKIPPED_SHOWN:
            lines.append(f"  … and {len(sheet.damaged) - SKIPPED_SHOWN:,} more")
    return "\n".join(lines)


def render_summary(summary: Summary) -> str:
    """Return a summary as text."""
    parts = [
        f"{printable(summary.path)}: batchify schema {summary.schema_version}, "
        f"{size_text(summary.nbytes)}",
        _splits(summary),
        _channels(summary),
        labels_text(summary),
        _options(summary),
    ]
    if summary.columns:
        kept = ", ".join(f"{printable(name)} ({kind})" for name, kind in summary.columns.items())
        parts.append(f"further columns: {kept}")
    if special := _sources(summary):
        parts.append(special)
    if summary.ignored:
        kinds = counts_text(summary.ignored, len(summary.ignored))
        parts.append(f"ignored because of their ending: {kinds}")
    if summary.skipped:
        lines = [
            f"  - {printable(entry.path)}: {printable(entry.reason)}"
            for entry in summary.skipped[:SKIPPED_SHOWN]
        ]
        if len(summary.skipped) > SKIPPED_SHOWN:
            lines.append(
                f"  … and {len(summary.skipped) - SKIPPED_SHOWN:,} more (--json lists all)"
            )
        parts.append("\n".join([f"skipped: {len(summary.skipped):,}", *lines]))
    return "\n\n".join(parts)


def _splits(summary: Summary) -> str:
    rows = [["split", "rows", "images", "dtype", "bytes", "chunks"]]
    for split in summary.splits:
        shape = "×".join(map(str, split.image_shape))
        many = "1 image" if split.chunk_rows == 1 else f"{split.chunk_rows or 0:,} images"
        if split.chunk_rows is None:
            many = "the files as they are"
        rows.append(
            [split.name, f"{split.rows:,}", shape, split.dtype, size_text(split.nbytes), many]
        )
    return table(rows, right=(1, 4))


def _channels(summary: Summary) -> str:
    from batchify.format.config import rescale_text

    rows = [["channels", "mean", "standard deviation"]]
    for split in summary.splits:
        if split.rows:
            both = (split.mean, split.std)
            values = [", ".join(f"{value:#.4g}" for value in each) for each in both]
            rows.append([split.name, *values])
    return table(rows) + f"\nof images times {printable(rescale_text(summary.config))}"


def _options(summary: Summary) -> str:
    from batchify.format.config import shown_options

    compression = summary.config.get("compression")
    lines = [f"built by {printable(summary.creator)} with {printable(summary.decoder)}"]
    for name, value in shown_options(summary.config):
        if name == "target_size" and isinstance(value, list):
            value = "x".join(map(str, value))
        elif isinstance(value, list):
            value = ",".join(map(str, value)) or "-"
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        lines.append(f"  {printable(name).replace('_', '-'):18} {printable(str(value))}")
    if any(split.store == "encoded" for split in summary.splits):
        lines.append("encoded: the files' own bytes, decoded when they are read")
    elif compression == "none":
        lines.append("uncompressed: rows are slices of the file")
    return "\n".join(lines)


def _sources(summary: Summary) -> str:
    totals: dict[str, int] = {}
    for split in summary.splits:
        for name, count in split.flags.items():
            totals[name] = totals.get(name, 0) + count
    special = [f"{count:,} {name.replace('_', ' ')}" for name, count in totals.items() if count]
    return "sources: " + ", ".join(special) if special else ""


BAR_WIDTH = 20


def labels_text(summary: Summary) -> str:
    """Return the classes with their balance, or the labels that are not classes."""
    counted = [split for split in summary.splits if split.class_counts is not None]
    mode = summary.config["class_mode"]
    if counted:
        counts = {split.name: list(split.class_counts or ()) for split in counted}
        head = f"classes: {len(summary.classes):,}"
        text = head + "\n" + _bars(summary, "class", counts)
        for split in summary.splits:
            if split.class_counts is None:
                text += f"\n{split.name}: {plural(split.rows, 'image')} without labels"
    elif mode in ("none", *choices.INDEXED_MODES):
        text = f"classes: {len(summary.classes):,} (no labels are stored)"
    elif mode == "mask":
        text = f"labels: masks (column {printable(summary.classes[0])})"
    elif mode == "multilabel":
        counts = {
            split.name: [stats.positives for stats in split.labels or ()]
            for split in summary.splits
        }
        text = f"labels: {len(summary.classes):,}, each 0 or 1; how many are 1\n"
        text += _bars(summary, "label", counts)
    else:
        text = "labels: numbers, from least to largest and their mean\n" + _ranges(summary)
    weighted = [f"  {split.name:12}{split.weights.range_text}" for split in summary.splits
                if split.weights is not None]  # fmt: skip
    return "\n".join([text, "weights:", *weighted]) if weighted else text


def _bars(summary: Summary, what: str, counts: dict[str, list[int]]) -> str:
    """Return a table with the counts and a bar of each class or label column."""
    totals = [sum(of_splits) for of_splits in zip(*counts.values(), strict=True)]
    largest = max([*totals, 1])
    rows = [["", what, *counts, ""]]
    for index, name in enumerate(summary.classes):
        bar = "█" * -(-totals[index] * BAR_WIDTH // largest)
        numbers = [f"{of_split[index]:,}" for of_split in counts.values()]
        rows.append([f"  {index}", printable(name), *numbers, bar])
    return table(rows, right=(0, *range(2, 2 + len(counts))))


def _ranges(summary: Summary) -> str:
    rows = [["", "label", *(split.name for split in summary.splits)]]
    for index, name in enumerate(summary.classes):
        ranges = [split.labels[index].range_text for split in summary.splits if split.labels]
        rows.append([f"  {index}", printable(name), *ranges])
    return table(rows, right=(0,))
