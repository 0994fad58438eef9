"""Batchify.check: leaks, copies, balance."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.checking.facts import Facts, SplitFacts, folder_facts, shard_facts, stored_facts
from batchify.checking.findings import (
    CHECK_CODES,
    GIVEN,
    KEPT,
    CheckLimits,
    CheckReport,
    Finding,
    Problem,
)
from batchify.checking.image_stats import is_enlarged
from batchify.common.paths import is_url, local_path, shown_path
from batchify.common.progress import Progress
from batchify.common.text import plural, printable
from batchify.errors import OptionError
from batchify.format.index import is_shard_folder
from batchify.format.reader import Reader
from batchify.options import IMAGE_TIMEOUT_S, BuildOptions, Limit, check_workers
from batchify.planning.groups import (
    Repeat,
    Repeated,
    check_groups,
    find_repeats,
    group_names,
    name_digests,
)
from batchify.planning.planner import plan_with_workers
from batchify.storage.transfer import local_copy
from batchify.workers import engine

Location = tuple[str, int]
"""Split and row."""


Found = Iterator[tuple[str, str, int, Iterator[Finding]]]
"""(code, message, how many, examples, made as they are needed)."""


def _rows(facts: Facts, code: str, marks: dict[str, NDArray[np.bool_]]) -> Iterator[Finding]:
    for name, mask in marks.items():
        split = facts.splits[name]
        for row in np.flatnonzero(mask).tolist():
            height, width = split.sizes[row].tolist()
            yield Finding(code, f"{height}×{width} pixels", name, row, split.path(row))


def _unreadable(facts: Facts, _limits: CheckLimits) -> Found:
    if count := sum(map(len, facts.unreadable.values())):
        examples = (
            Finding("unreadable", reason, name, row, facts.splits[name].path(row))
            for name, rows in facts.unreadable.items()
            for row, reason in rows
        )
        message = f"{count:,} of {plural(facts.images, 'image')} cannot be used"
        yield "unreadable", message, count, examples


def _repeats(facts: Facts, limits: CheckLimits) -> Found:
    repeats = find_repeats({name: split.digests for name, split in facts.splits.items()})
    if leaks := sum(len(repeat.splits) > 1 for repeat in repeats):
        message = f"{plural(leaks, 'image')} in several splits"
        yield "leak", message, leaks, _copies(facts, "leak", _across(repeats))
    if conflicts := sum(len(_labels(facts, repeat)) > 1 for repeat in repeats):
        message = f"{plural(conflicts, 'image')} in several classes"
        found = (each for each in repeats if len(_labels(facts, each)) > 1)
        pairs = ((row, each[0]) for each in found for row in islice(each, 1, None))
        yield "label-conflict", message, conflicts, _copies(facts, "label-conflict", pairs)
    copies = sum(len(repeat) - len(repeat.splits) for repeat in repeats)
    if copies > _most(limits.max_duplicates, facts.images):
        message = f"{copies:,} of {plural(facts.images, 'image')} are copies of others in a split"
        pairs = (
            ((split, row), (split, firsts[split]))
            for each in repeats
            for firsts in [each.firsts]
            for split, row in each if row != firsts[split]
        )  # fmt: skip
        yield "duplicate", message, copies, _copies(facts, "duplicate", pairs)


def _across(repeats: Repeated) -> Iterator[tuple[Location, Location]]:
    """Yield the first row of images in each further split, with the first of all."""
    for repeat in repeats:
        for place in list(repeat.firsts.items())[1:]:
            yield place, repeat[0]


def _labels(facts: Facts, repeat: Repeat) -> set[int]:
    found = set()
    for name, row in repeat:
        labels = facts.splits[name].labels
        if labels is not None:
            found.add(int(labels[row]))
    return found


def _copies(
    facts: Facts, code: str, pairs: Iterator[tuple[Location, Location]]
) -> Iterator[Finding]:
    """Yield copies, of pairs of rows: the copy, and what it is one of."""
    for (split, row), (of_split, of_row) in pairs:
        of = Finding("", "", of_split, of_row, facts.splits[of_split].path(of_row))
        path = facts.splits[split].path(row)
        yield Finding(code, f"the same bytes as {of.where}", split, row, path)


def _group_leaks(facts: Facts, limits: CheckLimits) -> Found:
    if not limits.group_by:
        return
    starts = np.cumsum([len(split.flags) for split in facts.splits.values()])
    digests = name_digests(_all_paths(facts), facts.images, limits.group_by)
    groups = find_repeats(dict(zip(facts.splits, np.split(digests, starts), strict=False)))
    if leaks := sum(len(group.splits) > 1 for group in groups):

        def examples() -> Iterator[Finding]:
            for (split, row), (of_split, of_row) in _across(groups):
                path = facts.splits[split].path(row)
                of = Finding("", "", of_split, of_row, facts.splits[of_split].path(of_row))
                (group,) = group_names([path], limits.group_by)
                yield Finding("group-leak", f"{printable(group)}, as {of.where}", split, row, path)

        yield "group-leak", f"{plural(leaks, 'group')} in several splits", leaks, examples()


def _all_paths(facts: Facts) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the paths of all splits, numbered through."""
    before = 0
    for split in facts.splits.values():
        for start, paths in split.paths(0, len(split.flags)):
            yield before + start, paths
        before += len(split.flags)


def _classes(facts: Facts, limits: CheckLimits) -> Found:
    bad = {name: [row for row, _ in facts.unreadable.get(name, ())] for name in facts.splits}
    for name, split in facts.splits.items():
        if len(split.flags) == len(bad[name]):
            yield "empty-split", f"the {name} split has no images", 1, iter(())
    counts = {
        name: np.bincount(np.delete(split.labels, bad[name]), minlength=len(facts.classes))
        for name, split in facts.splits.items()
        if split.labels is not None
    }
    if not counts:
        return
    totals = np.sum(list(counts.values()), axis=0)
    yield from _class_problem(facts, "empty-class", totals == 0, totals, "have no images")
    least = limits.min_class_size or 10
    few = (totals > 0) & (totals < least)
    yield from _class_problem(facts, "tiny-class", few, totals, f"have fewer than {least} images")
    for name, of_split in counts.items():
        if of_split.any():
            missing = (of_split == 0) & (totals > 0)
            problem = f"have no images in {name}"
            yield from _class_problem(facts, "missing-class", missing, totals, problem)
    where, train = ("train", counts["train"]) if "train" in counts else ("all", totals)
    some = np.flatnonzero(train)
    if not len(some):
        return
    small, large = some[np.argmin(train[some])], np.argmax(train)
    ratio = train[large] / train[small]
    if ratio > (limits.max_imbalance or 10):
        message = (
            f"class {printable(facts.classes[large])} has {ratio:,.1f} times the images of "
            f"{printable(facts.classes[small])} in {where}: {train[large]:,} and {train[small]:,}"
        )
        yield "imbalance", message, 1, iter(())


def _class_problem(
    facts: Facts, code: str, mask: NDArray[np.bool_], totals: NDArray[np.int64], problem: str
) -> Found:
    if count := int(mask.sum()):
        examples = (
            Finding(code, plural(totals[i], "image"), path=facts.classes[i])
            for i in np.flatnonzero(mask).tolist()
        )
        yield code, f"{count:,} of {len(totals):,} classes {problem}", count, examples


def _skipped(facts: Facts, limits: CheckLimits) -> Found:
    count, total = len(facts.skipped), facts.images + len(facts.skipped)
    if count > _most(limits.max_skipped, total):
        examples = (Finding("skipped", entry.reason, path=entry.path) for entry in facts.skipped)
        yield "skipped", f"{count:,} of {total:,} images are left out", count, examples


def _sources(facts: Facts, _limits: CheckLimits) -> Found:
    def flagged(name: str) -> Callable[[SplitFacts], NDArray[np.bool_]]:
        bit = choices.flag_bit(name)
        return lambda split: (split.flags & bit) > 0

    height, width, _ = facts.image_shape
    rules = [("upscaled", f"are smaller than {height}×{width}", _upscaled(facts))]
    if facts.exif == "ignore":
        problem = "have an EXIF orientation that is ignored"
        rules.append(("exif-ignored", problem, flagged("exif_rotated")))
    problem = "have 16 bits a channel, and are clipped or cut to 8"
    rules.append(("clipped", problem, _clipped(facts)))
    if facts.color_mode != "rgba":
        problem = "have an alpha channel that is dropped, not blended"
        rules.append(("alpha-dropped", problem, flagged("alpha")))
    for code, problem, rule in rules:
        marks = {name: rule(split) for name, split in facts.splits.items()}
        if count := sum(int(mask.sum()) for mask in marks.values()):
            message = f"{count:,} of {facts.images:,} images {problem}"
            yield code, message, count, _rows(facts, code, marks)


def _clipped(facts: Facts) -> Callable[[SplitFacts], NDArray[np.bool_]]:
    """Return a rule for images of 16 bits, of which grayscale keeps those that are grey already."""
    deep, grey = choices.flag_bit("sixteen_bit"), choices.flag_bit("grayscale")
    kept = grey if facts.color_mode == "grayscale" else 0
    return lambda split: ((split.flags & deep) > 0) & ((split.flags & kept) == 0)


def _upscaled(facts: Facts) -> Callable[[SplitFacts], NDArray[np.bool_]]:
    """Return a rule for images that are enlarged on a side, or with ``pad`` on both."""
    turned = choices.flag_bit("exif_rotated") if facts.exif == "apply" else 0

    def smaller(h: NDArray[np.int32], w: NDArray[np.int32]) -> NDArray[np.bool_]:
        return is_enlarged(h, w, facts.image_shape, facts.fit)

    def rule(split: SplitFacts) -> NDArray[np.bool_]:
        h, w = split.sizes[:, 0], split.sizes[:, 1]
        # whether a turn swaps the sides is not known of each
        either = np.where(split.flags & turned, smaller(h, w) & smaller(w, h), smaller(h, w))
        return np.asarray(either & (h > 0))

    return rule


def _most(limit: str | int | None, images: int) -> int:
    return 0 if limit is None else Limit(str(limit)).count(images)


RULES = (_unreadable, _repeats, _group_leaks, _classes, _skipped, _sources)


def is_dataset(location: str | os.PathLike[str]) -> bool:
    """Tell whether a path or a URL is of a dataset, and not of a file that was made of one.

    Raises
    ------
    RemoteError
    """
    if is_url(location):
        from batchify.storage.remote_source import is_folder  # imports fsspec

        return is_folder(os.fsdecode(location))
    from batchify.storage.archive import archive_kind

    path = local_path(location)
    if os.path.isdir(path):
        return not is_shard_folder(path)
    return archive_kind(path) is not None


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
        Codes (keys of `batchify.checking.findings.CHECK_CODES`) that do not count.
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
    for code in sorted(ignored - set(CHECK_CODES)):
        raise OptionError(f"there is no code {code!r} to ignore, only {', '.join(CHECK_CODES)}")
    check_workers(workers, image_timeout_s)
    report = progress or (lambda _: None)
    if is_dataset(path):
        with engine.Workers(workers, image_timeout_s) as crew:
            plan = plan_with_workers(path, options or BuildOptions(), crew, report)
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
            severity = "error" if given else CHECK_CODES[code].severity
            first = tuple(islice(examples, KEPT))
            problems.append(Problem(code, severity, message, count, first, code in ignored))
    return tuple(sorted(problems, key=lambda problem: problem.severity != "error"))
