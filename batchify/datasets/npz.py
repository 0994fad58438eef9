"""Find images and labels among the arrays of a .npz file, as Keras' small datasets have them.

They are found by their names: ``x_train`` and ``y_train``, ``train_images`` and ``train_labels``,
or ``x`` and ``y`` of a dataset without splits.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.split_names import SPLIT_FOLDERS
from batchify.common.text import printable, size_text
from batchify.datasets.packed import (
    MASKS_UNFIT,
    NUMBERS_UNFIT,
    PackedTable,
    PackedTree,
    check_lengths,
    image_paths,
    names_of,
    split_numbers,
)
from batchify.datasets.shard_files import refuse_include
from batchify.errors import BatchifyWarning, DatasetError
from batchify.storage.archive_file import ArchiveFile
from batchify.storage.npz_reader import Array, NpzFile
from batchify.storage.packed import PackedSource
from batchify.storage.patterns import PathFilter
from batchify.storage.pixel_files import ending_of
from batchify.storage.source import Extent

_WORDS = {
    "images": ("x", "images", "image", "imgs", "img", "data", "inputs"),
    "labels": ("y", "labels", "label", "targets", "target"),
}
_ROLES = {word: role for role, words in _WORDS.items() for word in words}
_CLASSES = ("classes", "class_names", "label_names")
_MUCH_NBYTES = 256 << 20
"""What a process may hold without a warning."""

_PLAIN_KINDS = "biufUS"
"""Kinds of dtypes: numbers, truth values and texts."""


def open_npz(path: bytes, patterns: PathFilter | None, timeout_s: float) -> PackedTree:
    """Return the images of a .npz file.

    Parameters
    ----------
    path : bytes
        Absolute.

    Raises
    ------
    DatasetError
        If it is damaged, no array is named like images, or arrays do not fit together.
    """
    where = printable(path)
    refuse_include(patterns, "DATASET is one file")
    with contextlib.closing(ArchiveFile(path)) as file:
        npz = NpzFile(file)
        groups, classes = _grouped(npz.arrays, where)
        names: tuple[str, ...] = ()
        if classes is not None:
            is_list = len(classes.shape) == 1 or classes.shape[1:] == (1,)
            values = _plain(npz, classes, where) if is_list else []
            if not (is_list and all(isinstance(name, str) for name in values)):
                raise DatasetError(f"dataset {where}: {classes.text} must be names of classes")
            names = names_of(where, values, printable(classes.name))
        found = _read_groups(npz, groups, where)
        file.check_same(file.stamp)
        held = sum(npz.held_nbytes(array) for array in found.pixels)
        source = PackedSource(path, NpzFile, ((path, file.stamp),), timeout_s, held)
    columns = found.columns
    paths = image_paths(columns.pop("path", None), found.made, found.masks)
    columns = {"path": list(map(os.fsdecode, paths)), **columns}
    unfit = MASKS_UNFIT if found.masks else ""
    numbers: dict[str, list[Any]] = {}
    if found.numbers:
        numbers = split_numbers(found.numbers, names, columns, f"dataset {where}")
        unfit = "" if found.are_classes else NUMBERS_UNFIT
    elif len(names) == 1 and "label" in columns:  # the name of a number, maybe
        numbers = {names[0]: columns["label"]}
    taken = (*found.taken, classes)
    table = PackedTable(
        {**numbers, **columns},
        class_names={"label": names} if names else {},
        names_from="" if classes is None else printable(classes.name),
        warnings=_held(held) + _ignored([each for each in npz.arrays if each not in taken]),
        unfit=f"dataset {where}: {unfit}" if unfit else "",
        number_columns=tuple(numbers),
    )
    return PackedTree(source, table, paths, np.concatenate(found.extents), found.masks)


@dataclass(slots=True)
class _Found:
    """What the arrays hold: columns, places and paths of images, and labels that are no classes.

    `taken` are the arrays that are not ignored, and `pixels` those of images and masks.
    """

    columns: dict[str, list[Any]] = field(default_factory=dict)
    extents: list[NDArray[np.int64]] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    numbers: list[list[float] | None] = field(default_factory=list)
    masks: dict[bytes, Extent] = field(default_factory=dict)
    are_classes: bool = True
    taken: list[Array] = field(default_factory=list)
    pixels: list[Array] = field(default_factory=list)

    def add(self, column: str, values: Sequence[Any]) -> None:
        """Add the values of a split to a column."""
        self.columns.setdefault(column, []).extend(values)


_Group = dict[str, Array]
"""The arrays of a split: by their role, or by their name without the split."""


def _grouped(arrays: Sequence[Array], where: str) -> tuple[dict[str, _Group], Array | None]:
    """Return the arrays of each split (of "" if there are none), and that of class names."""
    groups: dict[str, _Group] = {}
    classes = None
    for array in arrays:
        if array.name in _CLASSES:
            classes = array
            continue
        split, stem = _split_of(array.name)
        role = _ROLES.get(stem.lower(), stem)
        group = groups.setdefault(split, {})
        if role in group:
            raise DatasetError(
                f"dataset {where}: {printable(group[role].name)} and {printable(array.name)} may "
                f"both be the {role}{' of ' * bool(split) + split}; keep one of them"
            )
        group[role] = array
    with_images = {split: group for split, group in groups.items() if "images" in group}
    if not with_images:
        shown = "; ".join(array.text for array in arrays[:10]) or "no array"
        raise DatasetError(
            f"dataset {where} has no array named like images: x_train, train_images, or x "
            f"(labels: y_train, train_labels, or y); it has {shown}"
        )
    if "" in with_images and len(with_images) > 1:
        named = next(group["images"] for split, group in with_images.items() if split)
        raise DatasetError(
            f"dataset {where}: {printable(named.name)} names a split, and "
            f"{printable(with_images['']['images'].name)} does not; rename one of them"
        )
    for split, group in groups.items():
        if split not in with_images and "labels" in group:
            raise DatasetError(
                f"dataset {where}: {printable(group['labels'].name)} has no array of images"
            )
    order = ["", *choices.SPLITS]
    return {split: with_images[split] for split in order if split in with_images}, classes


def _split_of(name: str) -> tuple[str, str]:
    """Return the split that the name of an array begins or ends with, and the rest of it."""
    head, _, rest = name.partition("_")
    if rest and (split := SPLIT_FOLDERS.get(head.lower())):
        return split, rest
    rest, _, tail = name.rpartition("_")
    if rest and (split := SPLIT_FOLDERS.get(tail.lower())):
        return split, rest
    return "", name


def _read_groups(npz: NpzFile, groups: Mapping[str, _Group], where: str) -> _Found:
    """Return the images, labels and columns of all splits."""
    first = next(iter(groups.values()))
    common = [role for role in first if all(role in group for group in groups.values())]
    labels = [group["labels"] for group in groups.values() if "labels" in group]
    add_labels = _add_masks if any(len(each.shape) > 2 for each in labels) else _add_labels
    found = _Found()
    for split, group in groups.items():
        images = group["images"]
        _check_images(images, where)
        npz.check(images)
        taken = {role: array for role, array in group.items() if _is_column(role, array, images)}
        check_lengths(where, {array.name: _rows(array) for array in (images, *taken.values())})
        number = npz.arrays.index(images)
        rows = np.arange(_rows(images))
        found.extents.append(np.stack((0 * rows, np.full_like(rows, number), rows), 1))
        found.made += _paths_of(images)
        found.taken.append(images)
        found.pixels.append(images)
        if split:
            found.add("split", [split] * _rows(images))
        if labels:
            add_labels(found, npz, group.get("labels"), _rows(images), where)
        for role, array in taken.items():
            if role == "labels" or role in common:
                found.taken.append(array)
            if role != "labels" and role in common:
                found.add(_COLUMNS.get(role, role), _plain(npz, array, where))
    if not found.are_classes:
        found.columns.pop("label", None)
    if all(each is None for each in found.numbers):
        found.numbers.clear()
    return found


def _add_labels(found: _Found, npz: NpzFile, array: Array | None, count: int, where: str) -> None:
    """Add the labels of a split: classes or numbers; none without an array."""
    if array is None:
        found.add("label", [None] * count)
        found.numbers += [None] * count
        return
    _check_plain(array, where)
    is_number = array.dtype.kind in "biuf"
    if len(array.shape) == 2 and array.shape[1] > 1 and is_number:
        values = npz.load(array)
        found.numbers += values.tolist()
        is_hot = values == 1
        if ((values == 0) | is_hot).all() and (is_hot.sum(axis=1) == 1).all():
            found.add("label", is_hot.argmax(axis=1).tolist())
        else:
            found.are_classes = False
        return
    if array.dtype.kind not in _PLAIN_KINDS or array.shape[1:] not in ((), (1,)) or not array.shape:
        raise DatasetError(
            f"dataset {where}: {array.text} does not hold labels: they are numbers, shape (N,) or "
            "(N, K), masks, shape (N, H, W), or texts, shape (N,)"
        )
    found.add("label", _plain(npz, array, where))
    found.numbers += [None] * count


def _add_masks(found: _Found, npz: NpzFile, array: Array | None, count: int, where: str) -> None:
    """Add the masks of a split, shape (N, H, W); none without an array."""
    if array is None:
        found.add("mask", [None] * count)
        return
    _check_images(array, where)
    npz.check(array)
    found.pixels.append(array)
    number, paths = npz.arrays.index(array), _paths_of(array)
    for row, path in enumerate(paths):
        found.masks[os.fsencode(path)] = (0, number, row)
    found.add("mask", paths)


def _paths_of(images: Array) -> list[str]:
    """Return paths for the rows of an array."""
    ending = ending_of(images.dtype)
    return [f"{images.name}/{row:07}{ending}" for row in range(_rows(images))]


_COLUMNS = {"labels": "label", "paths": "path", "weights": "weight"}
"""Role of an array -> its column."""


def _rows(array: Array) -> int:
    """Return the number of rows of an array."""
    return array.shape[0] if array.shape else 0


def _is_column(role: str, array: Array, images: Array) -> bool:
    """Return whether an array has a value for each image; labels must have."""
    if role == "labels":
        return True
    is_plain = len(array.shape) == 1 and array.dtype.kind in _PLAIN_KINDS
    return role != "images" and is_plain and array.shape == images.shape[:1]


def _ignored(others: Sequence[Array]) -> list[BatchifyWarning]:
    """Warn of arrays that have no part in the dataset."""
    if not others:
        return []
    shown = "; ".join(array.text for array in others[:5]) + "; …" * (len(others) > 5)
    what = "ignored arrays, which do not have a value for each image of all splits"
    return [BatchifyWarning("ignored", f"{what}: {shown}")]


def _held(nbytes: int) -> list[BatchifyWarning]:
    """Warn of compressed arrays that are large."""
    if nbytes < _MUCH_NBYTES:
        return []
    message = (
        f"compressed arrays are read as a whole: each process holds {size_text(nbytes)} of them; "
        "numpy.savez saves them without compression, and takes less memory and time"
    )
    return [BatchifyWarning("compressed", message)]


def _check_images(array: Array, where: str) -> None:
    """Refuse an array that is not one of images that image files can hold."""
    what = f"dataset {where}: {array.text}"
    _check_plain(array, where)
    channels = array.shape[3] if len(array.shape) == 4 else 1
    if len(array.shape) not in (3, 4) or channels not in (1, 3, 4):
        raise DatasetError(
            f"{what} is not an array of images, shape (N, H, W) or (N, H, W, C) with 1, 3 or 4 "
            "channels" + ("; move the channels to the end: x.transpose(0, 2, 3, 1)"
                          if len(array.shape) == 4 and array.shape[1] in (1, 3, 4) else "")
        )  # fmt: skip
    if not all(array.shape[1:]):
        raise DatasetError(f"{what} has images without pixels")
    if array.is_fortran:
        raise DatasetError(f"{what} is in Fortran order; save numpy.ascontiguousarray(x)")
    name = array.dtype.name
    if name == "uint8" or (name in ("uint16", "float32") and channels == 1):
        return
    advice = {
        "uint16": "16 bits are for images of one channel; convert it to uint8",
        "float32": "floats are for images of one channel; convert it to uint8, 0 to 255",
    }
    raise DatasetError(
        f"{what}: pixels must be uint8; "
        + advice.get(name, "with one channel also uint16 or float32; convert it: x.astype('uint8')")
    )


def _check_plain(array: Array, where: str) -> None:
    """Refuse an array of Python objects, without reading it."""
    if array.dtype.hasobject:
        raise DatasetError(
            f"dataset {where}: {printable(array.name)} holds Python objects, which can run any "
            "code when they are read, so they are refused; save arrays of numbers or texts, and "
            "images of one size"
        )


def _plain(npz: NpzFile, array: Array, where: str) -> list[Any]:
    """Return the values of an array, shape (N,) or (N, 1)."""
    _check_plain(array, where)
    values = npz.load(array)
    found: list[Any] = (values[:, 0] if values.shape[1:] == (1,) else values).tolist()
    return [os.fsdecode(v) if isinstance(v, bytes) else v for v in found]
