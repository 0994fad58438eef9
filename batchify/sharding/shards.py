"""Cut a plan into shards, and collect their outcomes.

A shard is a build of a part of the plan: some rows of one split, in their order. Its config records
its number and the number of shards; everything else is as in a single file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from batchify.building.failures import check_limit, failed_error
from batchify.building.outcome import MadeImages, plan_as_json, psnr_json
from batchify.choices import Limit
from batchify.common.progress import Progress, ProgressCallback
from batchify.common.text import plural, printable, rows_text
from batchify.decoding.fidelity import Fidelity
from batchify.decoding.losses import NOTHING_LOST, Lost
from batchify.errors import BatchifyWarning, Skipped, warning_lines
from batchify.format import schema
from batchify.format.shard_index import ShardFile, ShardIndex, shard_name
from batchify.planning.plan import BuildPlan
from batchify.planning.split_plan import split_plan


@dataclass(frozen=True, slots=True)
class Shard:
    """Some consecutive rows of a split, in their own file.

    Parameters
    ----------
    index, count : int
        Its number, from 0, and the number of shards of its split.
    start, stop : int
        Its rows of the split.
    """

    split: str
    index: int
    count: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The name of its file: ``train-00000-of-00064.h5``."""
        return shard_name(self.split, self.index, self.count)

    def __len__(self) -> int:
        return self.stop - self.start


def cut(rows: Iterable[tuple[str, int]], count: int) -> tuple[Shard, ...]:
    """Cut each split into `count` shards of even size, or into one per row if it has fewer rows.

    Parameters
    ----------
    rows : iterable of (str, int)
        Name and rows of each split. One without rows is one shard without rows.
    """
    shards = []
    for split, total in rows:
        parts = max(1, min(count, total))
        cuts = [i * total // parts for i in range(parts + 1)]
        shards += [Shard(split, i, parts, cuts[i], cuts[i + 1]) for i in range(parts)]
    return tuple(shards)


def cut_plan(plan: BuildPlan, count: int) -> tuple[Shard, ...]:
    """Return the shards of a plan, in the order of the single file."""
    return cut(((split.name, len(split)) for split in plan.splits), count)


def shard_plan(plan: BuildPlan, shard: Shard, width: int) -> BuildPlan:
    """Return the plan of one shard, with only what the shard needs.

    Parameters
    ----------
    width : int
        `Samples.path_nbytes` of the plan.
    """
    split = next(split for split in plan.splits if split.name == shard.split)
    members = split.rows[shard.start : shard.stop]
    samples = plan.dataset.samples.subset(members, width)
    rows = np.arange(len(shard), dtype=np.int32)
    # Files that the plan skips are listed once, by the first of all shards.
    skipped = plan.skipped if split is plan.splits[0] and not shard.index else ()
    dataset = replace(
        plan.dataset,
        samples=samples,
        splits={split.name: rows},
        skipped=skipped,
        warnings=(),
        annotations=plan.dataset.annotations.subset(members),
    )
    part = split_plan(split.name, rows, dataset, plan.options)
    return BuildPlan(
        dataset,
        plan.options,
        plan.decoder,
        (part,),
        skipped,
        (shard.index, shard.count),
        plan.from_train,
    )


@dataclass(frozen=True)
class ShardOutcome:
    """The outcome of a shard.

    Parameters
    ----------
    file : ShardFile
        Its entry in the shard index; without rows if it could not be built for `bad` images.
    sources : tuple of (int, int)
        See `BuildReport`.
    skipped : tuple of Skipped
        Images that were skipped.
    bad : tuple of Skipped
        Failed images that keep the shard from being built.
    kept, redone, copied : int
        See `BuildReport`.
    up_to_date : bool
        It existed, intact and up to date.
    warnings : tuple of BatchifyWarning
        About the file system that it was built on.
    """

    file: ShardFile
    sources: tuple[tuple[int, int], ...] = ()
    skipped: tuple[Skipped, ...] = ()
    bad: tuple[Skipped, ...] = ()
    kept: int = 0
    redone: int = 0
    copied: int = 0
    up_to_date: bool = False
    lost: Lost | None = None
    fidelity: tuple[tuple[str, Fidelity], ...] = ()
    warnings: tuple[BatchifyWarning, ...] = ()


@dataclass(frozen=True)
class ShardsReport(MadeImages):
    """The result of a sharded build.

    Parameters
    ----------
    path : str
        The folder.
    plan : BuildPlan
        The plan of the single file, before images were skipped.
    index : ShardIndex
        The shard index, ``manifest.json``.
    sources : dict of int to int
        How many images have each value of ``source_flags``.
    skipped : tuple of Skipped
        Images that were skipped, in the order of their rows.
    kept, redone, copied : int
        The sums over all shards; see `BuildReport`.
    shards_kept : int
        Shards that were up to date already.
    lost : Lost or None
        How much the images lost; None if some were not decoded by this build.
    fidelity : dict of str to Fidelity
        See `BuildReport`.
    seconds : float
        How long it took; 0 if that was not measured.
    """

    path: str
    plan: BuildPlan
    index: ShardIndex
    sources: dict[int, int]
    skipped: tuple[Skipped, ...]
    kept: int
    redone: int
    copied: int
    shards_kept: int
    lost: Lost | None = None
    fidelity: dict[str, Fidelity] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False)

    def __repr__(self) -> str:
        done = "is up to date" if self.up_to_date else "was built"
        shards, rows = plural(len(self.index.files), "shard"), rows_text(self.index.rows)
        return f"<batchify {printable(self.path)} {done}: {shards}, {rows} images>"

    def __str__(self) -> str:
        rows, files = self.index.rows, self.index.files
        where = f"{printable(self.path)}, {plural(len(files), 'shard')}"
        if self.up_to_date:
            lines = [f"{where}: up to date: {rows_text(rows)} images"]
        else:
            plan = replace(self.plan, skipped=(*self.plan.skipped, *self.skipped))
            lines = [f"{where}: {self._made_text(rows, self.nbytes)}", *plan.left_out_lines()]
            if self.shards_kept:
                kept = plural(self.shards_kept, "shard")
                lines.append(f"  kept: {kept}, intact and up to date")
            lines += self._origin_lines()
        return "\n".join([*lines, *warning_lines(self.warnings)])

    @property
    def up_to_date(self) -> bool:
        """Whether nothing had changed, so nothing was done."""
        return self.shards_kept == len(self.index.files)

    @property
    def nbytes(self) -> int:
        """Bytes of all shards."""
        return sum(file.nbytes for file in self.index.files)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {**plan_as_json(self.plan), "path": self.path, "bytes": self.nbytes} | {
            "warnings": [warning.as_json() for warning in self.warnings],
            "sources": self.flags,
            "shards": [file.as_json() for file in self.index.files],
            "shards_kept": self.shards_kept,
            "skipped": [
                {"path": printable(entry.path), "reason": entry.reason}
                for entry in (*self.plan.skipped, *self.skipped)
            ],
            "kept": self.kept,
            "redone": self.redone,
            "copied": self.copied,
            **psnr_json(self.fidelity),
            "up_to_date": self.up_to_date,
        }


@dataclass
class Outcomes:
    """The outcomes of a plan's shards so far.

    Parameters
    ----------
    limit : Limit or None
        The most images that may be skipped in all shards together.
    """

    plan: BuildPlan
    shards: tuple[Shard, ...]
    limit: Limit | None
    done: dict[str, ShardOutcome] = field(default_factory=dict)
    bad: dict[str, ShardOutcome] = field(default_factory=dict)

    @property
    def pending(self) -> list[Shard]:
        """The shards that are not built."""
        return [shard for shard in self.shards if shard.name not in self.done]

    @property
    def skipped(self) -> int:
        """How many files are skipped, by the plan and by the shards."""
        skipped = sum(len(outcome.skipped) for outcome in self.done.values())
        return len(self.plan.skipped) + skipped

    @property
    def warnings(self) -> tuple[BatchifyWarning, ...]:
        """What was said about the file systems of shards, once for each code."""
        found = (warning for outcome in self.done.values() for warning in outcome.warnings)
        return tuple({warning.code: warning for warning in found}.values())

    def add(self, outcome: ShardOutcome) -> None:
        """Add the outcome of a shard.

        Raises
        ------
        BadImagesError
            If more images are skipped than may be.
        """
        (self.bad if outcome.bad else self.done)[outcome.file.name] = outcome
        self.check_limit()

    def check_limit(self) -> None:
        """Refuse to skip more images than may be."""
        skipped = [entry for outcome in self.done.values() for entry in outcome.skipped]
        check_limit(self.plan, self.limit, skipped)

    def check_images(self) -> None:
        """Refuse images that failed, at the end, when all are known.

        Raises
        ------
        BadImagesError
            If images failed that may not be skipped, or no image is left.
        """
        names = [shard.name for shard in self.shards if shard.name in self.bad]
        found = tuple(entry for name in names for entry in self.bad[name].bad)
        if not found:
            found = tuple(entry for outcome in self.done.values() for entry in outcome.skipped)
            if len(found) < self.plan.images:
                return
        raise failed_error(found, self.plan.images)

    def index(self) -> ShardIndex:
        """Return the index of the shards, all of which are built."""
        files = {
            split.name: tuple(
                self.done[shard.name].file for shard in self.shards if shard.split == split.name
            )
            for split in self.plan.splits
        }
        return ShardIndex(
            creator=schema.CREATOR,
            decoder=self.plan.decoder,
            config=self.plan.config,
            classes=self.plan.dataset.classes,
            splits=files,
            skipped=self.skipped,
        )

    def report(self, folder: bytes, index: ShardIndex) -> ShardsReport:
        """Return the report of a build whose shards are all built."""
        outcomes = [self.done[shard.name] for shard in self.shards]
        sources: Counter[int] = Counter()
        for outcome in outcomes:
            sources.update(dict(outcome.sources))
        fidelity: dict[str, Fidelity] = {}
        for name, each in (item for outcome in outcomes for item in outcome.fidelity):
            fidelity[name] = fidelity.get(name, Fidelity()) + each
        counted = [outcome.lost for outcome in outcomes if outcome.lost is not None]
        is_whole = len(counted) == len(outcomes)
        return ShardsReport(
            path=os.fsdecode(folder),
            plan=self.plan,
            index=index,
            sources=dict(sources),
            skipped=tuple(entry for outcome in outcomes for entry in outcome.skipped),
            kept=sum(outcome.kept for outcome in outcomes),
            redone=sum(outcome.redone for outcome in outcomes),
            copied=sum(outcome.copied for outcome in outcomes),
            shards_kept=sum(outcome.up_to_date for outcome in outcomes),
            lost=sum(counted, start=NOTHING_LOST) if is_whole else None,
            fidelity=fidelity,
        )


class Steps:
    """Adds up the progress of all shards."""

    def __init__(self, plan: BuildPlan, report: ProgressCallback) -> None:
        self._total = plan.images
        self._report = report
        self._done: Counter[str] = Counter()
        self._bad: Counter[str] = Counter()

    def set(self, name: str, done: int, bad: int, stage: str = "fill") -> None:
        """Report how many rows of a shard are done."""
        self.note(name, done, bad)
        done, bad = self._done.total(), self._bad.total()
        self._report(Progress(stage, min(done, self._total), self._total, bad, name))

    def note(self, name: str, done: int, bad: int) -> None:
        """Note how many rows of a shard are done, for the next report."""
        self._done[name], self._bad[name] = done, bad

    def tick(self) -> None:
        """Report the same again: the caller may want to stop."""
        self._report(Progress("fill", self._done.total(), self._total, self._bad.total()))

    def of(self, part: Shard, stage: str = "fill") -> ProgressCallback:
        """Return the progress callback of a shard."""

        def step(progress: Progress) -> None:
            if progress.stage == "seal" or (stage == progress.stage == "fill"):
                done = len(part) if progress.stage == "seal" else progress.done
                self.set(part.name, done, progress.bad)
            elif stage != "fill":  # hashes of its sources
                self.set(part.name, progress.done, progress.bad, stage)
            else:
                self._report(replace(progress, split=part.name))

        return step
