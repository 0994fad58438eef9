"""The command ``batchify export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from batchify import choices
from batchify.cli.boundary import boundary
from batchify.cli.help import Command, option
from batchify.cli.options import JSON, WORKER_OPTIONS, give_options
from batchify.cli.output import echo
from batchify.cli.progress import shown_progress

if TYPE_CHECKING:
    from batchify.choices import ExportFormat, ImageFormat, Link


@click.command(cls=Command)
@click.argument("file", metavar="OUT", type=click.Path())
@click.argument("target", metavar="TARGET", type=click.Path())
@option(
    "--format",
    type=click.Choice(choices.EXPORT_FORMATS),
    required=True,
    metavar="FORMAT",
    help="Format to write: imagefolder, webdataset, mds, parquet, tfrecord, npz or arrow.",
)
@option(
    "--image-format",
    type=click.Choice(choices.IMAGE_FORMATS),
    metavar="FORMAT",
    help="Format of the images, if OUT stores pixels: png, jpeg or webp (lossless).  "
    "[default: png]",
)
@option(
    "--source",
    type=click.Path(),
    metavar="DATASET",
    help="For imagefolder: take the original files, after comparing them with their SHA-256.",
)
@option(
    "--link",
    type=click.Choice(choices.LINKS),
    metavar="KIND",
    default="copy",
    show_default=True,
    help="With --source: copy the files, or make hard or symbolic links to them.",
)
@option(
    "--shard-size",
    metavar="SIZE",
    help="Most bytes of stored images per shard.  [default: 256MB]",
)
@option("--overwrite", is_flag=True, help="Replace an earlier export once the new one is complete.")
@give_options((*WORKER_OPTIONS, JSON))
def export(
    file: str,
    target: str,
    format: str,  # noqa: A002 - the name of the option
    image_format: str | None,
    source: str | None,
    link: str,
    shard_size: str | None,
    overwrite: bool,
    workers: int | None,
    image_timeout: float,
    json: bool,
) -> None:
    """Export a file to a format that other tools read.

    OUT is a file, or a folder of shards, that `batchify build` made, or a URL. TARGET is a folder,
    or a file for npz. It appears only when it is complete; if an export is interrupted, run the
    same command again. Stored image files are written as they are, and pixels as PNG.

    \b
    Examples:
        batchify export out.h5 folders/ --format imagefolder
        batchify export out.h5 folders/ --format imagefolder --source dataset/ --link hard
        batchify export out.h5 shards/ --format webdataset --shard-size 1GB
        batchify export out.h5 out.npz --format npz
    """
    with boundary("; run the same command again to resume", json=json) as check_signals:
        from batchify.exporting.export import export as export_file

        with shown_progress(check_signals) as step:
            report = export_file(
                file,
                target,
                format=cast("ExportFormat", format),
                image_format=cast("ImageFormat | None", image_format),
                source=source,
                link=cast("Link", link),
                shard_size=shard_size,
                overwrite=overwrite,
                workers=workers,
                image_timeout_s=image_timeout,
                progress=step,
            )
        echo(report.as_json() if json else str(report))
