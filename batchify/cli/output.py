"""Print results and errors; on a terminal with bold headings, yellow warnings, red errors."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import click

from batchify.cli.verbosity import is_quiet

_COLORS = {"error": "red", "warning": "yellow", "notice": "cyan"}


def wanted_color() -> bool | None:
    """Return whether NO_COLOR or FORCE_COLOR decides about color; None if neither does.

    See https://no-color.org and https://force-color.org: any text counts, an empty one does not.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return False if os.environ.get("TERM") == "dumb" else None


def styled(text: str) -> str:
    """Return a report with bold heads of tables, and its severities in color."""

    def colored(match: re.Match[str]) -> str:
        return match[1] + click.style(match[2], fg=_COLORS[match[2]])

    def bold(match: re.Match[str]) -> str:
        return click.style(match[0], bold=True)

    text = re.sub(r"^ *(split|channels|class|label|option)  .*$", bold, text, flags=re.MULTILINE)
    return re.sub(r"^( *)(error|warning|notice)(?=[: ])", colored, text, flags=re.MULTILINE)


class Result(NamedTuple):
    """What a command prints, as JSON and as text, and its exit code."""

    json: dict[str, Any]
    text: str
    exit_code: int = 0


_Named = TypeVar("_Named", bound=Any)


def as_named(result: _Named, output: str) -> _Named:
    """Return a result whose path is the one on the command line, which is shorter to read."""
    from batchify.common.paths import is_url

    path = output if isinstance(result.path, str) else output.encode(errors="surrogateescape")
    return result if is_url(output) else replace(result, path=path)


def echo(result: str | Mapping[str, Any], *, always: bool = False) -> None:
    """Print a text, or plain values as JSON, to stdout; with ``--quiet``, a text only if `always`.

    Characters that its encoding lacks are escaped (a Windows pipe may be cp1252).
    """
    if isinstance(result, str):
        if is_quiet() and not always:
            return
        result = styled(result)
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


class Formatter(click.HelpFormatter):
    """Writes a help with its headings in bold."""

    def write_heading(self, heading: str) -> None:
        """Write the heading of a section."""
        super().write_heading(click.style(heading, bold=True))

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the line of the usage."""
        super().write_usage(prog, args, click.style(prefix or "Usage:", bold=True) + " ")


class Context(click.Context):
    """A context whose help has bold headings."""

    formatter_class = Formatter


@contextmanager
def colored_errors() -> Iterator[None]:
    """Show the errors of click in color."""
    try:
        yield
    except click.ClickException as error:
        vars(error)["show"] = partial(_show, error)
        raise


def _show(error: click.ClickException, _file: Any = None) -> None:
    """Print an error like click, with its label in red."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        type(error).show(error)
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        hint = f"Try '{context.command_path} --help' for help."
        click.echo(f"{context.get_usage()}\n{hint}\n", err=True, color=context.color)
    label = click.style("Error:", fg="red", bold=True)
    click.echo(f"{label} {error.format_message()}", err=True, color=wanted_color())
