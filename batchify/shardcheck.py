"""Shards of one build: held against each other and their list, before they are put together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from batchify import schema
from batchify.blueprint import Blueprint, SplitShape
from batchify.errors import FileFormatError, FileMissingError, Skipped
from batchify.names import printable
from batchify.reader import Reader
from batchify.recorded import recorded_options
from batchify.shardindex import NAME, ShardIndex, ShardPath, shard_name

OTHER = "it is of another build than the list"


def is_listed(reader: Reader, name: str, index: ShardIndex) -> bool:
    """Tell whether a file is the shard of that name, of the build that the list is of."""
    header, splits = reader.header, list(reader.splits)
    split = splits[0]
    count = len(index.splits.get(split, ()))
    number = dict(header.config).get("shard")
    return (
        isinstance(number, int)
        and len(splits) == 1
        and name == shard_name(split, number, count)
        and dict(header.config) == {**index.config, "shard": number, "shards": count}
        and header.classes == index.classes
        and (header.creator, header.decoder) == (index.creator, index.decoder)
    )


def list_faults(folder: bytes, index: ShardIndex) -> Iterator[tuple[str, str]]:
    """Yield what a list says that is not so, and the file that it is said of.

    Rows and digests are held against each other where the shards are verified; a shard that cannot
    be read says so there.
    """
    skipped, is_whole = 0, True
    for file in index.files:
        path = os.path.join(folder, os.fsencode(file.name))
        try:
            with Reader(path) as reader:
                if reader.digest.hex() == file.digest:
                    if not is_listed(reader, file.name, index):
                        yield file.name, OTHER
                    if os.path.getsize(path) != file.nbytes:
                        yield file.name, "its size is not that of the list"
                skipped += len(reader.skipped())
        except (FileFormatError, FileMissingError):
            is_whole = False
    with open(os.path.join(folder, NAME), "rb") as found:
        is_same = found.read() == index.text()
    if not is_same or (is_whole and skipped != index.skipped):
        yield os.fsdecode(NAME), "it is not as it was written"


def merged_blueprint(shards: list[ShardPath], index: ShardIndex) -> Blueprint:
    """Return what the one file of all shards will be.

    Raises
    ------
    FileFormatError
        If a shard is not one of the build that `index` is of.
    """
    if index.creator != schema.CREATOR:
        raise FileFormatError(
            f"the shards were made by {printable(index.creator)}, this is {schema.CREATOR}: build "
            "them again, or put them together with that version"
        )
    columns: dict[str, tuple[schema.Column, ...]] = {}
    lengths: Counter[tuple[str, str]] = Counter()
    skipped: list[Skipped] = []
    for shard in shards:
        with Reader(shard.path) as reader:
            if not is_listed(reader, shard.file.name, index):
                raise shard.damaged(OTHER)
            found = _columns(reader, shard.split)
            if (count := reader.rows(shard.split)) != shard.file.rows:
                raise shard.damaged(f"it has {count:,} rows, not {shard.file.rows:,}")
            skipped += reader.skipped()
        if _kinds(columns.setdefault(shard.split, found)) != _kinds(found):
            raise shard.damaged("its columns are of other types")
        for column in found:
            lengths[shard.split, column.name] += column.shape[0]
    return Blueprint(
        classes=index.classes,
        config=index.config,
        decoder=index.decoder,
        store=recorded_options(index.config).store,
        splits=tuple(
            SplitShape(
                name, tuple(_of_length(column, lengths[name, column.name]) for column in found)
            )
            for name, found in columns.items()
        ),
        skipped=tuple(skipped),
    )


def _columns(reader: Reader, split: str) -> tuple[schema.Column, ...]:
    return tuple(
        schema.Column(
            name,
            dataset.shape,
            f"S{dataset.dtype.itemsize}" if dataset.dtype.kind == "S" else dataset.dtype.str,
            dataset.dtype.itemsize,
        )
        for name, dataset in reader.splits[split].items()
    )


def _kinds(columns: tuple[schema.Column, ...]) -> list[tuple[Any, ...]]:
    return [(column.name, column.shape[1:], column.dtype) for column in columns]


def _of_length(column: schema.Column, length: int) -> schema.Column:
    return schema.Column(column.name, (length, *column.shape[1:]), column.dtype, column.itemsize)
