"""Find images that look unusual: dark, blurry, odd in size, or unlike others of their class.

The rules and thresholds are those of CleanVision (https://github.com/cleanlab/cleanvision), so
that a threshold means the same here and there; `find_class_outliers` has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchify.checking.facts import Facts, SplitFacts
from batchify.checking.findings import CheckLimits, Found
from batchify.common.text import printable

Floats = NDArray[np.float64]

_LEAST_IMAGES = 10
"""Classes with fewer images have no outliers: their quartiles say little."""

_LEAST_SPREAD = 0.1
"""Least distance between the quartiles of the sizes, as a share of their median. CleanVision has
none, so that where most images have one size, all others are odd."""

_LEAST_SIZE_SPREAD = 1 / 3
"""Least distance between the quartiles of log2(side) in a class: with a threshold of 3, an image
is no outlier if its side is between half and twice that of others."""

_MOST_LOG_SIDE = 32.0
"""More than log2 of any side."""

_COLORS = ("mean_red", "mean_green", "mean_blue")

_COLOR_AXES = np.array([[1 / 3, 1 / 3, 1 / 3], [1, 0, -1], [-1 / 2, 1, -1 / 2]])
"""Brightness, red against blue, and green against both: colors differ in one of them."""

_LEAST_COLOR_SPREAD = 8.0
"""Least distance between the quartiles of a color in a class, in levels."""

_LEVELS = 256.0


class _Measure(NamedTuple):
    """Images whose score is below a threshold.

    Parameters
    ----------
    column : str
        One of `batchify.choices.APPEARANCE`.
    score : callable
        Returns the scores for the values of the column.
    problem, value : str
        Texts, with room for the value of the threshold, and for that of an image.
    """

    column: str
    score: Callable[[Floats], Floats]
    problem: str
    value: str


_MEASURES = {
    "dark": _Measure(
        "brightness_p99",
        lambda values: values,
        "are dark: 99% of their pixels have a brightness below {:g}",
        "brightness {:.3f}",
    ),
    "bright": _Measure(
        "brightness_p5",
        lambda values: 1 - values,
        "are bright: 95% of their pixels have a brightness above {:g}",
        "brightness {:.3f}",
    ),
    "blurry": _Measure(
        "sharpness",
        lambda values: values,
        "are blurry: they have a sharpness below {:g}",
        "sharpness {:.3f}",
    ),
    "low-information": _Measure(
        "entropy",
        lambda values: values / 10,
        "have little information: an entropy below {:g} bits",
        "entropy {:.2f} bits",
    ),
}


def find_unclear(code: str, facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Find images that are dark, bright, blurry or say little, by what was measured of each."""
    column, score, problem, value = _MEASURES[code]
    least = limits.threshold(code)
    values = {
        name: split.appearance[column].astype(np.float64)
        for name, split in facts.splits.items()
        if column in split.appearance
    }
    scores = {name: score(each) for name, each in values.items()}
    marked = {
        name: (each < least) & (facts.splits[name].sizes[:, 0] > 0) for name, each in scores.items()
    }
    limit = {"bright": 1 - least, "low-information": 10 * least}.get(code, least)
    yield from facts.found(
        marked,
        problem.format(limit),
        lambda name, row: value.format(values[name][row]),
        scores,
    )


def find_odd_sizes(facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Find images that are much larger or smaller than most, by Tukey's outer fences.

    The size is that of the image file, as the side of a square with as many pixels.
    """
    sides = {name: _side(split) for name, split in facts.splits.items()}
    known = np.concatenate([*(each[each > 0] for each in sides.values()), np.zeros(0)])
    if not len(known):
        return
    first, median, third = np.percentile(known, [25, 50, 75])
    margin = limits.threshold("odd-size") * max(third - first, _LEAST_SPREAD * median)
    low, high = first - margin, third + margin
    marked = {name: (each > 0) & ((each < low) | (each > high)) for name, each in sides.items()}
    middle = (low + high) / 2
    least = f"below {low:,.0f} or " if low > 0 else ""
    yield from facts.found(
        marked,
        f"have an odd size: √(height × width) {least}above {high:,.0f} pixels",
        lambda name, row: facts.splits[name].size_text(row),
        {name: -np.abs(each - middle) for name, each in sides.items()},
    )


def find_odd_aspect_ratios(facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Find images that are very long, by the ratio of their shorter to their longer side."""
    ratios = {}
    for name, split in facts.splits.items():
        sizes = split.sizes.astype(np.float64)
        ratios[name] = sizes.min(axis=1) / np.maximum(sizes.max(axis=1), 1)
    least = limits.threshold("odd-aspect-ratio")
    marked = {name: (each > 0) & (each < least) for name, each in ratios.items()}
    yield from facts.found(
        marked,
        f"have an odd aspect ratio: the shorter side is less than {least:g} of the longer one",
        lambda name, row: facts.splits[name].size_text(row),
        ratios,
    )


class _Trait(NamedTuple):
    """Something in which an image may differ from others of its class.

    Parameters
    ----------
    values : dict of str to ndarray of float64, shape (n,)
        In 0 to 1; NaN where it is not known.
    least_spread : float
        Least distance between the quartiles.
    describe : callable
        Returns the text about an image, for its split and row.
    """

    name: str
    values: dict[str, Floats]
    least_spread: float
    describe: Callable[[str, int], str]


def find_class_outliers(facts: Facts, limits: CheckLimits) -> Iterator[Found]:
    """Find images whose size is far from that of others of their class, in all splits.

    Far is beyond Tukey's outer fences: `threshold` times the distance between the quartiles of
    the class, below the first or above the third; on a log scale for sizes.
    """
    labels = facts.labels
    factor = limits.threshold("class-outlier")
    marked = {name: np.zeros(len(each), np.bool_) for name, each in labels.items()}
    nearness = {name: np.zeros(len(each)) for name, each in labels.items()}
    reasons = {name: np.zeros(len(each), np.int8) for name, each in labels.items()}
    traits = _traits(facts)
    for i, trait in enumerate(traits):
        low, high = _class_quartiles(labels, trait.values, len(facts.classes))
        spread = np.maximum(high - low, trait.least_spread)
        for name, own in labels.items():
            values = trait.values[name]
            beyond = np.maximum(low[own] - values, values - high[own]) / spread[own]
            beyond = np.nan_to_num(beyond, nan=-np.inf)
            reasons[name][beyond > -nearness[name]] = i
            nearness[name] = np.minimum(nearness[name], -beyond)
            marked[name] |= beyond > factor

    def describe(name: str, row: int) -> str:
        trait = traits[reasons[name][row]]
        class_name = printable(facts.classes[labels[name][row]])
        return f"unlike others of {class_name} in {trait.name}: {trait.describe(name, row)}"

    names = " or ".join(dict.fromkeys(trait.name for trait in traits))
    yield from facts.found(
        marked, f"differ from others of their class in {names}", describe, nearness
    )


def _traits(facts: Facts) -> list[_Trait]:
    """Return what images of a class are compared by: their size, and their mean color."""
    splits = {name: facts.splits[name] for name in facts.labels}
    with np.errstate(divide="ignore"):
        sides = {name: np.log2(_side(split)) for name, split in splits.items()}
    failed = {name: ~np.isfinite(each) for name, each in sides.items()}
    scaled = {
        name: np.where(failed[name], np.nan, each / _MOST_LOG_SIDE) for name, each in sides.items()
    }
    traits = [
        _Trait(
            "size",
            scaled,
            _LEAST_SIZE_SPREAD / _MOST_LOG_SIDE,
            lambda name, row: splits[name].size_text(row),
        )
    ]
    if not all(_COLORS[0] in split.appearance for split in splits.values()):
        return traits
    colors = {
        name: np.stack([split.appearance[each] for each in _COLORS]).astype(np.float64)
        for name, split in splits.items()
    }

    def color_text(name: str, row: int) -> str:
        return "mean RGB {:.0f}, {:.0f}, {:.0f}".format(*colors[name][:, row])

    for axis in _COLOR_AXES:
        values = {
            name: np.where(failed[name], np.nan, (axis @ each + _LEVELS) / (2 * _LEVELS))
            for name, each in colors.items()
        }
        spread = _LEAST_COLOR_SPREAD / (2 * _LEVELS)
        traits.append(_Trait("color", values, spread, color_text))
    return traits


def _class_quartiles(
    labels: dict[str, NDArray[np.int32]], values: dict[str, Floats], classes: int
) -> tuple[Floats, Floats]:
    """Return the quartiles of each class; NaN for small ones.

    Notes
    -----
    Time: one sort of all values. They are between 0 and 1, so that class and value are one number.
    """
    owners = np.concatenate([*labels.values(), np.zeros(0, np.int32)])
    numbers = np.concatenate([*values.values(), np.zeros(0)])
    is_known = ~np.isnan(numbers)
    owners, numbers = owners[is_known], numbers[is_known]
    counts = np.bincount(owners, minlength=classes)
    keys = np.sort(2.0 * owners + numbers)
    firsts = np.cumsum(counts) - counts
    found = []
    for share in (0.25, 0.75):
        quartile = np.full(classes, np.nan)
        enough = np.flatnonzero(counts >= _LEAST_IMAGES)
        position = firsts[enough] + share * (counts[enough] - 1)
        before = np.floor(position).astype(np.int64)
        part = position - before
        at, after = keys[before], keys[np.minimum(before + 1, len(keys) - 1)]
        quartile[enough] = at * (1 - part) + after * part - 2.0 * enough
        found.append(quartile)
    return found[0], found[1]


def _side(split: SplitFacts) -> Floats:
    """Return the side of a square with as many pixels as each image file; 0 if it failed."""
    side: Floats = np.sqrt(split.sizes.astype(np.float64).prod(axis=1))
    return side
