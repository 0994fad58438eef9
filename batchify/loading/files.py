"""Find the files that a path, a folder, or several of them mean."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from batchify.common.paths import is_url, local_path, shown_url
from batchify.common.text import printable
from batchify.errors import BatchifyError, FileAccessError, FileMissingError, OptionError
from batchify.format.shard_index import INDEX_NAME, is_shard_name, read_index, shard_paths

SUFFIXES = (".h5", ".hdf5")
Path = str | bytes | os.PathLike[str]


@contextlib.contextmanager
def accessing(path: bytes) -> Iterator[None]:
    """Turn an error of the system, such as too many open files, into one naming the file."""
    try:
        yield
    except BatchifyError:
        raise
    except OSError as error:
        raise FileAccessError(f"{printable(path)} cannot be opened: {error}") from error


def find_urls(path: Path | Sequence[Path]) -> list[str]:
    """Return the URLs to open; empty if they are local paths."""
    given = [path] if isinstance(path, str | bytes | os.PathLike) else list(path)
    found = [os.fsdecode(each) for each in given if is_url(each)]
    if found and len(found) < len(given):
        raise OptionError(f"{shown_url(found[0])} is a URL: name all files by URLs, or none")
    return found


def find_paths(path: Path | Sequence[Path]) -> list[bytes]:
    """Return the absolute paths of the files that a path, or several, mean.

    Raises
    ------
    FileMissingError, FileAccessError, FileFormatError
        If there are none, or a folder cannot be read, or its shard index is not valid.
    """
    given = [path] if isinstance(path, str | bytes | os.PathLike) else list(path)
    if not given:
        raise FileMissingError("no file is given")
    names = []
    for each in given:
        try:
            name = os.fsencode(each)
        except UnicodeEncodeError as error:
            raise FileMissingError(f"{each!r}: no file has such a name") from error
        if not name:  # a variable that is not set, not this folder
            raise FileMissingError("the path of the file is empty")
        if b"\0" in name:
            raise FileMissingError(f"{printable(name)}: no file has such a name")
        with accessing(name):
            names.append(os.path.abspath(os.fsencode(local_path(name))))
    name = names[0]
    if len(names) > 1 or not os.path.isdir(name):
        return names
    with accessing(name):
        entries = os.listdir(name)
    if INDEX_NAME in entries:
        return [shard.path for shard in shard_paths(name, read_index(name))]
    found = sorted(
        entry
        for entry in entries
        if os.fsdecode(entry).lower().endswith(SUFFIXES) and not entry.startswith(b".")
    )
    if not found:
        raise FileMissingError(f"folder {printable(name)} holds no {' or '.join(SUFFIXES)} file")
    if all(is_shard_name(os.fsdecode(entry)) for entry in found):
        read_index(name)  # raises: shards without an index are incomplete
    return [os.path.join(name, entry) for entry in found]
