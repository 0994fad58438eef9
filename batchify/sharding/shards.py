"""A plan cut into shards; what became of them.

A shard is the same build over a part of the plan: one split, and some of its rows, in their order.
Its config says which of how many it is; all else of it is as in the one file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from batchify import choices
from batchify.building.outcome import MEND, plan_as_json, too_many, unusable
from batchify.common.progress import Progress
from batchify.common.text import printable
from batchify.errors import Skipped
from batchify.format import schema
from batchify.format.index import ShardFile, ShardIndex, shard_name
from batchify.options import Limit
from batchify.planning.plan import BuildPlan, split_plan


@dataclass(frozen=True, slots=True)
class Shard:
    """Some consecutive rows of a split, in a file of their own.

    Parameters
    ----------
    split : str
    index, count : int
        Which of how many of its split.
    start, stop : int
        Rows of the split.
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
    """Cut each split into `count` shards of even size; where it has fewer rows, one a row.

    Parameters
    ----------
    rows : iterable of (str, int)
        Name and rows of each split. One without rows is one shard without rows.
    count : int
    """
    shards = []
    for split, total in rows:
        parts = max(1, min(count, total))
        cuts = [i * total // parts for i in range(parts + 1)]
        shards += [Shard(split, i, parts, cuts[i], cuts[i + 1]) for i in range(parts)]
    return tuple(shards)


def cut_plan(plan: BuildPlan, count: int) -> tuple[Shard, ...]:
    """Return the shards of a plan, in the order of the one file."""
    return cut(((split.name, len(split)) for split in plan.splits), count)


def shard_plan(plan: BuildPlan, shard: Shard, width: int) -> BuildPlan:
    """Return the plan of one shard, which holds no more than it needs.

    Parameters
    ----------
    plan : BuildPlan
    shard : Shard
    width : int
        `Samples.path_nbytes` of the plan.
    """
    split = next(split for split in plan.splits if split.name == shard.split)
    members = split.rows[shard.start : shard.stop]
    samples = plan.dataset.samples.subset(members, width)
    rows = np.arange(len(shard), dtype=np.int32)
    # What was left out before is told once, by the first of all shards.
    skipped = plan.skipped if split is plan.splits[0] and not shard.index else ()
    dataset = replace(
        plan.dataset,
        samples=samples,
        splits={split.name: rows},
        skipped=skipped,
        doubts=(),
        annotations=plan.dataset.annotations.subset(members),
    )
    part = split_plan(split.name, rows, dataset, plan.options)
    return BuildPlan(
        dataset, plan.options, plan.decoder, (part,), skipped, (shard.index, shard.count)
    )


@dataclass(frozen=True)
class ShardOutcome:
    """What became of a shard.

    Parameters
    ----------
    name : str
    rows, nbytes : int
    digest : str
        Its ``content_sha256``, in hex.
    flags : dict of str to int
        See `BuildReport`.
    skipped : tuple of Skipped
        Images that could not be used and were left out.
    bad : tuple of Skipped
        Images that cannot be used, for which there is no shard yet.
    kept, redone, copied : int
        See `BuildReport`.
    up_to_date : bool
        It stood already.
    """

    name: str
    rows: int = 0
    nbytes: int = 0
    digest: str = ""
    flags: tuple[tuple[str, int], ...] = ()
    skipped: tuple[Skipped, ...] = ()
    bad: tuple[Skipped, ...] = ()
    kept: int = 0
    redone: int = 0
    copied: int = 0
    up_to_date: bool = False


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class ShardsReport:
    """What a sharded build made.

    Parameters
    ----------
    path : str
        The folder.
    plan : BuildPlan
        Of the one file that the shards are, before images were left out.
    index : ShardIndex
        What the manifest lists.
    flags : dict of str to int
        How many source images were special, by `schema.FLAGS`.
    skipped : tuple of Skipped
        Images that could not be used and were left out, in the order of their rows.
    kept, redone, copied : int
        As of a `BuildReport`, over all shards.
    stood : int
        Shards that were there already, whole and up to date.
    """

    path: str
    plan: BuildPlan
    index: ShardIndex
    flags: dict[str, int]
    skipped: tuple[Skipped, ...]
    kept: int
    redone: int
    copied: int
    stood: int

    @property
    def up_to_date(self) -> bool:
        """Whether nothing had changed, and nothing was done."""
        return self.stood == len(self.index.files)

    @property
    def nbytes(self) -> int:
        """Bytes of all shards."""
        return sum(file.nbytes for file in self.index.files)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {**plan_as_json(self.plan), "path": self.path, "bytes": self.nbytes} | {
            "sources": self.flags,
            "shards": [file.as_json() for file in self.index.files],
            "stood": self.stood,
            "unusable": [
                {"path": printable(entry.path), "reason": entry.reason} for entry in self.skipped
            ],
            "kept": self.kept,
            "redone": self.redone,
            "copied": self.copied,
            "up_to_date": self.up_to_date,
        }


@dataclass
class Outcomes:
    """What became of the shards so far."""

    plan: BuildPlan
    limit: Limit | None
    done: dict[str, ShardOutcome] = field(default_factory=dict)
    bad: list[ShardOutcome] = field(default_factory=list)

    def add(self, outcome: ShardOutcome) -> None:
        """Take note of one.

        Raises
        ------
        BadImagesError
            If more images are left out now than may be.
        """
        if outcome.bad:
            self.bad.append(outcome)
        else:
            self.done[outcome.name] = outcome
        self.check_limit()

    def check_limit(self) -> None:
        """Refuse where more images are left out than may be."""
        if self.limit is None:
            return
        most = self.limit.count(self.plan.images + len(self.plan.skipped))
        # Counted first: this runs for every shard, of thousands maybe.
        count = len(self.plan.skipped) + sum(len(made.skipped) for made in self.done.values())
        if count > most:
            skipped = (entry for made in self.done.values() for entry in made.skipped)
            raise too_many([*self.plan.skipped, *skipped])

    def check(self, shards: tuple[Shard, ...]) -> None:
        """Decide, at the end.

        Raises
        ------
        BadImagesError
            If images cannot be used and were not to be skipped, or no image is left.
        """
        by_name = {outcome.name: outcome.bad for outcome in self.bad}
        found = tuple(entry for shard in shards for entry in by_name.get(shard.name, ()))
        advice = MEND
        if not found:
            found = tuple(s for outcome in self.done.values() for s in outcome.skipped)
            advice = "there would be nothing in the files"
            if len(found) < self.plan.images:
                return
        raise unusable(found, self.plan.images, advice)


def index_of(plan: BuildPlan, parts: tuple[Shard, ...], outcomes: Outcomes) -> ShardIndex:
    """Return what the manifest lists."""
    files: dict[str, tuple[ShardFile, ...]] = {split.name: () for split in plan.splits}
    for part in parts:
        made = outcomes.done[part.name]
        files[part.split] += (ShardFile(made.name, made.rows, made.nbytes, made.digest),)
    return ShardIndex(
        creator=schema.CREATOR,
        decoder=plan.decoder,
        config=plan.config,
        classes=plan.dataset.classes,
        splits=files,
        skipped=len(plan.skipped) + sum(len(made.skipped) for made in outcomes.done.values()),
    )


def report_of(
    folder: bytes,
    plan: BuildPlan,
    parts: tuple[Shard, ...],
    outcomes: Outcomes,
    index: ShardIndex,
) -> ShardsReport:
    """Return the report of a build whose shards are all there."""
    made = [outcomes.done[part.name] for part in parts]
    flags: Counter[str] = Counter(dict.fromkeys(choices.FLAGS, 0))
    for outcome in made:
        flags.update(dict(outcome.flags))
    return ShardsReport(
        path=os.fsdecode(folder),
        plan=plan,
        index=index,
        flags=dict(flags),
        skipped=tuple(entry for outcome in made for entry in outcome.skipped),
        kept=sum(outcome.kept for outcome in made),
        redone=sum(outcome.redone for outcome in made),
        copied=sum(outcome.copied for outcome in made),
        stood=sum(outcome.up_to_date for outcome in made),
    )


class Steps:
    """Adds the progress of the shards up to that of the build."""

    def __init__(self, plan: BuildPlan, report: Report) -> None:
        self._total = plan.images
        self._report = report
        self._done: Counter[str] = Counter()
        self._bad: Counter[str] = Counter()

    def set(self, name: str, done: int, bad: int, stage: str = "fill") -> None:
        """Say how many rows of a shard are done."""
        self.note(name, done, bad)
        done, bad = self._done.total(), self._bad.total()
        self._report(Progress(stage, min(done, self._total), self._total, bad, name))

    def note(self, name: str, done: int, bad: int) -> None:
        """Take note of how many rows of a shard are done, to be said with the next tick."""
        self._done[name], self._bad[name] = done, bad

    def tick(self) -> None:
        """Say the same again: whoever listens may want to stop."""
        self._report(Progress("fill", self._done.total(), self._total, self._bad.total()))

    def of(self, part: Shard, stage: str = "fill") -> Report:
        """Return whom a shard tells how far it is."""

        def step(progress: Progress) -> None:
            if progress.stage == "seal" or (stage == progress.stage == "fill"):
                done = len(part) if progress.stage == "seal" else progress.done
                self.set(part.name, done, progress.bad)
            elif stage != "fill":  # hashes of its sources
                self.set(part.name, progress.done, progress.bad, stage)
            else:
                self._report(replace(progress, split=part.name))

        return step
