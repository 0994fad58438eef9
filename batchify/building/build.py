"""Batchify.build: plan, fill, seal."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.building.fill import FillJob
from batchify.building.jobs import (
    FILL,
    CheckJob,
    Masks,
    OriginalRows,
    PixelRows,
    Summed,
    count_flags,
    count_rows,
    count_tasks,
    fill_tasks,
)
from batchify.building.outcome import BadImages, BuildReport
from batchify.building.staging import placed
from batchify.building.target import Target
from batchify.building.workfile import WorkFile
from batchify.common.progress import Progress
from batchify.decoding.channels import ChannelTotals
from batchify.errors import DatasetNotFoundError, OutputExistsError, RemoteError, Skipped
from batchify.format.rows import RowReader
from batchify.options import IMAGE_TIMEOUT_S, BuildOptions, RunOptions
from batchify.planning.duplicates import check_apart
from batchify.planning.plan import BuildPlan
from batchify.planning.planner import plan_with_workers
from batchify.workers import engine


def must_be_apart(plan: BuildPlan) -> bool:
    """Tell whether no image may be in several splits of a build."""
    return plan.options.split.group_duplicates and plan.dataset.splits is None


def filled_digests(
    rows: RowReader, plan: BuildPlan, bad: Mapping[str, list[tuple[int, Skipped]]]
) -> dict[str, NDArray[np.uint8]]:
    """Return the hashes of all sources of a build whose rows are filled; zeros for the bad ones.

    Parameters
    ----------
    rows : RowReader
    plan : BuildPlan
    bad : Mapping of str to list of (int, Skipped)
        For each split, the rows that are not images.
    """
    digests = {}
    for split in plan.splits:
        data = rows.get(split.name, "source_sha256", 0, len(split))
        found = np.frombuffer(data, np.uint8).reshape(-1, 32).copy()
        found[[row for row, _ in bad.get(split.name, [])]] = 0
        digests[split.name] = found
    return digests


def make_file(
    work: WorkFile,
    plan: BuildPlan,
    crew: engine.Workers,
    run: RunOptions,
    report: Callable[[Progress], None],
    *,
    images: bool = False,
    repair: bool = False,
) -> BuildReport:
    """Make the file of a plan, or find that it is there.

    Parameters
    ----------
    work : WorkFile
    plan : BuildPlan
    crew : engine.Workers
    run : RunOptions
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
    if run.restart:
        target.check_free()
    if target.exists and not run.restart:
        kept_plan = _up_to_date(plan, work, crew, run.skip, images, repair, report)
        if kept_plan is not None:
            BadImages(kept_plan, run)
            work.tidy(plan)
            return standing_report(target, kept_plan)
        from batchify.building.changes import is_reusable

        old = target.path if is_reusable(plan, target.path) else None
    bad = BadImages(plan, run)
    done = _open(work, plan, restart=run.restart, report=report)
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

    from batchify.building.seal import seal  # HDF5 loads when workers have started

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
    from batchify.building.changes import compare  # HDF5 loads when workers have started

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
    from batchify.format.reader import Reader

    with Reader(target.path) as reader:
        rows = RowReader(target.path, reader.row_offsets(), reader.identity)
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
        work.rows.row_offsets,
        images,
    )
    checked, total = 0, count_rows(done)
    stale: list[tuple[str, int]] = []
    tasks, count = fill_tasks(plan, done), count_tasks(plan, done)
    for task, result in crew.run(job, tasks, total=count):
        checked += len(task.files)
        totals.add(task.split, result.sums)
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
        work.rows.row_offsets,
        bad.skip,
        old,
    )
    wanted = {name: ~mask for name, mask in done.items()}
    finished, copied = count_rows(done), 0
    tasks, total = fill_tasks(plan, wanted), count_tasks(plan, wanted)
    try:
        for _, rows in crew.run(job, tasks, total=total):
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
    if bad.count and not plan.dataset.source.exists():
        raise DatasetNotFoundError(
            f"dataset {plan.dataset.name} vanished while it was read; what is decoded is kept: run "
            "the same command again when it is back"
        )
    bad.check()
    return copied


START_IMAGES = 5_000
"""From so many on, worker processes pay however small the images (``scripts/bench start``)."""


def build(
    dataset: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    on_error: choices.OnError = "fail",
    max_skipped: str | int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    work_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> BuildReport:
    """Write the splits of a dataset folder into one HDF5 file.

    The file appears under its name whole and synced, or not at all. Its bytes depend on the
    folder and the options alone.

    Parameters
    ----------
    dataset : path or URL
        A folder or an archive; see `batchify.datasets.discovery.discover`.
    output : path or URL
        While the build runs, ``OUTPUT.partial`` and ``OUTPUT.partial.journal`` are beside it; of a
        URL in a folder of its own in `work_dir`, until it is uploaded.
    options : BuildOptions, optional
    workers : int, optional
        Processes; the CPUs that this one may use by default. No byte depends on it.
    overwrite : bool
        Replace a file that is there, when the new one is whole.
    restart : bool
        Begin anew: discard what an unfinished build left, and with `overwrite` decode everything,
        whether the file is up to date or not.
    on_error : str
        ``fail``: decode all images, then name all that could not be used. ``skip``: leave them
        out and list them in the file.
    max_skipped : str or int, optional
        With ``skip``, the most images that may be left out: ``10``, or ``"1%"`` of all.
    image_timeout_s : float
        Seconds after which an image that is still being read or decoded is given up: the build
        stops, or with ``skip`` leaves it out.
    work_dir : path, optional
        Where the file of a URL is made; the cache folder of this user by default.
    progress : callable, optional
        Called with a `Progress` for every stage and every task.

    Returns
    -------
    BuildReport

    Raises
    ------
    DatasetNotFoundError, DatasetError, OptionError
        Before any work.
    OutputExistsError, OutputPathError, OutputLockedError
        Before any work.
    ResumeError
        If an earlier build left rows of another plan, or damage; or files that are to stay in
        one split changed while they were read.
    BadImagesError
        If images could not be used, and were not to be skipped or were too many.
    OutputIOError
        If writing failed; found before the first image is decoded where it can be.
    WorkerDiedError
        If a worker died or hung: the file that it had in hand is named, the work is kept.
    RemoteError
        If a store does not answer; the work is kept.

    Notes
    -----
    Memory: a batch and a decoded image in each process; in this one also the bytes of all paths
    and about 20 bytes an image.
    """
    options = options or BuildOptions()
    run = RunOptions(
        workers=workers, image_timeout_s=image_timeout_s, on_error=on_error,
        max_skipped=max_skipped, overwrite=overwrite, restart=restart, work_dir=work_dir,
    )  # fmt: skip
    report = progress or (lambda _: None)
    with placed(output, run, report) as place:
        place.target.check(dataset)
        if options.manifest is not None:
            place.target.check_apart(options.manifest.path)
        with (
            WorkFile(place.target) as work,
            engine.Workers(workers, image_timeout_s, imports=FILL) as crew,
        ):
            plan = _plan(work, dataset, options, crew, report)
            made = make_file(work, plan, crew, run, report)
        if place.publish() and made.up_to_date:  # an earlier build made it, and could not send it
            made = replace(made, up_to_date=False, kept=made.plan.images)
    return made


def _plan(
    work: WorkFile,
    dataset: str | os.PathLike[str],
    options: BuildOptions,
    crew: engine.Workers,
    report: Callable[[Progress], None],
) -> BuildPlan:
    """Plan a build, while its workers get ready."""
    if crew.chosen or work.is_left:
        # The build before may have died of an image, which is now to be named by a process that
        # outlives it.
        crew.start()
    plan = plan_with_workers(dataset, options, crew, report)
    if plan.images >= START_IMAGES:
        crew.start()
    return plan
