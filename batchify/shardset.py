"""The folder of the shards of a build: claimed, compared with a plan, published."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from batchify import durable, engine, schema
from batchify.errors import FileFormatError
from batchify.journal import Journal
from batchify.plan import BuildPlan
from batchify.reader import Reader
from batchify.repeats import check_apart, stored_digests
from batchify.report import Changes
from batchify.shardindex import NAME, ShardIndex, is_shard_folder, parse_index, read_index
from batchify.shardreport import Outcomes, Steps
from batchify.shards import Shard, shard_plan
from batchify.shardtask import ShardTask, Ticket, compare_shard
from batchify.units import plural

LOCK = NAME + b".partial"
OLD = NAME + b".old"


@dataclass(frozen=True, eq=False)
class TaskMaker:
    """Makes the task of a shard, when it is wanted: its plan takes memory."""

    plan: BuildPlan
    folder: bytes
    overwrite: bool
    restart: bool
    on_error: schema.OnError
    image_timeout_s: float

    @cached_property
    def _width(self) -> int:
        return self.plan.dataset.samples.path_nbytes

    def __call__(self, part: Shard) -> ShardTask:
        """Return the task of a shard."""
        return ShardTask(
            part.name,
            shard_plan(self.plan, part, self._width),
            os.path.join(self.folder, os.fsencode(part.name)),
            self.overwrite,
            self.restart,
            self.on_error,
            self.image_timeout_s,
        )


@contextlib.contextmanager
def made_folder(folder: bytes) -> Iterator[None]:
    """Make the folder of the shards; where nothing comes of it, it goes again."""
    fresh = not os.path.lexists(folder)
    try:
        if fresh:
            os.mkdir(folder)
            durable.sync_folder(folder)
    except OSError as error:
        raise durable.io_error("making", folder, error) from error
    try:
        yield
    finally:
        if fresh:
            with contextlib.suppress(OSError):  # something is in it
                os.rmdir(folder)


@contextlib.contextmanager
def claimed(folder: bytes) -> Iterator[Ticket]:
    """Hold the lock of the folder; its file goes in any case, and tells workers to stop.

    Raises
    ------
    OutputLockedError
        If another build holds it.
    """
    path = os.path.join(folder, LOCK)
    journal = Journal(path)
    try:
        ticket = Ticket(path, secrets.token_hex(16))
        journal.begin({"format": "batchify-shards-lock", "token": ticket.token})
        yield ticket
    finally:
        journal.remove()


def compare_folder(
    folder: bytes,
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
    found = Changes(folder, every=every)
    if not is_shard_folder(folder):
        found.reasons.append(f"there is no {NAME.decode()}: no shards, or not all of them")
        return found
    listed = {file.name: file.digest for file in read_index(folder).files}
    if set(listed) != {part.name for part in parts}:
        found.reasons.append(f"it has {len(listed):,} shards, now {len(parts):,}")
        return found
    reasons: Counter[str] = Counter()
    damaged = []
    for part in parts:
        task = make(part)
        changes, outcome = compare_shard(task, crew, step.of(part, "check"), every=every)
        if outcome is not None and outcome.digest == listed[part.name]:
            outcomes.add(outcome)
        elif outcome is not None or changes.damaged or not os.path.exists(task.path):
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


def withdraw(folder: bytes) -> None:
    """Take the manifest away: while shards are replaced, they must not look like a whole.

    It is kept beside, for it tells which shards go when the new ones are done.

    Raises
    ------
    OutputIOError
    """
    path = os.path.join(folder, NAME)
    try:
        if os.path.lexists(path):
            os.replace(path, os.path.join(folder, OLD))
            durable.sync_folder(path)
    except OSError as error:
        raise durable.io_error("renaming", path, error) from error


def publish(folder: bytes, index: ShardIndex) -> None:
    """Write the manifest, then remove the shards of the build before that it does not list.

    Raises
    ------
    OutputIOError
    """
    path = os.path.join(folder, NAME)
    try:
        with open(path, "rb") as file:
            if file.read() == index.text():
                return
    except OSError:
        pass  # there is none
    index.write(folder)
    old = os.path.join(folder, OLD)
    with contextlib.suppress(OSError, FileFormatError), open(old, "rb") as file:
        listed = {shard.name for shard in index.files}
        for shard in parse_index(file.read(), old).files:
            if shard.name not in listed:
                durable.remove(os.path.join(folder, os.fsencode(shard.name)))
    durable.remove(old)


def check_shards_apart(folder: bytes, parts: Sequence[Shard]) -> None:
    """Refuse shards of which several splits have the same image, though they must not.

    Raises
    ------
    ResumeError
    """
    digests: dict[str, list[NDArray[np.uint8]]] = {}
    paths: dict[str, list[tuple[int, bytes]]] = {}
    for part in parts:
        path = os.path.join(folder, os.fsencode(part.name))
        with Reader(path) as reader:
            found = stored_digests(reader)[part.split]
        digests.setdefault(part.split, []).append(found)
        paths.setdefault(part.split, []).append((len(found), path))

    def path_of(split: str, row: int) -> bytes:
        for rows, path in paths[split]:
            if row < rows:
                with Reader(path) as reader:
                    return bytes(reader.splits[split]["paths"][row])
            row -= rows
        raise IndexError(row)

    check_apart({name: np.concatenate(found) for name, found in digests.items()}, path_of)
