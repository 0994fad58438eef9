"""Measure whether an image is dark, bright, blurry or says little, as CleanVision does.

https://github.com/cleanlab/cleanvision, version 0.3.7: ``issue_managers/image_property.py``. It
measures the image in its own size; here, it is the image as it is stored, from as many pixels as
CleanVision takes to find blur. All sums are exact: every processor gives the same numbers.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

_SIDE = 64
"""Pixels of the longer side of what is measured."""

_LEVELS = 256
_BANDS = 3
_VALUES = np.arange(_LEVELS, dtype=np.int64)
_BRIGHTNESS = np.concatenate([weight * _VALUES**2 for weight in (241, 691, 68)]).astype(np.int32)
"""For each level of red, green and blue, its part of the squared brightness, times 1000."""

_DECAY = 0.01
_LEAST_CONTRAST = 0.18
"""Images with less contrast are judged by their edges alone."""

_DECIMALS = 4


class Quality(NamedTuple):
    """The measures of an image; the names are those of columns.

    Parameters
    ----------
    brightness_p5, brightness_p99 : float
        Percentiles of the brightness of its pixels, 0 to 1.
    sharpness : float
        0 to 1, by the strength of its edges and its contrast, in a size of 64 pixels.
    entropy : float
        Of the levels of its channels, in bits, as of an RGB image: 1.58 to 9.58.
    mean_red, mean_green, mean_blue : int
        0 to 255.
    """

    brightness_p5: float
    brightness_p99: float
    sharpness: float
    entropy: float
    mean_red: int
    mean_green: int
    mean_blue: int


def measure_quality(
    pixels: NDArray[np.uint8],
    gray: Image.Image,
    source_size: tuple[int, int],
    *,
    is_stretched: bool,
) -> Quality:
    """Return the measures of an image.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W, C)
        Alpha is ignored.
    gray : PIL.Image.Image
        The same image in gray.
    source_size : tuple of int
        (height, width) of the image file.
    is_stretched : bool
        The pixels show all of the image file: its aspect ratio is restored.
    """
    height, width = _measured_size(source_size if is_stretched else (gray.height, gray.width))
    source_height, source_width = _measured_size(source_size)
    share = source_height * source_width / (height * width)
    small = gray.resize((width, height), Image.Resampling.BOX)
    rows, columns = _centers(height, gray.height), _centers(width, gray.width)
    sample = pixels.take(rows, 0).take(columns, 1).reshape(height * width, -1)
    levels = np.empty((_BANDS, height * width), np.intp)
    for band, row in enumerate(levels):  # of gray pixels, too
        np.add(sample[:, min(band, sample.shape[1] - 1)], band * _LEVELS, out=row, dtype=np.intp)
    counts = np.bincount(levels.ravel(), minlength=_BANDS * _LEVELS)
    return Quality(
        *_brightness(levels),
        round(_sharpness(small, share), _DECIMALS),
        round(_entropy(counts), _DECIMALS),
        *_means(counts),
    )


def _measured_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size to which CleanVision reduces an image of a size."""
    ratio = max(size) / _SIDE
    if ratio <= 1:
        return size
    height, width = (max(int(side // ratio), 1) for side in size)
    return height, width


@lru_cache(256)
def _centers(count: int, side: int) -> NDArray[np.int64]:
    """Return the positions of `count` pixels, evenly spaced on a side."""
    return (2 * np.arange(count) + 1) * side // (2 * count)


def _brightness(levels: NDArray[np.intp]) -> tuple[float, float]:
    """Return the percentiles 5 and 99 of the brightness of some pixels."""
    squares = _BRIGHTNESS.take(levels).sum(0, dtype=np.int32)
    last = len(squares) - 1
    positions = (last * 5 // 100, -(last * -99 // 100))
    squares.partition(positions)
    low, high = (math.sqrt(int(squares[position]) / 1000) / 255 for position in positions)
    return round(low, _DECIMALS), round(high, _DECIMALS)


def _sharpness(small: Image.Image, share: float) -> float:
    """Return the strength of edges, plus the contrast if there is some.

    Parameters
    ----------
    share : float
        Pixels that CleanVision would take for each one here, since its contrast is that of counts.
    """
    count = small.width * small.height
    levels = np.array(small.histogram()) * share
    squares = float(levels @ levels)
    contrast = math.sqrt(max(squares - (count * share) ** 2 / _LEVELS, 0) / _LEVELS)
    edges = np.array(small.filter(ImageFilter.FIND_EDGES).histogram())
    mean = int(edges @ _VALUES) / count
    strength = math.sqrt(max(int(edges @ _VALUES**2) / count - mean**2, 0))
    blur, flat = (1 - math.exp(-_DECAY * value) for value in (strength, contrast))
    return min(blur + (flat if flat > _LEAST_CONTRAST else 0), 1)


def _entropy(counts: NDArray[np.int64]) -> float:
    """Return the entropy of the levels of three channels together."""
    total = int(counts.sum())
    some = counts[counts > 0]
    return math.log2(total) - float(some @ np.log2(some)) / total


def _means(counts: NDArray[np.int64]) -> list[int]:
    """Return the mean level of each channel, rounded."""
    sums = (counts.reshape(_BANDS, _LEVELS) @ _VALUES).tolist()
    total = int(counts.sum()) // _BANDS
    return [(2 * each + total) // (2 * total) for each in sums]
