"""A folder tree made from a flat list of paths, for archives and URLs."""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from batchify.common.keys import KeyIndex, path_keys
from batchify.common.text import printable
from batchify.errors import DatasetError, Skipped
from batchify.storage.source import Extent, Source
from batchify.storage.tree import NO_FILE, Entry

MAX_FOLDERS = 1_000_000
"""Limit, since a folder takes about 400 bytes here, but only two in a listing."""


class ListedEntry:
    """An entry of a listing: a plain file, a folder, or neither."""

    __slots__ = ("_kind", "name")

    def __init__(self, name: bytes, kind: str) -> None:
        self.name = name
        self._kind = kind

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:  # noqa: ARG002 - as os.DirEntry has
        """Return whether it is a folder."""
        return self._kind == "folder"

    def is_file(self, *, follow_symlinks: bool = True) -> bool:  # noqa: ARG002 - as os.DirEntry has
        """Return whether it is a plain file."""
        return self._kind == "file"

    def is_symlink(self) -> bool:
        """Return False: links are not followed, and are reported as neither file nor folder."""
        return False


class _Folder:
    """The content of a folder: the names of its files end to end, and their extents."""

    __slots__ = ("folders", "names", "numbers", "reasons")

    def __init__(self) -> None:
        self.folders: dict[bytes, _Folder] = {}
        self.names = bytearray()
        self.numbers = array("q")
        self.reasons: dict[bytes, str] = {}

    def files(self) -> list[bytes]:
        """Return the names of the files, as they were added."""
        return bytes(self.names).split(b"/")[:-1]


class ListedTree:
    """The folders of a dataset whose files come as a list of paths.

    Parameters
    ----------
    source : Source
        Where the files are read from.

    Attributes
    ----------
    refused : list of Skipped
        Files that are in none of the folders, and why.
    entered : bytes
        The path of the folder that is the root, if it is not the listed one.

    Notes
    -----
    Memory: the bytes of all names, 8 for each number of an extent, about 400 for each folder.
    A folder's files are released when their extents are taken.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.refused: list[Skipped] = []
        self.entered = b""
        self._root = _Folder()
        self._count = 0
        self._last = (b"", self._root)
        self._indexes: dict[bytes, KeyIndex] = {}

    def add_file(self, path: bytes, extent: Extent) -> None:
        """Add a file and its folders; if a path is added twice, the last one counts."""
        parent, _, name = path.rpartition(b"/")
        folder = self.add_folder(parent)
        folder.names += name
        folder.names += b"/"
        folder.numbers.extend(extent)
        folder.reasons.pop(name, None)

    def add_folder(self, path: bytes) -> _Folder:
        """Add a folder, which may be empty.

        Raises
        ------
        DatasetError
            If there are too many: a listing can name very many in a few bytes.
        """
        if path == self._last[0]:
            return self._last[1]
        folder = self._root
        for name in path.split(b"/") if path else []:
            found = folder.folders.get(name)
            if found is None:
                self._count += 1
                if self._count > MAX_FOLDERS:
                    raise DatasetError(
                        f"dataset {printable(self.source.location)} has more than {MAX_FOLDERS:,} "
                        "folders; put it into fewer"
                    )
                found = folder.folders[name] = _Folder()
            folder = found
        self._last = (path, folder)
        return folder

    def add_special(self, path: bytes, reason: str) -> None:
        """Add an entry that is neither file nor folder, with the reason why it is not taken."""
        parent, _, name = path.rpartition(b"/")
        self.add_folder(parent).reasons[name] = reason

    def make_root(self, name: bytes) -> None:
        """Make a folder of the root the new root; everything else in the root is released."""
        self._root = self._root.folders[name]
        self._last = (b"", self._root)
        self._indexes = {}
        self.source = self.source.below(name)
        self.entered += b"/" + name if self.entered else name

    def list_folder(self, path: bytes) -> Iterator[Entry]:
        """Yield the entries of a folder: files in the order they were added, the rest sorted."""
        folder = self._folder(path)
        for name in sorted(folder.folders):
            yield ListedEntry(name, "folder")
        for name in dict.fromkeys(folder.files()):
            if name not in folder.reasons:
                yield ListedEntry(name, "file")
        for name in sorted(folder.reasons):
            yield ListedEntry(name, "special")

    def folder_reason(self, path: bytes) -> None:
        """Return None: there are no links to folders."""

    def file_reason(self, path: bytes) -> str | None:
        """Return why an entry that is not a plain file is not taken."""
        parent, _, name = path.rpartition(b"/")
        return self._folder(parent).reasons.get(name)

    def link_reason(self, path: bytes) -> None:
        """Return None: there are no links to folders."""

    def take_extents(self, path: bytes, names: Sequence[bytes]) -> NDArray[np.int64] | None:
        """Return the extents of some files of a folder, shape (n, k); None if files have none.

        Call this once: it releases the folder's files, so that a dataset is not in memory twice.
        """
        folder = self._folder(path)
        files, numbers = folder.files(), folder.numbers
        folder.names, folder.numbers = bytearray(), array("q")
        if not names:
            return None
        index = {name: i for i, name in enumerate(files)}
        rows = np.fromiter(map(index.__getitem__, names), np.intp, len(names))
        return np.frombuffer(numbers, np.int64).reshape(len(files), -1)[rows]

    def find_files(self, paths: Sequence[bytes]) -> tuple[dict[int, str], NDArray[np.int64] | None]:
        """Look up some files; return why some are not files, and the extents of all.

        Memory: 16 bytes for each file in the folders that were asked for.
        """
        reasons: dict[int, str] = {}
        extents: NDArray[np.int64] | None = None
        by_folder: dict[bytes, list[int]] = {}
        for i, path in enumerate(paths):
            by_folder.setdefault(path.rpartition(b"/")[0], []).append(i)
        for parent, numbers in by_folder.items():
            names = [paths[i].rpartition(b"/")[2] for i in numbers]
            try:
                folder = self._folder(parent)
            except FileNotFoundError:
                reasons.update(dict.fromkeys(numbers, NO_FILE))
                continue
            if parent not in self._indexes:
                self._indexes[parent] = KeyIndex(path_keys(folder.files()))
            index = self._indexes[parent]
            rows = index.last(path_keys(names))
            for i, name, row in zip(numbers, names, rows.tolist(), strict=True):
                if name in folder.reasons:
                    reasons[i] = folder.reasons[name]
                elif row < 0:
                    is_folder = name in folder.folders
                    reasons[i] = "not a regular file but a folder" if is_folder else NO_FILE
            if found := np.flatnonzero(rows >= 0).tolist():
                stored = np.frombuffer(folder.numbers, np.int64).reshape(len(index), -1)
                if extents is None:
                    extents = np.zeros((len(paths), stored.shape[1]), np.int64)
                extents[[numbers[i] for i in found]] = stored[rows[found]]
        return reasons, extents

    def _folder(self, path: bytes) -> _Folder:
        folder = self._root
        for name in path.split(b"/") if path else []:
            if name not in folder.folders:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            folder = folder.folders[name]
        return folder
