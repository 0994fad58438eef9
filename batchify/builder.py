"""A dataset folder becomes one file, by way of every room below."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping

import numpy as np

from batchify import engine, schema
from batchify.dataset import discover
from batchify.decode import check_extensions
from batchify.errors import BadImagesError, Skipped
from batchify.fill import FillJob
from batchify.names import printable
from batchify.options import IMAGE_TIMEOUT_S, BuildOptions, at_least, positive
from batchify.plan import BuildPlan, make_plan
from batchify.policy import MaxSkipped, check_policy
from batchify.recheck import CheckJob
from batchify.recorded import decoder_text
from batchify.report import BuildReport, Progress
from batchify.resume import Masks
from batchify.target import Target
from batchify.tasks import count_flags, count_rows, count_tasks, fill_tasks
from batchify.workfile import WorkFile

START_IMAGES = 5_000
"""From so many on, worker processes pay however small the images (``scripts/bench start``)."""


def plan_build(dataset: str | os.PathLike[str], options: BuildOptions | None = None) -> BuildPlan:
    """Return all that a build will do; nothing is decoded, nothing written.

    Raises
    ------
    DatasetNotFoundError, DatasetError, OptionError
    """
    options = options or BuildOptions()
    check_extensions(options.discover.extensions)
    return make_plan(discover(dataset, options.discover), options, decoder=decoder_text())


def build(
    dataset: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    on_error: schema.OnError = "fail",
    max_skipped: str | int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    progress: Callable[[Progress], None] | None = None,
) -> BuildReport:
    """Write the splits of a dataset folder into one HDF5 file.

    The file appears under its name whole and synced, or not at all. Its bytes depend on the
    folder and the options alone.

    Parameters
    ----------
    dataset : path
        See `batchify.dataset.discover`.
    output : path
        While the build runs, ``OUTPUT.partial`` and ``OUTPUT.partial.journal`` are beside it.
    options : BuildOptions, optional
    workers : int, optional
        Processes; the CPUs that this one may use by default. No byte depends on it.
    overwrite : bool
        Replace a file that is there, when the new one is whole.
    restart : bool
        Discard what an earlier build left, rather than continue it.
    on_error : str
        ``fail``: decode all images, then name all that could not be used. ``skip``: leave them
        out and list them in the file.
    max_skipped : str or int, optional
        With ``skip``, the most images that may be left out: ``10``, or ``"1%"`` of all.
    image_timeout_s : float
        Seconds after which an image that is still being read or decoded is given up: the build
        stops, or with ``skip`` leaves it out.
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
        If an earlier build left rows of another plan, or damage.
    BadImagesError
        If images could not be used, and were not to be skipped or were too many.
    OutputIOError
        If writing failed; found before the first image is decoded where it can be.
    WorkerDiedError
        If a worker died or hung: the file that it had in hand is named, the work is kept.

    Notes
    -----
    Memory: a batch and a decoded image in each process; in this one also the bytes of all paths
    and about 20 bytes an image.
    """
    options = options or BuildOptions()
    limit = check_policy(on_error, max_skipped)
    if workers is not None:
        at_least("workers", workers, 1)
    positive("image timeout", image_timeout_s)
    report = progress or (lambda _: None)
    target = Target(os.path.abspath(os.fsencode(output)), overwrite)
    target.check(dataset)
    with WorkFile(target) as work, engine.Workers(workers, image_timeout_s) as crew:
        plan, done = _begin(work, dataset, options, crew, restart=restart, report=report)
        done = _recheck(work, plan, done, crew, report)
        kept = count_rows(done)
        bad = _fill(
            work, plan, done, crew, _skip_limit(plan, on_error, limit), on_error == "skip", report
        )
        found = [entry for split in plan.splits for _, entry in bad[split.name]]
        if found and (on_error == "fail" or len(found) == plan.images):
            raise BadImagesError(_bad_message(found, plan), tuple(found))
        flags = count_flags(work.rows, plan)
        left = plan.images - len(found)

        def step(written: int) -> None:
            report(Progress("seal", written, left, len(found)))

        from batchify.seal import seal  # HDF5 loads when workers have started

        step(0)
        sealed = seal(work, plan, bad, crew, step=step)
    path = os.fsdecode(target.path)
    return BuildReport(path, sealed, os.path.getsize(path), flags, kept)


def _begin(
    work: WorkFile,
    dataset: str | os.PathLike[str],
    options: BuildOptions,
    crew: engine.Workers,
    *,
    restart: bool,
    report: Callable[[Progress], None],
) -> tuple[BuildPlan, Masks]:
    """Plan a build and open its work file, what an earlier build left of it or a new one.

    Returns
    -------
    BuildPlan
    dict of str to ndarray of bool
        For each split, which rows are committed already.
    """
    with contextlib.ExitStack() as undo:
        if crew.chosen or work.is_left:
            # They get ready while the folder is scanned and the file allocated. The build before
            # may have died of an image, which is now to be named, not to end this process too.
            crew.start()
        if not work.is_left:
            undo.callback(work.discard)  # nothing is decoded yet
        report(Progress("scan"))
        plan = plan_build(dataset, options)
        if plan.images >= START_IMAGES:
            crew.start()
        report(Progress("allocate", total=plan.images))
        done = None if restart else work.left(plan)
        if done is None:
            work.allocate(plan)
            done = {split.name: np.zeros(len(split), np.bool_) for split in plan.splits}
        undo.pop_all()
    return plan, done


def _recheck(
    work: WorkFile,
    plan: BuildPlan,
    done: Masks,
    crew: engine.Workers,
    report: Callable[[Progress], None],
) -> Masks:
    """Return which of the rows that are done are whole, and of files that did not change since."""
    job = CheckJob(
        plan.dataset.root,
        plan.options.decode.max_file_size,
        work.path,
        work.rows.places,
        images=True,
    )
    checked, total = 0, count_rows(done)
    stale: list[tuple[str, int]] = []
    tasks, count = fill_tasks(plan, done), count_tasks(plan, done)
    for result in crew.run(job, tasks, total=count):
        checked += result.rows
        stale += [(row.split, row.row) for row in result.stale]
        report(Progress("check", checked, total))
    work.undo(stale)
    for split, row in stale:
        done[split][row] = False
    return done


def _skip_limit(plan: BuildPlan, on_error: str, limit: MaxSkipped | None) -> int | None:
    """Return how many more images may turn out bad before the build stops; None for any."""
    if on_error == "fail" or limit is None:
        return None
    return limit.count(plan.images + len(plan.skipped)) - len(plan.skipped)


def _fill(
    work: WorkFile,
    plan: BuildPlan,
    done: Masks,
    crew: engine.Workers,
    limit: int | None,
    skip: bool,
    report: Callable[[Progress], None],
) -> dict[str, list[tuple[int, Skipped]]]:
    """Decode the rows that are not done; return the bad ones of each split."""
    job = FillJob(
        plan.dataset.root,
        plan.options.decode,
        plan.options.store,
        plan.options.batch_size,
        work.path,
        work.rows.places,
        skip,
    )
    bad: dict[str, list[tuple[int, Skipped]]] = {split.name: [] for split in plan.splits}
    wanted = {name: ~mask for name, mask in done.items()}
    finished = count_rows(done)
    count = 0
    _check_limit(bad, count, plan, limit)
    tasks, total = fill_tasks(plan, wanted), count_tasks(plan, wanted)
    for rows in crew.run(job, tasks, total=total):
        bad[rows.split] += rows.bad
        count += len(rows.bad)
        finished += rows.stop - rows.start
        work.done(rows)
        report(Progress("fill", finished, plan.images, count, rows.split))
        _check_limit(bad, count, plan, limit)
    work.commit()
    return bad


def _check_limit(
    bad: Mapping[str, list[tuple[int, Skipped]]], count: int, plan: BuildPlan, limit: int | None
) -> None:
    """Stop the build where more images are left out than it was told to bear."""
    if limit is not None and count > limit:
        found = [entry for rows in bad.values() for _, entry in rows]
        left_out = [*plan.skipped, *found]
        raise BadImagesError(
            f"{len(left_out):,} images are left out already, more than --max-skipped allows:\n"
            + _listing(left_out),
            tuple(left_out),
        )


def _bad_message(found: list[Skipped], plan: BuildPlan) -> str:
    advice = "mend or remove them, or pass --on-error skip to leave them out"
    if len(found) == plan.images:
        advice = "there would be nothing in the file"
    return f"{len(found):,} of {plan.images:,} images cannot be used:\n{_listing(found)}\n{advice}"


def _listing(entries: list[Skipped]) -> str:
    # A bullet before the path: at the start of a line a name could be a command to a CI system.
    return "\n".join(f"  - {printable(entry.path)}: {entry.reason}" for entry in entries)
