"""Plan every row of a build, before a pixel is decoded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.choices import canonical_json
from batchify.common.tables import MOST_CLASSES, class_table, table
from batchify.common.text import labelled, plural, printable, rows_text, size_text
from batchify.datasets.dataset import PATHS_AT_ONCE, Dataset
from batchify.datasets.ignored import ignored_lines, recorded_ignored
from batchify.errors import BatchifyWarning, Skipped, warning_lines
from batchify.format import schema
from batchify.format.schema import FileLayout
from batchify.options import PROCESS_NBYTES, BuildOptions
from batchify.planning.plan_warnings import plan_warnings
from batchify.planning.split_plan import SplitPlan, file_sizes, split_class_mode, split_plan
from batchify.storage.packed import held_nbytes

_SHOWN = 10
"""How many skipped files are named in text."""


@dataclass(frozen=True, eq=False)
class BuildPlan:
    """The plan of a build: which image goes to which row, and the layout of the file.

    Parameters
    ----------
    decoder : str
        Names and versions of the libraries that decode; recorded in the file.
    skipped : tuple of Skipped
        Files that are skipped so far.
    shard : tuple of int, or None
        (index, count) if the file is one of several of a split; see `batchify.sharding.shards`.
    from_train : tuple of str
        Splits that the dataset lacks, taken from its train split.
    excluded : int
        How many rows are excluded by --exclude-rows.
    """

    dataset: Dataset
    options: BuildOptions
    decoder: str
    splits: tuple[SplitPlan, ...]
    skipped: tuple[Skipped, ...]
    shard: tuple[int, int] | None = None
    from_train: tuple[str, ...] = ()
    excluded: int = 0

    def __repr__(self) -> str:
        return f"<batchify plan of {self.dataset.name}: {rows_text(self.rows)} images>"

    def __str__(self) -> str:
        return self.text()

    def text(self, *, sizes: str = "", shards: Sequence[str] = (), show_all: bool = False) -> str:
        """Return the lines that `batchify build --dry-run` prints.

        Parameters
        ----------
        sizes : str
            The sizes of the images; see `batchify.planning.image_sizes.sizes_text`.
        shards : sequence of str
            The names of the shards that it is cut into.
        show_all : bool
            Show all classes, and how the file is laid out.
        """
        store = self.options.store
        compressed = " before compression" if store.compression != "none" else ""
        most = "at most " if store.is_reencoded else ""
        lines = [
            f"plan of {self.dataset.name}: {rows_text(self.rows)} images, {self.labels_text}",
            "",
            *_planned_classes(self, show_all=show_all),
            *([f"sizes     {sizes}"] if sizes else []),
            f"disk      {most}{size_text(self.nbytes)} ({self.nbytes:,} bytes{compressed})",
            f"memory    at most {size_text(self.memory_nbytes)} per process, and one decoded image",
            *([f"shards    {len(shards):,}: {shards[0]} … {shards[-1]}"] if shards else []),
            *self.left_out_lines(),
            *warning_lines(self.warnings),
        ]
        return "\n".join([*lines, *(_planned_columns(self) if show_all else ())])

    @property
    def labels_text(self) -> str:
        """What the labels are, as text: ``2 classes``, ``no labels``."""
        return labelled(self.options.store.class_mode, len(self.dataset.classes))

    def left_out_lines(self) -> list[str]:
        """Return the lines of a report that say what the file does not have, and why."""
        lines = []
        if self.dataset.entered:
            lines.append(f"  dataset: {printable(self.dataset.entered)}, the only folder in it")
        lines += [
            f"  {split.name}: {plural(len(split), 'image')} taken from train"
            for split in self.splits
            if split.name in self.from_train
        ]
        lines += ignored_lines(self.dataset)
        if self.excluded:
            lines.append(f"  excluded: {plural(self.excluded, 'row')} by --exclude-rows")
        if self.skipped:
            lines.append(f"  skipped: {len(self.skipped):,}")
            lines += [
                f"    - {printable(entry.path)}: {entry.reason}" for entry in self.skipped[:_SHOWN]
            ]
            if len(self.skipped) > _SHOWN:
                more = f"{len(self.skipped) - _SHOWN:,} more (batchify inspect lists them)"
                lines.append(f"    … and {more}")
        return lines

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each split has."""
        return {split.name: len(split) for split in self.splits}

    @property
    def images(self) -> int:
        """Rows of all splits."""
        return sum(map(len, self.splits))

    @property
    def config(self) -> dict[str, Any]:
        """The options as the file records them."""
        annotations = self.dataset.annotations
        config = self.options.config(
            layout=self.dataset.layout, is_split=annotations.is_split, from_train=self.from_train
        )
        config.update(annotations.recorded)
        if self.unlabelled:
            config["unlabelled_splits"] = list(self.unlabelled)
        if self.shard is not None:
            config["shard"], config["shards"] = self.shard
        return config

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """The splits without labels, if other splits have labels."""
        has_labels = self.options.store.class_mode in choices.INDEXED_MODES
        return self.dataset.unlabelled if has_labels else ()

    @property
    def keeps_duplicates_apart(self) -> bool:
        """Whether copies of an image must stay in one split."""
        by_policy = self.dataset.splits is None or bool(self.from_train and self.shard is None)
        return self.options.split.groups_content and by_policy

    def has_classes(self, split: str) -> bool:
        """Return whether a split has labels that are classes."""
        return split_class_mode(split, self.dataset, self.options) in choices.INDEXED_MODES

    def class_counts(self, split: SplitPlan) -> tuple[int, ...] | None:
        """Return the number of rows of each class; None if labels are not classes."""
        if not self.has_classes(split.name):
            return None
        labels = self.dataset.samples.labels[split.rows]
        return tuple(np.bincount(labels, minlength=len(self.dataset.classes)).tolist())

    @property
    def row_nbytes(self) -> int:
        """Bytes of one stored image; the average if files are stored."""
        if self.dataset.samples.sizes is None:
            return self.options.image_nbytes
        nbytes = sum(split.columns[0].shape[0] for split in self.splits)
        return max(1, nbytes // max(1, self.images))

    @property
    def batch_nbytes(self) -> int:
        """Limit for the bytes of a batch's images: decoded, plus the files if they are stored."""
        size, decoded = self.options.batch_size, self.options.batch_nbytes
        if self.options.store.is_reencoded:
            return decoded + size * self.options.slot_nbytes
        if self.dataset.samples.sizes is None:
            return decoded
        return decoded + max(_largest_sum(self.file_sizes(split), size) for split in self.splits)

    @cached_property
    def file_layout(self) -> FileLayout:
        """The layout of the file."""
        return FileLayout(
            self.dataset.classes,
            self.config,
            self.decoder,
            self.options.store,
            self.splits,
            self.skipped,
            recorded_ignored(self.dataset),
        )

    @property
    def nbytes(self) -> int:
        """Exact size of the uncompressed file; less if images are skipped or encoded later."""
        return self.file_layout.nbytes

    @property
    def least_nbytes(self) -> int:
        """Size of the file without images whose encoded size is not known yet."""
        if not self.options.store.is_reencoded:
            return self.nbytes
        return self.encoded(dict.fromkeys(self.rows, 0)).nbytes

    @property
    def memory_nbytes(self) -> int:
        """Upper limit for the memory of a process, without the image that it decodes.

        The process itself, one batch, what a reader of the dataset holds, and the table of images
        of the parent process.
        """
        samples = self.dataset.samples
        table = len(samples.names) + samples.ends.nbytes + samples.labels.nbytes
        table += sum(split.rows.nbytes for split in self.splits)
        if samples.sizes is not None:
            table += samples.sizes.nbytes
        table += self.dataset.annotations.nbytes
        return PROCESS_NBYTES + self.batch_nbytes + held_nbytes(self.dataset.source) + table

    @cached_property
    def row_digests(self) -> dict[str, str]:
        """For each split, the SHA-256, in hex, of its rows' paths and labels in their order.

        It covers the sizes of files if they are stored, since these decide where each file goes.
        Labels that are not classes are part of ``manifest_sha256`` in the config.
        """
        return {split.name: self._row_digest(split) for split in self.splits}

    def _row_digest(self, split: SplitPlan) -> str:
        samples = self.dataset.samples
        digest = hashlib.sha256()
        for start, paths in self.paths(split):
            digest.update(b"\0".join(paths))
            rows = split.rows[start : start + len(paths)]
            digest.update(samples.labels[rows].astype("<i4").tobytes())
            if samples.sizes is not None:
                digest.update(samples.sizes[rows].astype("<i8").tobytes())
        return digest.hexdigest()

    def warned(self, warnings: Iterable[BatchifyWarning]) -> BuildPlan:
        """Return this plan with more warnings."""
        dataset = replace(self.dataset, warnings=(*self.dataset.warnings, *warnings))
        return replace(self, dataset=dataset)

    def paths(self, split: SplitPlan) -> Iterator[tuple[int, list[bytes]]]:
        """Yield (first row, paths) for the rows of a split, some thousand at a time."""
        for start in range(0, len(split), PATHS_AT_ONCE):
            rows = split.rows[start : start + PATHS_AT_ONCE]
            yield start, self.dataset.samples.paths(rows)

    def file_sizes(
        self, split: SplitPlan, start: int = 0, stop: int | None = None
    ) -> NDArray[np.int64]:
        """Return the size of the stored file of each row, or of some rows, shape (n,)."""
        return file_sizes(self.dataset)[split.rows[start:stop]]

    def path(self, name: str, row: int) -> bytes:
        """Return the path of a row of a split."""
        split = next(split for split in self.splits if split.name == name)
        return self.dataset.samples.path(int(split.rows[row]))

    @property
    def classes_digest(self) -> str:
        """The SHA-256, in hex, of the class names in their order."""
        return hashlib.sha256(b"\0".join(self.dataset.classes)).hexdigest()

    @property
    def skipped_digest(self) -> str:
        """The SHA-256, in hex, of the files that are skipped, with their reasons."""
        entries = [[os.fsdecode(entry.path), entry.reason] for entry in self.skipped]
        text = canonical_json(entries).encode("utf-8", "surrogateescape")
        return hashlib.sha256(text).hexdigest()

    @cached_property
    def identity(self) -> str:
        """SHA-256, in hex, of the options, the classes and every row: equal for equal builds."""
        parts = [self.config, self.decoder, self.classes_digest, self.row_digests]
        parts.append(self.skipped_digest)
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()

    @property
    def warnings(self) -> tuple[BatchifyWarning, ...]:
        """Problems that a user should know before training."""
        rows = {split.name: split.rows for split in self.splits}
        return plan_warnings(self.dataset, rows, self.options)

    def encoded(self, nbytes: Mapping[str, int]) -> BuildPlan:
        """Return the plan with the bytes of each split's encoded images, which are known now."""
        splits = tuple(
            replace(split, columns=schema.with_encoded(split.columns, nbytes[split.name]))
            for split in self.splits
        )
        return replace(self, splits=splits)

    def without(self, dropped: Mapping[str, NDArray[np.bool_]], bad: list[Skipped]) -> BuildPlan:
        """Return the plan without some of its rows.

        Parameters
        ----------
        dropped : Mapping of str to ndarray of bool, shape (N,)
            For each split, which of its rows are removed.
        bad : list of Skipped
            Their files, which are listed after those that were skipped before.
        """
        splits = tuple(
            split_plan(split.name, split.rows[~dropped[split.name]], self.dataset, self.options)
            for split in self.splits
        )
        return replace(self, splits=splits, skipped=(*self.skipped, *bad))


def _largest_sum(sizes: NDArray[np.int64], count: int) -> int:
    """Return the largest sum of `count` consecutive sizes."""
    count = min(count, len(sizes))
    ends = np.concatenate([[0], sizes.cumsum()])
    return int((ends[count:] - ends[: len(ends) - count]).max())


def _planned_classes(plan: BuildPlan, *, show_all: bool) -> list[str]:
    """Return lines with the images of each class and split, if labels are classes."""
    found = {split.name: plan.class_counts(split) for split in plan.splits}
    counts = {name: of_split for name, of_split in found.items() if of_split is not None}
    if not counts:
        return []
    lines = [class_table("class", plan.dataset.classes, counts, show_all=show_all)]
    if len(plan.dataset.classes) > MOST_CLASSES and not show_all:
        lines.append("  (--verbose shows all classes)")
    return [*lines, ""]


def _planned_columns(plan: BuildPlan) -> list[str]:
    """Return lines with the columns of the file, and its identity."""
    rows = [["split", "column", "shape", "dtype"]]
    for split in plan.splits:
        for column in split.columns:
            shape = "×".join(map(str, column.shape))
            rows.append([split.name, column.name, shape, column.dtype.lstrip("<|")])
    return ["", table(rows), "", f"identity  {plan.identity}"]
