"""The command `batchify check`: problems as text or JSON."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from batchify import choices
from batchify.checking.findings import CHECK_CODES, FOLD_CODES, SHOWN, CheckLimits
from batchify.cli.boundary import boundary, error_messages
from batchify.cli.config import own_table, own_variable
from batchify.cli.help import Command, Option, option
from batchify.cli.option_types import SomeOf, Thresholds
from batchify.cli.options import (
    FILE_OPTIONS,
    JSON,
    WORKER_OPTIONS,
    forget_build_options,
    give_options,
    is_given_for_build,
    refuse_options,
    to_options,
    with_help,
)
from batchify.cli.output import Result
from batchify.cli.progress import shown_progress
from batchify.cli.several import run_each
from batchify.cli.verbosity import is_quiet, tell_origins

if TYPE_CHECKING:
    from batchify.checking.findings import CheckReport
    from batchify.common.progress import ProgressCallback
    from batchify.options import BuildOptions


_OWN = ("group_by", "max_skipped", "workers", "image_timeout")
"""Options of this command that have the name of an option of build."""

_LIMITS = ("max_imbalance", "min_class_size", "max_duplicates", "max_skipped", "thresholds")

FOUND = 8

_ALL_CODES = CHECK_CODES | FOLD_CODES


def _codes(severity: str) -> str:
    """Return the lines of the help that list the codes of a severity."""
    names = ", ".join(code for code, each in _ALL_CODES.items() if each.severity == severity)
    first = f"{severity}:".ljust(10)
    return textwrap.fill(
        names, 74, initial_indent=first, subsequent_indent=" " * 10, break_on_hyphens=False
    ).replace("\n", "\n    ")


_HELP = f"""Find problems in a dataset or file that would hurt training.

\b
OUT is a file or a folder of shards that `batchify build` made, or a URL: its
records are read. DATASET is split and decoded as `batchify build` would, with
its options (see --help-all).
Problems:
    {_codes("error")}
    {_codes("warning")}
    {_codes("notice")}

Files of several folds (build --fold) are also compared with each other.

Exceeding a limit that you set is an error. Exit code 8 means that there are errors (with
--strict, also warnings) that are not ignored. Notices never fail.

\b
Examples:
    batchify check out.h5
    batchify check out.h5 --max-imbalance 3 --max-skipped 1% --ignore upscaled
    batchify check dataset/ --split hash --target-size 224x224
    batchify check *.h5 --output-format github
"""


def _of_build() -> Iterator[Option]:
    """Yield the options of build that decide how a dataset is read."""
    for each in FILE_OPTIONS:
        if each.name == "group_by":
            text = "Images whose paths share the group that this finds must be in one split."
            yield with_help(each, section="Options", help=text)
        else:
            yield with_help(each, rare=True)


def _listed(
    _context: click.Context, parameter: click.Parameter, given: Sequence[Sequence[str]]
) -> tuple[str, ...]:
    """Return the codes of --list, which has at least one: the report would be taken for paths."""
    codes = tuple(chain.from_iterable(given))
    if given and not codes:
        raise click.BadParameter("it names no code", param=parameter)
    return codes


@click.command(cls=Command, help=_HELP, tells_origins=False)
@click.argument("paths", metavar="OUT|DATASET...", type=click.Path(), nargs=-1, required=True)
@option(
    "--max-imbalance", type=float, metavar="RATIO",
    help="Largest class divided by smallest class, in training.  [default: 10]",
)  # fmt: skip
@option("--min-class-size", type=int, metavar="N", help="Fewest images of a class.  [default: 10]")
@option("--max-duplicates", metavar="N|P%", help="Most copies within a split.  [default: 0]")
@option("--max-skipped", metavar="N|P%", help="Most skipped images.  [default: 0]")
@option(
    "--thresholds", type=Thresholds(), default="", metavar="CODE=N,…",
    help="Other thresholds of images: near-leak=6. Exceeding them is an error.",
)  # fmt: skip
@option(
    "--ignore", multiple=True, type=SomeOf(*_ALL_CODES),
    callback=lambda _context, _parameter, given: tuple(chain.from_iterable(given)), metavar="CODES",
    help="Accept problems of these codes: leak,upscaled.",
)  # fmt: skip
@option("--strict", is_flag=True, help="Fail on warnings, too.")
@option(
    "--list", multiple=True, type=SomeOf(*CHECK_CODES), callback=_listed, metavar="CODES",
    help="Only print the paths of images with these problems: for build --exclude @FILE.",
)  # fmt: skip
@option(
    "--output-format", type=click.Choice(("text", "github")), default="text", show_default=True,
    metavar="FORMAT",
    help="text, or github: annotations of a GitHub workflow.",
)  # fmt: skip
@give_options((*_of_build(), *WORKER_OPTIONS, JSON))
@click.pass_context
def check(context: click.Context, /, paths: tuple[str, ...], **values: Any) -> None:
    """Check files or datasets."""
    with boundary(json=values["json"]) as check_signals:
        show = github_text if values["output_format"] == "github" else str
        _tell_origins(context, paths)
        if values["list"]:
            _print_list(context, paths, values, check_signals)
            return

        def run(path: str) -> Result:
            with shown_progress(check_signals) as step:
                report = _check(context, path, dict(values), step)
            return Result(report.as_json(), show(report), 0 if report.is_ok else FOUND)

        def together(readable: Sequence[str]) -> dict[str, list[Result]]:
            with error_messages():
                reports = _check_folds(readable, values["ignore"])
            results = [
                Result(each.as_json(), show(each), 0 if each.is_ok else FOUND) for each in reports
            ]
            return {"folds": results} if results else {}

        code = run_each(
            paths, run, check_signals, json=values["json"], always=show is github_text,
            together=together,
        )  # fmt: skip
    context.exit(code)


def _tell_origins(context: click.Context, paths: Sequence[str]) -> None:
    """Report where options come from, but not those of build, which files are not checked with."""
    from batchify.datasets.discovery import is_dataset

    if not any(map(is_dataset, paths)):
        forget_build_options(context, {*_OWN} - {"group_by"})
    tell_origins(context)


def _check(
    context: click.Context, path: str, values: dict[str, Any], step: ProgressCallback
) -> CheckReport:
    """Check one file or dataset."""
    from batchify.checking.check import check as run_check

    options, settings = _settings(context, path, values)
    ignore = [code for code in values["ignore"] if code in CHECK_CODES]
    return run_check(
        path, options, ignore=ignore, strict=values["strict"], progress=step, **settings
    )


def _print_list(
    context: click.Context,
    paths: Sequence[str],
    values: dict[str, Any],
    check_signals: Callable[[], None],
) -> None:
    """Print the paths of images with some problems, as a list for ``build --exclude @FILE``."""
    from batchify.checking.check import list_images
    from batchify.common.excluded import path_list_bytes

    if values["json"] or values["output_format"] != "text":
        raise click.UsageError("--list prints paths, neither JSON nor annotations")
    if len(paths) > 1:
        raise click.UsageError("--list is for one file or dataset")
    with shown_progress(check_signals) as step:
        options, settings = _settings(context, paths[0], dict(values))
        found = list_images(paths[0], values["list"], options, progress=step, **settings)
    if not found and not is_quiet():
        click.echo("no images have these problems; --exclude @FILE takes no empty list", err=True)
    click.echo(path_list_bytes(found, "exclude them by a pattern"), nl=False)


def _settings(
    context: click.Context, path: str, values: dict[str, Any]
) -> tuple[BuildOptions | None, dict[str, Any]]:
    """Return the options of build for a dataset, and what else `check` takes."""
    from batchify.common.paths import is_url
    from batchify.datasets.discovery import is_dataset

    of_dataset = is_dataset(path)
    if not of_dataset and is_given_for_build(context, "group_by"):
        values["group_by"] = ""  # that of a build, maybe of another file
    limits = _limits(values)
    options = None
    if of_dataset:
        options = to_options(context, values | {"group_by": ""})
        if choices.POLICY_GROUPS[options.split.policy]:  # else, find such groups
            options = to_options(context, values)
    elif is_url(path) or os.path.exists(path):
        refuse_options(context, _OWN)
    settings = {
        "limits": limits,
        "workers": values["workers"],
        "image_timeout_s": values["image_timeout"],
    }
    return options, settings


def _check_folds(paths: Sequence[str], ignore: Sequence[str]) -> list[CheckReport]:
    """Compare the files of each cross-validation among several files."""
    from batchify.checking.folds import compare_folds, group_folds, read_fold
    from batchify.datasets.discovery import is_dataset

    built = (path for path in paths if not is_dataset(path))
    files = [file for path in built if (file := read_fold(path)) is not None]
    if len(files) < 2:
        return []
    return [compare_folds(some, ignore=ignore) for some in group_folds(files)]


def _limits(values: dict[str, Any]) -> CheckLimits:
    """Return the limits among the values of options."""
    return CheckLimits(**{each.name: values[each.name] for each in fields(CheckLimits)})


def check_as_configured(output: str) -> CheckReport:
    """Check a file that was just made, with the limits of the table and the environment of check.

    Raises
    ------
    click.UsageError
        If one of them is not valid.
    """
    from batchify.checking.check import check_made

    context = click.get_current_context(silent=True)
    if context is None:
        return check_made(output)
    own = [each for each in check.params if each.name in (*_LIMITS, "ignore")]
    table = own_table(context, "check")
    settings = click.Command("check", params=own).make_context(
        "check", [], context.find_root(), default_map=table
    )
    group_by = os.environ.get(own_variable(settings, "group_by")) or table.get("group_by", "")
    values = settings.params | {"group_by": group_by}
    ignore = [code for code in values["ignore"] if code in CHECK_CODES]
    return check_made(output, limits=_limits(values), ignore=ignore)


def github_text(report: CheckReport) -> str:
    """Return the problems as annotations of a GitHub workflow; ignored ones are omitted.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
    """
    from batchify.common.text import printable

    lines = []
    for problem in report.problems:
        if not problem.ignored:
            where = [f"- {each.where}: {each.message}" for each in problem.examples[:SHOWN]]
            message = _escaped("\n".join([str(problem), *where]))
            file, title = map(_of_property, (printable(report.path), f"batchify: {problem.code}"))
            lines.append(f"::{problem.severity} file={file},title={title}::{message}")
    lines += [f"::notice title=batchify::{_escaped(note)}" for note in report.notes]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Return a text as the message of an annotation."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _of_property(text: str) -> str:
    """Return a text as the value of an annotation's property."""
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
