"""List the folders of a dataset, each once, and yield the images of a class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchify.common.paths import sort_names
from batchify.common.text import plural, printable
from batchify.dataset_options import DiscoverOptions
from batchify.datasets.ignored import IgnoredFiles
from batchify.errors import BatchifyWarning, DatasetError, DatasetIOError, Skipped
from batchify.storage.hidden import is_hidden
from batchify.storage.outage import wait_out
from batchify.storage.patterns import PathFilter
from batchify.storage.tree import LINK_OUT, FolderTree, Tree, is_folder

_AT_ONCE = 4096


class FolderImages(NamedTuple):
    """The images of one folder, in order.

    Parameters
    ----------
    blob : bytearray
        The paths, relative to the dataset, end to end.
    lengths : ndarray of int32, shape (n,)
        The length of each path in `blob`.
    extents : ndarray of int64, shape (n, k), or None
        The position of each file, for a source that does not find files by their paths.
    """

    blob: bytearray
    lengths: NDArray[np.int32]
    extents: NDArray[np.int64] | None

    def paths(self) -> list[bytes]:
        """Return the paths one by one."""
        ends = self.lengths.cumsum().tolist()
        starts = [0, *ends][:-1]
        return [bytes(self.blob[start:end]) for start, end in zip(starts, ends, strict=True)]

    def pieces(self) -> Iterator[list[bytes]]:
        """Yield the paths, some thousand at a time."""
        end = 0
        for first in range(0, len(self.lengths), _AT_ONCE):
            paths = []
            for length in self.lengths[first : first + _AT_ONCE].tolist():
                start, end = end, end + length
                paths.append(bytes(self.blob[start:end]))
            yield paths


@dataclass(frozen=True, slots=True)
class Listing:
    """What one folder holds, and what was ignored in it.

    Parameters
    ----------
    path : bytes
        The folder, relative to the dataset.
    folders, links : list of bytes
        The names of the folders in it, and of the links to folders.
    """

    path: bytes
    images: FolderImages
    folders: list[bytes]
    links: list[bytes]
    hidden: int
    excluded: int
    other: Counter[str]
    skipped: list[Skipped]

    @property
    def name(self) -> bytes:
        """The name of the folder."""
        return self.path.rpartition(b"/")[2]

    @property
    def subfolders(self) -> list[bytes]:
        """The names of its folders, with the links to folders, sorted."""
        names = [*self.folders, *self.links]
        sort_names(names)
        return names

    @property
    def image_count(self) -> int:
        """How many images are in the folder itself."""
        return len(self.images.lengths)

    def inside(self, name: bytes) -> bytes:
        """Return the path of something in the folder."""
        return self.path + b"/" + name if self.path else name


class ShortFolder(NamedTuple):
    """A folder in which more files were ignored than taken, with counts by ending."""

    path: bytes
    taken: int
    ignored: Mapping[str, int]


@dataclass
class Walk:
    """A walk through a dataset: its tree, its options, and what was ignored so far.

    Parameters
    ----------
    patterns : PathFilter or None
        None if there are no patterns.
    ignored : IgnoredFiles
        Files that were ignored because of their ending.
    emptied : set of bytes
        Names of classes with a folder that holds no image because of the patterns.
    linked : list of bytes
        Skipped folders of classes or splits that are outside of the dataset.
    loose_images : list of Listing
        The folders with images of their own that are not taken.
    short : list of ShortFolder
        Folders of classes and splits in which more files were ignored than taken.
    base : bytes
        The path of the root in the dataset; patterns are relative to both.
    system_folders : set of bytes
        Folders in the root that are ignored here, but classes in ``keras.utils``.
    """

    tree: Tree
    options: DiscoverOptions
    patterns: PathFilter | None = None
    hidden: int = 0
    excluded: int = 0
    loose: int = 0
    other: Counter[str] = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)
    linked: list[bytes] = field(default_factory=list)
    loose_images: list[Listing] = field(default_factory=list)
    warnings: list[BatchifyWarning] = field(default_factory=list)
    emptied: set[bytes] = field(default_factory=set)
    base: bytes = b""
    ignored: IgnoredFiles = field(default_factory=IgnoredFiles)
    short: list[ShortFolder] = field(default_factory=list)
    system_folders: set[bytes] = field(default_factory=set)
    _seen: dict[bytes, Listing] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the dataset, for messages."""
        return printable(self.tree.source.location)

    def ignore(self, path: bytes, name: bytes) -> str:
        """Return the key under which a file is counted that is ignored because of its ending."""
        is_here = isinstance(self.tree, FolderTree)
        return self.ignored.add(
            name, os.path.join(self.tree.source.location, path) if is_here else None
        )

    def skip(self, path: bytes, reason: str) -> None:
        """Record a file that is not read."""
        self.skipped.append(Skipped(path, reason))

    def count_ignored(self, path: bytes, taken: int, ignored: Mapping[str, int]) -> None:
        """Record the folder of a class or a split if most of it was ignored."""
        if sum(ignored.values()) > taken:
            self.short.append(ShortFolder(path, taken, ignored))

    @property
    def skipped_text(self) -> str:
        """The end of a message about files that are not read: their number and an example."""
        if not self.skipped:
            return ""
        first = self.skipped[0]
        count = plural(len(self.skipped), "entry", "entries")
        return f"; {count} cannot be read, e.g. {printable(first.path)}: {first.reason}"

    def warn(self, code: str, message: str) -> None:
        """Add a warning."""
        self.warnings.append(BatchifyWarning(code, message))

    def refuses(self, path: bytes) -> bool:
        """Return whether the folder of a class or a split is not read, and record it."""
        reason = self.tree.folder_reason(path)
        if reason:
            self.skip(path, reason)
            if reason == LINK_OUT:
                self.linked.append(path)
        return bool(reason)

    def enter(self, name: bytes) -> None:
        """Make a folder of the root, which has no images of its own, the new root."""
        found = self.look(name)
        self.tree.make_root(name)
        self.system_folders.clear()
        self.base += name + b"/"
        folders, links = map(self._taken, (found.folders, found.links))
        gone = len(found.folders) + len(found.links) - len(folders) - len(links)
        found = replace(found, folders=folders, links=links, excluded=found.excluded + gone)
        self._seen = {b"": replace(found, path=b"")}

    def _taken(self, folders: list[bytes]) -> list[bytes]:
        """Return the folders of the new root that are taken."""
        if self.options.as_keras_utils:
            folders = [name for name in folders if not self.hides_top(name)]
        if not self.patterns:
            return folders
        return [name for name in folders if self.takes(name, is_folder=True)]

    def hides_top(self, name: bytes) -> bool:
        """Return whether a folder of the root is no class for ``keras.utils``.

        It ignores those that begin with a dot. Those of the system are ignored here, too.
        """
        is_of_system = is_hidden(name) and not name.startswith(b".") and not self.options.hidden
        if is_of_system:
            self.system_folders.add(name)
        return is_of_system or name.startswith(b".")

    def takes(self, path: bytes, *, is_folder: bool) -> bool:
        """Return whether patterns take a path, relative to the dataset or to its only folder."""
        if self.patterns is None:
            return True
        paths = (self.base + path, path) if self.base else (path,)
        return self.patterns.takes(*paths, is_folder=is_folder)

    def look(self, path: bytes) -> Listing:
        """List a folder, and keep the listing for later; nothing is counted yet."""
        if path not in self._seen:
            is_refused = path and self.tree.folder_reason(path)
            self._seen[path] = _nothing(path) if is_refused else list_folder(self, path)
        return self._seen[path]

    def take(self, path: bytes) -> Listing:
        """Return the listing of a folder that is read; files ignored in it are counted now."""
        found = self._seen.pop(path, None) or list_folder(self, path)
        self.hidden += found.hidden
        self.excluded += found.excluded
        self.other.update(found.other)
        self.skipped += found.skipped
        return found

    def pass_by(self, path: bytes) -> Listing:
        """Return the listing of a folder whose own files are not taken; they count as loose."""
        found = self._seen.pop(path, None) or list_folder(self, path)
        self.hidden += found.hidden
        self.excluded += found.excluded
        if found.images.blob:
            self.loose_images.append(found)
        self.loose += len(found.images.lengths) + found.other.total() + len(found.skipped)
        return found


@dataclass(frozen=True, slots=True)
class ClassFolder:
    """A folder of one class: the name of the class, and the path within the dataset."""

    name: bytes
    path: bytes


def walk_class(walk: Walk, folder: ClassFolder) -> Iterator[tuple[bytes, FolderImages]]:
    """Yield the images of a class, one folder at a time with its path, in Keras' order.

    Folders are sorted by their full path (not depth first: ``a``, ``a-b``, ``a/x``), and the names
    in each folder are sorted.
    """
    if walk.refuses(folder.path):
        return
    excluded = walk.excluded
    found: dict[bytes, FolderImages] = {}
    pending = [folder.path]
    taken, other = 0, Counter[str]()
    while pending:
        path = pending.pop()
        listing = walk.take(path)
        pending += map(listing.inside, listing.folders)
        for link in map(listing.inside, listing.links):
            if reason := walk.tree.link_reason(link):
                walk.skip(link, reason)
            else:
                pending.append(link)
        if listing.images.blob:
            found[path] = listing.images
        if walk.options.class_from == "top":
            taken += len(listing.images.lengths)
            other.update(listing.other)
        else:
            walk.count_ignored(path, len(listing.images.lengths), listing.other)
    if not found and walk.excluded > excluded:
        walk.emptied.add(folder.name)
    walk.count_ignored(folder.path, taken, other)
    paths = list(found)
    sort_names(paths)
    for path in paths:
        yield path, found.pop(path)


def list_folder(walk: Walk, path: bytes, *, take_extents: bool = True) -> Listing:
    """Return what a folder holds.

    Parameters
    ----------
    take_extents : bool
        See `batchify.storage.tree.Tree.take_extents`: not if files are looked up later.

    Raises
    ------
    DatasetError
        If it cannot be listed: ignoring it would lose images.
    DatasetIOError
        If its drive fails.
    """
    tree = walk.tree
    prefix = path + b"/" if path else b""
    full = os.path.join(tree.source.location, path)
    try:
        entries = wait_out(lambda: _sort_out(walk, path, prefix), full)
    except DatasetIOError:
        raise
    except OSError as error:
        way = "make it readable, or ignore it with --exclude" if path else "make it readable"
        raise DatasetError(
            f"cannot list folder {printable(full)}: {error.strerror or error}; {way}"
        ) from error
    names, folders, links = entries.images, entries.folders, entries.links
    for found in (names, entries.others, folders, links):
        sort_names(found)
    other = Counter(walk.ignore(prefix + name, name) for name in entries.others)
    extents = tree.take_extents(path, names) if take_extents else None
    lengths = np.fromiter(map(len, names), np.int32, len(names)) + np.int32(len(prefix))
    blob = bytearray()  # bytes.join would take 80 bytes per name while it runs
    names.reverse()
    while names:  # frees each name after it is copied
        blob += prefix
        blob += names.pop()
    images = FolderImages(blob, lengths, extents)
    hidden, excluded, skipped = entries.hidden, entries.excluded, entries.skipped
    return Listing(path, images, folders, links, hidden, excluded, other, skipped)


@dataclass(slots=True)
class _Entries:
    """The names in a folder, by what becomes of them; in no order."""

    images: list[bytes] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)
    folders: list[bytes] = field(default_factory=list)
    links: list[bytes] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    hidden: int = 0
    excluded: int = 0


def _sort_out(walk: Walk, path: bytes, prefix: bytes) -> _Entries:
    """Return the names in a folder; `prefix` is that of the paths in it."""
    is_image = walk.options.name_test
    as_keras_utils = walk.options.as_keras_utils
    take_hidden = walk.options.hidden or as_keras_utils
    tree, patterns = walk.tree, walk.patterns
    found = _Entries()
    for entry in tree.list_folder(path):
        name = entry.name
        if (not take_hidden and is_hidden(name)) or (
            as_keras_utils and not path and is_folder(entry) and walk.hides_top(name)
        ):
            found.hidden += 1
        elif patterns and not walk.takes(prefix + name, is_folder=is_folder(entry)):
            found.excluded += 1
        elif entry.is_dir(follow_symlinks=False):
            found.folders.append(name)
        elif entry.is_symlink() and is_folder(entry):
            found.links.append(name)
        elif not is_image(name):
            found.others.append(name)
        elif not entry.is_file(follow_symlinks=False) and (
            reason := tree.file_reason(prefix + name)
        ):
            found.skipped.append(Skipped(prefix + name, reason))
        else:
            found.images.append(name)
    return found


def _nothing(path: bytes) -> Listing:
    images = FolderImages(bytearray(), np.empty(0, np.int32), None)
    return Listing(path, images, [], [], 0, 0, Counter(), [])
