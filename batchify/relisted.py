"""A file that a manifest listed as a dataset again: its rows are the list."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from batchify.annotations import Annotations
from batchify.dataset import Dataset
from batchify.names import is_relative
from batchify.options import IMAGE_TIMEOUT_S, DiscoverOptions
from batchify.reader import Reader
from batchify.samples import join_samples
from batchify.tree import Tree, open_tree

_AT_ONCE = 4096


class _Found:
    """The files of a column that are there."""

    def __init__(self) -> None:
        self.paths: list[list[bytes]] = []
        self.extents: list[NDArray[np.int64]] = []


def relisted(
    reader: Reader,
    source: str | os.PathLike[str],
    options: DiscoverOptions,
    *,
    timeout_s: float = IMAGE_TIMEOUT_S,
) -> Dataset:
    """Return those rows of a file whose files, images and masks, are in a dataset folder.

    Parameters
    ----------
    reader : Reader
    source : path
        What the paths of the rows are relative to; one that leads out of it is not looked up.
    options : DiscoverOptions
    timeout_s : float
        How long a file may take; see `batchify.tree.open_tree`.

    Raises
    ------
    DatasetNotFoundError
    FileFormatError
    """
    tree = open_tree(source, options, timeout_s=timeout_s)
    found = {name: _Found() for name in ("paths", "label_paths")}
    for split in reader.splits:
        _look_up(tree, reader, split, found)
    images, masks = (
        join_samples(
            each.paths,
            np.zeros(sum(map(len, each.paths)), np.int32),
            np.concatenate(each.extents) if each.extents else None,
        )
        for each in found.values()
    )
    has_masks = any("label_paths" in columns for columns in reader.splits.values())
    return Dataset(
        source=tree.source,
        layout="manifest",
        classes=reader.header.classes,
        samples=images,
        splits=None,
        skipped=(),
        hidden=0,
        loose=0,
        other={},
        annotations=Annotations(masks=masks if has_masks else None),
    )


def _look_up(tree: Tree, reader: Reader, split: str, found: dict[str, _Found]) -> None:
    """Add the rows of a split whose files are there."""
    columns = reader.splits[split]
    names = [name for name in found if name in columns]
    for start in range(0, len(columns["paths"]), _AT_ONCE):
        with reader.refusing():
            pieces = {name: columns[name][start : start + _AT_ONCE].tolist() for name in names}
        absent: set[int] = set()
        extents = {}
        for name, paths in pieces.items():
            reasons, extents[name] = tree.find([p if is_relative(p) else b"" for p in paths])
            absent.update(reasons)
        kept = [i for i in range(len(pieces["paths"])) if i not in absent]
        for name, paths in pieces.items():
            found[name].paths.append([paths[i] for i in kept])
            if (numbers := extents[name]) is not None:
                found[name].extents.append(numbers[kept])
