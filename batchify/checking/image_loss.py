"""Find images that are skipped or lose information: enlarged, clipped, without alpha, and more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.checking.facts import Facts, SplitFacts
from batchify.checking.findings import CheckLimits, Finding, Found, Rows, allowed
from batchify.checking.image_stats import is_enlarged
from batchify.common.text import plural
from batchify.datasets.ignored import ignored_text
from batchify.decoding.losses import Loss

Mark = Callable[[SplitFacts], NDArray[np.bool_]]
"""A function that returns which rows of a split are affected."""


def find_unreadable(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images of a dataset that cannot be read or decoded."""
    return _rows(facts, facts.unreadable, "failed")


def find_damaged(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images of a dataset that are damaged but decode."""
    damaged = facts.damaged
    share = f"({100 * sum(map(len, damaged.values())) / max(facts.images, 1):.3g}%)"
    return _rows(facts, damaged, f"{share} are damaged, although they were decoded")


def _rows(facts: Facts, rows: Mapping[str, list[tuple[int, str]]], problem: str) -> Iterator[Found]:
    """Yield some rows of each split, and their reasons, as one problem, if there are any."""
    if count := sum(map(len, rows.values())):
        examples = (
            facts.finding(reason, (name, row)) for name in rows for row, reason in rows[name]
        )
        message = f"{count:,} of {plural(facts.images, 'image')} {problem}"
        yield Found(message, count, examples, lambda: _numbers(rows))


def _numbers(rows: Mapping[str, list[tuple[int, str]]]) -> Rows:
    return {name: np.array([row for row, _ in each], np.int64) for name, each in rows.items()}


def find_skipped(facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Find more skipped images than the limit."""
    count, total = len(facts.skipped), facts.images + len(facts.skipped)
    if count > allowed(limits.max_skipped, total):
        examples = (Finding("", entry.reason, path=entry.path) for entry in facts.skipped)
        yield Found(f"{count:,} of {total:,} images are skipped", count, examples)


def find_ignored(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images that were ignored because of their ending."""
    if facts.ignored:
        message = ignored_text(facts.ignored, facts.discover)
        yield Found(message, sum(facts.ignored.values()))


def find_upscaled(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images that are enlarged on a side, or with ``pad`` on both."""
    turned = choices.flag_bit("exif_rotated") if facts.decode.exif == "apply" else 0

    def smaller(h: NDArray[np.int32], w: NDArray[np.int32]) -> NDArray[np.bool_]:
        if (most := facts.store.max_side) is not None:
            longer = np.maximum(np.maximum(h, w), most)  # in images that are read, `most` pixels
            h, w = (np.rint(side * (most / longer)).astype(np.int32) for side in (h, w))
        return is_enlarged(h, w, facts.decode)

    def mark(split: SplitFacts) -> NDArray[np.bool_]:
        h, w = split.sizes[:, 0], split.sizes[:, 1]
        # it is not known for each image whether EXIF swaps its sides
        either = np.where(split.flags & turned, smaller(h, w) & smaller(w, h), smaller(h, w))
        return np.asarray(either & (h > 0))

    height, width, _ = facts.image_shape
    problem = f"are smaller than {height}×{width}"
    if facts.decode.shorter_side is not None:
        problem = f"have a shorter side below {facts.decode.shorter_side} (--shorter-side)"
    if (most := facts.store.max_side) is not None:
        problem += f", with --max-side {most}"
    return _images(facts, mark, problem)


LEAST_PSNR = 30.0
"""Below this, in dB, most people see what an image lost."""


def find_low_psnr(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images that lost much when they were encoded again; the worst come first."""
    psnr = {name: each for name, split in facts.splits.items() if (each := split.psnr) is not None}
    yield from facts.found(
        {name: each < LEAST_PSNR for name, each in psnr.items()},
        f"have a PSNR below {LEAST_PSNR:.0f} dB as {facts.store.store}, quality "
        f"{facts.store.quality}",
        lambda name, row: f"{psnr[name][row]:.1f} dB",
        psnr,
    )


def find_loss(loss: Loss, facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images that lose something when they are stored, in one way."""

    def mark(split: SplitFacts) -> NDArray[np.bool_]:
        is_lost = np.zeros(1 << 16, np.bool_)  # by flags, since few values occur
        for flags in np.flatnonzero(np.bincount(split.flags)).tolist():
            is_lost[flags] = loss.is_lost(flags, facts.decode, facts.store)
        return is_lost[split.flags] & (split.sizes[:, 0] > 0)

    return _images(facts, mark, loss.problem)


def _images(facts: Facts, mark: Mark, problem: str) -> Iterator[Found]:
    """Yield the marked images as one problem, if there are any."""
    yield from facts.found(
        {name: mark(split) for name, split in facts.splits.items()},
        problem,
        lambda name, row: facts.splits[name].size_text(row),
    )
