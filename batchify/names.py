"""File names: bytes inside, escaped text outside.

A path inside batchify is the bytes of the file system, "/" separated and relative to the
dataset folder, so that every name is kept losslessly. What a person or a log sees is escaped:
a newline or an escape code in a file name is a command to some terminals and CI systems.
"""

from __future__ import annotations

import os

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
if os.sep != "\\":  # on Windows it parts folders and is in no name
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


def sort_names(names: list[bytes]) -> None:
    """Sort in place by code point, as Keras sorts the decoded names.

    The bytes of valid UTF-8 sort by code point already; only other names need the (larger)
    decoded keys.
    """
    if all(map(_is_utf8, names)):
        names.sort()
    else:
        names.sort(key=os.fsdecode)


def _is_utf8(name: bytes) -> bool:
    if name.isascii():
        return True
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def is_relative(path: bytes) -> bool:
    """Tell whether a path that is "/" separated names something in the folder it is relative to."""
    bad = path.startswith(b"/") or b"\0" in path or b".." in path.split(b"/")
    if os.sep == "\\":
        bad = bad or b":" in path or path.startswith(b"\\") or b".." in path.split(b"\\")
    return bool(path) and not bad


def is_within(path: bytes, folder: bytes) -> bool:
    """Tell whether a real path is in a folder, or is the folder, as its file system spells them."""
    path, folder = os.path.normcase(path), os.path.normcase(folder)
    try:
        return os.path.commonpath([path, folder]) == folder
    except ValueError:  # on different drives
        return False


def within_class(path: bytes, name: bytes | None) -> bytes:
    """Return the path of an image without the folder of its class, and a split before that.

    For where the class is told beside it; where there is none, the whole path.
    """
    if name is not None:
        for rest in (path, path.partition(b"/")[2]):
            if rest.startswith(name + b"/"):
                return rest[len(name) + 1 :]
    return path
