"""Build a dataset as shards, and check whether shards are up to date."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.building.build import START_IMAGES
from batchify.building.failures import listed_failures
from batchify.building.jobs import FILL
from batchify.building.outcome import Changes
from batchify.building.target import read_only_error
from batchify.choices import check_at_least
from batchify.common.keywords import OptionKeywords, make_options, shows_options
from batchify.common.paths import is_url
from batchify.common.progress import ProgressCallback, reporting
from batchify.common.text import plural, printable
from batchify.errors import OutputExistsError, issue_warnings
from batchify.format.reader import Reader
from batchify.format.shard_index import INDEX_NAME
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.options import BuildOptions, RunOptions
from batchify.planning.duplicates import check_apart, stored_digests
from batchify.planning.planner import plan_with_workers
from batchify.sharding.executors import build_elsewhere, connect_workers
from batchify.sharding.folder import ShardFolder, shard_folder
from batchify.sharding.shards import Outcomes, Shard, ShardsReport, Steps, cut_plan
from batchify.sharding.task import TaskMaker, build_shard, compare_shard
from batchify.storage.transfer import local_copy
from batchify.workers.engine import Workers


def compare_folder(
    make: TaskMaker, outcomes: Outcomes, workers: Workers, step: Steps, *, every: bool
) -> Changes:
    """Compare a folder with a plan; shards that are up to date are added to `outcomes`.

    ``damaged`` is only set if there is no other reason to build.
    """
    folder, parts = make.folder, outcomes.shards
    found = Changes(folder.shown, every=every)
    index = folder.read_index()
    if index is None:
        found.reasons.append(f"there is no {INDEX_NAME.decode()}: no shards, or not all of them")
        return found
    digests = {file.name: file.digest for file in index.files}
    if set(digests) != {part.name for part in parts}:
        found.reasons.append(f"it has {len(digests):,} shards, now {len(parts):,}")
        return found
    reasons: Counter[str] = Counter()
    damaged = []
    for part in parts:
        task = make(part)
        changes, outcome = compare_shard(task, workers, step.of(part, "check"), every=every)
        if outcome is not None and outcome.file.digest == digests[part.name]:
            outcomes.add(outcome)
        elif outcome is not None or changes.damaged or changes.missing:
            damaged.append(part.name)
        else:
            reasons.update(changes.reasons)
            found.new += changes.new
            found.changed += changes.changed
            found.vanished += changes.vanished
    # A file that moved to another shard is neither new nor missing.
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
    """Refuse shards if several splits have the same image, and copies must stay in one.

    Raises
    ------
    ResumeError
        If files changed while they were read.
    """
    digests: dict[str, list[NDArray[np.uint8]]] = {}
    shards: dict[str, list[tuple[int, str]]] = {}
    for part in parts:
        location = folder.locate(part.name)
        with local_copy(location) as path, Reader(path) as reader:
            found = stored_digests(reader)[part.split]
        digests.setdefault(part.split, []).append(found)
        shards.setdefault(part.split, []).append((len(found), location))

    def path_of(split: str, row: int) -> bytes:
        for rows, location in shards[split]:
            if row < rows:
                with local_copy(location) as path, Reader(path) as reader:
                    return bytes(reader.splits[split]["paths"][row])
            row -= rows
        raise IndexError(row)

    check_apart({name: np.concatenate(found) for name, found in digests.items()}, path_of)


@shows_options
def build_shards(
    dataset: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    shards: int,
    executor: Executor | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    verify_sources: bool = False,
    on_error: choices.OnError = "fail",
    max_skipped: str | int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    work_dir: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | bool | None = None,
    **keywords: Unpack[OptionKeywords],
) -> ShardsReport:
    """Write the splits of a dataset into several HDF5 files, the shards, and an index of them.

    Each shard is a complete file of schema 1 with some rows of a split. Together, in the order of
    the index, ``manifest.json``, they have the rows of the file that `batchify.build` makes;
    `batchify.merge` makes that file from them. A shard that is undamaged and up to date is not
    built again. The index is written last.

    Parameters
    ----------
    dataset : path
        See `batchify.discover`.
    output : path
        The folder of the shards, which is created if it does not exist, or its URL.
    options, keywords
        As for `batchify.build`.
    shards : int
        The number of shards of each split; a split with fewer rows has one per row.
    executor : concurrent.futures.Executor, optional
        Its workers build a shard each: a process pool, ``mpi4py.futures.MPIPoolExecutor``,
        ``Client.get_executor()`` of Dask. They need `dataset` and `output` under the same names.
        By default, the processes of this machine build one shard after another.
    scheduler : str, optional
        The address of a Dask scheduler (``tcp://host:8786``), instead of `executor`: its workers
        report their progress, and stop when the build does.
    workers, overwrite, restart, verify_sources, on_error, max_skipped, image_timeout_s, work_dir, \
    progress
        As for `batchify.build`; `workers` are the processes of this machine.

    Returns
    -------
    ShardsReport

    Raises
    ------
    As `batchify.build`; what an executor raises is passed on.

    Notes
    -----
    Memory: in this process the plan, as for one file, and the paths of the shards that the executor
    has; in each worker a shard's paths, a batch and a decoded image.
    """
    options = make_options(options, keywords)
    check_at_least("shards", shards, 1)
    run = RunOptions(
        workers=workers, image_timeout_s=image_timeout_s, on_error=on_error,
        max_skipped=max_skipped, overwrite=overwrite, restart=restart,
        verify_sources=verify_sources, work_dir=work_dir,
    )  # fmt: skip
    started = time.monotonic()
    folder = shard_folder(output, work_dir)
    if folder.is_read_only and not restart:
        changes, outcomes = _compared(dataset, folder, options, shards, run, progress, every=False)
        if changes.is_due:
            raise read_only_error(printable(folder.shown), folder.shown, changes.lines())
        outcomes.check_limit()
        made = outcomes.report(folder.shown, outcomes.index())
        issue_warnings(made.warnings)
        return made
    folder.check(dataset)
    with (
        reporting(progress) as report,
        folder.claim() as ticket,
        connect_workers(executor, scheduler) as elsewhere,
        Workers(workers, image_timeout_s, imports=FILL, batch_nbytes=options.batch_nbytes) as local,
        listed_failures(None if is_url(output) else folder.shown),
    ):
        if local.chosen:
            local.start()
        plan = plan_with_workers(dataset, options, local, report, skip=run.skip)
        if plan.images >= START_IMAGES and elsewhere is None and local.has_room:
            local.start()
        parts = cut_plan(plan, shards)
        finished = folder.read_index() is not None
        if restart and finished and not overwrite:
            raise _exists(folder.shown, ["--restart would rebuild them"])
        # Shards of an unfinished build may be replaced by --restart.
        replaces = overwrite or (restart and not finished)
        make = TaskMaker(plan, folder, replace(run, overwrite=replaces), folder.listed_names())
        outcomes = Outcomes(plan, parts, run.limit)
        outcomes.check_limit()
        step = Steps(plan, report)
        if finished and not restart:
            changes = compare_folder(make, outcomes, local, step, every=False)
            if changes.is_due and not changes.damaged and not overwrite:
                raise _exists(folder.shown, changes.lines())
        pending = outcomes.pending
        if pending:
            folder.withdraw_index()
        if elsewhere is None:
            for part in pending:
                outcomes.add(build_shard(make(part), local, step.of(part), may_start=True))
        else:
            for outcome in build_elsewhere(elsewhere, pending, make, ticket, step):
                outcomes.add(outcome)
        outcomes.check_images()
        if plan.keeps_duplicates_apart:
            check_shards_apart(folder, parts)
        index = outcomes.index()
        folder.publish_index(index)
    made = outcomes.report(folder.shown, index)
    warnings = local.warnings if elsewhere is None and not made.up_to_date else ()
    found = {each.code: each for each in (*warnings, *outcomes.warnings, *folder.warnings)}
    plan, seconds = made.plan.warned(found.values()), time.monotonic() - started
    made = replace(made, plan=plan, seconds=seconds)
    issue_warnings(made.warnings)
    return made


def _compared(
    dataset: str | os.PathLike[str],
    folder: ShardFolder,
    options: BuildOptions,
    shards: int,
    run: RunOptions,
    progress: ProgressCallback | bool | None,
    *,
    every: bool,
) -> tuple[Changes, Outcomes]:
    """Plan a build, and compare a folder with it, as `compare_folder`."""
    nbytes = options.batch_nbytes
    with (
        reporting(progress) as report,
        Workers(run.workers, run.image_timeout_s, imports=FILL, batch_nbytes=nbytes) as local,
    ):
        plan = plan_with_workers(dataset, options, local, report, skip=run.skip)
        outcomes = Outcomes(plan, cut_plan(plan, shards), run.limit)
        make, steps = TaskMaker(plan, folder, run), Steps(plan, report)
        return compare_folder(make, outcomes, local, steps, every=every), outcomes


@shows_options
def find_shard_changes(
    dataset: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    shards: int,
    on_error: choices.OnError = "fail",
    max_skipped: str | int | None = None,
    workers: int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    progress: ProgressCallback | bool | None = None,
    **keywords: Unpack[OptionKeywords],
) -> Changes:
    """Check whether a folder of shards is up to date; nothing is written.

    Parameters
    ----------
    dataset, output, options, keywords, shards, on_error, max_skipped
        As for `batchify.build_shards`.
    workers, image_timeout_s, progress
        As for `batchify.build`.

    Returns
    -------
    Changes

    Raises
    ------
    As `batchify.find_changes`.
    """
    options = make_options(options, keywords)
    check_at_least("shards", shards, 1)
    run = RunOptions(
        workers=workers, image_timeout_s=image_timeout_s, on_error=on_error, max_skipped=max_skipped
    )
    folder = shard_folder(output)
    changes, outcomes = _compared(dataset, folder, options, shards, run, progress, every=True)
    if not changes.is_due and folder.read(INDEX_NAME) != outcomes.index().text():
        changes.reasons.append(f"{INDEX_NAME.decode()} is damaged")
    if not changes.is_due:
        outcomes.check_limit()
    return changes


def _exists(folder: bytes, lines: Sequence[str]) -> OutputExistsError:
    return OutputExistsError(
        f"{printable(folder)} holds shards that are not up to date; pass --overwrite to replace "
        "them:\n" + "\n".join(f"  - {line}" for line in lines)
    )
