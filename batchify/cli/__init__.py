"""The command ``batchify``, with its subcommands.

Nothing here imports NumPy, Pillow or HDF5 before a command needs them.
"""

from __future__ import annotations

import click

from batchify.cli.build import build
from batchify.cli.check import check
from batchify.cli.completion import completion
from batchify.cli.docs import docs
from batchify.cli.export import export
from batchify.cli.fingerprint import fingerprint
from batchify.cli.help import Group
from batchify.cli.importing import import_
from batchify.cli.inspect import inspect
from batchify.cli.merge import merge
from batchify.cli.presets import presets
from batchify.cli.verbosity import versions_text
from batchify.cli.verify import verify
from batchify.cli.view import view


def _print_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(versions_text())
        context.exit()


@click.group(
    cls=Group,
    context_settings={"auto_envvar_prefix": "BATCHIFY", "help_option_names": ["-h", "--help"]},
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    allow_from_autoenv=False,
    callback=_print_version,
    help="Print the versions of batchify and of the libraries that decode and store, and exit.",
)
def main() -> None:
    """Turn a folder of images into training and validation arrays.

    \b
        batchify build dataset/ out.h5
        batchify inspect out.h5
        batchify verify out.h5
        batchify check out.h5

    DATASET is a folder with one subfolder per class. The file is plain HDF5: h5py,
    MATLAB, Julia and R read it. To train on it, in Python:

    \b
        train = batchify.open("out.h5")["train"]
        for X, y in train.batches(32, shuffle=True): ...
        train.to_torch(), train.to_keras(), train.to_tf(), train.to_hf()
    """


for command in (
    build, inspect, view, check, verify, export, import_, fingerprint, merge, presets, docs,
    completion,
):  # fmt: skip
    main.add_command(command)
