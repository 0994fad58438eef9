"""Run a command on one or several files: results, failures, and the highest exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from batchify._version import JSON_VERSION
from batchify.cli.boundary import error_messages, failure_json, show_cause
from batchify.cli.output import Result, echo
from batchify.common.text import printable


def run_each(
    paths: Sequence[str],
    run: Callable[[str], Result],
    check_signals: Callable[[], None],
    *,
    json: bool,
    always: bool = False,
) -> int:
    """Run a command on each file, print the results, and return the highest exit code.

    A file that cannot be read does not keep the others from being read; a command line that is not
    valid is an error at once. As JSON, several files are one object with a list of them.

    Parameters
    ----------
    check_signals : callable
        Raises for a signal that has been received.
    always : bool
        Print texts with ``--quiet``, too.
    """
    results = []
    for path in paths:
        try:
            with error_messages():
                result = run(path)
        except click.UsageError:
            raise
        except click.ClickException as error:
            check_signals()
            if len(paths) == 1:
                raise
            error.show()
            show_cause(error)
            entry = {"json_version": JSON_VERSION, "path": printable(path), **failure_json(error)}
            result = Result(entry, "", error.exit_code)
        results.append(result)
        if result.text and not json:
            echo(result.text, always=always)
    if json:
        files = [result.json for result in results]
        echo(files[0] if len(paths) == 1 else {"json_version": JSON_VERSION, "files": files})
    return max(result.exit_code for result in results)
