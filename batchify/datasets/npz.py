"""Find images and labels among the arrays of a .npz file, as Keras' small datasets have them.

They are found by their names: ``x_train`` and ``y_train``, ``train_images`` and ``train_labels``,
or ``x`` and ``y`` of a dataset without splits.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.text import printable
from batchify.datasets.packed import PackedTable, PackedTree, check_lengths, image_paths, names_of
from batchify.datasets.shard_files import refuse_include
from batchify.errors import BatchifyWarning, DatasetError
from batchify.storage.archive_file import ArchiveFile
from batchify.storage.npz_reader import Array, NpzFile
from batchify.storage.packed import PackedSource
from batchify.storage.patterns import PathFilter
from batchify.storage.pixel_files import ending_of

_WORDS = {
    "images": ("x", "images", "image", "imgs", "img", "data", "inputs"),
    "labels": ("y", "labels", "label", "targets", "target"),
}
_ROLES = {word: role for role, words in _WORDS.items() for word in words}
_CLASSES = ("classes", "class_names", "label_names")


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
        columns, extents, made, unfit = _columns(npz, groups, where)
        names: dict[str, tuple[str, ...]] = {}
        if classes is not None:
            found = _plain(npz, classes, where)
            if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
                raise DatasetError(f"dataset {where}: {classes.text} must be names of classes")
            names["label"] = names_of(where, found, printable(classes.name))
        ignored = _ignored(npz.arrays, groups, classes)
        file.check_same(file.stamp)
        source = PackedSource(path, NpzFile, ((path, file.stamp),), timeout_s)
    paths = image_paths(columns.pop("path", None), made)
    columns = {"path": list(map(os.fsdecode, paths)), **columns}
    table = PackedTable(
        columns,
        class_names=names,
        names_from="" if classes is None else printable(classes.name),
        warnings=ignored,
        unfit=unfit,
    )
    return PackedTree(source, table, paths, extents)


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
    if rest and (split := choices.SPLIT_FOLDERS.get(head.lower())):
        return split, rest
    rest, _, tail = name.rpartition("_")
    if rest and (split := choices.SPLIT_FOLDERS.get(tail.lower())):
        return split, rest
    return "", name


def _columns(
    npz: NpzFile, groups: Mapping[str, _Group], where: str
) -> tuple[dict[str, list[Any]], NDArray[np.int64], list[str], str]:
    """Return the columns of the table, and extents and paths of all images.

    The text says why labels are not classes; it is empty if they are.
    """
    first = next(iter(groups.values()))
    common = [role for role in first if all(role in group for group in groups.values())]
    columns: dict[str, list[Any]] = {}
    extents, made, splits, unfit = [], [], [], ""
    for split, group in groups.items():
        images = group["images"]
        _check_images(images, where)
        npz.check(images)
        taken = {role: array for role, array in group.items() if _is_column(role, array, images)}
        check_lengths(where, {array.name: _rows(array) for array in (images, *taken.values())})
        count, number = images.shape[0], npz.arrays.index(images)
        extents.append(np.array([(0, number, row) for row in range(count)], np.int64))
        made += [f"{images.name}/{row:07}{ending_of(images.dtype)}" for row in range(count)]
        splits += [split] * count
        if "labels" not in taken and any("labels" in other for other in groups.values()):
            columns.setdefault("label", []).extend([None] * count)
        for role, array in taken.items():
            if role == "labels":
                labels = _labels(npz, array, where)
                unfit = unfit or (array.text if labels is None else "")
                values = [None] * count if labels is None else labels
            elif role in common:
                values = _plain(npz, array, where)
            else:
                continue
            columns.setdefault(_COLUMNS.get(role, role), []).extend(values)
    if "" not in groups:
        columns["split"] = splits
    if unfit:
        del columns["label"]
        unfit = (
            f"dataset {where}: {unfit} does not hold classes: labels are whole numbers or names, "
            "shape (N,) or (N, 1), or one-hot; --class-mode none builds without labels"
        )
    return columns, np.concatenate(extents).reshape(-1, 3), made, unfit


_COLUMNS = {"labels": "label", "paths": "path", "weights": "weight"}
"""Role of an array -> its column."""


def _rows(array: Array) -> int:
    """Return the number of rows of an array."""
    return array.shape[0] if array.shape else 0


def _is_column(role: str, array: Array, images: Array) -> bool:
    """Return whether an array has a value for each image; labels must have."""
    if role == "labels":
        return True
    is_plain = len(array.shape) == 1 and array.dtype.kind in "biufU"
    return role != "images" and is_plain and array.shape == images.shape[:1]


def _ignored(
    arrays: Sequence[Array], groups: Mapping[str, _Group], classes: Array | None
) -> list[BatchifyWarning]:
    """Warn of arrays of images that have no part in the dataset."""
    taken = [classes, *(array for group in groups.values() for array in group.values())]
    others = [array.text for array in arrays if array not in taken and len(array.shape) >= 3]
    if not others:
        return []
    return [BatchifyWarning("ignored", f"ignored arrays: {'; '.join(others[:5])}")]


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
    """Return the values of an array of one dimension."""
    _check_plain(array, where)
    found: list[Any] = npz.load(array).tolist()
    return [os.fsdecode(v) if isinstance(v, bytes) else v for v in found]


def _labels(npz: NpzFile, array: Array, where: str) -> list[Any] | None:
    """Return the labels of an array: classes by number or name, also one-hot or shape (N, 1).

    None if they are not classes.
    """
    _check_plain(array, where)
    if len(array.shape) == 2 and array.shape[1] == 1:
        return [value for (value,) in _plain(npz, array, where)]
    if len(array.shape) == 1 and array.dtype.kind in "iufUS":
        return _plain(npz, array, where)
    if len(array.shape) == 2 and array.dtype.kind in "biuf":
        values = npz.load(array)
        is_hot = values == 1
        if ((values == 0) | is_hot).all() and (is_hot.sum(axis=1) == 1).all():
            found: list[Any] = is_hot.argmax(axis=1).tolist()
            return found
    return None
