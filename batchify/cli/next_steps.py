"""Print what follows the report of a build: a line of check, and what to do next."""

from __future__ import annotations

import json
import shlex
import sys

import click

from batchify.common.text import printable


def next_steps(output: str, *, is_folder: bool = False) -> str:
    """Return the lines that follow the report of a build or a merge.

    Parameters
    ----------
    output : str
        The file, or the folder of shards, as the user names it.
    is_folder : bool
        It is a folder of shards.
    """
    name = shlex.quote(printable(output))
    lines = [_check_line(output, name)]
    if is_terminal():
        sheet = "" if is_folder else " --sheet sheet.png"
        path = json.dumps(printable(output), ensure_ascii=False)
        lines += [
            f"next:  batchify inspect {name}{sheet}",
            f"       batchify.open({path}) in Python",
        ]
    return "\n".join(lines)


def is_terminal() -> bool:
    """Return whether the output goes to a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def _check_line(output: str, name: str) -> str:
    """Return how many problems `batchify check` finds; failures here are not errors."""
    from batchify.common.paths import is_url

    command = f"run batchify check {name}"
    if is_url(output):  # it would be downloaded again
        return f"check: {command}"
    from batchify.cli.check import check_as_configured
    from batchify.errors import BatchifyError

    try:
        report = check_as_configured(output)
    except click.ClickException as error:
        return f"check: {error.format_message()}"
    except (BatchifyError, OSError, MemoryError) as error:
        return f"check: {error or 'out of memory'}"
    has_more = any(not problem.ignored for problem in report.problems)
    return f"check: {report.tally}" + (f"; {command}" if has_more else "")
