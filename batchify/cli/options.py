"""The options of build: declared, read from TOML, made into BuildOptions."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from batchify import choices
from batchify.cli.boundary import JsonCommand
from batchify.cli.option_types import ClassNames, Names, Pattern, TargetSize
from batchify.common.keywords import OPTION_HOMES, OptionKeywords, make_options
from batchify.common.text import printable
from batchify.dataset_options import DiscoverOptions, ManifestOptions, SplitOptions
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BATCH_SIZE, IMAGE_TIMEOUT_S, BuildOptions

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILES = ("batchify.toml", "pyproject.toml")


def load_config(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    """Take the defaults of the command from a configuration file, which has options of ``build``.

    Without ``--config``, that is the first of ``batchify.toml`` and ``pyproject.toml`` in the
    current folder which has such options. The command line and the environment override it.
    """
    if context.resilient_parsing:
        return
    paths = [value] if value else list(filter(os.path.isfile, _FILES))
    for path in paths:
        table = _table(path)
        if table is None:
            continue
        options = _checked(table, path)
        # not for an option of the same name that is the command's own (check --max-skipped)
        given = {p.name for p in context.command.params if p.envvar}
        options = {name: value for name, value in options.items() if name in given}
        context.default_map = {**(context.default_map or {}), **options}
        return
    if value:
        raise click.UsageError(f"{value} has no table [tool.batchify.build]")


def _table(path: str) -> Any:
    """Return the options in a file; None if it has none."""
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
    """Return the options of a table, by name; refuse what is not an option."""
    where = f"[tool.batchify.build] of {printable(path)}"
    if not isinstance(table, dict):
        raise click.UsageError(f"{where} is not a table")

    allowed = {name: option for name, option in BUILD_OPTIONS.items() if option is not CONFIG}
    options: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in options:
            raise click.UsageError(f"{where} has {name} twice")
        options[name] = value
        if name not in allowed:
            import difflib

            close = difflib.get_close_matches(name, allowed, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise click.UsageError(f"{where} has {name!r}, which is not an option{hint}")
        options[name] = _value(value, allowed[name], f"{where}: {name}")
    return options


def _value(value: Any, option: click.Option, where: str) -> Any:
    """Return a value as the command line would pass it, so that both are checked alike."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise click.UsageError(f"{where} must be true or false")
        return value
    if isinstance(value, list) and isinstance(option.type, TargetSize | Names):
        if not all(type(item) in (str, int) for item in value):
            raise click.UsageError(f"{where} must be a list of names or of numbers")
        return value
    if option.multiple:
        if type(value) is not str and not (
            isinstance(value, list) and all(type(item) is str for item in value)
        ):
            raise click.UsageError(f"{where} must be a string or a list of strings")
        return [value] if isinstance(value, str) else value
    if type(value) not in (str, int, float):
        raise click.UsageError(f"{where} must be a string or a number")
    return str(value)


_DISCOVER, _SPLIT = DiscoverOptions(), SplitOptions()
_DECODE, _STORE = DecodeOptions(), StoreOptions()
_MANIFEST = ManifestOptions("")


class BuildOption(click.Option):
    """An option of ``build``; every command that has it reads it from ``BATCHIFY_BUILD_…``, too.

    Parameters
    ----------
    flags : str
        ``--seed`` or ``--shuffle/--no-shuffle``.
    group : option group, optional
        The library's, with its defaults, of which this option sets a field.
    field : str, optional
        That field, if it has another name; the default of the option is its default.
    words : tuple of str, optional
        The allowed values.
    settings
        As for `click.Option`. An option that is False by default is a flag.
    """

    def __init__(
        self, flags: str, group: object = None, field: str = "", words: tuple[str, ...] = (),
        **settings: Any,
    ) -> None:  # fmt: skip
        name = flags.partition("/")[0].removeprefix("--").replace("-", "_")
        self.group, self.field = group, field or name
        if group is not None:
            settings.setdefault("default", getattr(group, self.field))
        if words:
            settings["type"] = click.Choice(words)
        default = settings.get("default")
        if default is False:
            settings["is_flag"] = True
        super().__init__(
            [flags], envvar=f"BATCHIFY_BUILD_{name.upper()}",
            show_default=default is not False and default not in (None, "", ()), **settings,
        )  # fmt: skip


class BuildCommand(JsonCommand):
    """A command with options of ``build``: one with a single value may be given once."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; click alone would take the last value in silence."""
        given = list(args)
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(given)
            for option, count in Counter(order).items():
                if isinstance(option, click.Option) and count > 1 and _has_one_value(option):
                    how = ""
                    if isinstance(option.type, Names):
                        how = f", with all names: {option.opts[0]} a,b"
                    times = "twice" if count == 2 else f"{count} times"
                    raise click.UsageError(
                        f"{option.opts[0]} is given {times}; give it once{how}", ctx
                    )
        return rest


def _has_one_value(option: click.Option) -> bool:
    return not (option.multiple or option.is_flag or option.count)


_COUNT: dict[str, Any] = {"type": click.IntRange(min=1), "metavar": "N"}


# fmt: off
FILE_OPTIONS = (
    BuildOption("--target-size", _DECODE, type=TargetSize(), default="150x150",
                help="Height x width of the stored images."),
    BuildOption("--color-mode", _DECODE, words=choices.COLOR_MODES, help="Channels to store."),
    BuildOption("--interpolation", _DECODE, words=choices.INTERPOLATIONS, help="How to resize."),
    BuildOption("--fit", _DECODE, words=choices.FITS,
                help="If the aspect ratio differs: stretch, crop the center, or pad with black."),
    BuildOption("--exif", _DECODE, words=choices.EXIFS,
                help="Ignore EXIF orientation (as Keras does) or apply it."),
    BuildOption("--depth", _DECODE, words=choices.DEPTHS,
                help="16-bit images stored as 8 bits: clip values at 255 (as Keras does), or scale "
                "65535 to 255. 8-bit images stored as 16 bits: keep values, or scale 255 to "
                "65535."),
    BuildOption("--truncated", _DECODE, words=choices.TRUNCATED,
                help="Incomplete image files: fail with an error, or accept what is there."),
    BuildOption("--scaled-decode", _DECODE,
                help="Let the JPEG decoder shrink large photos: much faster, but pixels differ by "
                "a few levels."),
    BuildOption("--validation-split", _SPLIT, "validation", type=float, metavar="SHARE",
                help="Share of each class for validation. Taken from train if DATASET has splits "
                "but none for validation.  [default: 0.2; none if DATASET has splits]"),
    BuildOption("--test-split", _SPLIT, "test", type=float, metavar="SHARE",
                help="Share of each class for testing. Taken from train if DATASET has splits but "
                "none for testing.  [default: 0]"),
    BuildOption("--split", _SPLIT, "policy", words=choices.POLICIES,
                help="keras: the first files of each class are validation. stratified: at random, "
                "by seed. hash: by a hash of each file's path, so adding files never moves "
                "existing ones; shares are approximate."),
    BuildOption("--group-by", _SPLIT, metavar="REGEX",
                help="Keep files in one split if the first group of the match on their paths is "
                "the same, e.g. '(patient\\d+)'. Requires --split stratified or hash."),
    BuildOption("--group-duplicates", _SPLIT,
                help="Keep identical files in one split. Requires --split stratified or hash. "
                "Reads all files first."),
    BuildOption("--max-per-class", _SPLIT, **_COUNT,
                help="Take at most N images of each class, chosen by seed."),
    BuildOption("--limit", _SPLIT, **_COUNT,
                help="For a trial run: take at most N images, chosen by seed from every class and "
                "split."),
    BuildOption("--shuffle/--no-shuffle", _SPLIT,
                help="Shuffle rows by seed, as in Keras' first epoch, or sort them by class and "
                "name."),
    BuildOption("--seed", _SPLIT, type=int, metavar="N",
                help="Random seed for the row order and for stratified and hash splits."),
    BuildOption("--class-mode", _STORE, words=choices.CLASS_MODES,
                help="Labels to store. multilabel, regression and mask require --manifest."),
    BuildOption("--classes", _DISCOVER, type=ClassNames(), default="",
                help="Take only these classes, with labels in this order, like classes= in Keras: "
                "comma-separated, or @FILE with one name per line."),
    BuildOption("--class-order", _DISCOVER, words=choices.CLASS_ORDERS,
                help="Order of the labels. name: as Keras does. natural: 10 after 9."),
    BuildOption("--manifest", type=click.Path(), metavar="FILE",
                help="Take images and labels from a .csv, .tsv, .jsonl or .parquet table. Columns: "
                "path (relative to DATASET) and label; optionally split, group and weight."),
    BuildOption("--path-column", _MANIFEST, metavar="NAME",
                help="Manifest column with the paths.  [default: path, or the one whose values "
                "name files]"),
    BuildOption("--label-columns", _MANIFEST, type=Names(), default="", metavar="NAMES",
                help="Manifest columns with the labels, comma-separated.  [default: label, or the "
                "only column that fits]"),
    BuildOption("--unlabelled", _MANIFEST, words=choices.UNLABELLED,
                help="Manifest rows without a label: fail with an error, or ignore them (drop)."),
    BuildOption("--keep-columns", _MANIFEST, type=Names(), default="", metavar="NAMES",
                help="More manifest columns to store, one value per row, comma-separated."),
    BuildOption("--rescale", _STORE, metavar="FACTOR",
                help="Factor for pixels: auto, a fraction or a number. auto is 1/255 for uint8 and "
                "1/65535 for uint16. For float32, it depends on the depth of each image, and is 1 "
                "for floating point. Recorded as scale_factor; --dtype float32 stores scaled "
                "pixels."),
    BuildOption("--dtype", _STORE, words=choices.DTYPES, help="Data type of the stored images."),
    BuildOption("--compression", _STORE, words=choices.COMPRESSIONS,
                help="Compression of the stored images."),
    BuildOption("--compression-level", _STORE, type=click.IntRange(1, 9),
                help="1 is fastest, 9 is smallest."),
    BuildOption("--store", _STORE, words=choices.STORES,
                help="decoded: store pixels. encoded: store the image files unchanged and decode "
                "them when they are read, at this size or any other."),
    BuildOption("--layout", _DISCOVER, words=choices.LAYOUTS,
                help="Layout of DATASET. classes: one folder per class. splits: train, val and "
                "test with class folders. flat: images without class folders. auto detects it, and "
                "stops if it is not clear."),
    BuildOption("--class-from", _DISCOVER, words=choices.CLASS_FROMS,
                help="Folder that names the class of an image: the top one, the last one (leaf), "
                "or all of them (path)."),
    BuildOption("--label-from", _DISCOVER, metavar="REGEX",
                help="Take the class from the path of each image: the first group of the match, "
                "e.g. '([a-z]+)_[0-9]+'."),
    BuildOption("--extensions", _DISCOVER, type=Names(), default="", metavar="NAMES",
                help="Also take files with these endings, comma-separated, e.g. webp,jfif,heic. "
                "none: files without an ending. all: every file. The content decides what is an "
                "image."),
    BuildOption("--include", _DISCOVER, type=Pattern(), multiple=True, metavar="GLOB",
                help="Take only files that match this .gitignore-style pattern, relative to "
                "DATASET. May be given several times."),
    BuildOption("--exclude", _DISCOVER, type=Pattern(), multiple=True, metavar="GLOB",
                help="Ignore files and folders that match, e.g. 'runs/' or '*_mask.png'. May be "
                "given several times."),
    BuildOption("--hidden", _DISCOVER,
                help="Include hidden and system files and folders (@eaDir, lost+found, Thumbs.db, "
                "...), as Keras does."),
    BuildOption("--follow-links", _DISCOVER,
                help="Follow links that point outside DATASET, and links to folders."),
    BuildOption("--max-pixels", _DECODE, **_COUNT, help="Refuse images with more pixels."),
    BuildOption("--max-dimension", _DECODE, **_COUNT,
                help="Refuse images with a longer side, in pixels."),
    BuildOption("--max-file-size", _DECODE, **_COUNT, help="Refuse larger files, in bytes."),
)
"""The options that decide what is in the file."""

CONFIG = BuildOption(
    "--config", type=click.Path(exists=True, dir_okay=False), is_eager=True, expose_value=False,
    callback=load_config, metavar="FILE",
    help="Read options from [tool.batchify.build] in a TOML file.  [default: batchify.toml or "
    "pyproject.toml in the current folder]",
)

RUN_OPTIONS = (
    BuildOption("--batch-size", **_COUNT, default=BATCH_SIZE,
                help="Images per batch. Affects memory only, never the output."),
    BuildOption("--workers", **_COUNT,
                help="Worker processes. Affects speed only, never the output.  [default: the CPUs "
                "available]"),
    BuildOption("--on-error", words=choices.ON_ERRORS, default="fail",
                help="Images that cannot be read or decoded: fail and name them all, or skip them "
                "and list them in OUT."),
    BuildOption("--max-skipped", metavar="N|P%",
                help="Fail if more images are skipped. Requires --on-error skip."),
    BuildOption("--image-timeout", default=IMAGE_TIMEOUT_S, metavar="SECONDS",
                help="Give up on an image that takes longer than this or crashes its worker; "
                "--on-error decides whether to fail or skip it."),
    BuildOption("--shards", **_COUNT,
                help="Make OUT a folder with N files per split and a manifest.json. batchify merge "
                "combines them into one file."),
    BuildOption("--scheduler", metavar="ADDRESS",
                help="Build the shards on a Dask cluster, e.g. tcp://host:8786. Its workers need "
                "DATASET and OUT on shared storage. Requires --shards."),
    BuildOption("--work-dir", type=click.Path(file_okay=False), metavar="DIR",
                help="Folder in which OUT is made before its upload, if it is a URL.  [default: "
                "the cache folder of this user]"),
    BuildOption("--overwrite", default=False,
                help="Replace OUT once the new file is complete."),
    BuildOption("--restart", default=False,
                help="Start over: discard an unfinished build. With --overwrite, decode "
                "everything again."),
    BuildOption("--check", default=False,
                help="Only check whether OUT is up to date: if not, print the reasons and exit "
                "with code 9."),
    BuildOption("--dry-run", default=False,
                help="Print what would be done; decode and write nothing."),
    BuildOption("--json", default=False, help="Print the plan or the report as JSON."),
    BuildOption("--quiet", default=False, help="Show no progress."),
    CONFIG,
)
"""The options that decide how the file is built."""

WORKER_OPTIONS = (
    click.Option(["--workers"], **_COUNT,
                 help="Worker processes that read and decode.  [default: the CPUs available]"),
    click.Option(["--image-timeout"], default=IMAGE_TIMEOUT_S, show_default=True, metavar="SECONDS",
                 help="Give up on an image that takes longer than this."),
)
"""The options of a command that reads and decodes, but builds nothing."""
# fmt: on


BUILD_OPTIONS = {str(option.name): option for option in (*FILE_OPTIONS, *RUN_OPTIONS)}
"""All options of ``build``, by name."""


def give_options(options: Sequence[click.Option]) -> Callable[[_Command], _Command]:
    """Give a command options, in the order of its help."""

    def decorate(command: _Command) -> _Command:
        # as click.option keeps them until the command is made: the last one first
        vars(command).setdefault("__click_params__", []).extend(reversed(options))
        return command

    return decorate


def to_options(context: click.Context, values: dict[str, Any]) -> BuildOptions:
    """Return the options for the library, made from those that a command was given."""
    given = {
        name: values[name]
        for name in OPTION_HOMES
        if name in values and context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    return make_options(None, cast("OptionKeywords", given))
