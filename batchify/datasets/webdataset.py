"""Read images and labels from the tar shards of WebDataset: the files of a key are a sample.

https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batchify.common.system import open_regular
from batchify.common.text import printable
from batchify.dataset_options import OPTIONAL_COLUMNS
from batchify.datasets.packed import (
    NUMBERS_UNFIT,
    PackedTable,
    PackedTree,
    image_paths,
    names_of,
    split_numbers,
)
from batchify.datasets.shard_files import (
    ShardFile,
    check_split,
    find_shards,
    is_image_name,
)
from batchify.errors import DatasetError
from batchify.storage import tar_reader
from batchify.storage.archive import archive_kind, refusal
from batchify.storage.archive_file import ArchiveFile
from batchify.storage.hidden import is_hidden
from batchify.storage.packed import PackedSource
from batchify.storage.patterns import PathFilter
from batchify.storage.source import Extent

CLASSES = "classes.txt"
"""The names of the classes, one per line, in the folder of the shards."""

_NAME = re.compile(rb"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
"""The key and the ending of a member, as ``webdataset.tariterators.base_plus_ext`` takes them."""

_LABELS = ("cls", "class", "label")
_MOST_SHOWN = 200
_MOST_NBYTES = 1 << 20
"""Largest file of a sample that is not an image."""


@dataclass(slots=True)
class Sample:
    """The files of a key in a shard: where each is, by its ending in lower case."""

    key: str
    files: dict[str, tuple[str, Extent]] = field(default_factory=dict)


def looks_like_webdataset(path: str | os.PathLike[str]) -> bool:
    """Return whether one of the first members of a tar is a label, or describes an image.

    A .json file next to an image in a folder does not count: the folder may be a class.
    """
    try:
        with contextlib.closing(ArchiveFile(os.fsencode(path))) as file:
            keys: dict[bytes, set[str]] = {}
            for member, _ in zip(tar_reader.list_members(file), range(_LOOKED_AT), strict=False):
                if member.extent is not None and (found := _NAME.fullmatch(member.name)):
                    keys.setdefault(found[1], set()).add(os.fsdecode(found[2]).lower())
    except (DatasetError, OSError):
        return False
    return any(
        any(is_image_name(b"x." + os.fsencode(ending)) for ending in endings)
        and (not endings.isdisjoint(_LABELS) or ("json" in endings and b"/" not in key))
        for key, endings in keys.items()
    )


_LOOKED_AT = 100


def open_webdataset(path: bytes, patterns: PathFilter | None, timeout_s: float) -> PackedTree:
    """Return the images of a tar, or of the tars in a folder.

    Parameters
    ----------
    path : bytes
        Absolute.

    Raises
    ------
    DatasetError
        If a shard is damaged, a key is repeated, or a sample lacks an image or has several.
    """
    where = printable(path)
    shards = find_shards(path, (b".tar",), patterns)
    rows = _Rows()
    files = []
    for number, shard in enumerate(shards):
        _check_tar(shard, where)
        with contextlib.closing(ArchiveFile(shard.path)) as file:
            for sample in _samples(file, shard, where):
                name, extent = sample.files.pop(_image_of(sample, shard, where))
                values = _read_sample(file, sample, shard, where)
                if shard.split:
                    what = f"key {printable(sample.key)} of {printable(shard.name)}"
                    check_split(shard, values.get("split"), what, f"dataset {where}")
                    values["split"] = shard.split
                rows.add(f"{shard.name}/{name}", (number, *extent), values)
                for prefix, (other, place) in _masks_of(sample, shard, where).items():
                    rows.add_mask(prefix, f"{shard.name}/{other}", (number, *place))
            file.check_same(file.stamp)
            files.append((shard.path, file.stamp))
    names = _class_names(path, shards, where)
    columns, numbers, unfit = _columns(rows, names, where)
    paths = image_paths(columns.get("path"), rows.made, rows.masks)
    columns["path"] = list(map(os.fsdecode, paths))
    table = PackedTable(
        columns,
        class_names={"label": names},
        names_from=CLASSES,
        unfit=f"dataset {where}: {unfit}" if unfit else "",
        number_columns=numbers,
    )
    source = PackedSource(path, tar_reader.TarFile, tuple(files), timeout_s)
    extents = np.frombuffer(rows.extents, np.int64).reshape(-1, 3)
    return PackedTree(source, table, paths, extents, rows.masks)


@dataclass(slots=True)
class _Rows:
    """The samples so far, as columns, and the paths and places of their images.

    Parameters
    ----------
    mask_paths : dict of str to list
        The paths of masks, by their prefix.
    """

    made: list[str] = field(default_factory=list)
    extents: array[int] = field(default_factory=lambda: array("q"))
    values: dict[str, list[Any]] = field(default_factory=dict)
    mask_paths: dict[str, list[Any]] = field(default_factory=dict)
    masks: dict[bytes, Extent] = field(default_factory=dict)

    def add(self, path: str, extent: Extent, values: Mapping[str, Any]) -> None:
        """Add a sample."""
        for name, value in values.items():
            self._put(self.values, name, len(self.made), value)
        self.made.append(path)
        self.extents.extend(extent)

    def add_mask(self, prefix: str, path: str, extent: Extent) -> None:
        """Add a mask of the last sample."""
        self.masks[os.fsencode(path)] = extent
        self._put(self.mask_paths, prefix, len(self.made) - 1, path)

    def _put(self, columns: dict[str, list[Any]], name: str, row: int, value: Any) -> None:
        column = columns.setdefault(name, [])
        if len(column) < row:
            column += [None] * (row - len(column))
        column.append(value)

    def columns(self) -> dict[str, list[Any]]:
        """Return all columns; those of masks never have the name of another one.

        Masks are called by their prefix, or ``mask`` if that is one of labels.
        """
        found = dict(self.values)
        for prefix in sorted(self.mask_paths):
            is_label = prefix in _LABELS and "mask" not in self.mask_paths
            name = "mask" if is_label else prefix
            while name in ("path", *OPTIONAL_COLUMNS, *found):
                name += "_mask"
            found[name] = self.mask_paths[prefix]
        for column in found.values():
            column += [None] * (len(self.made) - len(column))
        return found


def _check_tar(shard: ShardFile, where: str) -> None:
    kind = archive_kind(os.fsdecode(shard.path))
    if kind == "tar":
        return
    how = f"compressed ({kind}); decompress it" if kind else "not a tar archive"
    if not os.path.exists(shard.path):
        how = "a link to a file that does not exist; restore it, or ignore it with --exclude"
    elif not os.access(shard.path, os.R_OK):
        how = "not readable: no permission"
    elif tar_reader.is_empty(shard.path):
        how = "an empty tar; remove it, or ignore it with --exclude"
    raise DatasetError(f"dataset {where}: {printable(shard.name)} is {how}")


def _samples(file: ArchiveFile, shard: ShardFile, where: str) -> Iterator[Sample]:
    """Yield the samples of a shard, in its order."""
    seen: set[str] = set()
    sample: Sample | None = None
    for member in tar_reader.list_members(file):
        path = member.name.removeprefix(b"./")
        if (found := _NAME.fullmatch(path)) is None:
            continue
        if reason := refusal(path):
            raise DatasetError(
                f"dataset {where}: {printable(shard.name)} has {printable(path)[:_MOST_SHOWN]}, "
                f"which is refused: {reason}"
            )
        if any(map(is_hidden, path.split(b"/"))):
            continue
        name, key, ending = (os.fsdecode(each) for each in (found[0], found[1], found[2].lower()))
        if member.extent is None:
            if member.reason:
                article = "" if member.reason.startswith("not ") else "a "
                raise DatasetError(
                    f"dataset {where}: {printable(name)} is {article}{member.reason}"
                )
            continue
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            if key in seen:
                raise DatasetError(_repeated(key, shard, where))
            seen.add(key)
            sample = Sample(key)
        if ending in sample.files:
            raise DatasetError(_repeated(f"{key}.{ending}", shard, where))
        sample.files[ending] = (name, member.extent)
    if sample is not None:
        yield sample


def _repeated(name: str, shard: ShardFile, where: str) -> str:
    return (
        f"dataset {where}: {printable(shard.name)} has {printable(name)} more than once; the files "
        "of a sample follow each other, and each key is there once"
    )


def _image_of(sample: Sample, shard: ShardFile, where: str) -> str:
    """Return the ending of a sample's image: the only one, or the only one without a prefix."""
    images = [
        ending for ending, (name, _) in sample.files.items() if is_image_name(os.fsencode(name))
    ]
    plain = [ending for ending in images if "." not in ending]
    found = plain or images
    if len(found) == 1:
        return found[0]
    what = f"several images: {', '.join('.' + each for each in found)}" if found else "no image"
    raise DatasetError(
        f"dataset {where}: key {printable(sample.key)} of {printable(shard.name)} has {what}; a "
        "sample has one image"
    )


def _masks_of(sample: Sample, shard: ShardFile, where: str) -> dict[str, tuple[str, Extent]]:
    """Return the other images of a sample by their prefixes."""
    found: dict[str, tuple[str, Extent]] = {}
    for ending, (name, place) in sample.files.items():
        if not is_image_name(os.fsencode(name)):
            continue
        prefix = ending.rpartition(".")[0]
        if prefix in found:
            raise DatasetError(
                f"dataset {where}: {printable(shard.name)} has {printable(found[prefix][0])} and "
                f"{printable(name)}, which may both be the mask; remove one of them"
            )
        found[prefix] = (name, place)
    return found


def _read_sample(file: ArchiveFile, sample: Sample, shard: ShardFile, where: str) -> dict[str, Any]:
    """Return the values of a sample: those of its .json, its label and its text."""
    row: dict[str, Any] = {}
    labels: list[int | str | None] = []
    for ending, (name, extent) in sample.files.items():
        if ending not in (*_LABELS, "json", "txt"):
            continue
        what = f"dataset {where}: {printable(name)} of {printable(shard.name)}"
        if extent[1] > _MOST_NBYTES:
            raise DatasetError(f"{what} has {extent[1]:,} bytes; the limit is {_MOST_NBYTES:,}")
        try:
            text = file.read(*extent).decode()
        except UnicodeDecodeError as error:
            raise DatasetError(f"{what} is not UTF-8") from error
        if ending == "json":
            row = {**_json_values(text, what), **row}
        elif ending == "txt":
            row["txt"] = text
        else:
            labels.append(_label(text.strip()))
    if labels:
        row["label"] = labels[0]
    if len(set(labels)) > 1:
        endings = ", ".join(f".{each}" for each in _LABELS if each in sample.files)
        raise DatasetError(
            f"dataset {where}: key {printable(sample.key)} of {printable(shard.name)} has "
            f"different labels in {endings}"
        )
    return row


def _label(text: str) -> int | str | None:
    """Return a label: a number if it looks like one."""
    return int(text) if re.fullmatch("-?[0-9]{1,18}", text) else text or None


def _json_values(text: str, what: str) -> dict[str, Any]:
    """Return the plain values of a JSON object, also those of its object ``columns``."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{what} is not JSON: {error}") from error
    if not isinstance(found, dict):
        return {}
    columns = found.get("columns")
    if isinstance(columns, dict):  # as `batchify export` writes those of --keep-columns
        found = {**columns, **{name: v for name, v in found.items() if name != "columns"}}
    return {name: v for name, v in found.items() if not isinstance(v, dict)}


def _columns(
    rows: _Rows, names: tuple[str, ...], where: str
) -> tuple[dict[str, list[Any]], tuple[str, ...], str]:
    """Return the columns, the names of those of labels that are lists, and why these do not fit.

    Other columns that have lists are ignored. `names` are those of the classes.
    """
    columns = rows.columns()
    lists = {
        name: columns.pop(name)
        for name, values in rows.values.items()
        if any(isinstance(value, list) for value in values)
    }
    if "label" not in lists:
        return columns, (), ""
    labels = lists["label"]
    is_list = [value if value is None else isinstance(value, list) for value in labels]
    if False in is_list:
        one, other = is_list.index(True), is_list.index(False)
        shown = [f"row {row + 1} ({printable(rows.made[row])})" for row in (one, other)]
        return columns, (), (
            f"the label of {shown[0]} is a list, and that of {shown[1]} is not; labels are all "
            "classes, or all lists of numbers"
        )  # fmt: skip
    numbers = split_numbers(labels, names, columns, f"dataset {where}")
    return {**columns, **numbers}, tuple(numbers), NUMBERS_UNFIT


def _class_names(path: bytes, shards: Sequence[ShardFile], where: str) -> tuple[str, ...]:
    """Return the names of the classes in the folder of the shards; empty if there are none."""
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    found: dict[str, tuple[str, ...]] = {}
    for each in dict.fromkeys((folder, *(os.path.dirname(shard.path) for shard in shards))):
        file = os.path.join(each, os.fsencode(CLASSES))
        if names := _read_names(file, where):
            found[printable(os.path.relpath(file, folder))] = names
    if len(set(found.values())) > 1:
        raise DatasetError(f"dataset {where}: {' and '.join(found)} differ; keep one of them")
    return next(iter(found.values()), ())


def _read_names(path: bytes, where: str) -> tuple[str, ...]:
    try:
        opened = open_regular(path)
        with io.TextIOWrapper(opened, "utf-8-sig", newline="") as file:
            lines = [line.removesuffix("\r") for line in file.read().rstrip("\r\n").split("\n")]
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DatasetError(f"dataset {where}: {CLASSES} cannot be read: {reason}") from error
    if "" in lines and len(lines) > 1:  # which numbers the names have is not clear then
        raise DatasetError(f"dataset {where}: line {lines.index('') + 1} of {CLASSES} is empty")
    names = [_ESCAPE.sub(lambda found: _ESCAPED[found[1]], line) for line in lines if line]
    return names_of(where, names, CLASSES)


_ESCAPE = re.compile(r"\\([\\nr])")
_ESCAPED: Mapping[str, str] = {"\\": "\\", "n": "\n", "r": "\r"}
"""As `batchify export` writes them."""
