"""Collect the facts that checks need: sizes, flags, labels and hashes of all images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.building.jobs import RedecodeJob, count_tasks, fill_tasks
from batchify.checking.findings import Finding, Found
from batchify.checking.repeats import RepeatCounts, count_repeats
from batchify.common.progress import Progress, ProgressCallback
from batchify.dataset_options import DiscoverOptions
from batchify.datasets.ignored import is_image_ending
from batchify.decoding.appearance import NOT_MEASURED, appearance_columns
from batchify.decoding.damage import NO_DAMAGE_NOTE, finds_damage
from batchify.decoding.fidelity import SAME
from batchify.errors import BatchifyWarning, Skipped
from batchify.format.class_labels import class_indices, has_classes
from batchify.format.config import image_shape, recorded_choice, recorded_options
from batchify.format.reader import Reader, open_shards
from batchify.format.shard_index import ShardIndex, ShardPath
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.planning.duplicates import Repeated, find_repeats, stored_digests
from batchify.planning.plan import BuildPlan
from batchify.planning.split_plan import SplitPlan
from batchify.workers import engine

_AT_ONCE = 4096
_OPTIONS = {"color_mode": choices.COLOR_MODES, "fit": choices.FITS, "exif": choices.EXIFS}


@dataclass(frozen=True, eq=False)
class SplitFacts:
    """The facts about the rows of a split.

    Parameters
    ----------
    labels : ndarray of int32, shape (n,), or None
        Class indices; None if labels are not classes.
    digests : ndarray of uint8, shape (n, 32)
        SHA-256 of each image file; zeros if it failed.
    sizes : ndarray of int32, shape (n, 2)
        Height and width of each image file.
    flags : ndarray of uint16, shape (n,)
        See `choices.FLAGS`.
    paths : callable
        Yields (first row, paths), some thousand at a time, for the rows of a range.
    psnr : ndarray of float32, shape (n,), or None
        What each image lost when it was encoded again; None if no image was, or with no loss.
    appearance : dict of str to ndarray, shape (n,)
        The columns of `batchify.decoding.appearance`; none if they are not stored or measured.
    """

    labels: NDArray[np.int32] | None
    digests: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    flags: NDArray[np.uint16]
    paths: Callable[[int, int], Iterator[tuple[int, list[bytes]]]]
    psnr: NDArray[np.float32] | None = None
    appearance: dict[str, NDArray[Any]] = field(default_factory=dict)

    def path(self, row: int) -> bytes:
        """Return the path of one row."""
        return next(self.paths(row, row + 1))[1][0]

    def size_text(self, row: int) -> str:
        """Return the size of the image file of one row, as text."""
        return "{}×{} pixels".format(*self.sizes[row].tolist())


@dataclass(frozen=True, eq=False)
class Facts:
    """The facts about a dataset, or about a file.

    Parameters
    ----------
    classes : tuple of bytes
        Empty if labels are not classes.
    image_shape : tuple of int
        (H, W, C) of the stored images.
    decode, store
        The options that decide what happens to pixels.
    unreadable, damaged : dict of str to list of (int, str)
        For each split, the rows that failed, and those whose image is damaged but decodes, and why;
        a file has none.
    ignored : Mapping of str to int
        How many files that look like images were ignored because of their ending, by ending.
    discover : DiscoverOptions
        The options that decide which files are images.
    warnings : tuple of BatchifyWarning
        Warnings of the dataset; a file has none.
    linked : tuple of bytes
        Class folders that are links out of the dataset; a file has none.
    has_splits : bool
        The dataset itself says which image is in which split: its folders, or its manifest.
    notes : tuple of str
        What was not looked for, and why.
    near : dict of int to Repeated
        Images that look alike, by the distance that was asked for; see `checking.near`.
    """

    classes: tuple[bytes, ...]
    image_shape: tuple[int, int, int]
    decode: DecodeOptions
    store: StoreOptions
    splits: dict[str, SplitFacts]
    skipped: tuple[Skipped, ...]
    unreadable: dict[str, list[tuple[int, str]]]
    ignored: Mapping[str, int]
    discover: DiscoverOptions
    warnings: tuple[BatchifyWarning, ...] = ()
    linked: tuple[bytes, ...] = ()
    has_splits: bool = False
    damaged: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    near: dict[int, Repeated] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Rows of all splits."""
        return sum(len(split.flags) for split in self.splits.values())

    @property
    def labels(self) -> dict[str, NDArray[np.int32]]:
        """The class of each row of the splits, if labels are classes."""
        return {
            name: split.labels for name, split in self.splits.items() if split.labels is not None
        }

    @cached_property
    def repeats(self) -> Repeated:
        """The images that several rows have."""
        return find_repeats({name: split.digests for name, split in self.splits.items()})

    @cached_property
    def repeat_counts(self) -> RepeatCounts:
        """The number of `repeats`, by split and by class."""
        return count_repeats(self.repeats, self.labels)

    @cached_property
    def class_counts(self) -> dict[str, NDArray[np.int64]]:
        """The number of readable images per class, by split; empty if labels are not classes."""
        bad = {name: [row for row, _ in self.unreadable.get(name, ())] for name in self.splits}
        return {
            name: np.bincount(np.delete(labels, bad[name]), minlength=len(self.classes))
            for name, labels in self.labels.items()
        }

    @cached_property
    def class_totals(self) -> NDArray[np.int64]:
        """The number of images of each class in all splits."""
        counts = list(self.class_counts.values())
        return np.sum(counts, axis=0) if counts else np.zeros(0, np.int64)

    def class_of(self, split: str, row: int) -> int | None:
        """Return the class of a row; None if labels are not classes."""
        labels = self.splits[split].labels
        return None if labels is None else int(labels[row])

    def finding(self, message: str, location: tuple[str, int]) -> Finding:
        """Return a finding about the image of a split's row."""
        split, row = location
        return Finding("", message, split, row, self.splits[split].path(row))

    def found(
        self,
        marked: Mapping[str, NDArray[np.bool_]],
        problem: str,
        describe: Callable[[str, int], str],
        worst: Mapping[str, NDArray[np.floating]] | None = None,
    ) -> Iterator[Found]:
        """Yield the marked rows as one problem, if there are any.

        Parameters
        ----------
        marked : Mapping of str to ndarray of bool, shape (n,)
            By split.
        describe : callable
            Returns the message of an example, for its split and row.
        worst : Mapping of str to ndarray, shape (n,), optional
            Examples with the lowest number come first; by default, those of the first rows.
        """
        rows = {name: np.flatnonzero(mask) for name, mask in marked.items() if mask.any()}
        if not rows:
            return

        names, numbers = list(rows), np.concatenate(list(rows.values()))
        splits = np.repeat(np.arange(len(rows)), [len(each) for each in rows.values()])

        def examples() -> Iterator[Finding]:
            order = np.arange(len(numbers))
            if worst is not None:
                badness = np.concatenate([worst[name][each] for name, each in rows.items()])
                order = np.argsort(badness, kind="stable")
            for i in order:
                name, row = names[splits[i]], int(numbers[i])
                yield self.finding(describe(name, row), (name, row))

        message = f"{len(numbers):,} of {self.images:,} images {problem}"
        yield Found(message, len(numbers), examples(), lambda: rows)


def stored_facts(reader: Reader) -> Facts:
    """Return the facts that a file records.

    Notes
    -----
    Memory: 60 bytes per row.
    """
    config = reader.header.config
    digests = stored_digests(reader)
    height, width, channels = image_shape(config)
    with reader.refusing():
        for name, allowed in _OPTIONS.items():
            recorded_choice(config, name, allowed)
        options = recorded_options(config)
    return Facts(
        classes=_classes(reader.header.classes, reader.header.config["class_mode"]),
        image_shape=(height, width, channels),
        decode=options.decode,
        store=options.store,
        splits={split: _stored_split(reader, split, digests[split]) for split in reader.splits},
        skipped=reader.skipped(),
        unreadable={},
        ignored={end: n for end, n in reader.header.ignored.items() if is_image_ending(end)},
        discover=options.discover,
        has_splits="split" not in config,
    )


def _stored_split(reader: Reader, split: str, digests: NDArray[np.uint8]) -> SplitFacts:
    sizes, flags = reader.column(split, "source_size"), reader.column(split, "source_flags")
    labels = class_indices(reader, split) if has_classes(reader, split) else None
    psnr = reader.column(split, "psnr") if "psnr" in reader.splits[split] else None
    appearance = choices.APPEARANCE if reader.has_appearance else ()
    return SplitFacts(
        labels, digests, sizes, flags, partial(_stored_paths, reader, split), psnr,
        {name: reader.column(split, name) for name in appearance},
    )  # fmt: skip


def _stored_paths(
    reader: Reader, split: str, start: int, stop: int
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (first row, paths) of some rows of a file, some thousand at a time."""
    stored = reader.splits[split]["paths"]
    for first in range(start, stop, _AT_ONCE):
        with reader.refusing():
            paths = stored[first : min(first + _AT_ONCE, stop)].tolist()
        yield first, paths


def shard_facts(index: ShardIndex, shards: Iterable[ShardPath]) -> Facts:
    """Return the facts that the shards of a folder record, as if they were one file.

    Notes
    -----
    Memory: 60 bytes per row.
    """
    parts: dict[str, list[SplitFacts]] = {split: [] for split in index.splits}
    skipped: list[Skipped] = []
    for shard, reader in open_shards(shards, index):
        found = stored_facts(reader)
        skipped += found.skipped
        part = found.splits[shard.split]
        parts[shard.split].append(replace(part, paths=partial(_shard_paths, shard)))
    splits = {split: _joined(each) for split, each in parts.items()}
    return replace(found, splits=splits, skipped=tuple(skipped))


def _shard_paths(shard: ShardPath, start: int, stop: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the paths of some rows of a shard.

    It is opened each time, since a folder may have more shards than files may be open.
    """
    with shard.here() as path, Reader(path) as reader:
        yield from _stored_paths(reader, shard.split, start, stop)


def _joined(parts: Sequence[SplitFacts]) -> SplitFacts:
    """Return the facts about a split that is in several files."""
    ends = np.cumsum([len(part.flags) for part in parts])

    def paths(start: int, stop: int) -> Iterator[tuple[int, list[bytes]]]:
        for part, end in zip(parts, ends.tolist(), strict=True):
            before = end - len(part.flags)
            if before < stop and start < end:
                for first, names in part.paths(max(start - before, 0), min(stop, end) - before):
                    yield before + first, names

    labels = [part.labels for part in parts if part.labels is not None]
    psnr = [part.psnr for part in parts if part.psnr is not None]
    return SplitFacts(
        np.concatenate(labels) if labels else None,
        np.concatenate([part.digests for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([part.flags for part in parts]),
        paths,
        np.concatenate(psnr) if psnr else None,
        {k: np.concatenate([part.appearance[k] for part in parts]) for k in parts[0].appearance},
    )


def folder_facts(
    plan: BuildPlan, workers: engine.Workers, report: ProgressCallback, *, measures: bool
) -> Facts:
    """Decode every image of a dataset, as a build would, and return the facts about it.

    Raises
    ------
    WorkerDiedError
        If a worker dies several times, and the image cannot be identified.

    Notes
    -----
    Memory: 60 bytes per image.
    """
    splits = {split.name: _undecoded(plan, split, measures=measures) for split in plan.splits}
    unreadable: dict[str, list[tuple[int, str]]] = {}
    damaged: dict[str, list[tuple[int, str]]] = {}
    decode, store = plan.options.decode, plan.options.store
    measuring = replace(store, appearance=measures)
    job = RedecodeJob(plan.dataset.source, decode, measuring, find_damage=finds_damage())
    every = {split.name: np.ones(len(split), np.bool_) for split in plan.splits}
    done = bad = 0
    tasks, total = fill_tasks(plan, every), count_tasks(plan, every)
    for task, rows in workers.run(job, tasks, total=total):
        into = splits[task.split]
        for row, decoded in enumerate(rows, task.start):
            if decoded.reason:
                unreadable.setdefault(task.split, []).append((row, decoded.reason))
                bad += 1
                continue
            if decoded.damage:
                damaged.setdefault(task.split, []).append((row, decoded.damage))
            into.digests[row] = np.frombuffer(decoded.source_sha256, np.uint8)
            into.sizes[row], into.flags[row] = decoded.source_size, decoded.source_flags
            if into.psnr is not None:
                into.psnr[row] = decoded.psnr
            for i, column in enumerate(into.appearance.values()):
                column[row] = decoded.appearance[i]
        done += len(rows)
        report(Progress("decode", done, plan.images, bad, task.split))
    return Facts(
        classes=_classes(plan.dataset.classes, plan.options.store.class_mode),
        image_shape=decode.image_shape,
        decode=decode,
        store=store,
        splits=splits,
        skipped=plan.skipped,
        unreadable=unreadable,
        ignored=plan.dataset.ignored_images,
        discover=plan.options.discover,
        warnings=plan.dataset.warnings,
        linked=plan.dataset.linked,
        has_splits="split" not in plan.config,
        damaged=damaged,
        notes=() if finds_damage() or not _has_jpeg(plan) else (NO_DAMAGE_NOTE,),
    )


def _has_jpeg(plan: BuildPlan) -> bool:
    """Return whether a dataset has JPEG images, by their names."""
    return any(
        path.lower().endswith((b".jpg", b".jpeg"))
        for split in plan.splits
        for _, paths in plan.paths(split)
        for path in paths
    )


def _classes(names: tuple[bytes, ...], class_mode: str) -> tuple[bytes, ...]:
    """Return the classes; none if the names are those of label columns."""
    return () if class_mode in choices.MANIFEST_MODES else names


def _undecoded(plan: BuildPlan, split: SplitPlan, *, measures: bool) -> SplitFacts:
    """Return the facts of a split before any image is decoded: zeros."""
    samples = plan.dataset.samples

    def paths(start: int, stop: int) -> Iterator[tuple[int, list[bytes]]]:
        for first in range(start, stop, _AT_ONCE):
            yield first, samples.paths(split.rows[first : min(first + _AT_ONCE, stop)])

    return SplitFacts(
        labels=samples.labels[split.rows] if plan.has_classes(split.name) else None,
        digests=np.zeros((len(split), 32), np.uint8),
        sizes=np.zeros((len(split), 2), np.int32),
        flags=np.zeros(len(split), np.uint16),
        paths=paths,
        psnr=np.full(len(split), SAME, "<f4") if plan.options.store.is_lossy else None,
        appearance=appearance_columns([NOT_MEASURED] * len(split)) if measures else {},
    )
