"""The words options may be, and checks of single values."""

from __future__ import annotations

import math
import re
from typing import Literal, get_args

from batchify.errors import OptionError

_PATTERN_CHARS = 4096
"""The file records a pattern in its config, which is read back up to 64 KiB."""


def choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices.

    Raises
    ------
    OptionError
    """
    if value not in choices:
        raise OptionError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def at_least(name: str, value: int, least: int) -> None:
    """Refuse what is not a whole number, or too small a one.

    Raises
    ------
    OptionError
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} must be a whole number of at least {least}, not {value!r}")


def positive(name: str, value: float) -> None:
    """Refuse what is not a finite number above 0.

    Raises
    ------
    OptionError
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise OptionError(f"{name} must be a number above 0, not {value!r}")


def check_pattern(name: str, pattern: str) -> None:
    """Refuse what is no regular expression with a group, or too long a one to be recorded.

    Raises
    ------
    OptionError
    """
    if not isinstance(pattern, str):
        raise OptionError(f"{name} must be a text, not {pattern!r}")
    if len(pattern) > _PATTERN_CHARS:
        raise OptionError(f"{name} has {len(pattern):,} characters; it may have {_PATTERN_CHARS:,}")
    try:
        groups = re.compile(pattern).groups
        pattern.encode()
    except (re.error, UnicodeEncodeError, RecursionError, OverflowError) as error:
        raise OptionError(f"{name} is not a regular expression: {error}") from error
    if not groups:
        raise OptionError(
            f"{name} must have a group in parentheses, e.g. (patient\\d+), not {pattern!r}"
        )


def parse_rescale(text: str) -> float:
    """Return the factor that `text` spells: a fraction such as ``1/255`` or a float.

    The quotient is the one Python's ``1/255`` gives, which is what Keras is handed.
    """
    match = re.fullmatch(r"\s*([^/]+?)\s*(?:/\s*([^/]+?)\s*)?", text)
    try:
        if match is None:
            raise ValueError(text)
        value = float(match[1]) / float(match[2] or 1)
    except (ValueError, ZeroDivisionError):
        raise OptionError(
            f"rescale must be a fraction such as 1/255 or a number, not {text!r}"
        ) from None
    if not 1e-37 < abs(value) < 1e37:
        raise OptionError(f"rescale must be a number that float32 holds and not 0, not {text!r}")
    return value


SPLITS = ("train", "validation", "test")


SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
"""Folder, in lower case -> the split that it is."""


ClassMode = Literal["sparse", "categorical", "binary", "none", "multilabel", "regression", "mask"]


ColorMode = Literal["rgb", "rgba", "grayscale"]


Compression = Literal["none", "gzip"]


Dtype = Literal["uint8", "uint16", "float32"]


Exif = Literal["ignore", "apply"]


Fit = Literal["stretch", "crop", "pad"]


Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]


OnError = Literal["fail", "skip"]


Policy = Literal["keras", "stratified", "hash"]


Store = Literal["decoded", "encoded"]


CLASS_MODES: tuple[str, ...] = get_args(ClassMode)


COLOR_MODES: tuple[str, ...] = get_args(ColorMode)


COMPRESSIONS: tuple[str, ...] = get_args(Compression)


DTYPES: tuple[str, ...] = get_args(Dtype)


EXIFS: tuple[str, ...] = get_args(Exif)


FITS: tuple[str, ...] = get_args(Fit)


INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)


ON_ERRORS: tuple[str, ...] = get_args(OnError)


POLICIES: tuple[str, ...] = get_args(Policy)


STORES: tuple[str, ...] = get_args(Store)


INDEXED_MODES = ("sparse", "categorical", "binary")
"""Class modes whose labels are classes."""


MANIFEST_MODES = ("multilabel", "regression", "mask")
"""Class modes whose labels only a manifest has; ``classes`` are its label columns."""


CHANNELS = {"rgb": 3, "rgba": 4, "grayscale": 1}


STORED_DTYPES = {"uint8": "|u1", "uint16": "<u2", "float32": "<f4"}


KERAS_EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")


EXTRA_EXTENSIONS = ("webp", "gif", "avif")


FLAGS = (
    "animated", "mpo", "exif_rotated", "alpha", "cmyk", "sixteen_bit", "palette", "grayscale",
)  # fmt: skip
"""Bit names of ``source_flags``, lowest bit first: what was special about a source image."""


def flag_bit(name: str) -> int:
    """Return the mask of the flag `name` in ``source_flags``."""
    return 1 << FLAGS.index(name)


def itemsize(dtype: str) -> int:
    """Return the bytes of one channel of one stored pixel, for a key of `STORED_DTYPES`."""
    return int(STORED_DTYPES[dtype][-1])
