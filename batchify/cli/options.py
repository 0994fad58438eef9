"""Declare the options of build, and convert them to BuildOptions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from functools import partial
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from batchify import choices
from batchify.cli.config import is_own, own_variable
from batchify.cli.help import GENERAL, Option
from batchify.cli.option_types import ClassNames, Names, Pattern, Share, TargetSize
from batchify.common.keywords import (
    OPTION_HOMES,
    PRESET,
    OptionKeywords,
    make_options,
    option_default,
)
from batchify.common.presets import PRESETS
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.options import BuildOptions

_Command = TypeVar("_Command", bound=Callable[..., Any])


class BuildOption(Option):
    """An option of ``build``; other commands read it from its environment and table, too.

    Parameters
    ----------
    flags : str
        ``--seed`` or ``--shuffle/--no-shuffle``.
    words : tuple of str, optional
        The allowed values.
    settings
        As for `click.Option`. The default is that of the library; if it is False, this is a flag.
    """

    of_build = True

    def __init__(self, flags: str, words: tuple[str, ...] = (), **settings: Any) -> None:
        name = flags.partition("/")[0].removeprefix("--").replace("-", "_")
        if name in OPTION_HOMES:
            settings.setdefault("default", option_default(name))
        if words:
            settings["type"] = click.Choice(words)
        default = settings.get("default")
        if default is False:
            settings["is_flag"] = True
        super().__init__(
            [flags], envvar=f"BATCHIFY_BUILD_{name.upper()}",
            show_default=default is not False and default not in (None, "", ()), **settings,
        )  # fmt: skip

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the value of the environment: that for the running command before build's."""
        own = self.allow_from_autoenv and os.environ.get(own_variable(ctx, str(self.name)))
        return own or super().resolve_envvar_value(ctx)


_COUNT: dict[str, Any] = {"type": click.IntRange(min=1), "metavar": "N"}


_image = partial(BuildOption, section="Images")
_label = partial(BuildOption, section="Labels and splits")
_file = partial(BuildOption, section="Which files")
_output = partial(BuildOption, section="Output")
_error = partial(BuildOption, section="Errors")
_run = partial(BuildOption, section="Running")


# fmt: off
FILE_OPTIONS = (
    _image("--preset", words=choices.PRESETS, metavar="NAME", default=None,
           help="Several options at once: keras, imagenet, photos."),
    _image("--target-size", type=TargetSize(), metavar="HxW", default="150x150",
           help="Height x width to store."),
    _image("--color-mode", words=choices.COLOR_MODES, metavar="MODE",
           help="rgb, rgba or grayscale."),
    _image("--interpolation", words=choices.INTERPOLATIONS, metavar="FILTER",
           help="nearest, bilinear, bicubic, box, hamming or lanczos."),
    _image("--fit", words=choices.FITS, metavar="HOW",
           help="If the aspect ratio differs: stretch, crop the center, or pad with black."),
    _image("--shorter-side", **_COUNT,
           help="Resize the shorter side to N before --fit crop."),
    _image("--exif", words=choices.EXIFS, metavar="HOW",
           help="EXIF orientation: ignore (as Keras does) or apply."),
    _image("--depth", words=choices.DEPTHS, metavar="HOW", rare=True,
           help="16-bit values in 8 bits: clip (as Keras does) or scale."),
    _image("--scaled-decode", rare=True,
           help="Let the JPEG decoder shrink large photos: much faster, but pixels differ by a few "
           "levels."),
    _label("--split", words=choices.POLICIES, metavar="POLICY",
           help="keras: the first files of each class are for validation; keras-utils: as "
           "image_dataset_from_directory; stratified: at random; hash: by path, so adding files "
           "moves no others."),
    _label("--validation-split", type=Share(), metavar="SHARE",
           help="Share of each class for validation.  [default: 0.2; none if DATASET has splits]"),
    _label("--test-split", type=Share(), metavar="SHARE",
           help="Share of each class for testing.  [default: 0]"),
    _label("--folds", type=click.IntRange(min=2), metavar="K", rare=True,
           help="Cross-validation: divide the images into K folds; see --fold."),
    _label("--fold", type=click.IntRange(min=0), metavar="I", rare=True,
           help="Fold for validation, from 0 to K-1, as in scikit-learn; the others are for "
           "training."),
    _label("--group-by", metavar="REGEX",
           help="Keep files in one split if this finds the same group in their paths, e.g. "
           "'(patient\\d+)'."),
    _label("--group-duplicates", help="Keep identical files in one split."),
    _label("--group-near-duplicates", type=click.IntRange(1, choices.MAX_NEAR_DISTANCE),
           metavar="N", rare=True,
           help="Keep images that look alike in one split: at most N of 64 bits of their hashes "
           "differ, e.g. 4. Decodes every image twice."),
    _label("--seed", type=int, metavar="N", help="Random seed for order and splits."),
    _label("--shuffle/--no-shuffle", rare=True,
           help="Shuffle rows by seed, as in Keras' first epoch, or sort them by class and name."),
    _label("--class-mode", words=choices.CLASS_MODES, metavar="MODE",
           help="Labels: sparse, categorical, binary or none; with --manifest also multilabel, "
           "regression or mask."),
    _label("--classes", type=ClassNames(), default="", metavar="NAMES|@FILE",
           help="Take these classes only, in this order: a,b,c."),
    _label("--label-from", metavar="REGEX",
           help="Take the class from the path, e.g. '([a-z]+)_[0-9]+'."),
    _label("--manifest", type=click.Path(), metavar="FILE",
           help="Table of images and labels: .csv, .tsv, .jsonl or .parquet."),
    _label("--label-columns", type=Names(), default="", metavar="NAMES",
           help="Columns of the manifest that have the labels."),
    _label("--path-column", metavar="NAME", rare=True,
           help="Column of the manifest that has the paths.  [default: path, or the one whose "
           "values name files]"),
    _label("--unlabelled", words=choices.UNLABELLED, metavar="ACTION", rare=True,
           help="Rows of the manifest without a label: error, or drop them."),
    _label("--keep-columns", type=Names(), default="", metavar="NAMES", rare=True,
           help="More columns of the manifest to store, one value per row."),
    _label("--class-order", words=choices.CLASS_ORDERS, metavar="ORDER", rare=True,
           help="Order of the labels: name (as Keras does) or natural (10 after 9)."),
    _label("--class-from", words=choices.CLASS_FROMS, metavar="FOLDER", rare=True,
           help="Folder that names the class: top, leaf (the last one) or path (all of them)."),
    _file("--layout", words=choices.LAYOUTS, metavar="LAYOUT",
          help="auto; classes: a folder per class; splits: train, val and test; flat: no folders."),
    _file("--extensions", type=Names(), default="", metavar="NAMES",
          help="Also take files with these endings: webp,heic; none: without one; all: any."),
    _file("--include", type=Pattern(), multiple=True, metavar="GLOB",
          help="Take only files that match; repeatable."),
    _file("--exclude", type=Pattern(), multiple=True, metavar="GLOB|@FILE",
          help="Ignore what matches, or is in FILE; repeatable."),
    _file("--exclude-rows", type=click.Path(), multiple=True, metavar="FILE", rare=True,
          help="Make the same build without the rows in FILE, which batchify view writes; "
          "repeatable."),
    _file("--hidden", help="Take hidden and system files, as Keras does."),
    _file("--limit", **_COUNT, help="Take N images for a trial run, chosen by seed."),
    _file("--max-per-class", **_COUNT, help="Take at most N images of each class."),
    _file("--follow-links", rare=True,
          help="Follow links that point outside DATASET, and links to folders."),
    _file("--max-pixels", **_COUNT, rare=True, help="Refuse images with more pixels."),
    _file("--max-dimension", **_COUNT, rare=True,
          help="Refuse images with a longer side, in pixels."),
    _file("--max-file-size", **_COUNT, rare=True, help="Refuse larger files, in bytes."),
    _output("--dtype", words=choices.DTYPES, metavar="TYPE",
            help="uint8, uint16 or float32."),
    _output("--rescale", metavar="FACTOR",
            help="Factor for pixels when they are read; auto gives 0 to 1."),
    _output("--store", words=choices.STORES, metavar="FORM",
            help="decoded (pixels), encoded (the files unchanged), or images of the target size "
            "as jpeg, webp or png."),
    _output("--max-side", **_COUNT, rare=True,
            help="With --store jpeg, webp or png: only shrink the longer side to N; images are "
            "fitted to --target-size when they are read."),
    _output("--quality", type=click.IntRange(1, 100), metavar="Q",
            help="1 to 100, for jpeg and webp."),
    _output("--keep-fitting", rare=True,
            help="With --store jpeg, webp or png: keep files that fit already byte for byte."),
    _output("--appearance", rare=True,
            help="Store a perceptual hash, brightness, sharpness and color of each image, so that "
            "check OUT finds near duplicates and dark or blurry images."),
    _output("--compression", words=choices.COMPRESSIONS, metavar="CODEC",
            help="none or gzip."),
    _output("--compression-level", type=click.IntRange(1, 9), metavar="N", rare=True,
            help="1 is fastest, 9 is smallest."),
    _error("--truncated", words=choices.TRUNCATED, metavar="ACTION", rare=True,
           help="Incomplete image files: error, or accept what is there."),
    _error("--strict-decode", rare=True,
           help="Fail on damaged images, even if they decode with gray or wrong parts. Needs "
           "simplejpeg (the extra turbo)."),
)
"""The options that decide what is in the file."""

ON_ERROR = _error("--on-error", words=choices.ON_ERRORS, default="fail", metavar="ACTION",
                  help="Images that fail: fail and name them all, or skip.")
WORKERS = _run("--workers", **_COUNT,
               help="Worker processes; changes speed only.  [default: the available CPUs]")
IMAGE_TIMEOUT = _error("--image-timeout", default=IMAGE_TIMEOUT_S, metavar="SECONDS", rare=True,
                       help="Give up on an image that takes longer or crashes its worker.")
RUN_OPTIONS = (
    _output("--shards", **_COUNT, help="Make OUT a folder with N files per split."),
    _output("--overwrite", default=False, help="Replace OUT once the new file is complete."),
    _output("--scheduler", metavar="ADDRESS", rare=True,
            help="Build the shards on a Dask cluster, e.g. tcp://host:8786. Its workers need "
            "DATASET and OUT on shared storage."),
    _output("--work-dir", type=click.Path(file_okay=False), metavar="DIR", rare=True,
            help="Folder in which OUT is made before its upload, if it is a URL.  [default: the "
            "cache folder of this user]"),
    ON_ERROR,
    _error("--max-skipped", metavar="N|P%", help="Fail if --on-error skip skips more images."),
    IMAGE_TIMEOUT,
    _run("--dry-run", default=False, help="Show what would be done; decode and write nothing."),
    _run("--check", default=False,
         help="Only check whether OUT is up to date: if not, print the reasons and exit with "
         "code 9."),
    _run("--restart", default=False,
         help="Start over: discard an unfinished build; with --overwrite, decode everything."),
    _run("--verify-sources", default=False, rare=True,
         help="When resuming, read all image files again, not only those whose size, times or "
         "inode changed."),
    WORKERS,
    _run("--batch-size", **_COUNT, rare=True,
         help="Images per batch; affects memory only."),
)
"""The options that decide how the file is built."""

JSON = Option(["--json"], is_flag=True, section=GENERAL,
              help="Print JSON; batchify docs json describes it.")
"""The option of every command that prints a result."""

WORKER_OPTIONS = (
    Option(["--workers"], **_COUNT, section="Running",
           help="Worker processes that read and decode.  [default: the available CPUs]"),
    Option(["--image-timeout"], default=IMAGE_TIMEOUT_S, show_default=True, metavar="SECONDS",
           section="Running", help="Give up on an image that takes longer."),
)
"""The options of a command that reads and decodes, but builds nothing."""
# fmt: on


BUILD_OPTIONS = {str(option.name): option for option in (*FILE_OPTIONS, *RUN_OPTIONS)}
"""All options of ``build``, by name."""


def with_help(option: Option, **changes: Any) -> Option:
    """Return an option whose section, text or visibility in the help is different."""
    changed = copy(option)
    vars(changed).update(changes)
    return changed


def give_options(options: Sequence[click.Option]) -> Callable[[_Command], _Command]:
    """Give a command options, in the order of its help."""

    def decorate(command: _Command) -> _Command:
        # as click.option keeps them until the command is made: the last one first
        vars(command).setdefault("__click_params__", []).extend(reversed(options))
        return command

    return decorate


_SOURCES = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
"""Where options come from, the strongest first."""


def _rank(context: click.Context, name: str) -> int:
    """Return the place of an option's source in `_SOURCES`, or after them if it was not given."""
    source = context.get_parameter_source(name)
    return _SOURCES.index(source) if source in _SOURCES else len(_SOURCES)


def to_options(context: click.Context, values: dict[str, Any]) -> BuildOptions:
    """Return the options for the library, given those of a command."""
    return make_options(None, given_options(context, values))


def given_options(context: click.Context, values: dict[str, Any]) -> OptionKeywords:
    """Return the options of a command that were given, as keywords of the library.

    A preset overrides what comes from a weaker source: on the command line, options of a file.
    """
    given = {name: values[name] for name in (PRESET, *OPTION_HOMES) if name in values}
    ranks = {name: _rank(context, name) for name in given}
    of_preset = PRESETS[values[PRESET]].options if values.get(PRESET) else {}
    for name, rank in ranks.items():
        if rank == len(_SOURCES) or (name in of_preset and rank > ranks[PRESET]):
            del given[name]
    return cast("OptionKeywords", given)


def is_given_for_build(context: click.Context, name: str) -> bool:
    """Return whether an option was given for build: by its table or its environment variable."""
    given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    return not (given or is_own(context, name))


def forget_build_options(context: click.Context, own: Iterable[str]) -> None:
    """Do not report where options of build come from that a command does not use.

    Parameters
    ----------
    own : iterable of str
        Options of the command that have the name of an option of build.
    """
    for name in BUILD_OPTIONS.keys() - set(own):
        if is_given_for_build(context, name):
            context.set_parameter_source(name, ParameterSource.DEFAULT)


def refuse_options(context: click.Context, own: Iterable[str] = ()) -> None:
    """Refuse options of build on the command line, for a file, which records its own.

    Parameters
    ----------
    own : iterable of str
        Options of the command that have the name of an option of build.
    """
    for name in BUILD_OPTIONS.keys() - set(own):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} is for a dataset; a file records its own")
