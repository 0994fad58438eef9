"""Text for people: escaped names, sizes, percentages, counts."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

_SHOWN_NAMES = 4


def size_text(nbytes: float) -> str:
    """Return a size for people: ``344.4 MB``, in decimal units."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:,.0f} {unit}" if unit == "bytes" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:,.1f} TB"


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


def counts_text(counts: Mapping[str, int], most: int = 8) -> str:
    """Return how many files of each ending there are: ``10 .heic, 2 .txt``."""
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
    """Return what the labels of a class mode are: ``2 classes``, ``3 labels``, ``masks``."""
    if class_mode == "mask":
        return "masks"
    words = {"multilabel": ("label", ""), "regression": ("number", "")}
    return plural(count, *words.get(class_mode, ("class", "classes")))


_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
if os.sep != "\\":  # on Windows it separates folders and is in no name
    _ESCAPES["\\"] = "\\\\"


def printable(name: bytes | str) -> str:
    """Return `name` on one line, with all that does not print escaped as Python would."""
    text = os.fsdecode(name)
    if text.isprintable() and not any(char in text for char in _ESCAPES):
        return text
    return "".join(map(_escape, text))


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode carries it
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
