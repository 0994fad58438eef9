"""Read Hugging Face image datasets: Parquet files of the Hub, and folders of ``save_to_disk``.

The features of the columns are in the metadata of the files:
https://huggingface.co/docs/datasets/about_dataset_features
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.common.system import open_regular
from batchify.common.text import printable, shown_names, size_text
from batchify.datasets.arrow_files import NEEDS, TableFile, open_rows
from batchify.datasets.packed import (
    MASKS_UNFIT,
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
    check_splits,
    find_shards,
    refuse_include,
    split_of,
)
from batchify.datasets.tables import load_pyarrow
from batchify.errors import BatchifyWarning, DatasetError
from batchify.storage.archive_file import ArchiveFile
from batchify.storage.packed import GroupCache, PackedSource
from batchify.storage.patterns import PathFilter
from batchify.storage.source import Extent

DICT, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"
"""The files of ``DatasetDict.save_to_disk`` and ``Dataset.save_to_disk``."""

_IMAGE_NAMES = ("image", "img")
_MOST_HELD_NBYTES = 512 << 20
"""Each process keeps the images of smaller Parquet files in memory."""

_HELD_NBYTES = 64 << 20
"""What a process keeps of larger ones."""

_LARGE_NBYTES = 24 << 20
"""Row groups that are larger on average are worth a warning."""

_NO_LABEL = -1
"""A ClassLabel of images without one, as in the test splits of competitions."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a dataset, by what they hold.

    Parameters
    ----------
    image : str
        The column of the images.
    plain : tuple of str
        Texts, numbers and truth values.
    class_names : Mapping of str to tuple of str
        The names of the classes, for columns that are ``ClassLabel``.
    has_paths : bool
        Images have a field ``path``.
    masks : tuple of str
        Other columns of images.
    has_numbers : bool
        There is a column ``label`` of lists.
    number_names : tuple of str
        What the numbers in these lists are called, if `batchify export` wrote them.
    """

    image: str
    plain: tuple[str, ...]
    class_names: Mapping[str, tuple[str, ...]]
    has_paths: bool
    masks: tuple[str, ...] = ()
    has_numbers: bool = False
    number_names: tuple[str, ...] = ()


@dataclass(slots=True)
class _Rows:
    """The rows of all files, so far."""

    files: list[Any] = field(default_factory=list)
    extents: list[NDArray[np.int64]] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    own_paths: list[str | None] = field(default_factory=list)
    masks: dict[bytes, Extent] = field(default_factory=dict)
    values: dict[str, list[Any]] = field(default_factory=dict)
    group_nbytes: list[int] = field(default_factory=list)


def open_huggingface(path: bytes, patterns: PathFilter | None, timeout_s: float) -> PackedTree:
    """Return the images of a Parquet or Arrow file, or of a folder of them.

    Parameters
    ----------
    path : bytes
        Absolute.

    Raises
    ------
    DatasetError
        If a file is damaged, it is not clear which column has the images, or files differ.
    ExtraMissingError
        If pyarrow is not installed.
    """
    where = f"dataset {printable(path)}"
    shards = _shards(path, patterns, where)
    columns: _Columns | None = None
    rows = _Rows()
    for number, shard in enumerate(shards):
        with contextlib.closing(ArchiveFile(shard.path)) as file:
            table = open_rows(file)
            features = table.guarded(partial(_features, table, shard, where))
            found = table.guarded(partial(_find_columns, table, features, where))
            columns = columns or found
            if found != columns:
                difference = _difference(printable(shards[0].name), found, columns)
                raise DatasetError(f"{where}: {printable(shard.name)} has other {difference}")
            table.guarded(partial(_add, rows, table, columns, number, shard, where))
            table.close()
            file.check_same(file.stamp)
            rows.files.append((shard.path, file.stamp))
    assert columns is not None
    return _tree(path, rows, columns, timeout_s)


def _difference(first: str, found: _Columns, others: _Columns) -> str:
    if replace(found, class_names=others.class_names, number_names=others.number_names) == others:
        return f"names of labels than {first}; cast_column of datasets gives all the same"
    both = [(each.image, *each.plain, *each.masks) for each in (found, others)]
    shown = [shown_names([name.encode() for name in names]) for names in both]
    return f"columns than {first}: {shown[0]}, not {shown[1]}"


def _tree(path: bytes, rows: _Rows, columns: _Columns, timeout_s: float) -> PackedTree:
    """Return the tree of all rows."""
    values = rows.values
    for name, names in columns.class_names.items():
        names_of(f"{printable(path)}", names, f"column {printable(name)}")
        values[name] = [None if number == _NO_LABEL else number for number in values[name]]
    class_names = dict(columns.class_names)
    if len(class_names) == 1 and "label" not in values:  # whatever it is called
        (only,) = class_names
        values["label"], class_names["label"] = values[only], class_names[only]
    numbers: dict[str, list[Any]] = {}
    unfit = MASKS_UNFIT if "label" in columns.masks else ""
    if columns.has_numbers:
        labels = values.pop("label")
        numbers = split_numbers(labels, columns.number_names, values, f"dataset {printable(path)}")
        values.update(numbers)
        unfit = NUMBERS_UNFIT if numbers else ""
    paths = image_paths(values.get("path"), rows.made, rows.masks)
    if paths == list(map(os.fsencode, rows.made)) and columns.has_paths:
        paths = image_paths(rows.own_paths, rows.made, rows.masks)
    values["path"] = list(map(os.fsdecode, paths))
    table = PackedTable(
        values,
        class_names=class_names,
        names_from="its ClassLabel",
        unfit=f"dataset {printable(path)}: {unfit}" if unfit else "",
        number_columns=tuple(numbers),
        warnings=_slow(rows.group_nbytes),
    )
    held = _held_nbytes(rows.group_nbytes)
    images = (columns.image, *columns.masks)
    container = partial(open_rows, images=images, cache=GroupCache(held))
    held += 2 * max(rows.group_nbytes, default=0)  # one that is read: its bytes, and its images
    source = PackedSource(path, container, tuple(rows.files), timeout_s, held)
    return PackedTree(source, table, paths, np.concatenate(rows.extents), rows.masks)


def _held_nbytes(group_nbytes: list[int]) -> int:
    """Return how much of the row groups each process keeps: all, if they are small."""
    total = sum(group_nbytes)
    return total if total <= _MOST_HELD_NBYTES else max(_HELD_NBYTES, *group_nbytes)


def _slow(group_nbytes: list[int]) -> list[BatchifyWarning]:
    """Warn of large row groups, each of which is read for an image."""
    mean = sum(group_nbytes) // max(len(group_nbytes), 1)
    if sum(group_nbytes) <= _MOST_HELD_NBYTES or mean <= _LARGE_NBYTES:
        return []
    message = (
        f"reading an image of this dataset reads a row group of {size_text(mean)}, which is slow; "
        "Arrow files are faster: datasets.load_dataset(FOLDER).save_to_disk(NEW), then import NEW"
    )
    return [BatchifyWarning("row-groups", message)]


def _add(
    rows: _Rows, table: TableFile, columns: _Columns, number: int, shard: ShardFile, where: str
) -> None:
    """Add the rows of a file."""
    places, absent = table.places(columns.image)
    count = len(places)
    if 0 < count == absent:
        raise DatasetError(_only_paths(where, columns.image))
    rows.extents.append(_extents(number, 0, places))
    rows.made += [f"{shard.name}/{row:07}" for row in range(count)]
    for name in (columns.image, *columns.masks):
        rows.group_nbytes += table.group_nbytes(name)
    if columns.has_paths:
        rows.own_paths += table.column(columns.image, "path")
    for i, name in enumerate(columns.masks, 1):
        paths = [f"{shard.name}/{row:07}.{name}" for row in range(count)]
        extents = _extents(number, i, table.places(name)[0])
        rows.masks.update(zip(map(os.fsencode, paths), map(tuple, extents.tolist()), strict=True))
        is_only = name == "label" and "mask" not in table.schema.names
        rows.values.setdefault("mask" if is_only else name, []).extend(paths)
    for name in (*columns.plain, *["label"] * columns.has_numbers):
        rows.values.setdefault(name, []).extend(table.column(name))
    if shard.split:
        for row, text in enumerate(rows.values.get("split", ())[len(rows.made) - count :], 1):
            check_split(shard, text, f"row {row} of {printable(shard.name)}", where)
        rows.values.setdefault("split", [])[len(rows.made) - count :] = [shard.split] * count
    values = [*rows.values.values(), *[rows.own_paths] * columns.has_paths]
    if any(len(each) != len(rows.made) for each in values):
        raise ValueError("its columns differ in their number of rows")


def _extents(number: int, column: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return places as extents: with the numbers of the file and of the column before them."""
    return np.column_stack((np.tile((number, column), (len(places), 1)), places)).astype(np.int64)


def _find_columns(table: TableFile, features: Mapping[str, Any], where: str) -> _Columns:
    """Return what the columns of a file hold.

    Parameters
    ----------
    features : Mapping
        As the library ``datasets`` writes them; empty if they are not known.

    Raises
    ------
    DatasetError
        If a name is repeated, or it is not clear which column has the images.
    """
    for name, count in Counter(table.schema.names).items():
        if count > 1:
            raise DatasetError(f"{where} has {count} columns {printable(name)}; rename them")
    kinds = {each.name: _column_kind(each.type) for each in table.schema}
    types = {name: str(_of(features, name).get("_type", "")) for name in kinds}
    images = [name for name, kind in types.items() if kind == "Image"]
    images = images or [name for name, kind in kinds.items() if kind == "image"]
    images = images or [name for name, kind in kinds.items() if kind == "bytes"]
    named = [name for name in images if name in _IMAGE_NAMES]
    found = named if len(named) == 1 else images
    if len(found) != 1:
        names = shown_names([name.encode() for name in found or kinds])
        what = "several columns of images" if found else "no column of images, only"
        raise DatasetError(
            f"{where} has {what}: {names}; select_columns or rename_column of datasets "
            "leaves one that is called image"
        )
    if kinds[found[0]] not in ("image", "bytes"):
        raise DatasetError(_only_paths(where, found[0]))
    plain = tuple(name for name, kind in kinds.items() if kind == "plain" and name not in found)
    return _Columns(
        found[0],
        plain,
        {
            name: _names(_of(features, name).get("names", ()), name, where)
            for name in plain
            if types[name] == "ClassLabel"
        },
        kinds[found[0]] == "image",
        tuple(name for name in images if name != found[0]),
        kinds.get("label") == "list",
        _number_names(table),
    )


def _number_names(table: TableFile) -> tuple[str, ...]:
    try:
        found = json.loads((table.schema.metadata or {}).get(b"batchify_label_names", b"[]"))
    except (ValueError, RecursionError):
        return ()
    is_list = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return tuple(found) if is_list else ()


def _column_kind(kind: Any) -> str:
    """Return what a column can be: ``image``, ``bytes``, ``list``, ``plain`` or empty."""
    arrow, _ = load_pyarrow(NEEDS)
    types = arrow.types
    if types.is_struct(kind):
        names = {kind.field(i).name for i in range(kind.num_fields)}
        return "image" if {"bytes", "path"} <= names else ""
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "list"
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    checks = (
        types.is_integer, types.is_floating, types.is_boolean, types.is_string,
        types.is_large_string, types.is_string_view, types.is_null,
    )  # fmt: skip
    return "plain" if any(check(kind) for check in checks) else ""


def _only_paths(where: str, column: str) -> str:
    return (
        f"{where}: the images in column {printable(column)} are only paths; save it with the "
        "images: save_to_disk and push_to_hub of datasets do so, to_parquet does not"
    )


def _names(found: Any, column: str, where: str) -> tuple[str, ...]:
    """Return the names of a ClassLabel."""
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) for name in found):
        raise DatasetError(f"{where}: the ClassLabel of {printable(column)} has no list of names")
    return tuple(found)


def _of(features: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _dict(features.get(name))


def _features(table: TableFile, shard: ShardFile, where: str) -> Mapping[str, Any]:
    """Return the features of a file: those in its metadata, or next to it."""
    text = (table.schema.metadata or {}).get(b"huggingface")
    beside = os.path.join(os.path.dirname(shard.path), INFO.encode())
    if text is None and shard.path.endswith(b".arrow") and os.path.isfile(beside):
        return _dict(_json(beside, where).get("features"))
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: features of {printable(shard.name)} are not JSON") from error
    return _dict(_dict(_dict(found).get("info")).get("features"))


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(path: bytes, where: str) -> Mapping[str, Any]:
    """Return the object in a JSON file."""
    reason = "not a JSON object"
    try:
        with open_regular(path) as file:
            found = json.load(file)
    except OSError as error:
        reason, found = error.strerror or str(error), None
    except (ValueError, RecursionError):
        reason, found = "not JSON", None
    if not isinstance(found, dict):
        raise DatasetError(f"{where}: {printable(path)} cannot be read: {reason}; {_SAVE_AGAIN}")
    return found


_SAVE_AGAIN = "save the dataset again with save_to_disk, or copy it again"


def _shards(path: bytes, patterns: PathFilter | None, where: str) -> list[ShardFile]:
    """Return the files of a dataset, in order; those of ``save_to_disk`` as it lists them."""
    if os.path.isfile(os.path.join(path, DICT.encode())):
        names = _json(os.path.join(path, DICT.encode()), where).get("splits")
        if not names or not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise DatasetError(f"{where}: {DICT} has no list of splits; {_SAVE_AGAIN}")
        parts: list[str] = names
    elif os.path.isfile(os.path.join(path, STATE.encode())):
        parts = [""]
    else:
        return find_shards(path, (b".parquet", b".arrow"), patterns)
    refuse_include(patterns, "DATASET lists its files")
    shards = []
    for folder in parts:
        state = os.path.join(path, os.fsencode(folder), STATE.encode())
        files = _json(state, where).get("_data_files")
        for file in files if isinstance(files, list) else ():
            name = os.path.join(folder, os.path.basename(str(_dict(file).get("filename"))))
            full = os.path.join(path, os.fsencode(name))
            if not os.path.isfile(full):
                raise DatasetError(f"{where}: {printable(name)} is missing; {_SAVE_AGAIN}")
            shards.append(ShardFile(full, name, split_of(folder)))
    if not shards:
        raise DatasetError(f"{where} lists no files; {_SAVE_AGAIN}")
    check_splits(where, [(shard.name, shard.split) for shard in shards])
    return shards
