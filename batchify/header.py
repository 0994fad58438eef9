"""What the root of a file says of it, held against schema 1."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from h5py import h5g, h5t

from batchify import schema, strict
from batchify.errors import FileFormatError

_MAX_CONFIG = 64
_MAX_LIST = 1 << 14
"""A config has a list of label columns; it is 64 KiB of text at most in any case."""
_MOST_VALUES = 1 << 32
"""Of an image; see `batchify.options.BuildOptions`."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the root says of the file."""

    schema_version: int
    creator: str
    decoder: str
    classes: tuple[bytes, ...]
    config: dict[str, Any]


def read_header(root: h5g.GroupID) -> Header:
    """Return what the root says.

    Raises
    ------
    FileFormatError
    """
    if strict.text(root, "format") != schema.FORMAT:
        raise FileFormatError("its format attribute is another")
    version = int(strict.attribute(root, "schema_version", h5t.INTEGER)[()])
    if version != schema.SCHEMA_VERSION:
        raise FileFormatError(
            f"its schema version is {version}, this batchify reads {schema.SCHEMA_VERSION}; "
            "install another release"
        )
    config = _config(strict.text(root, "config"))
    classes = strict.attribute(root, "classes", h5t.STRING)
    if classes.ndim != 1 or len(classes) > schema.MAX_CLASSES:
        raise FileFormatError("its classes are not a list, or too long a one")
    return Header(
        version,
        strict.text(root, "creator"),
        strict.text(root, "decoder"),
        tuple(bytes(name) for name in classes),
        config,
    )


def _config(text: str) -> dict[str, Any]:
    """Return the config: an object of plain values and short lists of them, nothing deeper."""

    def refuse(name: str) -> None:
        raise FileFormatError(f"its config holds {name}")

    config = json.loads(text, parse_constant=refuse)
    if not isinstance(config, dict) or len(config) > _MAX_CONFIG:
        raise FileFormatError("its config is not a JSON object, or too large a one")
    for value in config.values():
        values = value if isinstance(value, list) else [value]
        if len(values) > _MAX_LIST or any(isinstance(v, dict | list) for v in values):
            raise FileFormatError("its config is nested")
        if any(isinstance(v, float) and not math.isfinite(v) for v in values):
            raise FileFormatError("its config holds a number that is none")
    return config


def known(config: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    """Return an option of a config that must be one of the choices."""
    value = config.get(name)
    if not isinstance(value, str) or value not in choices:
        raise FileFormatError(f"its {name} is not one that this batchify knows")
    return value


def image_shape(config: dict[str, Any]) -> tuple[int, int, int]:
    """Return what a config says that the shape of an image is."""
    sides = config.get("target_size")
    channels = schema.CHANNELS[known(config, "color_mode", schema.COLOR_MODES)]
    if not isinstance(sides, list) or len(sides) != 2 or any(type(s) is not int for s in sides):
        raise FileFormatError("its target_size is not two numbers")
    height, width = sides
    if min(height, width) < 1 or height * width * channels >= _MOST_VALUES:
        raise FileFormatError("its target_size is not that of an image")
    return height, width, channels
