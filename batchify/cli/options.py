"""The options of build: declared, read from TOML, made into BuildOptions."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from batchify import choices
from batchify.common.text import printable
from batchify.options import (
    BATCH_SIZE,
    IMAGE_TIMEOUT_S,
    BuildOptions,
    DecodeOptions,
    DiscoverOptions,
    ManifestOptions,
    SplitOptions,
    StoreOptions,
)

if TYPE_CHECKING:  # generic from click 8.4 on, to type checkers alone
    _SizeType = click.ParamType[tuple[int, int]]
    _NamesType = click.ParamType[tuple[str, ...]]
    _CountType = click.ParamType[int | str]
else:
    _SizeType = _NamesType = _CountType = click.ParamType


class TargetSize(_SizeType):
    """``HxW``, or one number for a square; in a configuration file also ``[H, W]``."""

    name = "HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return (height, width)."""
        if isinstance(value, list | tuple) and len(value) == 2:
            value = "x".join(map(str, value))
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:[xX×]\s*(\d{1,6})\s*)?", str(value))
        if match is None:
            self.fail(f"{value!r} is not a size such as 150x150 (height x width)", param, ctx)
        height, width = int(match[1]), int(match[2] or match[1])
        if not height or not width:
            self.fail(f"{value!r} has a side of 0 pixels", param, ctx)
        return height, width


class Names(_NamesType):
    """Names parted by commas; in a configuration file also a list."""

    name = "NAMES"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names."""
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(part.strip() for part in map(str, parts) if part.strip())


class CountOrAll(_CountType):
    """A whole number of at least 1, or ``all``."""

    name = "N|all"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return the number, or ``all``."""
        if value == "all":
            return "all"
        if not re.fullmatch(r"\d{1,18}", str(value)) or not int(value):
            self.fail(f"{value!r} is neither a number of at least 1 nor all", param, ctx)
        return int(value)


_FILES = ("batchify.toml", "pyproject.toml")


def load_config(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    """Make the options of ``build`` in a configuration file the defaults of the command.

    Without ``--config``, ``batchify.toml`` and then ``pyproject.toml`` of the current folder are
    looked at. Command line and environment win over them.
    """
    if context.resilient_parsing:
        return
    paths = [value] if value else list(filter(os.path.isfile, _FILES))
    for path in paths:
        table = _table(path)
        if table is None:
            continue
        options = _checked(table, path)
        # a command's own option of the same name (check --max-skipped) is another one
        given = {p.name for p in context.command.params if p.envvar}
        options = {name: value for name, value in options.items() if name in given}
        context.default_map = {**(context.default_map or {}), **options}
        return
    if value:
        raise click.UsageError(f"{value} has no table [tool.batchify.build]")


def _table(path: str) -> Any:
    """Return the options in a file, None where it has none."""
    import tomllib

    try:
        with open(path, "rb") as file:
            content: Any = tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise click.UsageError(
            f"{printable(path)} cannot be read: {printable(str(error))}"
        ) from error
    for key in ("tool", "batchify", "build"):
        content = content.get(key)
        if not isinstance(content, dict):
            return content
    return content


def _checked(table: Any, path: str) -> dict[str, Any]:
    """Return a table as option name to value; refuse what is not an option."""
    where = f"[tool.batchify.build] of {printable(path)}"
    if not isinstance(table, dict):
        raise click.UsageError(f"{where} is not a table")

    known = build_option_of()
    del known["config"]
    options: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in options:
            raise click.UsageError(f"{where} has {name} twice")
        options[name] = value
        if name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise click.UsageError(f"{where} has {name!r}, which is not an option{hint}")
        options[name] = _value(value, known[name], f"{where}: {name}")
    return options


def _value(value: Any, option: click.Option, where: str) -> Any:
    """Return a value as the command line would hand it over, so that it is judged alike."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise click.UsageError(f"{where} must be true or false")
        return value
    if isinstance(value, list) and isinstance(option.type, TargetSize | Names):
        if not all(type(item) in (str, int) for item in value):
            raise click.UsageError(f"{where} must be a list of names or of numbers")
        return value
    if type(value) not in (str, int, float):
        raise click.UsageError(f"{where} must be a text or a number")
    return str(value)


def to_options(context: click.Context, values: dict[str, Any]) -> BuildOptions:
    """Return the options of the library."""
    given = {
        name
        for name in ("split", "validation_split", "test_split", "group_by", "group_duplicates")
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
        and values[name] != ""
        and values[name] is not False
    }
    manifest = None
    if values["manifest"] is not None:
        columns = values["label_columns"] or ManifestOptions("").label_columns
        manifest = ManifestOptions(values["manifest"], columns)
    elif values["label_columns"]:
        raise click.UsageError("--label-columns are of a --manifest; give both")
    return BuildOptions(
        discover=DiscoverOptions(
            extensions=values["extensions"],
            hidden=values["hidden"],
            follow_links=values["follow_links"],
        ),
        split=SplitOptions(
            policy=values["split"],
            validation=values["validation_split"],
            test=values["test_split"],
            shuffle=values["shuffle"],
            seed=values["seed"],
            group_by=values["group_by"],
            group_duplicates=values["group_duplicates"],
        ),
        decode=DecodeOptions(
            target_size=values["target_size"],
            color_mode=values["color_mode"],
            interpolation=values["interpolation"],
            fit=values["fit"],
            exif=values["exif"],
            scaled_decode=values["scaled_decode"],
            max_pixels=values["max_pixels"],
            max_dimension=values["max_dimension"],
            max_file_size=values["max_file_size"],
        ),
        store=StoreOptions(
            class_mode=values["class_mode"],
            dtype=values["dtype"],
            store=values["store"],
            rescale=str(values["rescale"]),
            compression=values["compression"],
            compression_level=values["compression_level"],
        ),
        split_given=bool(given),
        batch_size=values.get("batch_size", BATCH_SIZE),
        manifest=manifest,
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
    _choice("--color-mode", choices.COLOR_MODES, _DECODE.color_mode, "Channels to store."),
    _choice("--interpolation", choices.INTERPOLATIONS, _DECODE.interpolation, "How to resize."),
    _choice(
        "--fit",
        choices.FITS,
        _DECODE.fit,
        "Where the aspect differs: stretch; crop the centre; or pad with black.",
    ),
    _choice(
        "--exif", choices.EXIFS, _DECODE.exif, "Ignore EXIF orientation, as Keras, or apply it."
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
        choices.POLICIES,
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
        choices.CLASS_MODES,
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
    _choice("--dtype", choices.DTYPES, _STORE.dtype, "Of the stored images."),
    _choice("--compression", choices.COMPRESSIONS, _STORE.compression, "Of the images."),
    click.option(
        "--compression-level",
        type=click.IntRange(1, 9),
        default=_STORE.compression_level,
        show_default=True,
        help="1 is fast, 9 is small.",
    ),
    _choice(
        "--store",
        choices.STORES,
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
        choices.ON_ERRORS,
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
