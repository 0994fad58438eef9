"""A tree made of a flat list of paths, as archives and object stores have them."""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from batchify.storage import Extent, Source
from batchify.tree import Entry


class ListedEntry:
    """What a listing knows of an entry: a plain file, a folder, or what is neither."""

    __slots__ = ("_kind", "name")

    def __init__(self, name: bytes, kind: str) -> None:
        self.name = name
        self._kind = kind

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:  # noqa: ARG002 - as os.DirEntry has
        """Tell whether it is a folder."""
        return self._kind == "folder"

    def is_file(self, *, follow_symlinks: bool = True) -> bool:  # noqa: ARG002 - as os.DirEntry has
        """Tell whether it is a plain file."""
        return self._kind == "file"

    def is_symlink(self) -> bool:
        """Tell whether it is a link: what is one is not followed, and told by its reason."""
        return False


class _Folder:
    """What is in one folder: the names of its files in one run of bytes, with their extents."""

    def __init__(self) -> None:
        self.folders: set[bytes] = set()
        self.names = bytearray()
        self.numbers = array("q")
        self.reasons: dict[bytes, str] = {}

    def files(self) -> list[bytes]:
        """Return the names of the files, as they were added."""
        return bytes(self.names).split(b"/")[:-1]


class ListedTree:
    """The folders of a dataset that lists its files by their paths.

    Parameters
    ----------
    source : Source
        Where the files are read.

    Notes
    -----
    Memory: the bytes of all names, and 8 for each number of an extent.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._folders: dict[bytes, _Folder] = {b"": _Folder()}

    def add_file(self, path: bytes, extent: Extent) -> None:
        """Take a file, with its folders; of several of one path, the last counts."""
        parent, _, name = path.rpartition(b"/")
        folder = self.add_folder(parent)
        folder.names += name + b"/"
        folder.numbers.extend(extent)

    def add_folder(self, path: bytes) -> _Folder:
        """Take a folder, which may be empty."""
        found = self._folders.get(path)
        if found is None:
            found = self._folders[path] = _Folder()
            parent, _, name = path.rpartition(b"/")
            self.add_folder(parent).folders.add(name)
        return found

    def add_special(self, path: bytes, reason: str) -> None:
        """Take what is neither, and why it is left out."""
        parent, _, name = path.rpartition(b"/")
        self.add_folder(parent).reasons[name] = reason

    def scan(self, path: bytes) -> Iterator[Entry]:
        """Yield what is in a folder."""
        folder = self._folder(path)
        for name in folder.folders:
            yield ListedEntry(name, "folder")
        for name in dict.fromkeys(folder.files()):
            yield ListedEntry(name, "file")
        for name in folder.reasons:
            yield ListedEntry(name, "special")

    def folder_reason(self, path: bytes) -> None:
        """Return None: there are no links to folders."""

    def file_reason(self, path: bytes) -> str | None:
        """Return why what is no plain file is left out."""
        parent, _, name = path.rpartition(b"/")
        return self._folder(parent).reasons.get(name)

    def link_reason(self, path: bytes) -> None:
        """Return None: there are no links to folders."""

    def extents(self, path: bytes, names: Sequence[bytes]) -> NDArray[np.int64]:
        """Return the extents of some files of a folder, shape (n, k)."""
        folder = self._folder(path)
        files = folder.files()
        index = {name: i for i, name in enumerate(files)}
        numbers = np.frombuffer(folder.numbers, np.int64).reshape(len(files), -1)
        return numbers[[index[name] for name in names]]

    def _folder(self, path: bytes) -> _Folder:
        try:
            return self._folders[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
