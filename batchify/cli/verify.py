"""The command `batchify verify`: findings as text or JSON."""

from __future__ import annotations

import click

from batchify.cli.boundary import boundary
from batchify.cli.help import Command, option
from batchify.cli.option_types import CountOrAll
from batchify.cli.options import JSON, WORKER_OPTIONS, give_options
from batchify.cli.output import Result
from batchify.cli.progress import shown_progress
from batchify.cli.several import run_each

DAMAGED = 6


@click.command(cls=Command)
@click.argument("files", metavar="OUT...", type=click.Path(), nargs=-1, required=True)
@option("--quick", is_flag=True, help="Check all but the stored images.")
@option(
    "--source", type=click.Path(), metavar="DIR",
    help="Hash the images of the dataset DIR again: list changed, missing and new ones.",
)  # fmt: skip
@option(
    "--redecode", type=CountOrAll(), metavar="N|all",
    help="Decode N images of --source again, or all, and compare the pixels.",
)  # fmt: skip
@give_options((*WORKER_OPTIONS, JSON))
@click.pass_context
def verify(
    context: click.Context,
    /,
    files: tuple[str, ...],
    quick: bool,
    source: str | None,
    redecode: int | str | None,
    workers: int | None,
    image_timeout: float,
    json: bool,
) -> None:
    """Check that files are intact.

    OUT is a file, or a folder of shards, that `batchify build` made, or a URL. A checksum covers
    every byte that is read: the digest and a checksum of each row cover structure, labels, paths
    and hashes, and each image has its own. Findings name split and row. Exit code 6 means that
    there are findings.

    \b
    Examples:
        batchify verify out.h5
        batchify verify *.h5 --quick
        batchify verify out.h5 --source dataset/ --redecode 100
    """
    with boundary(json=json) as check_signals:
        from batchify.checking.verify import verify as verify_file

        def run(file: str) -> Result:
            with shown_progress(check_signals) as step:
                found = verify_file(
                    file, quick=quick, source=source, redecode=redecode, workers=workers,
                    image_timeout_s=image_timeout, progress=step,
                )  # fmt: skip
            return Result(found.as_json(), str(found), 0 if found.is_ok else DAMAGED)

        code = run_each(files, run, check_signals, json=json)
    context.exit(code)
