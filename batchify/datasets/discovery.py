"""Find the images of class folders, as Keras does, and make them a Dataset.

The rules are those of ``flow_from_directory`` (Keras-Preprocessing 1.1.2,
``keras_preprocessing/image/utils.py``), except for hidden files, which are ignored by default,
and links that lead out of the dataset folder.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.paths import is_url, local_path, sort_names
from batchify.common.text import printable
from batchify.dataset_options import DiscoverOptions
from batchify.datasets.dataset import Dataset, Samples
from batchify.errors import BatchifyWarning, DatasetError, Skipped
from batchify.format.shard_index import is_shard_folder
from batchify.options import IMAGE_TIMEOUT_S
from batchify.storage.archive import archive_kind, list_archive
from batchify.storage.hidden import is_hidden
from batchify.storage.tree import Entry, FolderTree, Tree, is_folder


def open_tree(
    directory: str | os.PathLike[str],
    options: DiscoverOptions,
    *,
    timeout_s: float = IMAGE_TIMEOUT_S,
) -> Tree:
    """Open the tree of a dataset: a folder, an archive, or a URL.

    Parameters
    ----------
    timeout_s : float
        How long reading a file may take; see `batchify.storage.remote_source.RemoteSource`.

    Raises
    ------
    DatasetNotFoundError
        If there is no such dataset.
    DatasetError
        If it is an archive that cannot be read.
    """
    if is_url(directory):
        from batchify.storage.remote_source import list_remote  # imports asyncio

        return list_remote(os.fsdecode(directory), options, timeout_s)
    path = local_path(directory)
    if kind := archive_kind(path):
        return list_archive(path, kind, options)
    return FolderTree(path, follow_links=options.follow_links)


def is_dataset(location: str | os.PathLike[str]) -> bool:
    """Return whether a path or a URL is that of a dataset, and not of a built file."""
    if is_url(location):
        from batchify.storage.remote_source import is_remote_folder  # imports asyncio

        return is_remote_folder(os.fsdecode(location))
    path = local_path(location)
    if os.path.isdir(path):
        return not is_shard_folder(path)
    return archive_kind(path) is not None


@dataclass(frozen=True, slots=True)
class ClassFolder:
    """A folder of one class: the name of the class, and the path within the dataset."""

    name: bytes
    path: bytes


@dataclass
class Walk:
    """A walk through a dataset: its tree, its options, and what was ignored so far."""

    tree: Tree
    options: DiscoverOptions
    hidden: int = 0
    loose: int = 0
    other: Counter[str] = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[BatchifyWarning] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the dataset, for people."""
        return printable(self.tree.source.location)

    def skip(self, path: bytes, reason: str) -> None:
        """Record a file that is not read."""
        self.skipped.append(Skipped(path, reason))


def list_folder(walk: Walk, path: bytes) -> list[Entry]:
    """Return the entries of a folder, or raise DatasetError: ignoring it would lose images."""
    try:
        return list(walk.tree.list_folder(path))
    except OSError as error:
        raise _listing_error(walk, path, error) from error


def _listing_error(walk: Walk, path: bytes, error: OSError) -> DatasetError:
    full = os.path.join(walk.tree.source.location, path)
    return DatasetError(f"cannot list folder {printable(full)}: {error.strerror or error}")


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


def walk_class(walk: Walk, folder: ClassFolder) -> Iterator[FolderImages]:
    """Yield the images of a class, one folder at a time, in Keras' order.

    Folders are sorted by their full path (not depth first: ``a``, ``a-b``, ``a/x``), and the names
    in each folder are sorted.
    """
    if reason := walk.tree.folder_reason(folder.path):
        walk.skip(folder.path, reason)
        return
    found: dict[bytes, FolderImages] = {}
    pending = [folder.path]
    while pending:
        path = pending.pop()
        images, folders = _list_images(walk, path)
        pending += folders
        if images.blob:
            found[path] = images
    paths = list(found)
    sort_names(paths)
    for path in paths:
        yield found.pop(path)


def _list_images(walk: Walk, path: bytes) -> tuple[FolderImages, list[bytes]]:
    """Return the images of a folder, and the paths of the folders in it."""
    suffixes = walk.options.suffixes
    take_hidden = walk.options.hidden
    tree = walk.tree
    prefix = path + b"/"
    names, folders = [], []
    try:
        for entry in tree.list_folder(path):
            name = entry.name
            if not take_hidden and is_hidden(name):
                walk.hidden += 1
            elif entry.is_dir(follow_symlinks=False):
                folders.append(prefix + name)
            elif entry.is_symlink() and is_folder(entry):
                if reason := tree.link_reason(prefix + name):
                    walk.skip(prefix + name, reason)
                else:
                    folders.append(prefix + name)
            elif not name.lower().endswith(suffixes):
                walk.other[_extension(name)] += 1
            elif not entry.is_file(follow_symlinks=False) and (
                reason := tree.file_reason(prefix + name)
            ):
                walk.skip(prefix + name, reason)
            else:
                names.append(name)
    except OSError as error:
        raise _listing_error(walk, path, error) from error
    sort_names(names)
    extents = tree.take_extents(path, names)
    lengths = np.fromiter(map(len, names), np.int32, len(names)) + np.int32(len(prefix))
    blob = bytearray()  # bytes.join would take 80 bytes a name while it works
    names.reverse()
    while names:  # frees each name when it is copied
        blob += prefix
        blob += names.pop()
    return FolderImages(blob, lengths, extents), folders


def _extension(name: bytes) -> str:
    """Return the extension under which an ignored file is counted."""
    extension = os.path.splitext(os.fsdecode(name))[1].lower()
    return printable(extension) if len(extension) > 1 else "(no extension)"


def discover(
    directory: str | os.PathLike[str],
    options: DiscoverOptions | None = None,
    *,
    timeout_s: float = IMAGE_TIMEOUT_S,
) -> Dataset:
    """Return the classes and samples of a dataset.

    Parameters
    ----------
    directory : path
        ``directory/class/…/image``, or ``directory/train/class/…/image`` next to ``val`` and
        ``test``: if every folder is named like a split and holds class folders, these are the
        splits. Or a ``.zip`` or ``.tar`` file of such a folder
        (see `batchify.storage.archive.list_archive`), or its URL.
    options : DiscoverOptions, optional
    timeout_s : float
        How long reading one file from a store may take.

    Returns
    -------
    Dataset
        Memory: the bytes of all paths and 12 more a file; while a folder is listed, one
        ``bytes`` object for each of its files.

    Raises
    ------
    DatasetNotFoundError
        If `directory` is neither a folder nor an archive.
    RemoteError
        If a store does not answer.
    DatasetError
        If it has no class folders or no images, a folder in it cannot be listed, or it is an
        archive that is damaged or not supported.
    """
    options = options or DiscoverOptions()
    tree = open_tree(directory, options, timeout_s=timeout_s)
    walk = Walk(tree, options, skipped=list(tree.refused))
    folders = _folders(walk, b"")
    split_of = _split_folders(walk, folders)
    if split_of is None:
        layout, groups = "classes", [("", [ClassFolder(n, n) for n in folders])]
        classes = folders
    else:
        layout, groups = "splits", _class_folders_of_splits(walk, split_of)
        classes = list({folder.name for _, members in groups for folder in members})
        sort_names(classes)
    if not classes:
        raise DatasetError(_no_classes(walk))
    samples, splits = _walk_classes(walk, groups, {name: i for i, name in enumerate(classes)})
    if not len(samples):
        raise DatasetError(_no_images(walk))
    return Dataset(
        source=tree.source,
        layout=layout,
        classes=tuple(classes),
        samples=samples,
        splits=None if split_of is None else splits,
        skipped=tuple(walk.skipped),
        hidden=walk.hidden,
        loose=walk.loose,
        other=dict(sorted(walk.other.items(), key=lambda item: (-item[1], item[0]))),
        warnings=tuple(walk.warnings),
    )


def _walk_classes(
    walk: Walk, groups: list[tuple[str, list[ClassFolder]]], index: Mapping[bytes, int]
) -> tuple[Samples, dict[str, NDArray[np.int32]]]:
    """Walk the class folders of each split; return their samples, and the indices of each split.

    Paths are appended in place; numbers are joined at the end, and each column is released before
    the next: this is the peak of memory.
    """
    names = bytearray()
    pieces: dict[str, list[NDArray[np.int32]]] = {"lengths": [], "labels": []}
    extents, width = bytearray(), 0
    splits = {}
    total = 0
    for split, members in groups:
        first = total
        for folder in members:
            for found in walk_class(walk, folder):
                names += found.blob
                found.blob.clear()
                count = len(found.lengths)
                pieces["lengths"].append(found.lengths)
                pieces["labels"].append(np.full(count, index[folder.name], np.int32))
                if found.extents is not None:
                    extents += found.extents.data
                    width = found.extents.shape[1]
                total += count
        splits[split] = np.arange(first, total, dtype=np.int32)
    none = np.empty(0, np.int32)
    ends = np.concatenate([none, *pieces.pop("lengths")]).cumsum(dtype=np.int64)
    labels = np.concatenate([none, *pieces.pop("labels")])
    numbers = np.frombuffer(extents, np.int64).reshape(-1, width) if width else None
    return Samples(names, ends, labels, numbers), splits


def _folders(walk: Walk, parent: bytes) -> list[bytes]:
    """Return the names of the folders in `parent`, sorted; count other entries."""
    names = []
    for entry in list_folder(walk, parent):
        if is_hidden(entry.name) and not walk.options.hidden:
            walk.hidden += 1
        elif is_folder(entry):
            names.append(entry.name)
        else:
            walk.loose += 1
    sort_names(names)
    return names


def _split_folders(walk: Walk, folders: list[bytes]) -> dict[bytes, str] | None:
    """Return folder name to split if all folders of the root are splits, else None.

    If only some are, all folders are classes, with a warning: the labels may surprise.
    """
    split_of = {
        name: choices.SPLIT_FOLDERS[os.fsdecode(name).lower()]
        for name in folders
        if os.fsdecode(name).lower() in choices.SPLIT_FOLDERS and _holds_folders(walk, name)
    }
    others = [name for name in folders if name not in split_of]
    if split_of and others:
        splits, first = ", ".join(map(printable, split_of)), printable(others[0])
        walk.warnings.append(
            BatchifyWarning(
                "mixed-layout",
                f"folders {splits} look like splits, but {first} does not (a split holds class "
                "folders): all folders of the dataset were taken as classes",
            )
        )
    return split_of if split_of and not others else None


def _holds_folders(walk: Walk, name: bytes) -> bool:
    entries = list_folder(walk, name)
    return any(is_folder(entry) and not is_hidden(entry.name) for entry in entries)


def _class_folders_of_splits(
    walk: Walk, split_of: Mapping[bytes, str]
) -> list[tuple[str, list[ClassFolder]]]:
    """Return the class folders of each split, in the order of the splits."""
    for split, count in Counter(split_of.values()).items():
        if count > 1:
            names = ", ".join(printable(name) for name in split_of if split_of[name] == split)
            raise DatasetError(
                f"dataset {walk.name}: folders {names} are all the {split} split; keep one of them"
            )
    folder_of = {split: name for name, split in split_of.items()}
    groups = []
    for split in choices.SPLITS:
        if split in folder_of:
            parent = folder_of[split]
            members = [ClassFolder(name, parent + b"/" + name) for name in _folders(walk, parent)]
            groups.append((split, members))
    return groups


def _no_classes(walk: Walk) -> str:
    found = f" ({walk.loose:,} files lie loose in it)" if walk.loose else ""
    return (
        f"dataset {walk.name} has no class folders{found}; "
        f"put the images of each class into a folder of their own{_skipped_text(walk)}"
    )


def _no_images(walk: Walk) -> str:
    message = f"dataset {walk.name} has class folders but no images in them"
    if walk.other:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in walk.other.most_common(5))
        message += f"; files of other kinds: {kinds} (see --extensions)"
    return message + _skipped_text(walk)


def _skipped_text(walk: Walk) -> str:
    if not walk.skipped:
        return ""
    first = walk.skipped[0]
    return f"; {len(walk.skipped):,} left out, e.g. {printable(first.path)}: {first.reason}"
