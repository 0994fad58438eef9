"""A dataset folder becomes one file, by way of every room below."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace

from batchify import engine, schema
from batchify.making import make_file
from batchify.options import IMAGE_TIMEOUT_S, BuildOptions
from batchify.placing import placed
from batchify.plan import BuildPlan
from batchify.planner import planned
from batchify.policy import check_policy
from batchify.processes import check_workers
from batchify.report import BuildReport, Progress
from batchify.workfile import WorkFile

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
    on_error: schema.OnError = "fail",
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
        A folder or an archive; see `batchify.dataset.discover`.
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
    limit = check_policy(on_error, max_skipped)
    check_workers(workers, image_timeout_s)
    report = progress or (lambda _: None)
    with placed(
        output, overwrite=overwrite, restart=restart, work_dir=work_dir, report=report
    ) as place:
        place.target.check(dataset)
        if options.manifest is not None:
            place.target.check_apart(options.manifest.path)
        with (
            WorkFile(place.target) as work,
            engine.Workers(workers, image_timeout_s) as crew,
            contextlib.ExitStack() as undo,
        ):
            plan = _plan(work, dataset, options, crew, undo, report)
            made = make_file(
                work, plan, crew, undo,
                on_error=on_error, limit=limit, restart=restart, report=report,
            )  # fmt: skip
        if place.publish() and made.up_to_date:  # an earlier build made it, and could not send it
            made = replace(made, up_to_date=False, kept=made.plan.images)
    return made


def _plan(
    work: WorkFile,
    dataset: str | os.PathLike[str],
    options: BuildOptions,
    crew: engine.Workers,
    undo: contextlib.ExitStack,
    report: Callable[[Progress], None],
) -> BuildPlan:
    """Plan a build, while its workers get ready."""
    if crew.chosen or work.is_left:
        # The build before may have died of an image, which is now to be named by a process that
        # outlives it.
        crew.start()
    if not work.is_left:
        undo.callback(work.discard)  # nothing is decoded yet
    plan = planned(dataset, options, crew, report)
    if plan.images >= START_IMAGES:
        crew.start()
    return plan
