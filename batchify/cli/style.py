"""Color on a terminal: bold headings, yellow warnings, red errors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import click

_COLORS = {"error": "red", "warning": "yellow"}


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
    """Return a report with bold heads of tables, and its ``error`` and ``warning`` in color."""

    def colored(match: re.Match[str]) -> str:
        return match[1] + click.style(match[2], fg=_COLORS[match[2]])

    def bold(match: re.Match[str]) -> str:
        return click.style(match[0], bold=True)

    text = re.sub(r"^ *(split|channels|class|label)  .*$", bold, text, flags=re.MULTILINE)
    return re.sub(r"^( *)(error|warning)(?=[: ])", colored, text, flags=re.MULTILINE)


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
