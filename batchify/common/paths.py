"""Sort, compare and show paths and URLs.

A path inside batchify is the bytes of the file system, "/" separated and relative to the
dataset folder, so that no name is changed. Messages and logs escape it:
a newline or an escape code in a file name is a command to some terminals and CI systems.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from batchify.common.text import printable


def sort_names(names: list[bytes]) -> None:
    """Sort in place by code point, as Keras sorts the decoded names.

    Valid UTF-8 sorts by code point already; only other names need the (larger) decoded keys.
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
    """Return whether a "/" separated path names something in the folder it is relative to."""
    bad = path.startswith(b"/") or b"\0" in path or b".." in path.split(b"/")
    if os.sep == "\\":
        bad = bad or b":" in path or path.startswith(b"\\") or b".." in path.split(b"\\")
    return bool(path) and not bad


def is_within(path: bytes, folder: bytes) -> bool:
    """Return whether a real path is in a folder, or is the folder, as the system spells them."""
    path, folder = os.path.normcase(path), os.path.normcase(folder)
    try:
        return os.path.commonpath([path, folder]) == folder
    except ValueError:  # on different drives
        return False


def within_class(path: bytes, name: bytes | None) -> bytes:
    """Return the path of an image without the folders of its split and class.

    For texts that name the class separately. Without a class, the whole path.
    """
    if name is not None:
        for rest in (path, path.partition(b"/")[2]):
            if rest.startswith(name + b"/"):
                return rest[len(name) + 1 :]
    return path


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
"""At least two letters: a single one is a Windows drive."""

_SIGNED = ("http", "https")
"""URLs whose queries hold signatures; elsewhere a "?" is part of a name."""

Path = str | bytes | os.PathLike[str]


def is_url(location: Path) -> bool:
    """Return whether it is a URL of another machine; a ``file://`` URL is a path of this one."""
    text = os.fsdecode(location)
    return _URL.match(text) is not None and scheme_of(text) != "file"


def scheme_of(url: str) -> str:
    """Return the scheme of a URL, in lower case."""
    return url.partition("://")[0].lower()


def local_path(location: Path) -> str:
    """Return the path of a ``file://`` URL, and any other location unchanged."""
    text = os.fsdecode(location)
    if not _URL.match(text) or scheme_of(text) != "file":
        return text
    from urllib.request import url2pathname  # which imports http, email and ssl

    return url2pathname(urlsplit(text).path)


def shown_url(url: str) -> str:
    """Return a URL for messages and records: without user, password and signature, on one line."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if scheme.lower() in _SIGNED:
        path = path.partition("?")[0]
    return printable(f"{scheme.lower()}://{host.rpartition('@')[2]}{slash}{path}")


def secrets_of(url: str) -> list[str]:
    """Return the secrets in a URL: everything that `shown_url` removes."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    found = []
    if user := host.rpartition("@")[0]:
        found.append(f"{user}@")
        found += [part for part in [user.partition(":")[2]] if len(part) > 2]
    if scheme.lower() in _SIGNED and "?" in path:
        found.append(path[path.index("?") :])
    return found


def base_name(url: str) -> str:
    """Return the last name in a URL; empty if it ends with a slash."""
    return shown_url(url).partition("://")[2].rpartition("/")[2]


def shown(location: Path) -> bytes:
    """Return a path unchanged, and a URL without secrets."""
    text = os.fsdecode(location)
    return os.fsencode(shown_url(text) if is_url(text) else text)


class DownloadedPath(os.PathLike[str]):
    """The path of a downloaded copy, shown as the URL it came from."""

    def __init__(self, path: str, shown: bytes) -> None:
        self._path = path
        self.shown = shown

    def __fspath__(self) -> str:
        return self._path


def shown_path(path: Path) -> bytes:
    """Return a path as the user named it."""
    return path.shown if isinstance(path, DownloadedPath) else shown(path)
