"""Find the images of class folders, as Keras does, and make them a Dataset.

The rules are those of ``flow_from_directory`` (Keras-Preprocessing 1.1.2,
``keras_preprocessing/image/utils.py``), except for hidden files, which are ignored by default,
and links that lead out of the dataset folder.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.paths import is_url, local_path
from batchify.common.text import printable
from batchify.dataset_options import DiscoverOptions
from batchify.datasets.classes import number_warnings, order_classes, unlisted_warnings
from batchify.datasets.dataset import Dataset, Samples
from batchify.datasets.walk import ClassFolder, Walk, walk_class
from batchify.errors import BatchifyWarning, DatasetError
from batchify.format.shard_index import is_shard_folder
from batchify.options import IMAGE_TIMEOUT_S
from batchify.storage.archive import archive_kind, list_archive
from batchify.storage.patterns import PathFilter
from batchify.storage.tree import FolderTree, Tree


def open_tree(
    directory: str | os.PathLike[str],
    options: DiscoverOptions,
    *,
    timeout_s: float = IMAGE_TIMEOUT_S,
    patterns: PathFilter | None = None,
) -> Tree:
    """Open the tree of a dataset: a folder, an archive, or a URL.

    Parameters
    ----------
    patterns : PathFilter, optional
        They help to decide which folder of an archive is the dataset.
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
        return list_archive(path, kind, options, patterns)
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
    patterns = PathFilter(options) if options.has_patterns else None
    tree = open_tree(directory, options, timeout_s=timeout_s, patterns=patterns)
    walk = Walk(tree, options, patterns, skipped=list(tree.refused))
    folders = _folders(walk, b"")
    split_of = _split_folders(walk, folders)
    if split_of is None:
        layout, groups = "classes", [("", [ClassFolder(n, n) for n in folders])]
    else:
        layout, groups = "splits", _class_folders_of_splits(walk, split_of)
    classes = _choose_classes(walk, groups)
    samples, splits = _walk_classes(walk, groups, {name: i for i, name in enumerate(classes)})
    if not len(samples):
        raise DatasetError(_no_images(walk))
    classes, samples = _without_emptied(walk, classes, samples)
    if patterns:
        walk.warnings += patterns.warnings()
    return Dataset(
        source=tree.source,
        layout=layout,
        classes=tuple(classes),
        samples=samples,
        splits=None if split_of is None else splits,
        skipped=tuple(walk.skipped),
        hidden=walk.hidden,
        excluded=walk.excluded,
        loose=walk.loose,
        other=dict(sorted(walk.other.items(), key=lambda item: (-item[1], item[0]))),
        warnings=tuple(walk.warnings),
    )


def _choose_classes(walk: Walk, groups: list[tuple[str, list[ClassFolder]]]) -> list[bytes]:
    """Return the classes in order; sort the folders alike, and drop those not to take."""
    found = Counter(folder.name for _, members in groups for folder in members)
    if not found:
        raise DatasetError(_no_classes(walk))
    classes = order_classes(found, walk.options, f"dataset {walk.name}")
    index = {name: i for i, name in enumerate(classes)}
    for _, members in groups:
        members[:] = sorted(
            (folder for folder in members if folder.name in index),
            key=lambda folder: index[folder.name],
        )
    others = {name: count for name, count in found.items() if name not in index}
    walk.warnings += unlisted_warnings(others, "folder")
    walk.warnings += number_warnings(classes, walk.options)
    return classes


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
            for _, found in walk_class(walk, folder):
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


def _without_emptied(
    walk: Walk, classes: list[bytes], samples: Samples
) -> tuple[list[bytes], Samples]:
    """Return classes and samples without the classes that have no image because of patterns."""
    counts = np.bincount(samples.labels, minlength=len(classes)).tolist()
    kept = [name for name, n in zip(classes, counts, strict=True) if n or name not in walk.emptied]
    if len(kept) == len(classes):
        return classes, samples
    index = {name: i for i, name in enumerate(kept)}
    renumbered = np.array([index.get(name, -1) for name in classes], np.int32)
    return kept, replace(samples, labels=renumbered[samples.labels])


def _folders(walk: Walk, parent: bytes) -> list[bytes]:
    """Return the names of the folders in `parent`, sorted; count other entries."""
    return walk.pass_by(parent).subfolders


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
    return bool(walk.look(name).subfolders)


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
