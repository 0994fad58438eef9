"""The files of one class folder: walked, judged by kind and name, in Keras' order."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from batchify.errors import DatasetError, Skipped
from batchify.names import is_within, printable, sort_names
from batchify.options import DiscoverOptions

_HIDDEN_NAMES = frozenset({b"__macosx", b"thumbs.db", b"desktop.ini", b"$recycle.bin"})
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class ClassFolder:
    """A folder of one class: the class' name, and its path relative to the dataset folder."""

    name: bytes
    path: bytes


@dataclass
class Tally:
    """What a walk is about (folder, options) and what it left out so far."""

    root: bytes
    real_root: bytes
    options: DiscoverOptions
    hidden: int = 0
    loose: int = 0
    other: Counter[str] = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def skip(self, path: bytes, reason: str) -> None:
        """Leave a file out for a reason."""
        self.skipped.append(Skipped(path, reason))


def is_hidden(name: bytes) -> bool:
    """Tell whether a file or folder is one that its user never sees."""
    return name.startswith(b".") or name.lower() in _HIDDEN_NAMES


def is_folder(entry: os.DirEntry[bytes]) -> bool:
    """Tell whether an entry is a folder or a link to one; False where that cannot be told."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def listed(tally: Tally, path: bytes) -> list[os.DirEntry[bytes]]:
    """Return the entries of a folder of the dataset.

    Raises
    ------
    DatasetError
        If it cannot be listed: leaving a folder out in silence would lose images.
    """
    full = os.path.join(tally.root, path)
    try:
        with os.scandir(full) as entries:
            return list(entries)
    except OSError as error:
        raise DatasetError(f"cannot list folder {printable(full)}: {error.strerror}") from error


def walk_class(tally: Tally, folder: ClassFolder) -> Iterator[tuple[bytearray, NDArray[np.int32]]]:
    """Yield the images of a class, a folder at a time, in Keras' order.

    Folders come sorted by their full path (not depth first: ``a``, ``a-b``, ``a/x``), the names
    in each sorted.

    Yields
    ------
    blob : bytearray
        The paths of one folder's images, relative to the dataset folder, end to end.
    lengths : ndarray of int32
        Of the paths in `blob`.
    """
    if reason := _folder_reason(tally, os.path.join(tally.root, folder.path)):
        tally.skip(folder.path, reason)
        return
    found: dict[bytes, tuple[bytearray, NDArray[np.int32]]] = {}
    pending = [folder.path]
    while pending:
        path = pending.pop()
        blob, lengths, folders = _scan(tally, path)
        pending += folders
        if blob:
            found[path] = (blob, lengths)
    paths = list(found)
    sort_names(paths)
    for path in paths:
        yield found.pop(path)


def _scan(tally: Tally, path: bytes) -> tuple[bytearray, NDArray[np.int32], list[bytes]]:
    """Return the images of a folder as `walk_class` does, and the paths of the folders in it."""
    suffixes = tally.options.suffixes
    take_hidden = tally.options.hidden
    names, folders = [], []
    full = os.path.join(tally.root, path)
    try:
        with os.scandir(full) as entries:
            for entry in entries:
                name = entry.name
                if not take_hidden and is_hidden(name):
                    tally.hidden += 1
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(path + b"/" + name)
                elif entry.is_symlink() and is_folder(entry):
                    _take_link_folder(tally, entry, path + b"/" + name, folders)
                elif not name.lower().endswith(suffixes):
                    tally.other[_extension(name)] += 1
                elif entry.is_file(follow_symlinks=False):
                    names.append(name)
                elif reason := _special_reason(tally, entry):
                    tally.skip(path + b"/" + name, reason)
                else:
                    names.append(name)
    except OSError as error:
        raise DatasetError(f"cannot list folder {printable(full)}: {error.strerror}") from error
    sort_names(names)
    prefix = path + b"/"
    lengths = np.fromiter(map(len, names), np.int32, len(names)) + np.int32(len(prefix))
    blob = bytearray()  # bytes.join would take 80 bytes a name while it works
    names.reverse()
    while names:  # each name goes as its copy comes
        blob += prefix
        blob += names.pop()
    return blob, lengths, folders


def _extension(name: bytes) -> str:
    """Return the extension that a file left out is counted under."""
    extension = os.path.splitext(os.fsdecode(name))[1].lower()
    return printable(extension) if len(extension) > 1 else "(no extension)"


def _special_reason(tally: Tally, entry: os.DirEntry[bytes]) -> str | None:
    """Return why an entry that is not a plain file is left out; None for a link to take."""
    try:
        mode = os.stat(entry.path).st_mode
    except OSError as error:
        return f"dangling or looping link ({error.strerror})"
    if not stat.S_ISREG(mode):
        return f"not a regular file but {_KINDS.get(stat.S_IFMT(mode), 'something else')}"
    if not tally.options.follow_links and not _inside(tally, entry.path):
        return "link that leads out of the dataset folder (see --follow-links)"
    return None


def _take_link_folder(
    tally: Tally, entry: os.DirEntry[bytes], path: bytes, folders: list[bytes]
) -> None:
    """Follow a link to a folder where asked to and where it does not loop."""
    if not tally.options.follow_links:
        tally.skip(path, "link to a folder (see --follow-links)")
    elif _is_loop(entry.path):
        tally.skip(path, "link to a folder that holds it (a loop)")
    else:
        folders.append(path)


def _folder_reason(tally: Tally, top: bytes) -> str | None:
    """Return why a class folder is not read, though Keras would; None to read it.

    It, or the folder of its split, may be a link.
    """
    if os.path.islink(top) and _is_loop(top):
        return "link to a folder that holds it (a loop)"
    if not tally.options.follow_links and not _inside(tally, top):
        return "link that leads out of the dataset folder (see --follow-links)"
    return None


def _inside(tally: Tally, path: bytes) -> bool:
    """Tell whether the file or folder that a link leads to is in the dataset folder."""
    return is_within(os.path.realpath(path), tally.real_root)


def _is_loop(link: bytes) -> bool:
    """Tell whether a link leads to a folder on its own path, by the folders met on the way."""
    target = os.stat(link)
    parent = os.path.dirname(link)
    while True:
        here = os.stat(parent)
        if (here.st_dev, here.st_ino) == (target.st_dev, target.st_ino):
            return True
        if parent == os.path.dirname(parent):
            return False
        parent = os.path.dirname(parent)
