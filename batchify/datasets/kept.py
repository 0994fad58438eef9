"""Collect the columns of --keep-columns, and find their dtypes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np

from batchify.common.text import printable
from batchify.datasets.dataset import KeptColumn
from batchify.datasets.texts import TextColumn, is_missing

_TRUTH = {"true": True, "false": False}
_WHOLE = re.compile("-?(0|[1-9][0-9]{0,18})")
_LONG = re.compile("-?[0-9]{20,}")
_NUMBER = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|-?inf(inity)?", re.IGNORECASE)
_PADDED = re.compile("-?0[0-9]")
_EXACT = 1 << 53
"""Whole numbers up to this are exact in float64."""

_TEXT_NBYTES = 1 << 16
"""Longest text in a file; see `batchify.format.strict`."""


class KeptTexts:
    """One column, as the texts of a table.

    If all texts are whole numbers, numbers or truth values, these are its values; otherwise texts.
    If a value is missing, whole numbers become floats; the value is NaN or the empty text.

    Parameters
    ----------
    is_text : bool
        The table says that its values are texts, even those that look like numbers.
    """

    def __init__(self, name: str, *, is_text: bool) -> None:
        self._name = name
        self._is_text = is_text
        self._texts = TextColumn()
        self._kinds: set[str] = set()

    def encode(self, text: str) -> bytes:
        """Return a text in UTF-8, or raise ValueError."""
        try:
            data = text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{printable(self._name)} cannot be stored as UTF-8") from None
        if b"\0" in data:
            raise ValueError(f"{printable(self._name)} has a NUL character")
        if len(data) > _TEXT_NBYTES:
            raise ValueError(
                f"{printable(self._name)} has {len(data):,} bytes; the limit is {_TEXT_NBYTES:,}"
            )
        return data

    def add(self, text: bytes) -> None:
        """Add a value."""
        self._texts.add(text)
        if not self._is_text:
            self._kinds.add(_kind(text.decode()))

    def column(self) -> KeptColumn:
        """Return the values in the type that holds them all."""
        kinds = self._kinds
        texts = self._texts.samples()
        parse: Callable[[str], float]
        if kinds == {"bool"}:
            dtype, parse = "|b1", _truth
        elif kinds == {"int"}:
            dtype, parse = "<i8", int
        elif kinds - {"missing"} and kinds <= {"int", "float", "missing"} and self._are_exact():
            dtype, parse = "<f8", _number
        else:
            return KeptColumn(self._name, texts)
        values = np.empty(len(texts), dtype)
        for start, some in texts.pieces():
            values[start : start + len(some)] = [parse(text.decode()) for text in some]
        return KeptColumn(self._name, values)

    def _are_exact(self) -> bool:
        """Return whether all whole numbers are exact as floats."""
        return "int" not in self._kinds or all(
            abs(int(text)) <= _EXACT
            for _, some in self._texts.samples().pieces()
            for text in some
            if _WHOLE.fullmatch(text.decode())
        )


def _kind(text: str) -> str:
    if is_missing(text):
        return "missing"
    if _WHOLE.fullmatch(text):
        return "int" if -(1 << 63) <= int(text) < 1 << 63 else "text"
    if _LONG.fullmatch(text):
        return "text"  # not exact as a float
    if text.lower() in _TRUTH:
        return "bool"
    if not _NUMBER.fullmatch(text) or _PADDED.match(text):
        return "text"
    return "text" if math.isinf(float(text)) and "inf" not in text.lower() else "float"


def _truth(text: str) -> bool:
    return _TRUTH[text.lower()]


def _number(text: str) -> float:
    return float("nan") if is_missing(text) else float(text)
