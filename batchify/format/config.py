"""Read the options that a file records, as BuildOptions or as a command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, TypeVar

from batchify import choices
from batchify.common.excluded import is_recorded_list
from batchify.common.text import printable
from batchify.dataset_options import DiscoverOptions, ManifestOptions, SplitOptions
from batchify.errors import FileFormatError
from batchify.image_options import RECORDED_MAX_PIXELS, DecodeOptions, StoreOptions
from batchify.options import BuildOptions

GroupT = TypeVar("GroupT", DiscoverOptions, DecodeOptions, StoreOptions)
_SHOWN_NAMES = 100
_GROUPS = (DiscoverOptions, DecodeOptions, StoreOptions)


def recorded_options(config: Mapping[str, Any]) -> BuildOptions:
    """Return the options that a file was built with.

    Parameters
    ----------
    config : Mapping
        As `BuildOptions.config` returns it.

    Raises
    ------
    FileFormatError
        If this release could not have recorded it.
    """
    found = {**config, "layout": "auto"} if config.get("layout") in _TABLED else config
    try:
        return BuildOptions(
            discover=_group(DiscoverOptions, found),
            decode=_group(DecodeOptions, config),
            store=_group(StoreOptions, config),
            split=_split(config),
            manifest=_manifest(config),
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise FileFormatError(f"its config cannot be understood: {error}") from error


_TABLED = ("manifest", "packed")
"""Layouts whose labels come from a table."""

CAPS = ("max_pixels", "max_dimension", "max_file_size")
"""Options that refuse images, and change no pixel of others."""


def pixel_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a config that decide what rows hold, and which images fail."""
    names = [field.name for field in fields(DecodeOptions)]
    names += ["dtype", "store", "max_side", "quality", "keep_fitting", "appearance"]
    if config.get("dtype") == "float32":
        names.append("rescale")
    found = {name: config[name] for name in names if name in config}
    if found.get("max_pixels") == RECORDED_MAX_PIXELS:
        found["max_pixels"] = DecodeOptions().max_pixels
    return found


def shown_options(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the options of a config as a user gives them, sorted by name."""
    shown = dict(config)
    if shown.get("max_pixels") == RECORDED_MAX_PIXELS:
        shown["max_pixels"] = DecodeOptions().max_pixels
    return sorted(shown.items())


def rescale_text(config: Mapping[str, Any]) -> str:
    """Return which pixels the statistics of a file describe."""
    rescale = str(config.get("rescale"))
    return "pixels as they are read" if rescale == choices.AUTO else f"pixels × {rescale}"


def build_command(config: Mapping[str, Any], *, skipped: bool) -> str:
    """Return the shell command that builds a file with this config, without default options.

    Parameters
    ----------
    config : Mapping
        As recorded in a file.
    skipped : bool
        Whether files were skipped.
    """
    dtype = str(config.get("dtype"))
    rescales = {**choices.AUTO_RESCALES, "float32": choices.AUTO}
    defaults = {
        **BuildOptions().config(layout="classes"),
        **{each.name: each.default for group in _GROUPS for each in _own_fields(group)},
        "rescale": rescales.get(dtype, choices.AUTO),
        "max_pixels": RECORDED_MAX_PIXELS,
        "folds": None,
        "fold": None,
        "group_by": "",
        "group_duplicates": False,
        "group_near_duplicates": None,
        "max_per_class": None,
        "limit": None,
        "exclude_rows": (),
        "label_columns": ("label",),
        "unlabelled": "error",
        "keep_columns": (),
    }
    words = ["batchify", "build", "DATASET", "OUT"]
    if config.get("layout") == "packed":
        words = ["batchify", "import", "SOURCE", "OUT"]
    elif config.get("layout") == "manifest":
        words += ["--manifest", "MANIFEST"]
    elif config.get("layout") == "flat":
        words += ["--layout", "flat"]
    taken = config.get("from_train")
    needed = [f"{name}_split" for name in taken] if isinstance(taken, list) else []
    needed = [name for name in needed if name in config]
    if config.get("split") == "keras-utils":
        needed.append("seed")
    for name, default in defaults.items():  # other names, in an untrusted file, are ignored
        plain = list(default) if isinstance(default, tuple) else default
        value = config.get(name, plain)
        if name == "layout" or (value == plain and name not in needed):
            continue
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif name == "target_size" and isinstance(value, list):
            words += [option, "x".join(map(str, value))]
        elif name == "classes" and not _is_plain_list(value):
            words += [option, "@CLASSES"]
        elif name in ("include", "exclude") and isinstance(value, list):
            shown = ["@PATHS" if is_recorded_list(str(each)) else str(each) for each in value]
            words += [word for pattern in shown for word in (option, pattern)]
        elif name == "exclude_rows" and isinstance(value, list):
            words += [option, "ROWS"] * len(value)
        elif name == "label_columns" and not value:
            continue
        elif isinstance(value, list):
            words += [option, ",".join(map(str, value))]
        else:
            words += [option, str(value)]
    if skipped:
        words += ["--on-error", "skip"]
    command = shlex.join(words)
    return command if command.isprintable() else printable(command)


def _is_plain_list(names: Any) -> bool:
    """Return whether these names can be a single readable word on the command line."""
    if not isinstance(names, list) or len(names) > _SHOWN_NAMES:
        return False
    return all(isinstance(n, str) and n == n.strip() and not set(n) & set(",@") for n in names)


def _split(config: Mapping[str, Any]) -> SplitOptions:
    """Return the options of the split, unless the dataset decided it."""
    renamed = {"split": "policy", "validation_split": "validation", "test_split": "test"}
    names = {each.name for each in fields(SplitOptions)}
    found = {renamed.get(name, name): value for name, value in config.items()}
    return SplitOptions(**{name: value for name, value in found.items() if name in names})


def _manifest(config: Mapping[str, Any]) -> ManifestOptions | None:
    """Return the options of the manifest, whose path is not recorded; None for class folders."""
    if config.get("layout") not in _TABLED:
        return None
    return ManifestOptions(
        "",
        tuple(config["label_columns"]),
        unlabelled=config.get("unlabelled", "error"),
        keep_columns=tuple(config.get("keep_columns", ())),
    )


def _own_fields(group: type[Any]) -> list[Field[Any]]:
    """Return the options of a group that do not depend on others."""
    return [each for each in fields(group) if "derived" not in each.metadata]


def _group(group: type[GroupT], config: Mapping[str, Any]) -> GroupT:
    values = {
        field.name: config[field.name] for field in _own_fields(group) if field.name in config
    }
    kwargs: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    if kwargs.get("max_pixels") == RECORDED_MAX_PIXELS:
        del kwargs["max_pixels"]
    return group(**kwargs)


_MOST_VALUES = 1 << 32
"""Most values of an image; see `batchify.options.BuildOptions`."""


def recorded_choice(config: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    """Return an option of a config, which must be one of the choices."""
    value = config.get(name)
    if not isinstance(value, str) or value not in choices:
        raise FileFormatError(f"its {name} is not known to this batchify")
    return value


def unlabelled_splits(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the splits of a config that have no labels."""
    names = config.get("unlabelled_splits", [])
    if not isinstance(names, list) or any(name not in choices.SPLITS for name in names):
        raise FileFormatError("its unlabelled_splits are not splits")
    return tuple(names)


def kept_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of --keep-columns in a file."""
    names = config.get("keep_columns", [])
    if not isinstance(names, list) or len(set(map(str, names))) != len(names):
        raise FileFormatError("its keep_columns are not names")
    if any(not isinstance(name, str) or choices.unfit_column(name) for name in names):
        raise FileFormatError("its keep_columns are not names of columns")
    return tuple(names)


def image_shape(config: dict[str, Any]) -> tuple[int, int, int]:
    """Return the shape (H, W, C) of the images of a config."""
    sides = config.get("target_size")
    channels = choices.CHANNELS[recorded_choice(config, "color_mode", choices.COLOR_MODES)]
    if not isinstance(sides, list) or len(sides) != 2 or any(type(s) is not int for s in sides):
        raise FileFormatError("its target_size is not two numbers")
    height, width = sides
    if min(height, width) < 1 or height * width * channels >= _MOST_VALUES:
        raise FileFormatError("its target_size is not valid")
    return height, width, channels
