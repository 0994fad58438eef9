"""The command ``batchify fingerprint``."""

from __future__ import annotations

from typing import Any

import click

from batchify.cli.boundary import boundary
from batchify.cli.help import Command
from batchify.cli.options import (
    FILE_OPTIONS,
    IMAGE_TIMEOUT,
    JSON,
    ON_ERROR,
    RUN_OPTIONS,
    WORKERS,
    give_options,
    to_options,
    with_help,
)
from batchify.cli.output import echo
from batchify.cli.progress import shown_progress

_USED = (ON_ERROR, WORKERS, IMAGE_TIMEOUT)
_IGNORED = tuple(
    with_help(each, hidden=True, envvar=None, allow_from_autoenv=False)
    for each in RUN_OPTIONS
    if each not in _USED
)
"""Accepted, so that one list of options serves build and this command."""


@click.command(cls=Command)
@click.argument("dataset", type=click.Path())
@give_options((*FILE_OPTIONS, *_USED, *_IGNORED, JSON))
@click.pass_context
def fingerprint(context: click.Context, /, dataset: str, **values: Any) -> None:
    """Print the fingerprint a build would have, for cache keys.

    It has 64 hexadecimal digits: a hash of the options that affect the file, of versions, and of
    the names, order and contents of all images. Nothing is decoded or written. Options are read
    from [tool.batchify.build] and BATCHIFY_BUILD_…, too. The other options of `batchify build` are
    accepted and have no effect.

    \b
    Examples:
        batchify fingerprint dataset/
        batchify fingerprint dataset/ --target-size 224x224 --split hash --json
    """
    with boundary(json=values["json"]) as check_signals:
        from batchify.planning.planner import fingerprint as find_fingerprint

        options = to_options(context, values)
        with shown_progress(check_signals) as step:
            found = find_fingerprint(
                dataset, options, on_error=values["on_error"], workers=values["workers"],
                image_timeout_s=values["image_timeout"], progress=step,
            )  # fmt: skip
        echo(found.as_json() if values["json"] else str(found), always=True)
