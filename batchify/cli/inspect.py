"""The command `batchify inspect`: a summary as text or JSON, a sheet, a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from batchify import choices
from batchify.cli.boundary import boundary
from batchify.cli.help import Command, option
from batchify.cli.options import JSON, give_options
from batchify.cli.several import Result, run_each
from batchify.cli.text import MOST_CLASSES, class_table, table
from batchify.common.text import counts_text, plural, printable, size_text

if TYPE_CHECKING:
    from batchify.reporting.inspection import Inspection
    from batchify.reporting.sheet import Sheet
    from batchify.reporting.summary import Summary


SKIPPED_SHOWN = 20
COMMAND_LENGTH = 1000


@click.command(cls=Command)
@click.argument("files", metavar="OUT...", type=click.Path(), nargs=-1, required=True)
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
@option("--all", "show_all", is_flag=True, help="Show all classes and options.")
@give_options((JSON,))
@click.pass_context
def inspect(
    context: click.Context,
    /,
    files: tuple[str, ...],
    sheet: str | None,
    report: str | None,
    seed: int,
    font: str | None,
    show_all: bool,
    json: bool,
) -> None:
    """Show what files contain.

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
    with boundary(json=json) as check_signals:
        from batchify.reporting.inspection import inspect

        if len(files) > 1 and (sheet is not None or report is not None):
            raise click.UsageError("--sheet and --report are for a single file")
        if font is not None and sheet is None:
            raise click.UsageError("--font requires --sheet")

        def run(file: str) -> Result:
            found = inspect(file, sheet_path=sheet, report_path=report, seed=seed, font=font)
            text = render(found, report, seed, show_all=show_all)
            return Result(found.summary.as_json(), text + "\n" * (file != files[-1]))

        code = run_each(files, run, check_signals, json=json)
    context.exit(code)


def render(found: Inspection, report: str | None, seed: int, *, show_all: bool) -> str:
    """Return an inspection as text."""
    parts = [render_summary(found.summary, show_all=show_all)]
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


def render_summary(summary: Summary, *, show_all: bool) -> str:
    """Return a summary as text; without `show_all`, one that fits a screen."""
    parts = [
        f"{printable(summary.path)}: batchify schema {summary.schema_version}, "
        f"{size_text(summary.nbytes)}",
        _splits(summary),
        _channels(summary),
        labels_text(summary, show_all=show_all),
        _options(summary, show_all=show_all),
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


def _options(summary: Summary, *, show_all: bool) -> str:
    from batchify.format.config import build_command, shown_options

    compression = summary.config.get("compression")
    lines = [f"built by {printable(summary.creator)} with {printable(summary.decoder)}"]
    if not show_all:
        command = printable(build_command(summary.config, skipped=bool(summary.skipped)))
        cut = command[:COMMAND_LENGTH] + "…" if len(command) > COMMAND_LENGTH else command
        lines.append(f"  {cut}")
    for name, value in shown_options(summary.config) if show_all else ():
        if name == "target_size" and isinstance(value, list):
            value = "x".join(map(str, value))
        elif isinstance(value, list):
            value = ",".join(map(str, value)) or "-"
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        lines.append(f"  {printable(name).replace('_', '-'):18} {printable(str(value))}")
    if any(split.store == "encoded" for split in summary.splits):
        lines.append("encoded: image files, decoded when they are read")
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


def labels_text(summary: Summary, *, show_all: bool) -> str:
    """Return the classes with their balance, or the labels that are not classes."""
    counted = [split for split in summary.splits if split.class_counts is not None]
    mode = summary.config["class_mode"]
    is_cut = len(summary.classes) > MOST_CLASSES and not show_all
    hint = " (--all shows all)" if is_cut else ""
    if counted:
        counts = {split.name: list(split.class_counts or ()) for split in counted}
        head = f"classes: {len(summary.classes):,}{hint}"
        text = head + "\n" + class_table("class", summary.classes, counts, show_all=show_all)
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
        text = f"labels: {len(summary.classes):,}, each 0 or 1; how many are 1{hint}\n"
        text += class_table("label", summary.classes, counts, show_all=show_all)
    else:
        text = "labels: numbers, from least to largest and their mean\n"
        text += _ranges(summary, show_all=show_all)
    weighted = [f"  {split.name:12}{split.weights.range_text}" for split in summary.splits
                if split.weights is not None]  # fmt: skip
    return "\n".join([text, "weights:", *weighted]) if weighted else text


def _ranges(summary: Summary, *, show_all: bool) -> str:
    rows = [["", "label", *(split.name for split in summary.splits)]]
    shown = summary.classes if show_all else summary.classes[:MOST_CLASSES]
    for index, name in enumerate(shown):
        ranges = [split.labels[index].range_text for split in summary.splits if split.labels]
        rows.append([f"  {index}", printable(name), *ranges])
    more = len(summary.classes) - len(shown)
    return table(rows, right=(0,)) + (f"\n  … and {more:,} more (--all)" if more else "")
