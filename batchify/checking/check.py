"""Find problems in a file or a dataset that would hurt training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Unpack

import numpy as np

from batchify.checking import classes, image_loss, leaks, looks, near
from batchify.checking.facts import Facts, folder_facts, shard_facts, stored_facts
from batchify.checking.findings import (
    CHECK_CODES,
    KEPT,
    SEVERITIES,
    CheckLimits,
    CheckReport,
    Found,
    Problem,
    Rows,
)
from batchify.choices import check_workers
from batchify.common.keywords import OptionKeywords, make_options, shows_options
from batchify.common.paths import shown_path
from batchify.common.progress import ProgressCallback, reporting
from batchify.datasets.discovery import holds_shards, is_dataset
from batchify.decoding.losses import LOSSES
from batchify.errors import OptionError
from batchify.format.reader import Reader
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.loading.shards import open_copy, open_folder
from batchify.options import BuildOptions
from batchify.planning.groups import check_groups
from batchify.planning.planner import plan_with_workers
from batchify.workers import engine

CHECKS: dict[str, Callable[[Facts, CheckLimits], Iterator[Found]]] = {
    "unreadable": image_loss.find_unreadable,
    "damaged": image_loss.find_damaged,
    "leak": leaks.find_leaks,
    "label-conflict": leaks.find_label_conflicts,
    "duplicate": leaks.find_duplicates,
    "near-leak": near.find_near_leaks,
    "near-duplicate": near.find_near_duplicates,
    "group-leak": leaks.find_group_leaks,
    "linked-class": classes.find_linked,
    "empty-split": classes.find_empty_splits,
    "empty-class": classes.find_empty_classes,
    "tiny-class": classes.find_tiny_classes,
    "missing-class": classes.find_missing_classes,
    "similar-classes": classes.find_similar,
    **{
        code: partial(classes.find_warnings, code)
        for code in ("nested-classes", "kinds", "loose", "links")
    },
    "imbalance": classes.find_imbalance,
    "skipped": image_loss.find_skipped,
    "ignored": image_loss.find_ignored,
    "upscaled": image_loss.find_upscaled,
    "low-psnr": image_loss.find_low_psnr,
    **{loss.code: partial(image_loss.find_loss, loss) for loss in LOSSES},
    **{
        code: partial(looks.find_unclear, code)
        for code in ("dark", "bright", "blurry", "low-information")
    },
    "odd-size": looks.find_odd_sizes,
    "odd-aspect-ratio": looks.find_odd_aspect_ratios,
    "class-outlier": looks.find_class_outliers,
}
"""The function that finds each problem, by code, in the order of the report.

To add a check, write a function and add it here and to `findings.CHECK_CODES`.
"""

_OF_APPEARANCE = {"near-leak", "near-duplicate", "dark", "bright", "blurry", "low-information"}
_MEASURED = _OF_APPEARANCE | {"class-outlier"}
"""Problems for which the appearance of a dataset's images is measured."""

_NO_APPEARANCE_NOTE = (
    "images that look alike, and dark, bright or blurry ones, were not looked for: build with "
    "--appearance"
)


@shows_options
def check(
    path: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    limits: CheckLimits | None = None,
    ignore: Iterable[str] = (),
    strict: bool = False,
    workers: int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    progress: ProgressCallback | bool | None = None,
    **keywords: Unpack[OptionKeywords],
) -> CheckReport:
    """Find problems that would hurt training in a file, or in a dataset before it is built.

    Parameters
    ----------
    path : path or URL
        A file that `batchify.build` made, or a folder of shards: no image is read. Or a dataset,
        a folder or an archive: every image is decoded, as a build with `options` would.
    options, keywords
        As for `batchify.build`, for a dataset.
    limits : CheckLimits, optional
    ignore : iterable of str
        Codes, keys of `batchify.checking.findings.CHECK_CODES`, that never fail. If they are all
        that need it, the appearance of a dataset's images is not measured, and they are not found.
    strict : bool
        Warnings fail as errors do.
    workers, image_timeout_s, progress
        As for `batchify.build`.

    Returns
    -------
    CheckReport

    Raises
    ------
    OptionError
        If a code is unknown, or options are given for a file.
    FileMissingError, FileAccessError, FileFormatError
        If it is neither a folder nor a readable file.
    DatasetError
        If there are no images in class folders, or files have no group.
    WorkerDiedError

    Notes
    -----
    Memory: about 100 bytes per image, twice that if all are copies.
    """
    limits = limits or CheckLimits()
    ignored = frozenset([ignore] if isinstance(ignore, str) else ignore)
    for code in sorted(ignored - set(CHECK_CODES)):
        raise OptionError(f"there is no code {code!r} to ignore, only {', '.join(CHECK_CODES)}")
    if keywords or options is not None:
        options = make_options(options, keywords)
    codes = set(CHECK_CODES) - ignored
    with _open_facts(path, codes, options, limits, workers, image_timeout_s, progress) as facts:
        problems = find_problems(facts, limits, ignored)
        notes = _notes(facts, codes)
    return CheckReport(shown_path(path), facts.images, len(facts.classes), problems, strict, notes)


def list_images(
    path: str | os.PathLike[str],
    codes: Collection[str],
    options: BuildOptions | None = None,
    *,
    limits: CheckLimits | None = None,
    workers: int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    progress: ProgressCallback | bool | None = None,
) -> list[bytes]:
    """Return the paths of all images that the problems of some codes are about, each once.

    Those of problems about classes or splits are none. Parameters and errors are those of `check`;
    problems that cannot be looked for are an OptionError.
    """
    limits = limits or CheckLimits()
    with _open_facts(path, codes, options, limits, workers, image_timeout_s, progress) as facts:
        if notes := _notes(facts, codes):
            raise OptionError(f"--list: {'; '.join(notes)}")
        if "damaged" in codes and not (facts.decode.strict_decode or is_dataset(path)):
            raise OptionError(
                "--list: a file does not record which images are damaged; check the dataset"
            )
        found: dict[bytes, None] = {}
        for problem in find_problems(facts, limits, most=0):
            if problem.code in codes:
                found |= dict.fromkeys(_paths(facts, problem.rows))
        if "skipped" in codes:
            found |= dict.fromkeys(each.path for each in facts.skipped)
    return list(found)


def _notes(facts: Facts, codes: Collection[str]) -> tuple[str, ...]:
    """Return which of some problems were not looked for, and why."""
    notes = facts.notes if "damaged" in codes else ()
    if not _OF_APPEARANCE.isdisjoint(codes) and not near.has_hashes(facts):
        notes += (_NO_APPEARANCE_NOTE,)
    return notes


def _paths(facts: Facts, rows: Rows) -> Iterator[bytes]:
    """Yield the paths of rows."""
    for name, wanted in rows.items():
        split = facts.splits[name]
        for first, paths in split.paths(0, len(split.flags) if len(wanted) else 0):
            some = np.searchsorted(wanted, (first, first + len(paths)))
            yield from (paths[row - first] for row in wanted[slice(*some)].tolist())


@contextlib.contextmanager
def _open_facts(
    path: str | os.PathLike[str],
    codes: Collection[str],
    options: BuildOptions | None,
    limits: CheckLimits,
    workers: int | None,
    image_timeout_s: float,
    progress: ProgressCallback | bool | None,
) -> Iterator[Facts]:
    """Collect the facts about a file, a folder of shards or a dataset; paths are read later.

    The appearance of a dataset's images is only measured if one of `codes` needs it.
    """
    check_workers(workers, image_timeout_s)
    with reporting(progress) as report, contextlib.ExitStack() as lifetime:
        if is_dataset(path):
            pool = lifetime.enter_context(engine.Workers(workers, image_timeout_s))
            plan = plan_with_workers(path, options or BuildOptions(), pool, report, skip=True)
            if limits.group_by:
                check_groups(plan.dataset.samples, limits.group_by)  # before hours of decoding
            measures = not _MEASURED.isdisjoint(codes)
            yield folder_facts(plan, pool, report, measures=measures)
        elif options is not None:
            raise OptionError("options of a build are for a dataset; a file has its own")
        elif holds_shards(path):
            yield shard_facts(*lifetime.enter_context(open_folder(path, keeps=True)))
        else:
            copy = lifetime.enter_context(open_copy(path))
            yield stored_facts(lifetime.enter_context(Reader(copy).finished()))


def check_made(
    path: str | os.PathLike[str], *, limits: CheckLimits | None = None, ignore: Iterable[str] = ()
) -> CheckReport:
    """Find the problems of a file, or of a folder of shards, that was just made.

    They are those that `check` finds, but without examples, which take longer.

    Notes
    -----
    Memory: 80 bytes per image. Time: about a second for a million images, and some seconds if the
    file has their perceptual hashes.
    """
    with contextlib.ExitStack() as lifetime:
        if holds_shards(path):
            facts = shard_facts(*lifetime.enter_context(open_folder(path)))
        else:
            facts = stored_facts(lifetime.enter_context(Reader(path)))
        problems = find_problems(
            facts, limits or CheckLimits(), frozenset(ignore), most=0, rows=False
        )
    return CheckReport(shown_path(path), facts.images, len(facts.classes), problems)


def find_problems(
    facts: Facts,
    limits: CheckLimits,
    ignored: frozenset[str] = frozenset(),
    *,
    most: int = KEPT,
    rows: bool = True,
) -> tuple[Problem, ...]:
    """Run all checks, and read their first examples while the file is open; errors first.

    Parameters
    ----------
    most : int
        Most examples of a problem.
    rows : bool
        Also return the rows of each problem.
    """
    problems = []
    for code, find in CHECKS.items():
        severity, advice, limit, split_advice = CHECK_CODES[code]
        if code in limits.thresholds or (limit and getattr(limits, limit) is not None):
            severity = "error"
        if facts.has_splits:
            advice = split_advice or advice
        for found in find(facts, limits):
            first = tuple(replace(each, code=code) for each in islice(found.examples, most))
            problems.append(Problem(
                code, severity, found.message, advice, found.count, first, code in ignored,
                found.rows() if rows else {},
            ))  # fmt: skip
    return tuple(sorted(problems, key=lambda problem: SEVERITIES.index(problem.severity)))
