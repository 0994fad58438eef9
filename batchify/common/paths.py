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

_WEB = ("http", "https")
_ANY_QUERY, _QUERY = re.compile(r"\?.*", re.DOTALL), re.compile(r"\?[\w.~-]+=.*", re.DOTALL)
"""Queries of these URLs, and of others, where a "?" may also be part of a name."""

_BUCKETS = ("s3", "s3a", "gs", "gcs")
_VERSION = re.compile(r"\?versionId=[^/]*\Z")
"""The only query of these: a key may hold anything else."""

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
    """Return a URL for messages and records: without user, password and query, on one line."""
    scheme, _, where = _without_user(url)
    return printable(f"{scheme.lower()}://{where.removesuffix(_query(scheme, where))}")


def secrets_of(url: str) -> list[str]:
    """Return the secrets in a URL: everything that `shown_url` removes."""
    scheme, user, where = _without_user(url)
    found = []
    if user:
        found.append(f"{user}@")
        found += [part for part in [user.partition(":")[2]] if len(part) > 2]
    if query := _query(scheme, where):
        values = [part.partition("=")[2] for part in query[1:].split("&")]
        found += [query, *(value for value in values if len(value) > 5)]
    return found


def _without_user(url: str) -> tuple[str, str, str]:
    """Return the scheme of a URL, user and password, and the rest of it."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    user, _, host = host.rpartition("@")
    return scheme, user, f"{host}{slash}{path}"


def _query(scheme: str, where: str) -> str:
    """Return the query at the end of a URL, which may hold a signature; empty if there is none."""
    found = (_ANY_QUERY if scheme.lower() in _WEB else _QUERY).search(where)
    return found[0] if found else ""


def base_name(url: str) -> str:
    """Return the last name in a URL, without a query; empty if it ends with a slash."""
    scheme, _, where = _without_user(url)
    is_bucket = scheme.lower() in _BUCKETS
    query = _VERSION.search(where) if is_bucket else None
    where = where.removesuffix(query[0] if query else "" if is_bucket else _query(scheme, where))
    return printable(where.rpartition("/")[2])


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
