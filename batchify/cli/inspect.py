"""The command `batchify inspect`: a summary as text or JSON, a sheet, a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from batchify.cli.boundary import boundary
from batchify.cli.help import Command, option
from batchify.cli.options import JSON, give_options
from batchify.cli.output import Result
from batchify.cli.several import run_each
from batchify.common.text import printable, size_text

if TYPE_CHECKING:
    from batchify.reporting.inspection import Inspection


@click.command(cls=Command)
@click.argument("files", metavar="OUT...", type=click.Path(), nargs=-1, required=True)
@option(
    "--sheet", type=click.Path(), metavar="FILE",
    help="Write a contact sheet, .png or .webp: images of every split with class and path.",
)  # fmt: skip
@option(
    "--report", type=click.Path(), metavar="FILE",
    help="Write a report, .html: balance, images, duplicates, leaks, how it was built.",
)  # fmt: skip
@option(
    "--seed", type=int, default=0, show_default=True, metavar="N",
    help="Random seed that chooses the images to show, if there are many.",
)  # fmt: skip
@option(
    "--font", type=click.Path(), metavar="FILE",
    help="Font of the sheet, .ttf, .otf or .ttc, for scripts other than Latin, Greek and Cyrillic; "
    "without it, a system font.",
)  # fmt: skip
@option(
    "--trusted", is_flag=True,
    help="Draw stored image files beyond the default limits too, for files that you built.",
)  # fmt: skip
@option("--all", is_flag=True, help="Show all classes and options.")
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
    trusted: bool,
    all: bool,  # noqa: A002 - the name of the option, in a configuration file, too
    json: bool,
) -> None:
    """Show what files contain.

    OUT is a file, or a folder of shards, that `batchify build` made, or a URL. You see splits with
    their rows, shape and bytes; classes with their balance; how the file was built; and what was
    skipped. You can inspect files that you do not trust: links out of them, plugins and lengths
    that do not fit are refused, and no image is read except for a sheet or a report.

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
        if trusted and sheet is None and report is None:
            raise click.UsageError("--trusted requires --sheet or --report")

        def run(file: str) -> Result:
            found = inspect(
                file, sheet_path=sheet, report_path=report, seed=seed, font=font, trusted=trusted
            )
            text = render(found, report, seed, show_all=all)
            return Result(found.summary.as_json(), text + "\n" * (file != files[-1]))

        code = run_each(files, run, check_signals, json=json)
    context.exit(code)


def render(found: Inspection, report: str | None, seed: int, *, show_all: bool) -> str:
    """Return an inspection as text."""
    parts = [found.summary.text(show_all=show_all)]
    if found.sheet is not None:
        parts.append(str(found.sheet))
    if found.report_nbytes is not None:
        size = size_text(found.report_nbytes)
        parts.append(f"report: {printable(str(report))}, {size}, seed {seed}")
    return "\n\n".join(parts)
