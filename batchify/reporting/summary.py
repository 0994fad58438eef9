"""Summarize a file: its rows, classes, labels, channels and options."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from batchify import choices
from batchify._version import JSON_VERSION
from batchify.common.paths import local_path
from batchify.common.text import printable, rows_text
from batchify.errors import Skipped
from batchify.format.reader import Reader, class_counts, open_shards
from batchify.format.shard_index import is_shard_folder, read_index, shard_paths
from batchify.storage.transfer import local_copy


@dataclass(frozen=True, slots=True)
class ValueStats:
    """What one column of numbers holds.

    Parameters
    ----------
    low, high, mean : float
        NaN if there are no rows.
    positives : int
        How many are 1.
    """

    low: float
    high: float
    mean: float
    positives: int

    @property
    def range_text(self) -> str:
        """The numbers, for people."""
        return f"{self.low:.6g} to {self.high:.6g}, mean {self.mean:.6g}"

    def as_json(self) -> dict[str, Any]:
        """Return the numbers as plain JSON values; null if one is not finite."""
        found = {"min": self.low, "mean": self.mean, "max": self.high}
        return {name: value if math.isfinite(value) else None for name, value in found.items()}


def value_stats(reader: Reader, split: str, column: str) -> tuple[ValueStats, ...]:
    """Return the statistics of each number that a column has per row, reading it in pieces."""
    shape = reader.splits[split][column].shape
    width = shape[1] if len(shape) > 1 else 1
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    total, positives = np.zeros(width), np.zeros(width, np.int64)
    for piece in reader.pieces(split, column):
        rows = piece.reshape(len(piece), width).astype(np.float64)
        low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
        total += rows.sum(axis=0)
        positives += (rows == 1).sum(axis=0)
    if not shape[0]:
        return (ValueStats(math.nan, math.nan, math.nan, 0),) * width
    columns = zip(low, high, total / shape[0], positives, strict=True)
    return tuple(ValueStats(float(a), float(b), float(c), int(d)) for a, b, c, d in columns)


def joined_stats(
    parts: Sequence[tuple[int, tuple[ValueStats, ...] | None]],
) -> tuple[ValueStats, ...] | None:
    """Join the statistics of a split's columns, given rows and statistics in each of its files.

    None if the split has no such columns.
    """
    filled = [(rows, stats) for rows, stats in parts if stats is not None and rows]
    if not filled:
        return parts[0][1]
    total = sum(rows for rows, _ in filled)
    return tuple(
        ValueStats(
            min(stats[i].low for _, stats in filled),
            max(stats[i].high for _, stats in filled),
            sum(rows * stats[i].mean for rows, stats in filled) / total,
            sum(stats[i].positives for _, stats in filled),
        )
        for i in range(len(filled[0][1]))
    )


@dataclass(frozen=True)
class SplitSummary:
    """One split of a file.

    Parameters
    ----------
    store : str
        See `batchify.choices`.
    image_shape : tuple of int
        (H, W, C) of its images as they are read.
    nbytes : int
        Bytes that its images take in the file.
    chunk_rows : int or None
        Images per chunk; None if encoded files are stored.
    class_counts : tuple of int, or None
        Rows of each class; None if labels are not classes.
    flags : Mapping of str to int
        How many of its image files were special, by `choices.FLAGS`.
    mean, std : tuple of float
        Mean and deviation of each channel, rescaled; NaN if there are no rows.
    labels : tuple of ValueStats, or None
        Statistics of each label column, if labels are numbers.
    weights : ValueStats, or None
        None if rows have no weights.
    """

    name: str
    rows: int
    store: str
    image_shape: tuple[int, ...]
    dtype: str
    nbytes: int
    chunk_rows: int | None
    class_counts: tuple[int, ...] | None
    flags: Mapping[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: tuple[ValueStats, ...] | None = None
    weights: ValueStats | None = None


@dataclass(frozen=True)
class Summary:
    """What a file contains.

    Parameters
    ----------
    path : bytes
    nbytes : int
        Size of the file.
    schema_version : int
    creator, decoder : str
        The programs that made it, with versions.
    classes : tuple of bytes
    config : Mapping
        The options that it was built with.
    splits : tuple of SplitSummary
    skipped : tuple of Skipped
    ignored : Mapping of str to int
        How many files were ignored because of their ending, by ending.
    columns : Mapping of str to str
        The further columns of a manifest, each with its kind: int64, float64, bool or text.
    """

    path: bytes
    nbytes: int
    schema_version: int
    creator: str
    decoder: str
    classes: tuple[bytes, ...]
    config: Mapping[str, Any]
    splits: tuple[SplitSummary, ...]
    skipped: tuple[Skipped, ...]
    ignored: Mapping[str, int]
    columns: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        rows = rows_text({split.name: split.rows for split in self.splits})
        return f"<batchify summary of {printable(self.path)}: {rows} images>"

    def as_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values; see the page `json` of the documentation."""
        classes = [printable(name) for name in self.classes]
        return {
            "json_version": JSON_VERSION,
            "path": printable(self.path),
            "bytes": self.nbytes,
            "schema_version": self.schema_version,
            "creator": self.creator,
            "decoder": self.decoder,
            "classes": classes,
            "config": dict(self.config),
            "columns": {printable(name): kind for name, kind in self.columns.items()},
            "splits": {
                split.name: {
                    "rows": split.rows,
                    "store": split.store,
                    "shape": [split.rows, *split.image_shape],
                    "dtype": split.dtype,
                    "bytes": split.nbytes,
                    "chunk_rows": split.chunk_rows,
                    "class_counts": None
                    if split.class_counts is None
                    else list(split.class_counts),
                    "sources": dict(split.flags),
                    "mean": list(split.mean) if split.rows else None,
                    "std": list(split.std) if split.rows else None,
                    "labels": self._labels_json(split),
                    "weights": None if split.weights is None else split.weights.as_json(),
                }
                for split in self.splits
            },
            "skipped": [
                {"path": printable(entry.path), "reason": entry.reason} for entry in self.skipped
            ],
            "ignored": {printable(ending): count for ending, count in self.ignored.items()},
        }

    def _labels_json(self, split: SplitSummary) -> list[dict[str, Any]] | None:
        if split.labels is None:
            return None
        counted = self.config.get("class_mode") == "multilabel"
        return [
            {"name": printable(name)}
            | ({"positives": stats.positives} if counted else stats.as_json())
            for name, stats in zip(self.classes, split.labels, strict=True)
        ]


def summarize(path: str | os.PathLike[str]) -> Summary:
    """Return what a file contains, or a folder of shards as if it were one file.

    A file at a URL is copied first.

    Raises
    ------
    FileMissingError, FileFormatError
        As `batchify.format.reader.Reader`.

    Notes
    -----
    Memory: some thousand rows of the small columns; images are not read.
    """
    folder = os.fsencode(local_path(path))
    if not is_shard_folder(folder):
        with local_copy(path) as copy, Reader(copy) as reader:
            return summary_of(reader)
    index = read_index(folder)
    shards = open_shards(shard_paths(folder, index), index)
    summaries = [summary_of(reader) for _, reader in shards]
    return Summary(
        path=folder,
        nbytes=sum(summary.nbytes for summary in summaries),
        schema_version=summaries[0].schema_version,
        creator=index.creator,
        decoder=index.decoder,
        classes=index.classes,
        config=index.config,
        splits=tuple(
            _joined([summary.splits[0] for summary in summaries if summary.splits[0].name == name])
            for name in index.splits
        ),
        skipped=tuple(entry for summary in summaries for entry in summary.skipped),
        ignored=summaries[0].ignored,
        columns=summaries[0].columns,
    )


def _joined(parts: Sequence[SplitSummary]) -> SplitSummary:
    """Join the summaries of a split that is in several files."""
    flags = Counter[str]()
    for part in parts:
        flags.update(part.flags)
    rows = np.array([part.rows for part in parts])
    total = max(1, rows.sum())
    weights = (rows[rows > 0] / total)[:, np.newaxis]
    means = np.array([part.mean for part in parts])[rows > 0]
    squares = np.array([part.std for part in parts])[rows > 0] ** 2 + means**2
    mean = (weights * means).sum(0) if len(means) else np.array(parts[0].mean)
    std = np.sqrt(np.maximum((weights * squares).sum(0) - mean**2, 0)) if len(means) else mean
    found = [part.class_counts for part in parts if part.class_counts is not None]
    counts = tuple(np.sum(found, axis=0).tolist()) if found else None
    return replace(
        parts[0],
        rows=int(rows.sum()),
        nbytes=sum(part.nbytes for part in parts),
        class_counts=counts,
        flags=dict(flags),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        labels=joined_stats([(part.rows, part.labels) for part in parts]),
        weights=_first(joined_stats([(part.rows, _single(part.weights)) for part in parts])),
    )


def _single(stats: ValueStats | None) -> tuple[ValueStats, ...] | None:
    return None if stats is None else (stats,)


def _first(stats: tuple[ValueStats, ...] | None) -> ValueStats | None:
    return None if stats is None else stats[0]


def summary_of(reader: Reader) -> Summary:
    """Return what an open file contains."""
    header = reader.header
    return Summary(
        path=reader.shown,
        nbytes=reader.nbytes,
        schema_version=header.schema_version,
        creator=header.creator,
        decoder=header.decoder,
        classes=header.classes,
        config=header.config,
        splits=tuple(_split_summary(reader, name) for name in reader.splits),
        skipped=reader.skipped(),
        ignored=header.ignored,
        columns=_kept_kinds(reader),
    )


def _kept_kinds(reader: Reader) -> dict[str, str]:
    split = next(iter(reader.splits.values()))
    kinds = {name: split[name].dtype for name in reader.kept}
    return {name: "text" if kind.kind == "S" else kind.name for name, kind in kinds.items()}


def _split_summary(reader: Reader, name: str) -> SplitSummary:
    columns = reader.splits[name]
    images = columns["encoded" if reader.is_encoded else "images"]
    flags = dict.fromkeys(choices.FLAGS, 0)
    counts = class_counts(reader, name)
    mean, std = reader.channel_statistics(name)
    has_values = reader.header.config["class_mode"] in ("multilabel", "regression")
    for piece in reader.pieces(name, "source_flags"):
        for flag in flags:
            flags[flag] += int(np.count_nonzero(piece & choices.flag_bit(flag)))
    return SplitSummary(
        name=name,
        rows=reader.rows(name),
        store="encoded" if reader.is_encoded else "decoded",
        image_shape=reader.image_shape,
        dtype=reader.image_dtype.name,
        nbytes=images.id.get_storage_size(),
        chunk_rows=None if reader.is_encoded else images.chunks[0],
        class_counts=None if counts is None else tuple(counts.tolist()),
        flags=flags,
        mean=mean,
        std=std,
        labels=value_stats(reader, name, "labels") if has_values else None,
        weights=value_stats(reader, name, "weights")[0] if "weights" in columns else None,
    )
