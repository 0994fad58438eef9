"""The options of ``build``, as commands declare them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from batchify import schema
from batchify.cli.config import load_config
from batchify.cli.types import Names, TargetSize
from batchify.options import (
    BATCH_SIZE,
    IMAGE_TIMEOUT_S,
    DecodeOptions,
    SplitOptions,
    StoreOptions,
)

F = TypeVar("F", bound=Callable[..., Any])

_DECODE = DecodeOptions()
_SPLIT = SplitOptions()
_STORE = StoreOptions()


def _choice(name: str, choices: tuple[str, ...], default: str, text: str) -> Callable[[F], F]:
    return click.option(
        name, type=click.Choice(choices), default=default, show_default=True, help=text
    )


def _count(name: str, default: int | None, text: str) -> Callable[[F], F]:
    return click.option(
        name, type=click.IntRange(min=1), default=default, show_default=default is not None,
        metavar="N", help=text,
    )  # fmt: skip


def _share(name: str, default: float, text: str) -> Callable[[F], F]:
    return click.option(
        name, type=float, default=default, show_default=True, metavar="SHARE", help=text
    )


def _flag(name: str, text: str, *, default: bool = False) -> Callable[[F], F]:
    return click.option(name, is_flag=True, default=default, help=text)


DECIDING: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--target-size",
        type=TargetSize(),
        default="150x150",
        show_default=True,
        help="Height x width of the stored images.",
    ),
    _choice("--color-mode", schema.COLOR_MODES, _DECODE.color_mode, "Channels to store."),
    _choice("--interpolation", schema.INTERPOLATIONS, _DECODE.interpolation, "How to resize."),
    _choice(
        "--fit",
        schema.FITS,
        _DECODE.fit,
        "Where the aspect differs: stretch; crop the centre; or pad with black.",
    ),
    _choice(
        "--exif", schema.EXIFS, _DECODE.exif, "Ignore EXIF orientation, as Keras, or apply it."
    ),
    _flag(
        "--scaled-decode",
        "Let the JPEG decoder shrink large photos: much faster, pixels differ by a few levels.",
    ),
    _share(
        "--validation-split",
        _SPLIT.validation,
        "Share of each class for validation.",
    ),
    _share(
        "--test-split",
        _SPLIT.test,
        "Share of each class for testing.",
    ),
    _choice(
        "--split",
        schema.POLICIES,
        _SPLIT.policy,
        "keras: the first files of each class are validation. stratified: at random, by seed. "
        "hash: each file by a hash of its path, so that files that are added move no other; "
        "shares hold on average.",
    ),
    click.option(
        "--group-by",
        default=_SPLIT.group_by,
        metavar="REGEX",
        help="Keep files in one split that have the first group of the match on their path in "
        "common, e.g. '(patient\\d+)'; with --split stratified or hash.",
    ),
    _flag(
        "--group-duplicates",
        "Keep files of the same bytes in one split; with --split stratified or hash. Reads all "
        "files first.",
    ),
    click.option(
        "--shuffle/--no-shuffle",
        default=_SPLIT.shuffle,
        show_default=True,
        help="Order of the rows: by seed, as in Keras' first epoch, or by class and name.",
    ),
    click.option(
        "--seed",
        type=int,
        default=_SPLIT.seed,
        show_default=True,
        metavar="N",
        help="Of the order, and of a stratified or hash split.",
    ),
    _choice(
        "--class-mode",
        schema.CLASS_MODES,
        _STORE.class_mode,
        "Labels to store; multilabel, regression and mask are of a manifest.",
    ),
    click.option(
        "--manifest",
        type=click.Path(),
        metavar="FILE",
        help="Take the images that a .csv, .jsonl or .parquet table lists, with its labels: "
        "columns path, relative to DATASET, and label; optionally split, group and weight.",
    ),
    click.option(
        "--label-columns",
        type=Names(),
        default="",
        metavar="NAMES",
        help="Columns of the labels in the manifest, parted by commas.  [default: label]",
    ),
    click.option(
        "--rescale",
        default=_STORE.rescale,
        show_default=True,
        metavar="FACTOR",
        help="What pixels are multiplied by: a fraction or a number. Recorded as scale_factor; "
        "with --dtype float32 the products are stored.",
    ),
    _choice("--dtype", schema.DTYPES, _STORE.dtype, "Of the stored images."),
    _choice("--compression", schema.COMPRESSIONS, _STORE.compression, "Of the images."),
    click.option(
        "--compression-level",
        type=click.IntRange(1, 9),
        default=_STORE.compression_level,
        show_default=True,
        help="1 is fast, 9 is small.",
    ),
    _choice(
        "--store",
        schema.STORES,
        _STORE.store,
        "decoded: pixels. encoded: the files' own bytes, untouched; they are decoded whenever "
        "they are read, at this size or any other.",
    ),
    click.option(
        "--extensions",
        type=Names(),
        default="",
        metavar="NAMES",
        help="Take these too, parted by commas: webp, gif, avif.",
    ),
    _flag("--hidden", "Take hidden files and folders, as Keras does."),
    _flag("--follow-links", "Follow links that lead out of DATASET, and links to folders."),
    _count("--max-pixels", _DECODE.max_pixels, "Refuse images of more pixels."),
    _count(
        "--max-dimension", _DECODE.max_dimension, "Refuse images with a longer side, in pixels."
    ),
    _count("--max-file-size", _DECODE.max_file_size, "Refuse larger files, in bytes."),
)
"""The options that decide what is in the file."""

CONFIG: Callable[[Any], Any] = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=load_config,
    metavar="FILE",
    help="Read options from [tool.batchify.build] of a TOML file.  [default: batchify.toml or "
    "pyproject.toml of the current folder]",
)

RUNNING: tuple[Callable[[Any], Any], ...] = (
    _count(
        "--batch-size",
        BATCH_SIZE,
        "Images a batch: what a process holds in memory. Changes no byte.",
    ),
    _count("--workers", None, "Processes. Changes no byte.  [default: the CPUs of this process]"),
    _choice(
        "--on-error",
        schema.ON_ERRORS,
        "fail",
        "Images that cannot be used: fail and name them all, or skip and list them in OUT.",
    ),
    click.option(
        "--max-skipped",
        metavar="N|P%",
        default=None,
        help="With --on-error skip: fail where more images are left out.",
    ),
    click.option(
        "--image-timeout",
        type=float,
        default=IMAGE_TIMEOUT_S,
        show_default=True,
        metavar="SECONDS",
        help="Give an image up that is not read and decoded by then, or that ends its worker: "
        "fail, naming it, or skip it, by --on-error.",
    ),
    _count(
        "--shards",
        None,
        "Make OUT a folder of N files for each split, and a manifest.json; batchify merge makes "
        "one file of them.",
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        default=None,
        help="Have the shards made by the workers of a Dask cluster: tcp://host:8786. They need "
        "DATASET and OUT on storage that all share.",
    ),
    click.option(
        "--work-dir",
        type=click.Path(file_okay=False),
        default=None,
        metavar="DIR",
        help="Where an OUT that is a URL is made before it is uploaded.  [default: the cache "
        "folder of this user]",
    ),
    _flag("--overwrite", "Replace OUT if it exists, when the new file is whole."),
    _flag(
        "--restart", "Begin anew: discard an unfinished build; with --overwrite, decode everything."
    ),
    _flag(
        "--check",
        "Only ask whether OUT is up to date: exit code 1 and the reasons where it is not.",
    ),
    _flag("--dry-run", "Print what would be done; decode and write nothing."),
    click.option("--json", is_flag=True, help="Print the plan or the report as JSON."),
    _flag("--quiet", "Show no progress."),
    CONFIG,
)
"""Those that decide how it is built."""


def give_options(options: Sequence[Callable[[Any], Any]]) -> Callable[[F], F]:
    """Give a command some of the options of ``build``, in the order of the help.

    Whichever command has them, they are read from ``BATCHIFY_BUILD_…`` and the table of ``build``.
    """

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
            parameter = vars(command)["__click_params__"][-1]
            parameter.envvar = f"BATCHIFY_BUILD_{parameter.name.upper()}"
        return command

    return decorate


def crew_options(command: F) -> F:
    """Give a command that builds nothing the options of the workers who read and decode."""
    command = click.option(
        "--image-timeout",
        type=float,
        default=IMAGE_TIMEOUT_S,
        show_default=True,
        metavar="SECONDS",
        help="Give an image up that is not read and decoded by then.",
    )(command)
    text = "Processes that read and decode.  [default: the CPUs of this process]"
    return _count("--workers", None, text)(command)


def build_option_of() -> dict[str, click.Option]:
    """Return the options of ``build`` by name."""

    def bare() -> None:
        """Have options."""

    parameters = vars(give_options((*DECIDING, *RUNNING))(bare))["__click_params__"]
    return {parameter.name: parameter for parameter in parameters}
