"""Format text for messages: escaped names, sizes, percentages, counts."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Mapping

_SHOWN_NAMES = 4


def size_text(nbytes: float) -> str:
    """Return a size as text: ``344.4 MB``, in decimal units."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:,.0f} {unit}" if unit == "bytes" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:,.1f} TB"


_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """Return the bytes that a text such as ``20GB``, ``1.5 TB`` or ``512 MiB`` means.

    Raises
    ------
    ValueError
        If it is not a size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]?)(i?)b?", text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 20GB")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** _UNITS[unit])


def columns_of(text: str) -> int:
    """Return how many columns a text takes in a terminal: two for each Chinese character."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    narrow = sum(unicodedata.category(char) in ("Mn", "Me", "Cf") for char in text)
    return len(text) + wide - narrow


def share_text(count: int, total: int) -> str:
    """Return a share in percent: ``0.1 %``; a share above 0 is never shown as 0."""
    if not total or not count:
        return "0 %"
    percent = 100 * count / total
    if percent < 0.1:
        return "< 0.1 %"
    if count < total and percent > 99.9:
        return "> 99.9 %"
    return f"{percent:.1f} %" if count < total else "100 %"


def plural(count: int, word: str, many: str = "") -> str:
    """Return a number with its noun: ``1 class``, ``2 classes``."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"


def rows_text(rows: Mapping[str, int]) -> str:
    """Return how many rows each split has: ``480 train + 120 validation``."""
    return " + ".join(f"{count:,} {name}" for name, count in rows.items())


def counts_text(counts: Mapping[str, int], most: int = 8) -> str:
    """Return counts of endings as text: ``10 .heic, 2 .txt``."""
    some = list(counts.items())[:most]
    shown = ", ".join(f"{count:,} {printable(ending)}" for ending, count in some)
    return shown + (", …" if len(counts) > most else "")


def shown_names(names: Collection[bytes], word: str = "") -> str:
    """Return some names as text: ``a, b and c``, ``a, b, c, d and 5 more``."""
    shown = [printable(name) for name in list(names)[:_SHOWN_NAMES]]
    if len(names) > _SHOWN_NAMES:
        return f"{', '.join(shown)} and {len(names) - _SHOWN_NAMES:,} more"
    if word and len(shown) > 1:
        return f"{', '.join(shown[:-1])} {word} {shown[-1]}"
    return ", ".join(shown)


def labelled(class_mode: str, count: int) -> str:
    """Describe the labels of a class mode: ``2 classes``, ``3 labels``, ``no labels``."""
    if class_mode in ("mask", "none"):
        return "masks" if class_mode == "mask" else "no labels"
    words = {"multilabel": ("label", ""), "regression": ("number", "")}
    return plural(count, *words.get(class_mode, ("class", "classes")))


_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
if os.sep != "\\":  # on Windows it separates folders and is in no name
    _ESCAPES["\\"] = "\\\\"


def printable(name: bytes | str) -> str:
    """Return `name` on one line, with characters that do not print escaped as in Python.

    Letters, signs and marks of every script print. So do characters without a shape of their own
    where they can be seen: joiners in Persian or Hindi words and in emoji, and the wide space of
    Japanese.
    """
    text = os.fsdecode(name)
    if text.isprintable() and not any(char in text for char in _ESCAPES):
        return text
    return "".join(printable_characters(text))


def printable_characters(text: str) -> list[str]:
    """Return each character of a text as `printable` shows it."""
    around = zip(["", *text], text, [*text[1:], ""], strict=False)
    return [
        char if _is_seen(before, char, after) else _escape(char) for before, char, after in around
    ]


def _is_seen(before: str, char: str, after: str) -> bool:
    """Return whether a joiner or a wide space changes how its neighbors look."""
    if char not in "\u200c\u200d\u3000" or not before:
        return False
    if char == "\u3000":
        return after != "" and not before.isspace() and not after.isspace()
    if unicodedata.combining(before) == _VIRAMA:
        return True
    if unicodedata.bidirectional(before) == "AL":
        return after != "" and unicodedata.bidirectional(after) == "AL"
    pictures = {unicodedata.category(each) for each in (before, after) if each}
    return char == "\u200d" and "So" in pictures and pictures <= {"So", "Sk", "Mn"}


_VIRAMA = 9
"""The combining class of signs that make conjuncts of Indic letters."""


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return char if char.isprintable() else escape_code(char)


def escape_code(char: str) -> str:
    """Return the escape of a character: ``\\x1b``, ``\\u732b``."""
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode returns it
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
