"""A plan becomes a file: continued or begun, filled, sealed, published."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from batchify import engine, schema
from batchify.channels import ChannelTotals
from batchify.errors import DatasetNotFoundError, OutputExistsError, RemoteError
from batchify.fill import FillJob
from batchify.plan import BuildPlan
from batchify.policy import BadImages, Limit
from batchify.recheck import CheckJob, OriginalRows, PixelRows, Summed
from batchify.repeats import check_apart, filled_digests, must_be_apart
from batchify.report import BuildReport, Progress
from batchify.resume import Masks
from batchify.rows import RowReader
from batchify.target import Target
from batchify.tasks import count_flags, count_rows, count_tasks, fill_tasks
from batchify.workfile import WorkFile


def make_file(
    work: WorkFile,
    plan: BuildPlan,
    crew: engine.Workers,
    undo: contextlib.ExitStack,
    *,
    on_error: schema.OnError,
    limit: Limit | None,
    restart: bool,
    report: Callable[[Progress], None],
    images: bool = False,
    repair: bool = False,
) -> BuildReport:
    """Make the file of a plan, or find that it is there.

    Parameters
    ----------
    work : WorkFile
    plan : BuildPlan
    crew : engine.Workers
    undo : ExitStack
        What is to be done where nothing is decoded; emptied when that begins.
    on_error, limit, restart
        As for `batchify.build`.
    report : callable
        Called with a `Progress` for every stage and every task.
    images : bool
        Read the stored images of a file that is there, too.
    repair : bool
        Replace a file that is damaged, whether it was to be overwritten or not.

    Raises
    ------
    As `batchify.build`.
    """
    target = work.target
    old = None
    if restart:
        target.check_free()
    if target.exists and not restart:
        kept_plan = _up_to_date(plan, work, crew, on_error == "skip", images, repair, report)
        if kept_plan is not None:
            BadImages(kept_plan, on_error, limit)
            work.tidy(plan)
            return standing_report(target, kept_plan)
        from batchify.changes import is_reusable

        old = target.path if is_reusable(plan, target.path) else None
    bad = BadImages(plan, on_error, limit)
    done = _open(work, plan, restart=restart, report=report)
    undo.pop_all()
    left = count_rows(done)
    totals = ChannelTotals()
    done = _recheck(work, plan, done, crew, totals, report)
    kept = count_rows(done)
    copied = _fill(work, plan, done, crew, bad, old, totals, report)
    if must_be_apart(plan):
        check_apart(filled_digests(work.rows, plan, bad.rows), plan.path)
    flags = count_flags(work.rows, plan)

    def step(written: int) -> None:
        report(Progress("seal", written, plan.images - bad.count, bad.count))

    from batchify.seal import seal  # HDF5 loads when workers have started

    step(0)
    sealed = seal(work, plan, bad.rows, totals, crew, step=step)
    nbytes = os.path.getsize(target.path)
    path = os.fsdecode(target.shown)
    return BuildReport(path, sealed, nbytes, flags, kept, left - kept, copied)


def _up_to_date(
    plan: BuildPlan,
    work: WorkFile,
    crew: engine.Workers,
    skip: bool,
    images: bool,
    repair: bool,
    report: Callable[[Progress], None],
) -> BuildPlan | None:
    """Return the plan of the rows of a target that is what a build would make; None if it is not.

    Raises
    ------
    OutputExistsError
        If it is to be replaced and must not be.
    """
    from batchify.changes import compare  # HDF5 loads when workers have started

    target = work.target
    changes, kept = compare(
        plan, target.path, crew, skip=skip, every=False, images=images, report=report
    )
    if not changes.is_due:
        return kept
    if repair and changes.damaged:
        work.target = replace(target, overwrite=True)
    elif not target.overwrite:
        raise OutputExistsError(
            f"target {target.name} exists and is not up to date; pass --overwrite to "
            "replace it:\n" + "\n".join(f"  - {line}" for line in changes.lines())
        )
    return None


def standing_report(target: Target, plan: BuildPlan) -> BuildReport:
    """Return the report of a build that has nothing to do: its file stands."""
    from batchify.reader import Reader

    with Reader(target.path) as reader:
        rows = RowReader(target.path, reader.places(), reader.identity)
    try:
        flags = count_flags(rows, plan)
    finally:
        rows.close()
    path, nbytes = os.fsdecode(target.shown), os.path.getsize(target.path)
    return BuildReport(path, plan, nbytes, flags, kept=0, up_to_date=True)


def _open(
    work: WorkFile, plan: BuildPlan, *, restart: bool, report: Callable[[Progress], None]
) -> Masks:
    """Open the work file, what an earlier build left of it or a new one.

    Returns
    -------
    dict of str to ndarray of bool
        For each split, which rows are committed already.
    """
    report(Progress("allocate", total=plan.images))
    done = None if restart else work.left(plan)
    if done is None:
        work.allocate(plan)
        done = {split.name: np.zeros(len(split), np.bool_) for split in plan.splits}
    return done


def _recheck(
    work: WorkFile,
    plan: BuildPlan,
    done: Masks,
    crew: engine.Workers,
    totals: ChannelTotals,
    report: Callable[[Progress], None],
) -> Masks:
    """Return which of the rows that are done are whole, and of files that did not change since."""
    store, shape = plan.options.store, plan.options.decode.image_shape
    images: Summed = PixelRows(shape, store.dtype, store.scale)
    if store.is_encoded:
        images = OriginalRows(shape[-1])
    job = CheckJob(
        plan.dataset.source,
        plan.options.decode.max_file_size,
        work.path,
        work.rows.places,
        images,
    )
    checked, total = 0, count_rows(done)
    stale: list[tuple[str, int]] = []
    tasks, count = fill_tasks(plan, done), count_tasks(plan, done)
    for result in crew.run(job, tasks, total=count):
        checked += result.rows
        totals.add(result.split, result.sums)
        stale += [(row.split, row.row) for row in result.stale]
        report(Progress("check", checked, total))
    for split, row in stale:
        done[split][row] = False
    if total:
        work.keep(done)
    return done


def _fill(
    work: WorkFile,
    plan: BuildPlan,
    done: Masks,
    crew: engine.Workers,
    bad: BadImages,
    old: bytes | None,
    totals: ChannelTotals,
    report: Callable[[Progress], None],
) -> int:
    """Fill the rows that are not done; return how many were copied from the `old` file."""
    job = FillJob(
        plan.dataset.source,
        plan.options.decode,
        plan.options.store,
        plan.options.batch_size,
        work.path,
        work.rows.places,
        bad.skip,
        old,
    )
    wanted = {name: ~mask for name, mask in done.items()}
    finished, copied = count_rows(done), 0
    tasks, total = fill_tasks(plan, wanted), count_tasks(plan, wanted)
    try:
        for rows in crew.run(job, tasks, total=total):
            finished += rows.stop - rows.start
            copied += rows.copied
            totals.add(rows.split, rows.sums)
            work.done(rows)
            bad.add(rows)
            report(Progress("fill", finished, plan.images, bad.count, rows.split))
    except RemoteError as error:
        work.commit()
        raise RemoteError(
            f"{error}; what is decoded is kept: run the same command again to continue"
        ) from error
    work.commit()
    if bad.count and not plan.dataset.source.is_there():
        raise DatasetNotFoundError(
            f"dataset {plan.dataset.name} vanished while it was read; what is decoded is kept: run "
            "the same command again when it is back"
        )
    bad.check()
    return copied
