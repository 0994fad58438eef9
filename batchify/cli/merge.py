"""The command ``batchify merge``."""

from __future__ import annotations

import click

from batchify.cli.boundary import boundary
from batchify.cli.help import Command, option
from batchify.cli.options import JSON, give_options
from batchify.cli.output import echo
from batchify.cli.progress import shown_progress
from batchify.cli.verbosity import is_quiet


@click.command(cls=Command)
@click.argument("folder", metavar="SHARDS", type=click.Path())
@click.argument("output", metavar="OUT", type=click.Path())
@option(
    "--work-dir", type=click.Path(file_okay=False), metavar="DIR",
    help="Folder in which OUT is made before its upload, if it is a URL.  [default: the cache "
    "folder of this user]",
)  # fmt: skip
@option("--overwrite", is_flag=True, help="Replace OUT once the new file is complete.")
@give_options((JSON,))
def merge(folder: str, output: str, work_dir: str | None, overwrite: bool, json: bool) -> None:
    """Merge a folder of shards into one file.

    SHARDS is a folder that `batchify build --shards` made, or its URL. OUT is the file that
    `batchify build` makes of the same dataset, byte for byte. Rows are copied and compared with
    their checksums; nothing is decoded.

    \b
    Examples:
        batchify build dataset/ shards/ --shards 64
        batchify merge shards/ out.h5
    """
    with boundary(json=json) as check_signals:
        from batchify.sharding.merge import merge as merge_shards

        with shown_progress(check_signals) as step:
            report = merge_shards(
                folder, output, overwrite=overwrite, work_dir=work_dir, progress=step
            )
        echo(report.as_json() if json else str(report))
        if not json and not is_quiet():
            from batchify.cli.next_steps import next_steps

            echo(next_steps(output))
