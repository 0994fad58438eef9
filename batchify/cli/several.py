"""Run a command on one or several files: results, failures, and the highest exit code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

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
    together: Callable[[Sequence[str]], Mapping[str, Sequence[Result]]] = lambda _: {},
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
    together : callable
        Called with those of several files that could be read; returns more results, by their key
        in the JSON object.
    """
    results = []
    readable = []
    for path in paths:
        try:
            with error_messages():
                result = run(path)
            readable.append(path)
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
    files = [result.json for result in results]
    found = together(readable) if len(paths) > 1 else {}
    for result in chain.from_iterable(found.values()):
        results.append(result)
        if not json:
            echo(result.text, always=always)
    if json:
        more = {key: [result.json for result in some] for key, some in found.items()}
        several = {"json_version": JSON_VERSION, "files": files, **more}
        echo(files[0] if len(paths) == 1 else several)
    return max(result.exit_code for result in results)
