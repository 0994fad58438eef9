"""The texts of a manifest become paths, classes and numbers, or are refused with the reason."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence

from batchify import schema
from batchify.names import printable

_FLOAT32_MAX = 3.4028234663852886e38
_SPLITS = {name: schema.SPLITS.index(split) for name, split in schema.SPLIT_FOLDERS.items()}
_CLASS_NBYTES = 255
"""As long as the name of a folder may be."""
_TRUTH = {"0": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0}
_DRIVE = re.compile("[A-Za-z]:[/\\\\]")


def number(name: str, text: str) -> float:
    """Return a number that float32 holds.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ValueError(_bad(name, text, "not a number"))
    if abs(value) > _FLOAT32_MAX:
        raise ValueError(_bad(name, text, "not finite, or more than float32 holds"))
    return value


def weight(name: str, text: str) -> float:
    """Return a weight: a number of at least 0.

    Raises
    ------
    ValueError
        If it is none.
    """
    value = number(name, text)
    if value < 0:
        raise ValueError(_bad(name, text, "negative"))
    return value


def truth(name: str, text: str) -> float:
    """Return 0 or 1.

    Raises
    ------
    ValueError
        If it is neither.
    """
    value = _TRUTH.get(text.strip().lower())
    if value is None:
        raise ValueError(_bad(name, text, "neither 0 nor 1"))
    return value


def encoded(name: str, text: str) -> bytes:
    """Return a text, which must not be blank, in UTF-8.

    Raises
    ------
    ValueError
        If it is blank, or no file or class can be called so.
    """
    if not text or text.isspace():
        raise ValueError(f"{printable(name)} is empty")
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(_bad(name, text, "not a text that UTF-8 has")) from None
    if b"\0" in data:
        raise ValueError(_bad(name, text, "not a text: it has a NUL character"))
    return data


def class_name(name: str, text: str) -> bytes:
    """Return the name of a class.

    Raises
    ------
    ValueError
        If it is empty or too long.
    """
    data = encoded(name, text)
    if len(data) > _CLASS_NBYTES:
        raise ValueError(
            f"{printable(name)} has {len(data):,} bytes; a class has {_CLASS_NBYTES} at most"
        )
    return data


def relative_path(name: str, text: str, suffixes: tuple[bytes, ...]) -> bytes:
    """Return the path of an image, relative to the dataset, without ``.`` and repeated "/".

    Raises
    ------
    ValueError
        If it is empty, leads out of the dataset, or has another ending than `suffixes`.
    """
    if os.sep == "\\":
        text = text.replace("\\", "/")
    path = encoded(name, text)
    if path.startswith(b"/") or _DRIVE.match(text):
        raise ValueError(_bad(name, text, "absolute; paths are relative to DATASET"))
    if b"/." in path or b"//" in path or path.startswith(b"."):
        parts = path.split(b"/")
        if b".." in parts:
            raise ValueError(_bad(name, text, 'not allowed: it has ".." in it'))
        path = b"/".join(part for part in parts if part not in (b"", b"."))
    if not path.lower().endswith(suffixes):
        raise ValueError(
            _bad(name, text, "not of a kind that is decoded, by its ending (see --extensions)")
        )
    return path


def split_number(text: str) -> int:
    """Return the number of a split in `schema.SPLITS`.

    Raises
    ------
    ValueError
        If it is none.
    """
    found = _SPLITS.get(text.strip().lower())
    if found is None:
        what = f"none of {', '.join(schema.SPLIT_FOLDERS)}"
        raise ValueError(_bad("split", text, what))
    return found


def _bad(name: str, text: str, what: str) -> str:
    shown = printable(text if len(text) <= 100 else text[:100] + "…")
    return f"{printable(name)} {shown} is {what}" if text.strip() else f"{printable(name)} is empty"


def alike(names: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Return pairs of classes whose names differ in case or spaces alone."""
    first: dict[str, bytes] = {}
    pairs = []
    for name in names:
        key = "".join(os.fsdecode(name).casefold().split())
        if first.setdefault(key, name) != name:
            pairs.append((first[key], name))
    return pairs
