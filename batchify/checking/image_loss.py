"""Find images that are skipped or lose information: upscaled, clipped, alpha lost, EXIF ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.checking.facts import Facts, SplitFacts
from batchify.checking.findings import CheckLimits, Finding, Found, allowed
from batchify.checking.image_stats import is_enlarged
from batchify.common.text import plural
from batchify.datasets.ignored import counts_text

Mark = Callable[[SplitFacts], NDArray[np.bool_]]
"""Returns which rows of a split are meant."""


def find_unreadable(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images of a dataset that cannot be read or decoded."""
    if count := sum(map(len, facts.unreadable.values())):
        examples = (
            facts.finding(reason, (name, row))
            for name, rows in facts.unreadable.items()
            for row, reason in rows
        )
        message = f"{count:,} of {plural(facts.images, 'image')} cannot be used"
        yield message, count, examples


def find_skipped(facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Find more skipped images than the limit."""
    count, total = len(facts.skipped), facts.images + len(facts.skipped)
    if count > allowed(limits.max_skipped, total):
        examples = (Finding("", entry.reason, path=entry.path) for entry in facts.skipped)
        yield f"{count:,} of {total:,} images are left out", count, examples


def find_ignored(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images that were ignored because of their ending."""
    if facts.ignored:
        message = f"ignored because of their ending: {counts_text(facts.ignored)}"
        yield message, sum(facts.ignored.values()), iter(())


def find_upscaled(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images that are enlarged on a side, or with ``pad`` on both."""
    turned = choices.flag_bit("exif_rotated") if facts.exif == "apply" else 0

    def smaller(h: NDArray[np.int32], w: NDArray[np.int32]) -> NDArray[np.bool_]:
        return is_enlarged(h, w, facts.image_shape, facts.fit)

    def mark(split: SplitFacts) -> NDArray[np.bool_]:
        h, w = split.sizes[:, 0], split.sizes[:, 1]
        # whether a turn swaps the sides is not known of each
        either = np.where(split.flags & turned, smaller(h, w) & smaller(w, h), smaller(h, w))
        return np.asarray(either & (h > 0))

    height, width, _ = facts.image_shape
    return _images(facts, mark, f"are smaller than {height}×{width}")


def find_exif_ignored(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images whose EXIF orientation the build ignores."""
    if facts.exif == "ignore":
        problem = "have an EXIF orientation that is ignored"
        yield from _images(facts, _flagged("exif_rotated"), problem)


def find_clipped(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images of 16 bits; grayscale keeps those that are grey already."""
    deep, grey = _flagged("sixteen_bit"), _flagged("grayscale")
    keeps_grey = facts.color_mode == "grayscale"

    def mark(split: SplitFacts) -> NDArray[np.bool_]:
        return deep(split) & ~grey(split) if keeps_grey else deep(split)

    return _images(facts, mark, "have 16 bits a channel, and are clipped or cut to 8")


def find_alpha_dropped(facts: Facts, _limits: CheckLimits) -> Iterator[Found]:
    """Find images whose alpha channel the build drops."""
    if facts.color_mode != "rgba":
        problem = "have an alpha channel that is dropped, not blended"
        yield from _images(facts, _flagged("alpha"), problem)


def _flagged(name: str) -> Mark:
    bit = choices.flag_bit(name)
    return lambda split: (split.flags & bit) > 0


def _images(facts: Facts, mark: Mark, problem: str) -> Iterator[Found]:
    """Yield the marked images as one problem, if there are any."""
    marks = {name: mark(split) for name, split in facts.splits.items()}
    if count := sum(int(mask.sum()) for mask in marks.values()):
        examples = (
            facts.finding("{}×{} pixels".format(*facts.splits[name].sizes[row]), (name, row))
            for name, mask in marks.items()
            for row in np.flatnonzero(mask).tolist()
        )
        yield f"{count:,} of {facts.images:,} images {problem}", count, examples
