"""Class folders to a Dataset, as Keras finds them.

The rules are those of ``flow_from_directory`` (Keras-Preprocessing 1.1.2,
``keras_preprocessing/image/utils.py``), apart from hidden files, which are left out unless asked
for, and links that lead out of the dataset folder.
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
from batchify.datasets.dataset import Dataset, Samples
from batchify.errors import DatasetError, Skipped
from batchify.options import IMAGE_TIMEOUT_S, DiscoverOptions
from batchify.storage.hidden import is_hidden
from batchify.storage.tree import Entry, FolderTree, Tree, is_folder


def open_tree(
    directory: str | os.PathLike[str],
    options: DiscoverOptions,
    *,
    timeout_s: float = IMAGE_TIMEOUT_S,
) -> Tree:
    """Return the folders of a dataset: of a folder, of an archive, or of a URL.

    Parameters
    ----------
    directory : path or URL
    options : DiscoverOptions
    timeout_s : float
        How long a file may take; see `batchify.storage.remote_source.RemoteSource`.

    Raises
    ------
    DatasetNotFoundError
        If there is no such dataset.
    DatasetError
        If it is an archive that cannot be read.
    """
    if is_url(directory):
        from batchify.storage.remote_source import remote_tree  # imports fsspec

        return remote_tree(os.fsdecode(directory), options, timeout_s)
    from batchify.storage.archive import archive_kind, list_archive  # which make trees

    path = local_path(directory)
    if kind := archive_kind(path):
        return list_archive(path, kind, options)
    return FolderTree(path, follow_links=options.follow_links)


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
        return printable(self.tree.source.location)

    def skip(self, path: bytes, reason: str) -> None:
        """Leave a file out for a reason."""
        self.skipped.append(Skipped(path, reason))


def listed(tally: Tally, path: bytes) -> list[Entry]:
    """Return the entries of a folder of the dataset.

    Raises
    ------
    DatasetError
        If it cannot be listed: leaving a folder out in silence would lose images.
    """
    try:
        return list(tally.tree.list_folder(path))
    except OSError as error:
        raise _listing_error(tally, path, error) from error


def _listing_error(tally: Tally, path: bytes, error: OSError) -> DatasetError:
    full = os.path.join(tally.tree.source.location, path)
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
        for entry in tree.list_folder(path):
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
    extents = tree.take_extents(path, names)
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


def discover(
    directory: str | os.PathLike[str],
    options: DiscoverOptions | None = None,
    *,
    timeout_s: float = IMAGE_TIMEOUT_S,
) -> Dataset:
    """Walk a dataset and return its classes and samples.

    Parameters
    ----------
    directory : path
        ``directory/class/…/image``, or ``directory/train/class/…/image`` beside ``val`` and
        ``test``: where every folder is named like a split and holds class folders, those are
        the splits. Or a ``.zip`` or ``.tar`` of that
        (see `batchify.storage.archive.list_archive`), or the URL of such a folder.
    options : DiscoverOptions, optional
    timeout_s : float
        How long reading one file may take, where a store has to answer.

    Returns
    -------
    Dataset
        Memory: the bytes of all paths and 12 more a file; while one folder is listed, one
        ``bytes`` object for each of its files.

    Raises
    ------
    DatasetNotFoundError
        If `directory` is neither a folder nor an archive.
    RemoteError
        If a store does not answer.
    DatasetError
        If it has no class folders or no images, a folder in it cannot be listed, or it is an
        archive that is damaged or of another kind.
    """
    options = options or DiscoverOptions()
    tree = open_tree(directory, options, timeout_s=timeout_s)
    tally = Tally(tree, options, skipped=list(tree.refused))
    folders = _folders(tally, b"")
    split_of = _split_folders(tally, folders)
    if split_of is None:
        layout, groups = "classes", [("", [ClassFolder(n, n) for n in folders])]
        classes = folders
    else:
        layout, groups = "splits", _split_groups(tally, split_of)
        classes = list({folder.name for _, members in groups for folder in members})
        sort_names(classes)
    if not classes:
        raise DatasetError(_no_classes(tally))
    samples, splits = _gather(tally, groups, {name: i for i, name in enumerate(classes)})
    if not len(samples):
        raise DatasetError(_no_images(tally))
    return Dataset(
        source=tree.source,
        layout=layout,
        classes=tuple(classes),
        samples=samples,
        splits=None if split_of is None else splits,
        skipped=tuple(tally.skipped),
        hidden=tally.hidden,
        loose=tally.loose,
        other=dict(sorted(tally.other.items(), key=lambda item: (-item[1], item[0]))),
        doubts=tuple(tally.doubts),
    )


def _gather(
    tally: Tally, groups: list[tuple[str, list[ClassFolder]]], index: Mapping[bytes, int]
) -> tuple[Samples, dict[str, NDArray[np.int32]]]:
    """Walk the class folders of each split; return their samples, and the indices of each split.

    The paths grow in place; the numbers are put together at the end, each column let go before
    the next: the peak of the memory is here.
    """
    names = bytearray()
    pieces: dict[str, list[NDArray[np.int32]]] = {"lengths": [], "labels": []}
    extents, width = bytearray(), 0
    splits = {}
    total = 0
    for split, members in groups:
        first = total
        for folder in members:
            for found in walk_class(tally, folder):
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


def _folders(tally: Tally, parent: bytes) -> list[bytes]:
    """Return the names of the folders in `parent`, sorted; count what is not one."""
    names = []
    for entry in listed(tally, parent):
        if is_hidden(entry.name) and not tally.options.hidden:
            tally.hidden += 1
        elif is_folder(entry):
            names.append(entry.name)
        else:
            tally.loose += 1
    sort_names(names)
    return names


def _split_folders(tally: Tally, folders: list[bytes]) -> dict[bytes, str] | None:
    """Return folder name to split where the folders of the root are splits, else None.

    Where some are and one is not, all are classes; that is told, for the labels may surprise.
    """
    split_of = {
        name: choices.SPLIT_FOLDERS[os.fsdecode(name).lower()]
        for name in folders
        if os.fsdecode(name).lower() in choices.SPLIT_FOLDERS and _holds_folders(tally, name)
    }
    others = [name for name in folders if name not in split_of]
    if split_of and others:
        splits, first = ", ".join(map(printable, split_of)), printable(others[0])
        tally.doubts.append(
            f"folders {splits} look like splits, but {first} does not (a split holds class "
            "folders): all folders of the dataset were taken as classes"
        )
    return split_of if split_of and not others else None


def _holds_folders(tally: Tally, name: bytes) -> bool:
    entries = listed(tally, name)
    return any(is_folder(entry) and not is_hidden(entry.name) for entry in entries)


def _split_groups(
    tally: Tally, split_of: Mapping[bytes, str]
) -> list[tuple[str, list[ClassFolder]]]:
    """Return the class folders of each split, in the order of the splits."""
    for split, count in Counter(split_of.values()).items():
        if count > 1:
            names = ", ".join(printable(name) for name in split_of if split_of[name] == split)
            raise DatasetError(
                f"dataset {tally.name}: folders {names} are all the {split} split; keep one of them"
            )
    folder_of = {split: name for name, split in split_of.items()}
    groups = []
    for split in choices.SPLITS:
        if split in folder_of:
            parent = folder_of[split]
            members = [ClassFolder(name, parent + b"/" + name) for name in _folders(tally, parent)]
            groups.append((split, members))
    return groups


def _no_classes(tally: Tally) -> str:
    found = f" ({tally.loose:,} files lie loose in it)" if tally.loose else ""
    return (
        f"dataset {tally.name} has no class folders{found}; "
        f"put the images of each class into a folder of their own{_left_out(tally)}"
    )


def _no_images(tally: Tally) -> str:
    message = f"dataset {tally.name} has class folders but no images in them"
    if tally.other:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in tally.other.most_common(5))
        message += f"; files of other kinds: {kinds} (see --extensions)"
    return message + _left_out(tally)


def _left_out(tally: Tally) -> str:
    if not tally.skipped:
        return ""
    first = tally.skipped[0]
    return f"; {len(tally.skipped):,} left out, e.g. {printable(first.path)}: {first.reason}"
