"""Summarize a file: its rows, classes, labels, channels and options."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from batchify import choices
from batchify.common.paths import local_path, shown
from batchify.datasets.discovery import holds_shards
from batchify.decoding.fidelity import Fidelity, fidelity_of
from batchify.format.class_labels import class_counts
from batchify.format.reader import Reader, open_shards
from batchify.loading.columns import KeptColumns, kept_kinds
from batchify.loading.shards import open_copy, open_folder
from batchify.loading.statistics import joined_statistics
from batchify.reporting.contents import SplitSummary, Summary, ValueStats


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


def summarize(path: str | os.PathLike[str]) -> Summary:
    """Return what a file contains, or a folder of shards as if it were one file.

    At a URL, all but the images is read.

    Parameters
    ----------
    path : path or URL

    Returns
    -------
    Summary

    Raises
    ------
    FileMissingError, FileFormatError
        As `batchify.format.reader.Reader`.
    FileAccessError, RemoteError
        If a store refuses to hand it over, or does not answer.

    Notes
    -----
    Memory: some thousand rows of the small columns; images are not read.
    """
    if not holds_shards(path):
        with open_copy(path) as copy, Reader(copy).finished() as reader:
            return summary_of(reader)
    with open_folder(path) as (index, shards):
        summaries = [summary_of(reader) for _, reader in open_shards(shards, index)]
    return Summary(
        path=shown(local_path(path)),
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
    rows = [part.rows for part in parts]
    mean, std = joined_statistics(rows, [(np.array(p.mean), np.array(p.std)) for p in parts])
    found = [part.class_counts for part in parts if part.class_counts is not None]
    counts = tuple(np.sum(found, axis=0).tolist()) if found else None
    weights = joined_stats([(p.rows, None if p.weights is None else (p.weights,)) for p in parts])
    return replace(
        parts[0],
        rows=sum(rows),
        nbytes=sum(part.nbytes for part in parts),
        class_counts=counts,
        flags=dict(flags),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        labels=joined_stats([(part.rows, part.labels) for part in parts]),
        fidelity=None
        if parts[0].fidelity is None
        else sum((part.fidelity or Fidelity() for part in parts), start=Fidelity()),
        weights=None if weights is None else weights[0],
    )


def summary_of(reader: Reader) -> Summary:
    """Return what an open file contains."""
    header, columns = reader.header, next(iter(reader.splits.values()))
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
        columns=kept_kinds(KeptColumns({name: [columns[name]] for name in reader.kept})),
    )


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
        store=reader.store,
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
        fidelity=fidelity_of(reader.column(name, "psnr")) if "psnr" in columns else None,
    )
