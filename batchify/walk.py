"""The files of one class: walked, judged by kind and name, in Keras' order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchify.errors import DatasetError, Skipped
from batchify.names import printable, sort_names
from batchify.options import DiscoverOptions
from batchify.tree import Entry, Tree

_HIDDEN_NAMES = frozenset({b"__macosx", b"thumbs.db", b"desktop.ini", b"$recycle.bin"})


@dataclass(frozen=True, slots=True)
class ClassFolder:
    """A folder of one class: the class' name, and its path relative to the dataset folder."""

    name: bytes
    path: bytes


@dataclass
class Tally:
    """What a walk is about (tree, options) and what it left out so far."""

    tree: Tree
    options: DiscoverOptions
    hidden: int = 0
    loose: int = 0
    other: Counter[str] = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the dataset is called, for people."""
        return printable(self.tree.source.name)

    def skip(self, path: bytes, reason: str) -> None:
        """Leave a file out for a reason."""
        self.skipped.append(Skipped(path, reason))


def is_hidden(name: bytes) -> bool:
    """Tell whether a file or folder is one that its user never sees."""
    return name.startswith(b".") or name.lower() in _HIDDEN_NAMES


def is_folder(entry: Entry) -> bool:
    """Tell whether an entry is a folder or a link to one; False where that cannot be told."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def listed(tally: Tally, path: bytes) -> list[Entry]:
    """Return the entries of a folder of the dataset.

    Raises
    ------
    DatasetError
        If it cannot be listed: leaving a folder out in silence would lose images.
    """
    try:
        return list(tally.tree.scan(path))
    except OSError as error:
        raise _listing_error(tally, path, error) from error


def _listing_error(tally: Tally, path: bytes, error: OSError) -> DatasetError:
    full = os.path.join(tally.tree.source.name, path)
    return DatasetError(f"cannot list folder {printable(full)}: {error.strerror or error}")


class Found(NamedTuple):
    """The images of one folder, in order.

    Parameters
    ----------
    blob : bytearray
        Their paths, relative to the dataset, end to end.
    lengths : ndarray of int32, shape (n,)
        Of the paths in `blob`.
    extents : ndarray of int64, shape (n, k), or None
        Where they lie, for a source that does not find them by their paths.
    """

    blob: bytearray
    lengths: NDArray[np.int32]
    extents: NDArray[np.int64] | None


def walk_class(tally: Tally, folder: ClassFolder) -> Iterator[Found]:
    """Yield the images of a class, a folder at a time, in Keras' order.

    Folders come sorted by their full path (not depth first: ``a``, ``a-b``, ``a/x``), the names
    in each sorted.
    """
    if reason := tally.tree.folder_reason(folder.path):
        tally.skip(folder.path, reason)
        return
    found: dict[bytes, Found] = {}
    pending = [folder.path]
    while pending:
        path = pending.pop()
        images, folders = _scan(tally, path)
        pending += folders
        if images.blob:
            found[path] = images
    paths = list(found)
    sort_names(paths)
    for path in paths:
        yield found.pop(path)


def _scan(tally: Tally, path: bytes) -> tuple[Found, list[bytes]]:
    """Return the images of a folder, and the paths of the folders in it."""
    suffixes = tally.options.suffixes
    take_hidden = tally.options.hidden
    tree = tally.tree
    prefix = path + b"/"
    names, folders = [], []
    try:
        for entry in tree.scan(path):
            name = entry.name
            if not take_hidden and is_hidden(name):
                tally.hidden += 1
            elif entry.is_dir(follow_symlinks=False):
                folders.append(prefix + name)
            elif entry.is_symlink() and is_folder(entry):
                if reason := tree.link_reason(prefix + name):
                    tally.skip(prefix + name, reason)
                else:
                    folders.append(prefix + name)
            elif not name.lower().endswith(suffixes):
                tally.other[_extension(name)] += 1
            elif not entry.is_file(follow_symlinks=False) and (
                reason := tree.file_reason(prefix + name)
            ):
                tally.skip(prefix + name, reason)
            else:
                names.append(name)
    except OSError as error:
        raise _listing_error(tally, path, error) from error
    sort_names(names)
    extents = tree.extents(path, names)
    lengths = np.fromiter(map(len, names), np.int32, len(names)) + np.int32(len(prefix))
    blob = bytearray()  # bytes.join would take 80 bytes a name while it works
    names.reverse()
    while names:  # each name goes as its copy comes
        blob += prefix
        blob += names.pop()
    return Found(blob, lengths, extents), folders


def _extension(name: bytes) -> str:
    """Return the extension that a file left out is counted under."""
    extension = os.path.splitext(os.fsdecode(name))[1].lower()
    return printable(extension) if len(extension) > 1 else "(no extension)"
