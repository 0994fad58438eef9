"""A build cut into several files: which rows each has, and what it is called. Pure.

A shard is the same build over a part of the plan: one split, and some of its rows, in their order.
Its config says which of how many it is; all else of it is as in the one file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from batchify.plan import BuildPlan, split_plan
from batchify.shardindex import shard_name


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
