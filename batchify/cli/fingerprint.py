"""The command ``batchify fingerprint``."""

from __future__ import annotations

from typing import Any

import click

from batchify.cli.boundary import boundary
from batchify.cli.options import FILE_OPTIONS, RUN_OPTIONS, BuildCommand, give_options, to_options
from batchify.cli.progress import shown_progress


@click.command(
    cls=BuildCommand, context_settings={"auto_envvar_prefix": "BATCHIFY_BUILD"}
)  # none of its own
@click.argument("dataset", type=click.Path())
@give_options((*FILE_OPTIONS, *RUN_OPTIONS))
@click.pass_context
def fingerprint(context: click.Context, /, dataset: str, **values: Any) -> None:
    """Print the fingerprint a build would have, for cache keys.

    It has 64 hexadecimal digits: a hash of the options that affect the file, of versions, and of
    the names, order and contents of all images. The options are those of `batchify build`, from the
    command line, the environment (BATCHIFY_BUILD_…) and [tool.batchify.build]; options that do not
    affect the file do not affect the fingerprint. Nothing is decoded or written.

    \b
    Examples:
        batchify fingerprint dataset/
        batchify fingerprint dataset/ --target-size 224x224 --split hash --json
    """
    with boundary(json=values["json"]) as check_signals:
        from batchify.cli.text import echo
        from batchify.planning.planner import fingerprint as find_fingerprint

        options = to_options(context, values)
        with shown_progress(check_signals, quiet=values["quiet"]) as step:
            found = find_fingerprint(
                dataset, options, on_error=values["on_error"], workers=values["workers"],
                image_timeout_s=values["image_timeout"], progress=step,
            )  # fmt: skip
        echo(found.as_json() if values["json"] else str(found))
