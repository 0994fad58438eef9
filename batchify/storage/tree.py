"""List a dataset as a tree of folders: the protocol, and the tree of a folder on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from batchify.common.paths import is_within
from batchify.common.text import printable
from batchify.errors import DatasetNotFoundError, Skipped
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.storage import tar_reader
from batchify.storage.outage import is_outage, wait_out
from batchify.storage.source import FolderSource, Source, is_folder_at

NO_FILE = "there is no such file"
FOLLOW_LINKS = "(see --follow-links)"
LINK_OUT = f"link that leads out of the dataset folder {FOLLOW_LINKS}"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Entry(Protocol):
    """An entry of a folder, as `os.DirEntry` describes it."""

    @property
    def name(self) -> bytes:
        """Its name, without the folder."""
        ...

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether it is a folder."""
        ...

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether it is a plain file."""
        ...

    def is_symlink(self) -> bool:
        """Return whether it is a link."""
        ...


class Tree(Protocol):
    """The folders of a dataset. Paths are relative to it and "/" separated; ``b""`` is the root."""

    @property
    def source(self) -> Source:
        """Where the files are read from."""
        ...

    @property
    def entered(self) -> bytes:
        """The folders that were entered by `make_root`: the path to the root; mostly empty."""
        ...

    @property
    def refused(self) -> Sequence[Skipped]:
        """Files that are in none of the folders, and why: their names lead out of the dataset."""
        ...

    def list_folder(self, path: bytes) -> Iterator[Entry]:
        """Yield the entries of a folder, in any order."""
        ...

    def make_root(self, name: bytes) -> None:
        """Make a folder of the root the new root; what is next to it is not in the dataset."""
        ...

    def folder_reason(self, path: bytes) -> str | None:
        """Return why the folder of a class is not read; None to read it."""
        ...

    def file_reason(self, path: bytes) -> str | None:
        """Return why an entry that is not a plain file is not taken; None for a link to take."""
        ...

    def link_reason(self, path: bytes) -> str | None:
        """Return why a link to a folder is not followed; None to follow it."""
        ...

    def take_extents(self, path: bytes, names: Sequence[bytes]) -> NDArray[np.int64] | None:
        """Return the extents of some files of a folder, shape (n, k); None if files have none.

        Called once, after the folder was scanned.
        """
        ...

    def find_files(self, paths: Sequence[bytes]) -> tuple[dict[int, str], NDArray[np.int64] | None]:
        """Look up some files, given paths without ``..``.

        Returns
        -------
        dict of int to str
            Position and reason of each path that cannot be taken.
        ndarray of int64, shape (n, k), or None
            The extents of all, zeros for those without; None if files have none.
        """
        ...


def _advice(path: bytes) -> str:
    """Return what to do if there is no folder at a path."""
    if path.lower().endswith((b".npz", b".tar", b".parquet", b".arrow")):
        return "check the path"
    if path.lower().endswith((b".csv", b".tsv", b".jsonl")):
        return "name the folder of the images, and pass the table with --manifest"
    if path.lower().endswith((b".h5", b".hdf5")):
        return "name the dataset first, then the file to make of it"
    return "name a folder, or an archive, that has one subfolder per class"


class FolderTree:
    """A folder on a file system of this machine.

    Parameters
    ----------
    follow_links : bool
        Follow links that lead out of the folder, and links to folders.
    timeout_s : float
        See `batchify.storage.source.FolderSource`.

    Raises
    ------
    DatasetNotFoundError
        If it is not a folder.
    DatasetIOError
        If its drive fails.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        follow_links: bool,
        timeout_s: float = IMAGE_TIMEOUT_S,
    ) -> None:
        if not os.fspath(directory):  # a variable that is not set, not this folder
            raise DatasetNotFoundError("the path of the dataset is empty; name a folder")
        self._root = os.path.abspath(os.fsencode(directory))
        if not is_folder_at(self._root):
            there = os.path.lexists(self._root)
            what = "is neither a folder nor a .zip or .tar archive" if there else "does not exist"
            if there and not os.access(self._root, os.R_OK):
                what = "cannot be read: no permission"
            elif tar_reader.is_empty(self._root):
                what += ", but an empty file"
            raise DatasetNotFoundError(
                f"dataset {printable(self._root)} {what}; " + _advice(self._root)
            )
        self._real_root = os.path.realpath(self._root)
        self._follow_links = follow_links
        self._prefix = os.path.join(self._root, b"")
        self._parents: dict[bytes, bool] = {b"": True}
        self.source: Source = FolderSource(self._root, timeout_s)
        self.refused = ()
        self.entered = b""

    def list_folder(self, path: bytes) -> Iterator[Entry]:
        """Yield the entries of a folder."""
        with os.scandir(os.path.join(self._root, path)) as entries:
            yield from entries

    def make_root(self, name: bytes) -> None:
        """Make a folder of the root the new root; links may still lead anywhere in the dataset."""
        self._root = os.path.join(self._root, name)
        self._prefix = os.path.join(self._root, b"")
        self._parents = {b"": True}
        self.source = self.source.below(name)
        self.entered = os.path.join(self.entered, name)

    def folder_reason(self, path: bytes) -> str | None:
        """Return why a class folder is not read, though Keras would; None to read it.

        It, or the folder of its split, may be a link.
        """
        full = os.path.join(self._root, path)
        if not os.path.islink(full):
            return None if self._is_parent_inside(path) else LINK_OUT
        if _is_loop(full):
            return "link to a folder that holds it (a loop)"
        return None if self._follow_links or self._inside(full) else LINK_OUT

    def file_reason(self, path: bytes) -> str | None:
        """Return why an entry that is not a plain file is not taken; None for a link to take."""
        full = os.path.join(self._root, path)
        try:
            mode = os.stat(full).st_mode
        except OSError as error:
            if is_outage(error):
                raise
            return f"dangling or looping link ({error.strerror})"
        if not stat.S_ISREG(mode):
            return f"not a regular file but {_KINDS.get(stat.S_IFMT(mode), 'something else')}"
        if not self._follow_links and not self._inside(full):
            return LINK_OUT
        return None

    def link_reason(self, path: bytes) -> str | None:
        """Return why a link to a folder is not followed: not asked for, or a loop."""
        if not self._follow_links:
            return f"link to a folder {FOLLOW_LINKS}"
        if _is_loop(os.path.join(self._root, path)):
            return "link to a folder that holds it (a loop)"
        return None

    def take_extents(self, path: bytes, names: Sequence[bytes]) -> None:
        """Return None: files are found by their paths."""

    def find_files(self, paths: Sequence[bytes]) -> tuple[dict[int, str], None]:
        """Look up some files, given paths without ``..``; each folder is checked once."""
        found = (
            (i, wait_out(partial(self._absence, path), self._prefix + path))
            for i, path in enumerate(paths)
        )
        return {i: reason for i, reason in found if reason}, None

    def _absence(self, path: bytes) -> str | None:
        """Return why a path cannot be taken; None if it can."""
        if not self._is_parent_inside(path):
            return f"behind a {LINK_OUT}"
        try:
            mode = os.lstat(self._prefix + path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return NO_FILE
        except OSError as error:
            if is_outage(error):
                raise
            return f"cannot be looked up: {error.strerror}"
        return None if stat.S_ISREG(mode) else self.file_reason(path)

    def _is_parent_inside(self, path: bytes) -> bool:
        """Return whether the folder that a path is in may be read; each folder is checked once."""
        parent = path.rpartition(b"/")[0]
        if parent not in self._parents:
            full = os.path.join(self._root, parent)
            self._parents[parent] = self._follow_links or self._inside(full)
        return self._parents[parent]

    def _inside(self, path: bytes) -> bool:
        """Return whether the file or folder that a link leads to is in the dataset folder."""
        return is_within(os.path.realpath(path), self._real_root)


def _is_loop(link: bytes) -> bool:
    """Return whether a link leads to a folder on its own path."""
    target = os.stat(link)
    parent = os.path.dirname(link)
    while True:
        here = os.stat(parent)
        if (here.st_dev, here.st_ino) == (target.st_dev, target.st_ino):
            return True
        if parent == os.path.dirname(parent):
            return False
        parent = os.path.dirname(parent)


def is_folder(entry: Entry) -> bool:
    """Return whether an entry is a folder or a link to one; False if that is not known.

    Raises
    ------
    OSError
        If its drive fails.
    """
    try:
        return entry.is_dir()
    except OSError as error:
        if is_outage(error):
            raise
        return False
