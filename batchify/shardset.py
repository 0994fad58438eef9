"""The shards of a build as a whole: their tasks, and what stands of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from batchify import engine, schema
from batchify.copies import local_copy
from batchify.plan import BuildPlan
from batchify.reader import Reader
from batchify.repeats import check_apart, stored_digests
from batchify.report import Changes
from batchify.shardfolder import ShardFolder, listed
from batchify.shardindex import NAME
from batchify.shardreport import Outcomes, Steps
from batchify.shards import Shard, shard_plan
from batchify.shardtask import ShardTask, compare_shard
from batchify.units import plural


@dataclass(frozen=True, eq=False)
class TaskMaker:
    """Makes the task of a shard, when it is wanted: its plan takes memory."""

    plan: BuildPlan
    folder: ShardFolder
    overwrite: bool
    restart: bool
    on_error: schema.OnError
    image_timeout_s: float
    work_dir: str | os.PathLike[str] | None
    known: frozenset[str] = frozenset()
    """Files that the list of the folder has, or had."""

    @cached_property
    def _width(self) -> int:
        return self.plan.dataset.samples.path_nbytes

    def __call__(self, part: Shard) -> ShardTask:
        """Return the task of a shard."""
        return ShardTask(
            part.name,
            shard_plan(self.plan, part, self._width),
            self.folder.place(part.name),
            self.overwrite,
            self.restart,
            self.on_error,
            self.image_timeout_s,
            self.work_dir,
            repair=part.name in self.known,
        )


def compare_folder(
    folder: ShardFolder,
    parts: tuple[Shard, ...],
    make: TaskMaker,
    crew: engine.Workers,
    outcomes: Outcomes,
    step: Steps,
    *,
    every: bool,
) -> Changes:
    """Hold a folder against a plan; shards that stand are taken into `outcomes`.

    ``damaged`` is said only where nothing else is the matter.
    """
    found = Changes(folder.shown, every=every)
    index = listed(folder)
    if index is None:
        found.reasons.append(f"there is no {NAME.decode()}: no shards, or not all of them")
        return found
    known = {file.name: file.digest for file in index.files}
    if set(known) != {part.name for part in parts}:
        found.reasons.append(f"it has {len(known):,} shards, now {len(parts):,}")
        return found
    reasons: Counter[str] = Counter()
    damaged = []
    for part in parts:
        task = make(part)
        changes, outcome = compare_shard(task, crew, step.of(part, "check"), every=every)
        if outcome is not None and outcome.digest == known[part.name]:
            outcomes.add(outcome)
        elif outcome is not None or changes.damaged or changes.missing:
            damaged.append(part.name)
        else:
            reasons.update(changes.reasons)
            found.new += changes.new
            found.changed += changes.changed
            found.vanished += changes.vanished
    # What went to another shard is neither new nor gone.
    moved = set(found.new) & set(found.vanished)
    found.new = [path for path in found.new if path not in moved]
    found.vanished = [path for path in found.vanished if path not in moved]
    found.reasons += [
        reason if count == len(parts) else f"{reason} ({count:,} of {len(parts):,} shards)"
        for reason, count in reasons.items()
    ]
    if moved and not found.is_due:
        found.reasons.append("the same files are in other shards, or in another order")
    if damaged:
        found.damaged = not found.is_due
        found.reasons.append(
            f"{plural(len(damaged), 'shard')} damaged or missing: {', '.join(damaged[:5])}"
            + (", …" if len(damaged) > 5 else "")
        )
    return found


def check_shards_apart(folder: ShardFolder, parts: Sequence[Shard]) -> None:
    """Refuse shards of which several splits have the same image, though they must not.

    Raises
    ------
    ResumeError
    """
    digests: dict[str, list[NDArray[np.uint8]]] = {}
    shards: dict[str, list[tuple[int, str]]] = {}
    for part in parts:
        place = folder.place(part.name)
        with local_copy(place) as path, Reader(path) as reader:
            found = stored_digests(reader)[part.split]
        digests.setdefault(part.split, []).append(found)
        shards.setdefault(part.split, []).append((len(found), place))

    def path_of(split: str, row: int) -> bytes:
        for rows, place in shards[split]:
            if row < rows:
                with local_copy(place) as path, Reader(path) as reader:
                    return bytes(reader.splits[split]["paths"][row])
            row -= rows
        raise IndexError(row)

    check_apart({name: np.concatenate(found) for name, found in digests.items()}, path_of)
