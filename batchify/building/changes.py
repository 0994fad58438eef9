"""Compare an existing file with the file a build would make now: `batchify.find_changes`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Unpack

import numpy as np

from batchify import choices
from batchify.building.failures import check_limit
from batchify.building.jobs import FILL, RedecodeJob, RowFlags, count_rows, count_sources
from batchify.building.journal import differences, plain_config
from batchify.building.outcome import NAMED, BuildReport, Changes, count_fidelity
from batchify.building.row_sources import (
    TASK_SOURCES,
    SampleIndex,
    changed_rows,
    new_samples,
    present_rows,
    stored_keys,
)
from batchify.building.staging import known_looks
from batchify.building.target import Target, read_only_error
from batchify.common.keywords import OptionKeywords, make_options, shows_options
from batchify.common.paths import DownloadedPath, is_url, local_path, shown, shown_path
from batchify.common.progress import Progress, ProgressCallback, reporting
from batchify.common.text import plural, printable
from batchify.errors import FileAccessError, FileFormatError, FileMissingError, Skipped
from batchify.format import schema
from batchify.format.checksums import content_digest
from batchify.format.intact import damaged_images
from batchify.format.reader import Reader
from batchify.format.rows import RowReader
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.options import BuildOptions, RunOptions
from batchify.planning.plan import BuildPlan
from batchify.planning.planner import plan_with_workers
from batchify.planning.split_plan import SplitPlan
from batchify.storage.transfer import local_copy
from batchify.workers.engine import Workers


def compare(
    plan: BuildPlan,
    path: str | bytes | os.PathLike[str],
    workers: Workers,
    *,
    skip: bool,
    every: bool,
    images: bool = False,
    report: ProgressCallback = lambda _: None,
) -> tuple[Changes, BuildPlan]:
    """Compare a file with a plan, and with the sources of its rows.

    Images that the file skipped are decoded again, to see whether they still fail.

    Parameters
    ----------
    skip : bool
        Whether failed images are skipped.
    every : bool
        Find every change; otherwise stop at the first.
    images : bool
        Check the stored images, too.

    Returns
    -------
    Changes
    BuildPlan
        The plan of the rows that the file should have, without skipped ones.
    """
    changes = Changes(shown_path(path), every=every)
    try:
        with Reader(path) as reader:
            _compare_header(reader, plan, changes)
            file_plan = _compare_rows(reader, plan, changes)
            if every or not changes.is_due:
                failed = file_plan.skipped[len(plan.skipped) :]
                _compare_sources(reader, file_plan, changes, workers, every, report)
                _compare_failed(failed, plan, changes, workers)
                if failed and not skip:
                    was = "was" if len(failed) == 1 else "were"
                    changes.reasons.append(
                        f"{plural(len(failed), 'image')} failed and {was} skipped (--on-error)"
                    )
            if images and not changes.is_due:
                _compare_images(reader, changes, report)
            return changes, file_plan
    except FileMissingError:
        changes.reasons.append("there is no such file")
        changes.missing = True
    except FileFormatError as error:
        changes.reasons.append(str(error))
        changes.damaged = True
    except FileAccessError as error:
        changes.reasons.append(str(error))
    return changes, plan


def compare_target(
    plan: BuildPlan,
    target: Target,
    workers: Workers,
    run: RunOptions,
    report: ProgressCallback,
    *,
    images: bool = False,
) -> tuple[Changes, BuildReport | None]:
    """Compare the target of a build with its plan; return the report, too, if it is up to date.

    Parameters
    ----------
    images : bool
        See `compare`.

    Raises
    ------
    BadImagesError
        If it skips more images than it may.
    """
    changes, file_plan = compare(
        plan, target.path, workers, skip=run.skip, every=False, images=images, report=report
    )
    if changes.is_due:
        return changes, None
    check_limit(file_plan, run.limit)
    return changes, up_to_date_report(target, file_plan)


def compare_read_only(
    dataset: str | os.PathLike[str],
    target: Target,
    options: BuildOptions,
    run: RunOptions,
    report: ProgressCallback,
) -> BuildReport:
    """Return the report of a target that cannot be written, if it is up to date.

    Raises
    ------
    OutputIOError
        If it is not.
    """
    nbytes = options.batch_nbytes
    with Workers(run.workers, run.image_timeout_s, imports=FILL, batch_nbytes=nbytes) as workers:
        known = known_looks(target.path, options)
        plan = plan_with_workers(dataset, options, workers, report, skip=run.skip, known=known)
        changes, made = compare_target(plan, target, workers, run, report)
    if made is None:
        raise read_only_error(target.name, os.path.dirname(target.path), changes.lines())
    return made


def up_to_date_report(target: Target, plan: BuildPlan) -> BuildReport:
    """Return the report of a build that had nothing to do."""
    with Reader(target.path) as reader:
        rows = RowReader(target.path, reader.row_offsets(), reader.identity)
        if plan.options.store.is_reencoded:
            plan = plan.encoded({name: len(reader.splits[name]["encoded"]) for name in plan.rows})
    with rows:
        sources, fidelity = count_sources(rows, plan), count_fidelity(rows, plan)
    path, nbytes = os.fsdecode(target.shown), os.path.getsize(target.path)
    return BuildReport(path, plan, nbytes, sources, kept=0, up_to_date=True, fidelity=fidelity)


@shows_options
def find_changes(
    dataset: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    on_error: choices.OnError = "fail",
    max_skipped: str | int | None = None,
    workers: int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    progress: ProgressCallback | bool | None = None,
    **keywords: Unpack[OptionKeywords],
) -> Changes:
    """Check whether a build would make a different file, and why.

    Nothing is written. Every image file is hashed; stored images are not read (`batchify.verify`
    does that).

    Parameters
    ----------
    dataset, output, options, keywords, on_error, max_skipped, workers, image_timeout_s, progress
        As for `batchify.build`.

    Returns
    -------
    Changes

    Raises
    ------
    DatasetNotFoundError, DatasetError, OptionError
    BadImagesError
        If nothing changed, but the file skips more images than `max_skipped` allows.
    """
    run = RunOptions(
        workers=workers, image_timeout_s=image_timeout_s, on_error=on_error, max_skipped=max_skipped
    )
    options = make_options(options, keywords)
    with reporting(progress) as report:
        return _find_changes(dataset, output, options, run, report)


def _find_changes(
    dataset: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: BuildOptions,
    run: RunOptions,
    report: ProgressCallback,
) -> Changes:
    with (
        Workers(
            run.workers, run.image_timeout_s, imports=FILL, batch_nbytes=options.batch_nbytes
        ) as workers,
        contextlib.ExitStack() as lifetime,
    ):
        path: str | os.PathLike[str] = os.path.abspath(local_path(output))
        known = None if is_url(output) else known_looks(os.fsencode(path), options)
        plan = plan_with_workers(dataset, options, workers, report, skip=run.skip, known=known)
        if is_url(output):
            # If there is none, comparing reports it, as for a path.
            path = DownloadedPath(os.fspath(path), shown(output))
            with contextlib.suppress(FileMissingError):
                path = lifetime.enter_context(local_copy(output, report))
        changes, file_plan = compare(plan, path, workers, skip=run.skip, every=True, report=report)
    if not changes.is_due:
        check_limit(file_plan, run.limit)
    return changes


def _compare_header(reader: Reader, plan: BuildPlan, changes: Changes) -> None:
    """Compare versions, options and classes; check the digest of everything but the images."""
    header = reader.header
    before = {"creator": header.creator, "decoder": header.decoder}
    changes.reasons += differences(before, {"creator": schema.CREATOR, "decoder": plan.decoder})
    changes.reasons += differences(header.config, plain_config(plan))
    before_classes, now = set(header.classes), set(plan.dataset.classes)
    for what, names in (("new", now - before_classes), ("missing", before_classes - now)):
        if names:
            some = ", ".join(printable(name) for name in sorted(names)[:NAMED])
            more = ", …" if len(names) > NAMED else ""
            changes.reasons.append(f"{what} classes: {some}{more}")
    if content_digest(reader) != reader.digest:
        changes.reasons.append("it is damaged (batchify verify shows where)")
        changes.damaged = True


def _compare_rows(reader: Reader, plan: BuildPlan, changes: Changes) -> BuildPlan:
    """Compare the skipped files and the paths of all rows; return the plan of the file's rows."""
    skipped = reader.skipped()
    if skipped[: len(plan.skipped)] != plan.skipped:
        changes.reasons.append("other files are skipped")
        return plan
    failed = skipped[len(plan.skipped) :]
    dropped = _rows_of({entry.path for entry in failed}, plan)
    if count_rows(dropped) != len(failed):
        changes.reasons.append("other files are skipped")
        return plan
    file_plan = plan.without(dropped, list(failed))
    same = {split.name: _has_rows(reader, split, plan) for split in file_plan.splits}
    if all(same.values()) and set(same) == set(reader.splits):
        return file_plan
    if plan.dataset.undrawn:  # files that are not drawn are neither new nor missing
        changes.reasons.append("other images are drawn now (--limit, --max-per-class, --seed)")
        return file_plan
    changes.new += new_samples(stored_keys(reader), plan.dataset)
    for name, present in present_rows(reader, SampleIndex(plan.dataset)).items():
        for row in np.flatnonzero(~present).tolist():
            changes.vanished.append(bytes(reader.splits[name]["paths"][row]))
    if not changes.is_due:
        changes.reasons.append("the same files are in other splits, or in another order")
    return file_plan


def _compare_images(reader: Reader, changes: Changes, report: ProgressCallback) -> None:
    """Compare stored images with their checksums, up to the first damaged one."""
    for split in reader.splits:
        checked = 0
        total = len(reader.splits[split]["paths"])
        for rows, damaged in damaged_images(reader, split):
            checked += rows
            report(Progress("verify", checked, total, len(damaged), split))
            if damaged:
                changes.reasons.append("stored images are damaged (batchify verify shows which)")
                changes.damaged = True
                return


def _rows_of(paths: set[bytes], plan: BuildPlan) -> RowFlags:
    """Return the rows of a plan whose path is one of some paths."""
    masks = {}
    for split in plan.splits:
        masks[split.name] = np.zeros(len(split), np.bool_)
        if paths:
            for start, names in plan.paths(split):
                for i, name in enumerate(names):
                    masks[split.name][start + i] = name in paths
    return masks


def _has_rows(reader: Reader, split: SplitPlan, plan: BuildPlan) -> bool:
    """Return whether a split has the expected rows, in order."""
    if split.name not in reader.splits:
        return False
    stored = reader.splits[split.name]["paths"]
    return len(stored) == len(split) and all(
        stored[start : start + len(names)].tolist() == names for start, names in plan.paths(split)
    )


def _compare_sources(
    reader: Reader,
    file_plan: BuildPlan,
    changes: Changes,
    workers: Workers,
    every: bool,
    report: ProgressCallback,
) -> None:
    """Hash the image files of all rows, if they exist."""
    index = SampleIndex(file_plan.dataset)
    if changes.is_due:
        present = present_rows(reader, index)
    else:  # it has exactly the rows of the plan
        present = {split.name: np.ones(len(split), np.bool_) for split in file_plan.splits}
    total = count_rows(present)

    def step(done: int) -> None:
        report(Progress("hash", done, total))

    limit = file_plan.options.decode.max_file_size
    for stale in changed_rows(reader, index, limit, present, workers, step):
        changes.changed.append(stale.path)
        if not every:
            return


def _compare_failed(
    failed: tuple[Skipped, ...], plan: BuildPlan, changes: Changes, workers: Workers
) -> None:
    """Decode failed images again: the reason why they fail may have changed."""
    reasons: Mapping[bytes, str] = {entry.path: entry.reason for entry in failed}
    paths = tuple(reasons)
    index = SampleIndex(plan.dataset)
    if paths:
        workers.start()  # one of them may have failed because it killed its process
    tasks = (
        index.task("", start, paths[start : start + TASK_SOURCES])
        for start in range(0, len(paths), TASK_SOURCES)
    )
    job = RedecodeJob(plan.dataset.source, plan.options.decode, plan.options.store)
    total = -(-len(paths) // TASK_SOURCES)
    for task, results in workers.run(job, tasks, total=total):
        for file, result in zip(task.files, results, strict=True):
            if result.reason != reasons[file.path]:
                changes.changed.append(file.path)
