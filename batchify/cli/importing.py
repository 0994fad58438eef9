"""The command ``batchify import``, a name of ``build`` for datasets of other libraries."""

from __future__ import annotations

from typing import Any

import click

from batchify.cli.build import run_build
from batchify.cli.help import Command
from batchify.cli.options import FILE_OPTIONS, JSON, RUN_OPTIONS, give_options


@click.command("import", cls=Command)
@click.argument("dataset", metavar="SOURCE", type=click.Path())
@click.argument("output", metavar="OUT", type=click.Path())
@give_options((*FILE_OPTIONS, *RUN_OPTIONS, JSON))
@click.pass_context
def import_(context: click.Context, /, dataset: str, output: str, **values: Any) -> None:
    """Import a dataset of another library into OUT, an HDF5 file.

    SOURCE is a .npz file of arrays, such as Keras' mnist.npz; a folder of WebDataset tars; or a
    Hugging Face dataset: Parquet files, or a folder that save_to_disk wrote. Labels, class names,
    splits and paths are those of SOURCE; batchify docs importing says where they are. This is
    `batchify build` under another name: the options are the same, also those of
    [tool.batchify.build] and of BATCHIFY_BUILD_TARGET_SIZE.

    \b
    Examples:
        batchify import mnist.npz out.h5 --target-size 28x28 --color-mode grayscale
        batchify import tars/ out.h5 --store encoded --dry-run
    """
    run_build(context, dataset, output, values)
