"""A dataset becomes a folder of shards: planned once, each shard made here or by an executor."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from batchify import engine, schema
from batchify.builder import START_IMAGES
from batchify.elsewhere import made_elsewhere, others_of
from batchify.errors import (
    OutputExistsError,
)
from batchify.names import printable
from batchify.options import IMAGE_TIMEOUT_S, BuildOptions
from batchify.planner import planned
from batchify.policy import check_policy
from batchify.processes import check_workers
from batchify.repeats import must_be_apart
from batchify.report import Changes, Progress
from batchify.shardfolder import known_names, listed, publish, shard_folder, withdraw
from batchify.shardindex import NAME
from batchify.shardreport import Outcomes, ShardsReport, Steps, index_of, report_of
from batchify.shards import cut_plan
from batchify.shardset import TaskMaker, check_shards_apart, compare_folder
from batchify.shardtask import build_shard
from batchify.values import at_least

Report = Callable[[Progress], None]


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
    on_error: schema.OnError = "fail",
    max_skipped: str | int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    work_dir: str | os.PathLike[str] | None = None,
    progress: Report | None = None,
) -> ShardsReport:
    """Write the splits of a dataset into several HDF5 files, and a list of them.

    Each is a whole file of schema 1 over some rows of a split; put together, in the order of
    ``manifest.json``, they have the rows of the file that `batchify.build` makes, and
    `batchify.merge` makes that very file of them. A shard that stands, whole and up to date, is not
    made again. The manifest is written last.

    Parameters
    ----------
    dataset : path
        See `batchify.discover`.
    output : path
        The folder, made where it is not there; or the URL of one.
    options : BuildOptions, optional
    shards : int
        Files of each split; where a split has fewer rows, one a row.
    executor : concurrent.futures.Executor, optional
        Who makes the shards, one in each of its workers: a process pool,
        ``mpi4py.futures.MPIPoolExecutor``, ``Client.get_executor()`` of Dask. Its workers need
        `dataset` and `output` under the same names. By default the processes of this machine work
        on one shard together.
    scheduler : str, optional
        The address of a Dask scheduler (``tcp://host:8786``), in place of `executor`: its workers
        tell how far they are, and stop when the build does.
    workers, overwrite, restart, on_error, max_skipped, image_timeout_s, work_dir, progress
        As for `batchify.build`; `workers` are for this machine.

    Returns
    -------
    ShardsReport

    Raises
    ------
    As `batchify.build`; what an executor raises is passed on.

    Notes
    -----
    Memory: in this process the plan, as for one file, and the paths of the shards that are with the
    executor; in each worker a shard's paths, a batch and a decoded image.
    """
    options = options or BuildOptions()
    at_least("shards", shards, 1)
    limit = check_policy(on_error, max_skipped)
    check_workers(workers, image_timeout_s)
    report = progress or (lambda _: None)
    folder = shard_folder(output, work_dir)
    folder.check(dataset)
    with (
        folder.claim() as ticket,
        others_of(executor, scheduler) as others,
        engine.Workers(workers, image_timeout_s) as crew,
    ):
        if crew.chosen:
            crew.start()
        plan = planned(dataset, options, crew, report)
        if plan.images >= START_IMAGES and others is None:
            crew.start()
        parts = cut_plan(plan, shards)
        finished = listed(folder) is not None
        if restart and finished and not overwrite:
            raise _exists(folder.shown, ["they are to be made anew (--restart)"])
        # Shards of a build that is not done are its own work, to be begun anew where that is asked.
        replaces = overwrite or (restart and not finished)
        make = TaskMaker(
            plan,
            folder,
            replaces,
            restart,
            on_error,
            image_timeout_s,
            work_dir,
            known_names(folder),
        )
        outcomes = Outcomes(plan, limit)
        outcomes.check_limit()
        step = Steps(plan, report)
        if finished and not restart:
            changes = compare_folder(folder, parts, make, crew, outcomes, step, every=False)
            if changes.is_due and not changes.damaged and not overwrite:
                raise _exists(folder.shown, changes.lines())
        left = [part for part in parts if part.name not in outcomes.done]
        if left:
            withdraw(folder)
        if others is None:
            for part in left:
                outcomes.add(build_shard(make(part), crew, step.of(part), may_start=True))
        else:
            for outcome in made_elsewhere(others, left, make, ticket, step):
                outcomes.add(outcome)
        outcomes.check(parts)
        if must_be_apart(plan):
            check_shards_apart(folder, parts)
        index = index_of(plan, parts, outcomes)
        publish(folder, index)
    return report_of(folder.shown, plan, parts, outcomes, index)


def find_shard_changes(
    dataset: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    shards: int,
    on_error: schema.OnError = "fail",
    max_skipped: str | int | None = None,
    workers: int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    progress: Report | None = None,
) -> Changes:
    """Tell whether a build of shards is due; nothing is written.

    Parameters
    ----------
    dataset, output, options, shards, on_error, max_skipped, workers, image_timeout_s, progress
        As for `build_shards`.

    Returns
    -------
    Changes

    Raises
    ------
    As `batchify.find_changes`.
    """
    at_least("shards", shards, 1)
    limit = check_policy(on_error, max_skipped)
    check_workers(workers, image_timeout_s)
    report = progress or (lambda _: None)
    folder = shard_folder(output)
    with engine.Workers(workers, image_timeout_s) as crew:
        plan = planned(dataset, options or BuildOptions(), crew, report)
        parts = cut_plan(plan, shards)
        make = TaskMaker(plan, folder, False, False, on_error, image_timeout_s, None)
        outcomes = Outcomes(plan, limit)
        changes = compare_folder(
            folder, parts, make, crew, outcomes, Steps(plan, report), every=True
        )
        if not changes.is_due and folder.read(NAME) != index_of(plan, parts, outcomes).text():
            changes.reasons.append(f"{NAME.decode()} is not as it was written")
    if not changes.is_due:
        outcomes.check_limit()
    return changes


def _exists(folder: bytes, lines: Sequence[str]) -> OutputExistsError:
    return OutputExistsError(
        f"{printable(folder)} holds shards that are not up to date; pass --overwrite to replace "
        "them:\n" + "\n".join(f"  - {line}" for line in lines)
    )
