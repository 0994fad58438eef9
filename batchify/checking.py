"""Finds what spoils training: leaks, copies, classes out of balance, images that lose something."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import islice

from batchify import engine
from batchify.copies import local_copy
from batchify.errors import OptionError
from batchify.facts import Facts, folder_facts, shard_facts, stored_facts
from batchify.findings import KEPT
from batchify.groups import check_groups
from batchify.options import IMAGE_TIMEOUT_S, BuildOptions
from batchify.planner import planned
from batchify.problems import CODES, GIVEN, CheckLimits, CheckReport, Problem
from batchify.processes import check_workers
from batchify.reader import Reader
from batchify.report import Progress
from batchify.rules import RULES
from batchify.shardindex import is_shard_folder
from batchify.tree import is_dataset
from batchify.urls import local_path, shown_path


def check(
    path: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    limits: CheckLimits | None = None,
    ignore: Iterable[str] = (),
    strict: bool = False,
    workers: int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    progress: Callable[[Progress], None] | None = None,
) -> CheckReport:
    """Look for what may spoil training on a file, or on a dataset before it is built.

    Parameters
    ----------
    path : path
        A file that `batchify.build` made, or a folder of shards: records are read, no image. Or a
        dataset, a folder or an archive: every image is read and decoded, as a build would with
        `options`.
    options : BuildOptions, optional
        For a dataset.
    limits : CheckLimits, optional
    ignore : iterable of str
        Codes (keys of `batchify.problems.CODES`) that do not count.
    strict : bool
        Warnings count as errors do.
    workers, image_timeout_s, progress
        As for `batchify.build`.

    Returns
    -------
    CheckReport

    Raises
    ------
    OptionError
        If a code is not known, or options are given for a file.
    FileMissingError, FileAccessError, FileFormatError
        If it is neither a folder nor a file that can be read.
    DatasetError
        If the folder holds no images in class folders, or files have no group.
    WorkerDiedError

    Notes
    -----
    Memory: about 100 bytes an image, twice that where all are copies.
    """
    limits, ignored = limits or CheckLimits(), frozenset(ignore)
    for code in sorted(ignored - set(CODES)):
        raise OptionError(f"there is no code {code!r} to ignore, only {', '.join(CODES)}")
    check_workers(workers, image_timeout_s)
    report = progress or (lambda _: None)
    if is_dataset(path):
        with engine.Workers(workers, image_timeout_s) as crew:
            plan = planned(path, options or BuildOptions(), crew, report)
            if limits.group_by:
                check_groups(plan.dataset.samples, limits.group_by)  # before hours of decoding
            facts = folder_facts(plan, crew, report)
        problems = _problems(facts, limits, ignored)
    elif options is not None:
        raise OptionError("options of a build are for a dataset; a file has its own")
    elif is_shard_folder(folder := local_path(path)):
        facts = shard_facts(os.fsencode(folder))
        problems = _problems(facts, limits, ignored)
    else:
        with local_copy(path, report) as copy, Reader(copy) as reader:
            facts = stored_facts(reader)
            problems = _problems(facts, limits, ignored)
    return CheckReport(shown_path(path), facts.images, len(facts.classes), problems, strict)


def _problems(facts: Facts, limits: CheckLimits, ignored: frozenset[str]) -> tuple[Problem, ...]:
    """Run all rules; examples are read while the file is open."""
    problems = []
    for rule in RULES:
        for code, message, count, examples in rule(facts, limits):
            given = code in GIVEN and getattr(limits, GIVEN[code]) is not None
            severity = "error" if given else CODES[code].severity
            first = tuple(islice(examples, KEPT))
            problems.append(Problem(code, severity, message, count, first, code in ignored))
    return tuple(sorted(problems, key=lambda problem: problem.severity != "error"))
