"""Shards of one build: held against each other and their list, before they are put together."""

from __future__ import annotations

from collections import Counter
from typing import Any

from batchify import schema
from batchify.blueprint import Blueprint, SplitShape
from batchify.errors import FileFormatError, Skipped
from batchify.names import printable
from batchify.reader import Reader
from batchify.recorded import recorded_options
from batchify.shardindex import ShardIndex, ShardPath


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
    places: Counter[str] = Counter()
    for shard in shards:
        with Reader(shard.path) as reader:
            header = reader.header
            expected = {
                **index.config,
                "shard": places[shard.split],
                "shards": len(index.splits[shard.split]),
            }
            if (
                dict(header.config) != expected
                or header.classes != index.classes
                or (header.creator, header.decoder) != (index.creator, index.decoder)
                or list(reader.splits) != [shard.split]
            ):
                raise shard.damaged("it is of another build")
            found = _columns(reader, shard.split)
            if (count := reader.rows(shard.split)) != shard.file.rows:
                raise shard.damaged(f"it has {count:,} rows, not {shard.file.rows:,}")
            skipped += reader.skipped()
        if _kinds(columns.setdefault(shard.split, found)) != _kinds(found):
            raise shard.damaged("its columns are of other types")
        for column in found:
            lengths[shard.split, column.name] += column.shape[0]
        places[shard.split] += 1
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
