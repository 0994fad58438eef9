"""The command ``batchify export``."""

from __future__ import annotations

import os
from typing import Any

import click

from batchify import choices
from batchify.cli.boundary import boundary
from batchify.cli.help import Command, option
from batchify.cli.options import (
    BUILD_OPTIONS,
    FILE_OPTIONS,
    JSON,
    ON_ERROR,
    WORKER_OPTIONS,
    forget_build_options,
    give_options,
    given_options,
    refuse_options,
    with_help,
)
from batchify.cli.output import echo
from batchify.cli.progress import shown_progress
from batchify.cli.verbosity import tell_origins

_OWN = ("overwrite", "workers", "image_timeout", "work_dir")
"""Options of this command that have the name of an option of build."""

_FORMATS = choices.EXPORT_FORMATS

_UNUSED = ("appearance", "compression", "compression_level")
"""Options of build that change nothing of an export."""
_OF_BUILD = tuple(
    with_help(each, rare=True)
    for each in (*FILE_OPTIONS, ON_ERROR, BUILD_OPTIONS["max_skipped"])
    if each.name not in _UNUSED
)


@click.command(cls=Command, tells_origins=False)
@click.argument("path", metavar="OUT|DATASET", type=click.Path())
@click.argument("target", metavar="TARGET", type=click.Path())
@option(
    "--format",
    type=click.Choice(choices.EXPORT_FORMATS),
    required=True,
    metavar="FORMAT",
    help="Format to write: {} or {}.".format(", ".join(_FORMATS[:-1]), _FORMATS[-1]),
)
@option(
    "--image-format",
    type=click.Choice(choices.IMAGE_FORMATS),
    metavar="FORMAT",
    help="Format of images that are pixels: png, jpeg or webp (lossless).  [default: png]",
)
@option(
    "--source",
    type=click.Path(),
    metavar="DATASET",
    help="For imagefolder of OUT: take the original files, after comparing them with their "
    "SHA-256.",
)
@option(
    "--link",
    type=click.Choice(choices.LINKS),
    metavar="KIND",
    default="copy",
    show_default=True,
    help="For imagefolder with original files: copy, hard or symbolic (links).",
)
@option(
    "--shard-size", metavar="SIZE", help="Most bytes of stored images per shard.  [default: 256MB]"
)
@option(
    "--overwrite",
    is_flag=True,
    help="Replace an earlier export, unless other files were added to it.",
)
@give_options(
    (
        with_help(
            BUILD_OPTIONS["work_dir"],
            rare=True,
            section="Options",
            help="Folder for unfinished files, if TARGET is a URL.  [default: the cache folder of "
            "this user]",
        ),
        *_OF_BUILD,
        *WORKER_OPTIONS,
        JSON,
    )
)
@click.pass_context
def export(context: click.Context, /, path: str, target: str, **values: Any) -> None:
    """Export a file, or a dataset, to a format that other tools read.

    OUT is a file, or a folder of shards, that `batchify build` made, or a URL. Stored image files
    are written as they are, and pixels as PNG. DATASET is split as `batchify build` would, with its
    options (see --help-all); its image files are not changed, unless you pass options such as
    --target-size or --store.

    TARGET is a folder, or a file for npz, or a URL. It appears only when it is complete; if an
    export is interrupted, run the same command again.

    \b
    Examples:
        batchify export out.h5 shards/ --format webdataset --shard-size 1GB
        batchify export out.h5 out.npz --format npz
        batchify export out.h5 folders/ --format imagefolder --source dataset/ --link hard
        batchify export dataset/ folders/ --format imagefolder --split stratified
        batchify export dataset/ s3://bucket/tars/ --format webdataset --target-size 224x224
    """
    with boundary("; run the same command again to resume", json=values["json"]) as check_signals:
        from batchify.common.paths import is_url
        from batchify.exporting.dataset import is_of_dataset
        from batchify.exporting.export import export as run_export

        options: dict[str, Any] = {}
        if is_of_dataset(path):
            options = {**given_options(context, values)}
            options |= {name: values[name] for name in ("on_error", "max_skipped")}
        else:
            forget_build_options(context, _OWN)
            if is_url(path) or os.path.exists(path):
                refuse_options(context, _OWN)
        tell_origins(context)
        names = ("format", "image_format", "source", "link", "shard_size", "overwrite", "workers",
                 "work_dir")  # fmt: skip
        with shown_progress(check_signals) as step:
            report = run_export(
                path, target, **{name: values[name] for name in names},
                image_timeout_s=values["image_timeout"], progress=step, **options,
            )  # fmt: skip
        echo(report.as_json() if values["json"] else str(report))
