"""Folder to classes and samples, as Keras finds them; no image is opened.

The rules are those of ``flow_from_directory`` (Keras-Preprocessing 1.1.2,
``keras_preprocessing/image/utils.py``), apart from hidden files, which are left out unless asked
for, and links that lead out of the dataset folder.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from batchify import schema
from batchify.annotations import Annotations
from batchify.errors import DatasetError, Skipped
from batchify.names import printable, sort_names
from batchify.options import IMAGE_TIMEOUT_S, DiscoverOptions
from batchify.samples import Samples
from batchify.storage import Source
from batchify.tree import open_tree
from batchify.walk import ClassFolder, Tally, is_folder, is_hidden, listed, walk_class


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a dataset folder holds.

    Parameters
    ----------
    source : Source
        Where the files are.
    layout : str
        ``classes`` (a folder a class), ``splits`` (a folder a split, class folders in each) or
        ``manifest``.
    classes : tuple of bytes
        In the order of their indices.
    samples : Samples
        In the order of splits, classes, files.
    splits : dict of str to ndarray of int32, or None
        Indices of the samples of each split; None where the dataset is not split already.
    skipped : tuple of Skipped
        Named like an image but not read: links out of the folder, FIFOs, devices.
    hidden, loose : int
        How many hidden files and folders, and files outside of any class, were left out.
    other : Mapping of str to int
        How many files were left out for their extension, by extension.
    doubts : tuple of str
        What may not be as its user thinks, each on a line.
    annotations : Annotations
        What a manifest says of the samples.
    """

    source: Source
    layout: str
    classes: tuple[bytes, ...]
    samples: Samples
    splits: Mapping[str, NDArray[np.int32]] | None
    skipped: tuple[Skipped, ...]
    hidden: int
    loose: int
    other: Mapping[str, int]
    doubts: tuple[str, ...] = ()
    annotations: Annotations = field(default_factory=Annotations)

    @property
    def name(self) -> str:
        """What it is called, for people."""
        return printable(self.source.name)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class name to index."""
        return {os.fsdecode(name): index for index, name in enumerate(self.classes)}


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
        the splits. Or a ``.zip`` or ``.tar`` of that (see `batchify.archives.list_archive`), or the
        URL of such a folder.
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
        name: schema.SPLIT_FOLDERS[os.fsdecode(name).lower()]
        for name in folders
        if os.fsdecode(name).lower() in schema.SPLIT_FOLDERS and _holds_folders(tally, name)
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
    for split in schema.SPLITS:
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
