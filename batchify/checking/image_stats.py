"""Count the sizes and kinds of the images that a file was built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.format.reader import Reader
from batchify.image_options import DecodeOptions

IntT = TypeVar("IntT", np.int32, np.int64)
MOST_BINS = 16

MOST_SIZES = 8
"""How many of the most frequent sizes are listed."""

_WIDE = 6
"""If sides differ by more than this factor, bins grow in width."""

KINDS = ("color", "grayscale", "palette", "CMYK")
"""Each image is one of these."""

TRAITS = (
    "transparency",
    "16 bits per channel",
    "EXIF rotation",
    "animation",
    "several pictures (MPO)",
    "several pages",
    "more bands than channels",
    "floating point or 32 bits",
    "incomplete file",
)
"""An image may have any of these; `_TRAIT_FLAGS` has their flags."""

_TRAIT_FLAGS = (
    "alpha", "sixteen_bit", "exif_rotated", "animated", "mpo", "pages", "extra_bands",
    "thirty_two_bit", "truncated",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bin:
    """The images whose longer side has `first` to `last` pixels, both included."""

    first: int
    last: int
    count: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a dataset's images.

    Parameters
    ----------
    distinct : int
        Different pairs of height and width.
    frequent : tuple of (int, int, int)
        (height, width, images) of at most `MOST_SIZES` sizes, the most frequent first.
    bins : tuple of Bin
        By the longer side; without gaps, at most `MOST_BINS`.
    """

    images: int
    distinct: int
    frequent: tuple[tuple[int, int, int], ...]
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Kinds:
    """How many images of each kind a split has.

    Parameters
    ----------
    kinds, traits : tuple of int
        In the order of `KINDS`, which add up to all images, and of `TRAITS`.
    """

    kinds: tuple[int, ...]
    traits: tuple[int, ...]


def is_enlarged(
    heights: NDArray[IntT], widths: NDArray[IntT], options: DecodeOptions
) -> NDArray[np.bool_]:
    """Return which images are enlarged on a side; with ``pad``, on both sides."""
    if options.shorter_side is not None:
        shorter: NDArray[np.bool_] = np.minimum(heights, widths) < options.shorter_side
        return shorter
    lower, narrower = heights < options.target_size[0], widths < options.target_size[1]
    return lower & narrower if options.fit == "pad" else lower | narrower


def tally_sizes(reader: Reader) -> Sizes:
    """Count the sizes of all images.

    Notes
    -----
    Memory: 24 bytes per row.
    """
    sizes = np.empty(sum(len(columns["paths"]) for columns in reader.splits.values()), np.int64)
    start = 0
    for split in reader.splits:
        for piece in reader.pieces(split, "source_size"):
            pairs = piece.astype(np.int64).clip(0)
            sizes[start : start + len(piece)] = pairs[:, 0] << 32 | pairs[:, 1]
            start += len(piece)
    values, counts = np.unique(sizes, return_counts=True)
    heights, widths = values >> 32, values & 0xFFFFFFFF
    largest = np.argsort(-counts, kind="stable")[:MOST_SIZES]
    frequent = zip(heights[largest], widths[largest], counts[largest], strict=True)
    return Sizes(
        images=len(sizes),
        distinct=len(values),
        frequent=tuple((int(height), int(width), int(count)) for height, width, count in frequent),
        bins=tuple(_bins(np.maximum(heights, widths), counts)),
    )


def tally_kinds(reader: Reader, split: str) -> Kinds:
    """Count the kinds of a split's images, by their flags."""
    tally = _tally(reader, split)
    flags = np.arange(len(tally))

    def has(name: str) -> NDArray[np.bool_]:
        return (flags & choices.flag_bit(name)).astype(np.bool_)

    palette = has("palette")
    cmyk = has("cmyk") & ~palette
    grey = has("grayscale") & ~palette & ~cmyk
    masks = [~(palette | cmyk | grey), grey, palette, cmyk]
    return Kinds(
        tuple(int(tally[mask].sum()) for mask in masks),
        tuple(int(tally[has(name)].sum()) for name in _TRAIT_FLAGS),
    )


def _tally(reader: Reader, split: str) -> NDArray[np.int64]:
    """Return how many images of a split have each value of ``source_flags``."""
    tally = np.zeros(1 << 16, np.int64)
    for piece in reader.pieces(split, "source_flags"):
        tally += np.bincount(piece, minlength=len(tally))
    return tally


def _bins(sides: NDArray[np.int64], counts: NDArray[np.int64]) -> list[Bin]:
    """Return the histogram of sides, given how many images have each."""
    if not len(sides):
        return []
    edges = _edges(int(sides.min()), int(sides.max()))
    bins = np.searchsorted(edges, sides, "right") - 1
    totals = np.bincount(bins, weights=counts, minlength=len(edges) - 1)
    return [
        Bin(first, after - 1, int(total))
        for first, after, total in zip(edges[:-1], edges[1:], totals, strict=True)
    ]


def _edges(least: int, most: int) -> list[int]:
    """Return where bins begin, as round numbers, and at the end where the last one ends."""
    if most - least < MOST_BINS:
        return list(range(least, most + 2))
    if most > _WIDE * max(least, 1):
        steps = [1]
        while steps[-1] <= most:  # 1, 2, 4 …; with enough room, 1, 1.5, 2, 3, 4 …
            steps.append(steps[-1] * 2)
        halves = sorted({*steps, *(step + step // 2 for step in steps[1:-1])})
        for each in (halves, steps):
            kept = [0, *each] if least == 0 else each
            begin = int(np.searchsorted(kept, least, "right")) - 1
            end = int(np.searchsorted(kept, most, "right"))
            if end - begin <= MOST_BINS:
                return kept[begin : end + 1]
        return [least, *steps[-MOST_BINS:]]
    width, scale = 1, 1
    while (most // width) - (least // width) + 1 > MOST_BINS:
        width = next(w for w in (scale, 2 * scale, 5 * scale, 10 * scale) if w > width)
        if width == 10 * scale:
            scale = width
    return list(range(least - least % width, most + width + 1 - most % width, width))
