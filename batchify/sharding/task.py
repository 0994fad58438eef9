"""Build or compare one shard, on any machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from batchify.building.build import deliver, produce
from batchify.building.jobs import FILL
from batchify.building.outcome import BuildReport, Changes
from batchify.building.staging import open_destination
from batchify.building.target import PARTIAL, Target
from batchify.building.workfile import JOURNAL, WorkFile
from batchify.common import durable
from batchify.common.paths import is_url, shown
from batchify.common.progress import Progress, ProgressCallback
from batchify.common.text import printable
from batchify.errors import (
    BadImagesError,
    BatchifyError,
    DatasetNotFoundError,
    FileMissingError,
    OutputLockedError,
    OutputPathError,
    WorkerDiedError,
)
from batchify.format.shard_index import ShardFile
from batchify.options import RunOptions
from batchify.planning.plan import BuildPlan
from batchify.sharding.folder import ShardFolder, Ticket
from batchify.sharding.shards import Shard, ShardOutcome, shard_plan
from batchify.storage.transfer import local_copy
from batchify.workers.engine import Workers
from batchify.workers.pool import StoppedError

BREADCRUMB = PARTIAL + b".image"
"""Ending of the file next to a shard that names the image which its worker is decoding."""

LOCKED_S = 60.0
"""How long a machine that the scheduler considers lost may still keep a shard locked."""


class Link(Protocol):
    """A picklable function with which a worker elsewhere reports its progress."""

    def report(self, name: str, done: int, bad: int) -> None:
        """Report how many rows of a shard are done, and how many of them failed."""
        ...


IN_FLIGHT = 1024
"""Shards in progress on an executor, for any number of workers.

Their plans take memory while they wait: together no more than the plan of the whole dataset.
"""


class ShardWorkers:
    """The workers of an executor, maybe on other machines, which build one shard at a time each.

    Attributes
    ----------
    at_once : int
        How many shards keep them busy; their plans take memory while they wait.
    """

    link: Link | None = None
    at_once = IN_FLIGHT

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def rows_done(self) -> dict[str, tuple[int, int]]:
        """Return how many rows of each shard are done, and how many of those failed, if known."""
        return {}

    def explain(self, error: BaseException, name: str) -> BatchifyError:
        """Return the error of a shard that was not built."""
        if isinstance(error, BatchifyError):
            return error
        return WorkerDiedError(f"{name}: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class ShardTask:
    """Everything a worker needs to build a shard; picklable, about as large as its files' names.

    Parameters
    ----------
    plan : BuildPlan
        The plan of this shard.
    output : str
        Its destination: an absolute path, or a URL.
    run : RunOptions
        Without a limit, which holds for all shards together.
    ticket : Ticket or None
        A worker elsewhere stops when this is no longer valid.
    repair : bool
        A file of that name is a shard of the folder, and is replaced if damaged; other files are
        not.
    """

    name: str
    plan: BuildPlan
    output: str
    run: RunOptions
    ticket: Ticket | None = None
    link: Link | None = None
    repair: bool = False


def build_shard(
    task: ShardTask, workers: Workers, report: ProgressCallback, *, may_start: bool = False
) -> ShardOutcome:
    """Build a shard, unless it is intact and up to date.

    If `may_start` and an earlier build left rows, processes are started: an image may have killed
    that build, and this process survives to name it.

    Raises
    ------
    As `batchify.build`, except that failed images are in the outcome.
    """
    # In a store, an existing file is compared here, and replaced if it is out of date.
    overwrite = task.run.overwrite or is_url(task.output)
    with open_destination(
        task.output, replace(task.run, overwrite=overwrite), report
    ) as destination:
        target = replace(destination.target, overwrite=task.run.overwrite)
        target.check_writable()
        with WorkFile(target) as work:
            if work.is_left and may_start and workers.has_room:
                workers.start()
            try:
                made = produce(
                    work, task.plan, workers, task.run, report, images=True, repair=task.repair
                )
            except BadImagesError as error:
                return ShardOutcome(ShardFile(task.name, 0, 0, ""), bad=error.bad)
            finally:
                durable.remove(target.path + BREADCRUMB)
        digest = _digest(target.path)  # before a file that goes to a URL is removed
        made = deliver(destination, made)
        return replace(_outcome(task, made, digest), warnings=work.journal.warnings)


def _digest(path: bytes) -> str:
    from batchify.format.reader import Reader  # load HDF5 after workers have started

    with Reader(path) as reader:
        return reader.digest.hex()


def _outcome(task: ShardTask, made: BuildReport, digest: str) -> ShardOutcome:
    """Return the outcome of a shard that exists."""
    return ShardOutcome(
        ShardFile(task.name, made.plan.images, made.nbytes, digest),
        sources=tuple(made.sources.items()),
        skipped=made.plan.skipped[len(task.plan.skipped) :],
        kept=made.kept,
        redone=made.redone,
        copied=made.copied,
        up_to_date=made.up_to_date,
        lost=made.lost,
        fidelity=tuple(made.fidelity.items()),
    )


def compare_shard(
    task: ShardTask, workers: Workers, report: ProgressCallback, *, every: bool
) -> tuple[Changes, ShardOutcome | None]:
    """Check whether a shard is intact and up to date; if so, return its outcome, too."""
    from batchify.building.changes import (  # load HDF5 after workers have started
        compare,
        up_to_date_report,
    )

    try:
        with local_copy(task.output, report) as copy:
            path = os.fsencode(copy)
            changes, file_plan = compare(
                task.plan, path, workers,
                skip=task.run.skip, every=every, images=True, report=report,
            )  # fmt: skip
            if changes.is_due:
                return changes, None
            made = up_to_date_report(Target(path, overwrite=False), file_plan)
            return changes, _outcome(task, made, _digest(path))
    except FileMissingError:  # at a URL
        return Changes(shown(task.output), ["there is no such file"], missing=True), None


def _check_storage(task: ShardTask, ticket: Ticket | None) -> None:
    """Refuse to work on a machine that has no access to the dataset or the folder of shards."""
    advice = "workers need DATASET and OUT on storage that all of them share, or as URLs"
    folder, source = os.path.dirname(task.output), task.plan.dataset.source
    if not is_url(task.output) and not os.path.isdir(folder):
        raise OutputPathError(f"a worker has no folder {printable(folder)}: {advice}")
    _check_wanted(ticket)
    if not source.exists():
        raise DatasetNotFoundError(f"a worker does not see {printable(source.location)}: {advice}")


def _check_wanted(ticket: Ticket | None) -> None:
    """Stop if the build that wants the shard has ended."""
    if ticket is not None and not ticket.is_valid:
        raise StoppedError(f"{printable(ticket.path)} is no longer that of this build")


def _breadcrumb_writer(task: ShardTask) -> Callable[[str], None] | None:
    """Return a function that notes the image in progress, if a worker was lost with this shard.

    An image may have killed it; if that happens again, the note names the image. A note for each
    image takes time on shared storage, so the first worker writes none.
    """
    path = os.fsencode(task.output)
    if is_url(task.output) or not os.path.exists(path + JOURNAL):
        return None

    def note(name: str) -> None:
        with open(path + BREADCRUMB, "wb") as file:
            file.write(name.encode())

    return note


def read_breadcrumb(output: str) -> str:
    """Return the image that the lost worker of a shard was decoding; empty if it is unknown."""
    try:
        with open(os.fsencode(output) + BREADCRUMB, "rb") as file:
            return file.read(4096).decode("utf-8", "replace")
    except OSError:
        return ""


def build_shard_elsewhere(task: ShardTask) -> ShardOutcome:
    """Build a shard in a worker of an executor: in this process, in one thread.

    Raises
    ------
    OutputPathError, DatasetNotFoundError
        If this worker does not see the folder of shards, or the dataset.
    StoppedError
        If the build that asked for it has ended.
    """
    ticket, link = task.ticket, task.link
    _check_storage(task, ticket)
    bad = 0

    def report(progress: Progress) -> None:
        nonlocal bad
        bad = max(bad, progress.bad)
        _check_wanted(ticket)
        if link is not None and progress.stage == "fill":
            link.report(task.name, progress.done, bad)

    deadline = time.monotonic() + LOCKED_S
    while True:
        try:
            timeout_s = task.run.image_timeout_s
            with Workers(1, timeout_s, _breadcrumb_writer(task), imports=FILL) as workers:
                return build_shard(task, workers, report)
        except OutputLockedError:
            # A worker that the scheduler lost (for a failed network, say) may still build it.
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
            _check_wanted(ticket)


@dataclass(frozen=True, eq=False)
class TaskMaker:
    """Creates the task of each shard when it is needed, since its plan takes memory."""

    plan: BuildPlan
    folder: ShardFolder
    run: RunOptions
    listed: frozenset[str] = frozenset()
    """Names of shards that the index of the folder lists or listed."""

    @cached_property
    def _width(self) -> int:
        return self.plan.dataset.samples.path_nbytes

    def __call__(self, part: Shard) -> ShardTask:
        """Return the task of a shard."""
        return ShardTask(
            part.name,
            shard_plan(self.plan, part, self._width),
            self.folder.locate(part.name),
            replace(self.run, max_skipped=None),
            repair=part.name in self.listed,
        )
