"""Build the file of a dataset: `batchify.build`, and `produce` for the file of a plan."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import Unpack

from batchify import choices
from batchify.building.failures import BadImages, check_limit, listed_failures
from batchify.building.fill import FillJob
from batchify.building.jobs import (
    FILL,
    EncodedSums,
    ImageSums,
    PixelSums,
    RecheckJob,
    RowFlags,
    Stale,
    count_rows,
    count_sources,
    count_tasks,
    fill_tasks,
    filled_digests,
    no_rows,
)
from batchify.building.outcome import BuildReport, count_fidelity
from batchify.building.staging import known_looks, open_destination
from batchify.building.target import Destination
from batchify.building.workfile import Resumed, WorkFile
from batchify.common.keywords import OptionKeywords, make_options, shows_options
from batchify.common.progress import Progress, ProgressCallback, reporting
from batchify.decoding.channels import ChannelTotals
from batchify.decoding.losses import NOTHING_LOST, Lost
from batchify.errors import (
    BadImagesError,
    DatasetIOError,
    DatasetNotFoundError,
    OutputExistsError,
    RemoteError,
    WorkerDiedError,
    issue_warnings,
)
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.options import BuildOptions, RunOptions
from batchify.planning.duplicates import check_apart
from batchify.planning.plan import BuildPlan
from batchify.planning.planner import plan_with_workers
from batchify.workers.engine import Workers


def produce(
    work: WorkFile,
    plan: BuildPlan,
    workers: Workers,
    run: RunOptions,
    report: ProgressCallback,
    *,
    images: bool = False,
    repair: bool = False,
) -> BuildReport:
    """Make the file of a plan, unless it is up to date: resume or allocate, fill, seal.

    Parameters
    ----------
    images : bool
        Check the stored images of an existing file, too.
    repair : bool
        Replace an existing file that is damaged, even without `run.overwrite`.

    Raises
    ------
    As `batchify.build`.
    """
    production = _Production(work, plan, workers, run, report)
    target = work.target
    old = None
    if run.restart:
        target.check_free()
    elif target.exists:
        found = production.find_up_to_date(images=images, repair=repair)
        if found is not None:
            return found
        from batchify.building.set_aside import is_reusable

        old = target.path if is_reusable(plan, target.path) else None
    return production.make(old)


@dataclass(frozen=True)
class _Production:
    """State that the stages of a build share."""

    work: WorkFile
    plan: BuildPlan
    workers: Workers
    run: RunOptions
    report: ProgressCallback
    totals: ChannelTotals = field(default_factory=ChannelTotals)

    def find_up_to_date(self, *, images: bool, repair: bool) -> BuildReport | None:
        """Return the report of a build whose target is up to date; None if it must be replaced.

        Raises
        ------
        OutputExistsError
            If it must not be replaced.
        BadImagesError
            If it skips more images than it may.
        """
        from batchify.building.changes import compare_target  # load HDF5 after workers have started

        target = self.work.target
        changes, made = compare_target(
            self.plan, target, self.workers, self.run, self.report, images=images
        )
        if made is not None:
            self.work.discard_published(self.plan)
            return made
        if repair and changes.damaged:
            self.work.target = replace(target, overwrite=True)
        elif not target.overwrite:
            raise OutputExistsError(
                f"target {target.name} exists and is not up to date; pass --overwrite to "
                "replace it:\n" + "\n".join(f"  - {line}" for line in changes.lines())
            )
        return None

    def make(self, old: bytes | None) -> BuildReport:
        """Resume or allocate, fill and seal the file; images of the `old` file are reused."""
        work, plan, report = self.work, self.plan, self.report
        check_limit(plan, self.run.limit)
        bad = BadImages(plan, self.run)
        report(Progress("allocate", total=plan.images))
        if self.run.restart:
            work.start_over()
        resumed = work.resume(plan, self._stale_rows)
        if resumed is None:
            work.allocate(plan)
            resumed = Resumed(no_rows(plan), redone=0)
        continued, copied, lost = self._fill(resumed.committed, bad, old)
        kept = count_rows(resumed.committed) + continued
        if plan.keeps_duplicates_apart:
            check_apart(filled_digests(work.rows, plan, bad.rows), plan.path)
        sources = count_sources(work.rows, plan, bad.rows)
        fidelity = count_fidelity(work.rows, plan, bad.rows)

        def step(written: int) -> None:
            report(Progress("seal", written, plan.images - bad.count, bad.count))

        from batchify.building.seal import seal  # load HDF5 after workers have started

        step(0)
        sealed = seal(work, plan, bad.rows, self.totals, self.workers, step=step)
        nbytes = os.path.getsize(work.target.path)
        path = os.fsdecode(work.target.shown)
        return BuildReport(
            path, sealed, nbytes, sources, kept, resumed.redone, copied,
            lost=None if kept or copied else lost, fidelity=fidelity,
        )  # fmt: skip

    def _stale_rows(self, committed: RowFlags) -> list[Stale]:
        """Return the committed rows that are damaged or whose source changed; sum up the others."""
        plan, work = self.plan, self.work
        store, decode = plan.options.store, plan.options.decode
        images: ImageSums = PixelSums(decode.image_shape, store.dtype, store.scale)
        if store.is_encoded:
            images = EncodedSums(decode.image_shape[-1])
        job = RecheckJob(
            plan.dataset.source, decode.max_file_size, work.path, work.rows.row_offsets, images
        )
        checked, total = 0, count_rows(committed)
        stale: list[Stale] = []
        stamps = None if self.run.verify_sources else work.stamps
        tasks, count = fill_tasks(plan, committed, stamps), count_tasks(plan, committed)
        for task, result in self.workers.run(job, tasks, total=count):
            checked += len(task.files)
            work.stamps[task.split][task.start :][: len(result.stamps)] = result.stamps
            self.totals.add(task.split, result.sums)
            stale += result.stale
            self.report(Progress("check", checked, total))
        return stale

    def _fill(
        self, committed: RowFlags, bad: BadImages, old: bytes | None
    ) -> tuple[int, int, Lost]:
        """Fill the rows that are not committed.

        Returns
        -------
        int, int
            How many rows were copied from unfinished builds, and from the old file.
        Lost
            What the other images lost.
        """
        plan, work = self.plan, self.work
        job = FillJob(
            plan.dataset.source,
            plan.options.decode,
            plan.options.store,
            plan.options.rows_at_once,
            work.path,
            work.rows.row_offsets,
            self.run.skip,
            old,
            work.kept,
        )
        wanted = {name: ~rows for name, rows in committed.items()}
        finished, continued, copied, lost = count_rows(committed), 0, 0, NOTHING_LOST
        tasks, total = fill_tasks(plan, wanted), count_tasks(plan, wanted)
        try:
            for _, rows in self.workers.run(job, tasks, total=total):
                finished += rows.stop - rows.start
                continued += rows.continued
                copied += rows.copied
                lost += rows.lost
                self.totals.add(rows.split, rows.sums)
                work.record(rows)
                bad.add(rows)
                self.report(Progress("fill", finished, plan.images, bad.count, rows.split))
        except (BadImagesError, WorkerDiedError, MemoryError):
            work.commit()
            raise
        except (DatasetIOError, RemoteError) as error:
            work.commit()
            raise type(error)(
                f"{error}; what is decoded is kept: run the same command again to continue"
            ) from error
        work.commit()
        if bad.count and not plan.dataset.source.exists():
            raise DatasetNotFoundError(
                f"dataset {plan.dataset.name} vanished while it was read; what is decoded is kept: "
                "run the same command again when it is there"
            )
        bad.check_at_end()
        return continued, copied, lost


def deliver(destination: Destination, made: BuildReport) -> BuildReport:
    """Publish a file at its destination; return the report of the build.

    A file that is up to date locally, but not uploaded, comes from a build whose upload failed.
    """
    if destination.publish() and made.up_to_date:
        return replace(made, up_to_date=False, kept=made.plan.images)
    return made


START_IMAGES = 5_000
"""From this number of images, worker processes are always faster (``scripts/bench start``)."""


@shows_options
def build(
    dataset: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
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
) -> BuildReport:
    """Write the splits of a dataset folder into one HDF5 file.

    The file appears only when it is complete and synced. Its bytes depend only on the folder and
    the options.

    Parameters
    ----------
    dataset : path or URL
        A folder or an archive; see `batchify.discover`.
    output : path or URL
        While the build runs, ``OUTPUT.partial`` and ``OUTPUT.partial.journal`` are next to it; for
        a URL, in a folder of their own in `work_dir`, until the file is uploaded.
    options : BuildOptions, optional
        All options in one object.
    **keywords
        Single options, as on the command line; they override those of `options`.
    workers : int, optional
        Processes; by default, one per CPU that this process may use. Never affects the output.
    overwrite : bool
        Replace an existing file when the new one is complete.
    restart : bool
        Start over: discard an unfinished build, and with `overwrite` decode everything, even if
        the file is up to date.
    verify_sources : bool
        When an unfinished build is resumed, read all image files of its rows again. By default,
        those whose size, times and inode are as they were are not read.
    on_error : str
        ``fail``: decode all images, then list those that failed. ``skip``: skip them and list
        them in the file.
    max_skipped : str or int, optional
        With ``skip``, the most images that may be skipped: ``10``, or ``"1%"`` of all.
    image_timeout_s : float
        Seconds after which an image that is still being read or decoded has failed: the build
        stops, or with ``skip`` skips it.
    work_dir : path, optional
        Where a file is made before its upload; by default the cache folder of this user.
    progress : callable or bool
        True shows a bar (tqdm). A function is called with a `Progress` for every stage and task.

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
        If an unfinished build has other pixels or is damaged; or if files that must stay in one
        split changed while they were read.
    BadImagesError
        If images failed and may not be skipped, or too many did.
    OutputIOError
        If writing failed; where possible, before the first image is decoded.
    WorkerDiedError
        If a worker died or hung: it names the file in progress; the work is kept.
    DatasetIOError, RemoteError
        If a drive, a network mount or a store does not answer; the work is kept.

    Notes
    -----
    Memory: a batch and a decoded image in each process; in this one also the bytes of all paths
    and about 20 bytes per image.

    Examples
    --------
    >>> batchify.build("dataset/", "out.h5", target_size=(224, 224))  # doctest: +SKIP
    >>> batchify.build(  # doctest: +SKIP
    ...     "photos/", "out.h5", extensions="heic", exif="apply", split="stratified", progress=True
    ... )
    """
    options = make_options(options, keywords)
    run = RunOptions(
        workers=workers, image_timeout_s=image_timeout_s, on_error=on_error,
        max_skipped=max_skipped, overwrite=overwrite, restart=restart,
        verify_sources=verify_sources, work_dir=work_dir,
    )  # fmt: skip
    started = time.monotonic()
    with reporting(progress) as report:
        made = _build(dataset, output, options, run, report)
    made = replace(made, seconds=time.monotonic() - started)
    issue_warnings(made.warnings)
    return made


def _build(
    dataset: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: BuildOptions,
    run: RunOptions,
    report: ProgressCallback,
) -> BuildReport:
    """Plan a file while its workers start, make it, and publish it."""
    with open_destination(output, run, report) as destination:
        if destination.target.is_read_only and not run.restart:
            from batchify.building.changes import compare_read_only

            return compare_read_only(dataset, destination.target, options, run, report)
        destination.target.check(dataset)
        if options.manifest is not None and options.manifest.path:
            destination.target.check_not_manifest(options.manifest.path)
        with (
            WorkFile(destination.target) as work,
            Workers(
                run.workers, run.image_timeout_s, imports=FILL, batch_nbytes=options.batch_nbytes
            ) as workers,
            listed_failures(destination.target.path),
        ):
            if workers.chosen or (work.is_left and workers.has_room):
                # An image may have killed the last build: now a surviving process can name
                # the image.
                workers.start()
            known = None if run.restart else known_looks(destination.target.path, options)
            plan = plan_with_workers(dataset, options, workers, report, skip=run.skip, known=known)
            if plan.images >= START_IMAGES and workers.has_room:
                workers.start()
            made = produce(work, plan, workers, run, report)
        warnings = () if made.up_to_date else workers.warnings
        made = replace(made, plan=made.plan.warned((*warnings, *work.journal.warnings)))
        return deliver(destination, made)
