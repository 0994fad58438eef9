"""What a file contains: its splits, classes, labels and options, as values, text and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchify import choices
from batchify._version import JSON_VERSION
from batchify.common.tables import MOST_CLASSES, class_table, table
from batchify.common.text import counts_text, plural, printable, rows_text, size_text
from batchify.decoding.fidelity import Fidelity
from batchify.decoding.losses import flags_text
from batchify.errors import Skipped
from batchify.format.config import build_command, rescale_text, shown_options
from batchify.image_options import QUALITY

_SHOWN = 20
"""How many skipped files are listed."""

_COMMAND_LENGTH = 1000
"""A longer command is cut."""


@dataclass(frozen=True, slots=True)
class ValueStats:
    """The statistics of a column of numbers.

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
        """The numbers, as text."""
        return f"{self.low:.6g} to {self.high:.6g}, mean {self.mean:.6g}"

    def as_json(self) -> dict[str, Any]:
        """Return the numbers as plain JSON values; null if one is not finite."""
        found = {"min": self.low, "mean": self.mean, "max": self.high}
        return {name: value if math.isfinite(value) else None for name, value in found.items()}


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
    fidelity : Fidelity, or None
        What its images lost, if they are encoded again with loss.
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
    fidelity: Fidelity | None = None


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

    def __str__(self) -> str:
        return self.text()

    def text(self, *, show_all: bool = False) -> str:
        """Return the lines that `batchify inspect` prints; `show_all` is its ``--all``."""
        parts = [
            f"{printable(self.path)}: batchify schema {self.schema_version}, "
            f"{size_text(self.nbytes)}",
            _splits(self),
            _channels(self),
            _labels(self, show_all=show_all),
            _options(self, show_all=show_all),
        ]
        if self.columns:
            kept = ", ".join(f"{printable(name)} ({kind})" for name, kind in self.columns.items())
            parts.append(f"further columns: {kept}")
        if special := _sources(self):
            parts.append(special)
        if self.ignored:
            kinds = counts_text(self.ignored, len(self.ignored))
            parts.append(f"ignored because of their ending: {kinds}")
        if self.skipped:
            lines = [
                f"  - {printable(entry.path)}: {printable(entry.reason)}"
                for entry in self.skipped[:_SHOWN]
            ]
            if len(self.skipped) > _SHOWN:
                lines.append(f"  … and {len(self.skipped) - _SHOWN:,} more (--json lists all)")
            parts.append("\n".join([f"skipped: {len(self.skipped):,}", *lines]))
        return "\n\n".join(parts)

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
                    **({"psnr": split.fidelity.as_json()} if split.fidelity else {}),
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


_FORMS = {
    "encoded": "the files as they are", "jpeg": "JPEG images", "webp": "WebP images",
    "png": "PNG images",
}  # fmt: skip


def _splits(summary: Summary) -> str:
    rows = [["split", "rows", "images", "dtype", "bytes", "chunks"]]
    for split in summary.splits:
        shape = "×".join(map(str, split.image_shape))
        many = "1 image" if split.chunk_rows == 1 else f"{split.chunk_rows or 0:,} images"
        if split.chunk_rows is None:
            many = _FORMS[split.store]
        rows.append(
            [split.name, f"{split.rows:,}", shape, split.dtype, size_text(split.nbytes), many]
        )
    return table(rows, right=(1, 4))


def _channels(summary: Summary) -> str:
    rows = [["channels", "mean", "standard deviation"]]
    for split in summary.splits:
        if split.rows:
            both = (split.mean, split.std)
            values = [", ".join(f"{value:#.4g}" for value in each) for each in both]
            rows.append([split.name, *values])
    return table(rows) + f"\nof {printable(rescale_text(summary.config))}"


def _options(summary: Summary, *, show_all: bool) -> str:
    compression = summary.config.get("compression")
    lines = [f"built by {printable(summary.creator)} with {printable(summary.decoder)}"]
    if not show_all:
        command = printable(build_command(summary.config, skipped=bool(summary.skipped)))
        cut = command[:_COMMAND_LENGTH] + "…" if len(command) > _COMMAND_LENGTH else command
        lines.append(f"  {cut}")
    for name, value in shown_options(summary.config) if show_all else ():
        if name == "target_size" and isinstance(value, list):
            value = "x".join(map(str, value))
        elif isinstance(value, list):
            value = ",".join(map(str, value)) or "-"
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        lines.append(f"  {printable(name).replace('_', '-'):18} {printable(str(value))}")
    if any(split.store == "encoded" for split in summary.splits):
        lines.append("encoded: image files, decoded when they are read")
    elif any(split.store in choices.REENCODED_STORES for split in summary.splits):
        lines += _fidelity_lines(summary)
    elif compression == "none":
        lines.append("uncompressed: rows are slices of the file")
    return "\n".join(lines)


def _fidelity_lines(summary: Summary) -> list[str]:
    """Return lines that say what images that were encoded again have lost."""
    store = summary.splits[0].store
    most = summary.config.get("max_side")
    size = "of the target size" if most is None else f"with sides of at most {printable(str(most))}"
    lossy = store in choices.LOSSY_STORES
    quality = f", quality {summary.config.get('quality', QUALITY)}" if lossy else ""
    lines = [f"{store}{printable(quality)}: images {size}, decoded when they are read"]
    lines += [
        f"  {split.name:12}{split.fidelity.text(split.rows)}"
        for split in summary.splits
        if split.fidelity is not None and split.rows
    ]
    return lines if lossy else [f"{lines[0]}; nothing is lost"]


def _sources(summary: Summary) -> str:
    totals: dict[str, int] = {}
    for split in summary.splits:
        for name, count in split.flags.items():
            totals[name] = totals.get(name, 0) + count
    return flags_text(totals)


def _labels(summary: Summary, *, show_all: bool) -> str:
    """Return the classes with their balance, or the labels that are not classes."""
    counted = [split for split in summary.splits if split.class_counts is not None]
    mode = summary.config["class_mode"]
    is_cut = len(summary.classes) > MOST_CLASSES and not show_all
    hint = " (--all shows all)" if is_cut else ""
    if counted:
        counts = {split.name: list(split.class_counts or ()) for split in counted}
        head = f"classes: {len(summary.classes):,}{hint}"
        text = head + "\n" + class_table("class", summary.classes, counts, show_all=show_all)
        for split in summary.splits:
            if split.class_counts is None:
                text += f"\n{split.name}: {plural(split.rows, 'image')} without labels"
    elif mode in ("none", *choices.INDEXED_MODES):
        text = f"classes: {len(summary.classes):,} (no labels are stored)"
    elif mode == "mask":
        text = f"labels: masks (column {printable(summary.classes[0])})"
    elif mode == "multilabel":
        counts = {
            split.name: [stats.positives for stats in split.labels or ()]
            for split in summary.splits
        }
        text = f"labels: {len(summary.classes):,}, each 0 or 1; how many are 1{hint}\n"
        text += class_table("label", summary.classes, counts, show_all=show_all)
    else:
        text = "labels: numbers, from least to largest and their mean\n"
        text += _ranges(summary, show_all=show_all)
    weighted = [f"  {split.name:12}{split.weights.range_text}" for split in summary.splits
                if split.weights is not None]  # fmt: skip
    return "\n".join([text, "weights:", *weighted]) if weighted else text


def _ranges(summary: Summary, *, show_all: bool) -> str:
    rows = [["", "label", *(split.name for split in summary.splits)]]
    shown = summary.classes if show_all else summary.classes[:MOST_CLASSES]
    for index, name in enumerate(shown):
        ranges = [split.labels[index].range_text for split in summary.splits if split.labels]
        rows.append([f"  {index}", printable(name), *ranges])
    more = len(summary.classes) - len(shown)
    return table(rows, right=(0,)) + (f"\n  … and {more:,} more (--all)" if more else "")
