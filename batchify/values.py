"""Checks of single values that a user gives; no NumPy here, the command line imports it."""

from __future__ import annotations

import math
import re

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
