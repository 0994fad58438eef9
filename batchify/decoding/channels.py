"""Compute the exact sums, mean and deviation of each channel.

A build adds them up while it decodes, and while it checks the rows of an earlier build. Sums are
integers, of pixels before rescale: neither the number of workers nor an interruption changes them.

float32 images that are not multiples of the scale (16 bits or floating point, with ``rescale
auto``) have fractions as sums: each image is rounded to 31 bits of its largest value, summed
exactly, and the sum is rounded to float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fractions import Fraction

_LINES = 256
"""Lines of pixels in one sum: float32 can hold 256 squares of a byte exactly."""

_LINE_VALUES = 256
"""Lines of fewer values are joined: NumPy adds long lines faster."""

_VALUE_BITS = 31
"""Bits that sums keep of the largest value of a float image."""


@dataclass(frozen=True, slots=True)
class ChannelSums:
    """Sums over some images.

    Parameters
    ----------
    sums, squares : tuple of int or Fraction
        The sum of each channel over all pixels; empty if there are no images.
    """

    images: int = 0
    sums: tuple[int | Fraction, ...] = ()
    squares: tuple[int | Fraction, ...] = ()

    def __add__(self, other: ChannelSums) -> ChannelSums:
        if not (self.sums and other.sums):
            return self if self.sums else other
        return ChannelSums(
            self.images + other.images,
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )


def channel_sums(rows: NDArray[Any], scale: float | np.float32, *, images: int) -> ChannelSums:
    """Return the sums over stored images.

    Parameters
    ----------
    rows : ndarray of uint8, uint16 or float32, shape (n, H, W, C)
    scale : float
        The factor of float32 rows.
    images : int
        How many of the rows are images; the others are zeros.
    """
    count, height, width, channels = rows.shape
    if rows.dtype.kind == "f":
        each = (_float_sums(row, float(scale)) for row in rows)
        return replace(sum(each, start=ChannelSums()), images=images)
    lines = rows.reshape(count * height, width * channels)
    return ChannelSums(images, *_line_sums(lines, channels))


def _line_sums(lines: NDArray[Any], channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the sums and the sums of squares of lines of integers."""
    while lines.shape[1] < _LINE_VALUES and len(lines) % 2 == 0 < len(lines):
        lines = lines.reshape(len(lines) // 2, -1)
    sums, squares = [0] * channels, [0] * channels
    for start in range(0, len(lines), _LINES):
        block = lines[start : start + _LINES]
        is_byte = block.dtype == np.uint8
        parts = _byte_sums(block) if is_byte else _sums(block.astype(np.int64))
        for totals, (weight, columns) in zip(
            (sums, squares, squares, squares), parts, strict=False
        ):
            for i, value in enumerate(columns.reshape(-1, channels).sum(0).tolist()):
                totals[i] += weight * int(value)
    return tuple(sums), tuple(squares)


def _float_sums(row: NDArray[np.float32], scale: float) -> ChannelSums:
    """Return the sums over one image of floats, in units of `scale`."""
    height, width, channels = row.shape
    lines = row.reshape(height, width * channels)
    found = ChannelSums()
    for start in range(0, height, _LINES):
        integers = _integers(lines[start : start + _LINES], np.float32(scale))
        if integers is None:
            return _rounded_sums(lines, channels, scale)
        found += ChannelSums(0, *_line_sums(integers, channels))
    return found


def _rounded_sums(lines: NDArray[np.float32], channels: int, scale: float) -> ChannelSums:
    """Return the sums over the lines of an image whose values are no multiples of `scale`."""
    from fractions import Fraction  # slow to import, and rarely needed

    largest = max(abs(float(lines.min())), abs(float(lines.max())))
    exponent = _VALUE_BITS - math.frexp(largest)[1]
    found = ChannelSums()
    for start in range(0, len(lines), _LINES):
        block = np.ldexp(lines[start : start + _LINES].astype(np.float64), exponent)
        found += ChannelSums(0, *_line_sums(np.rint(block).astype(np.int64), channels))
    unit = Fraction(2) ** -exponent / Fraction(scale)
    return ChannelSums(
        0,
        tuple(Fraction(float(value * unit)) for value in found.sums),
        tuple(Fraction(float(value * unit * unit)) for value in found.squares),
    )


def sums_column(rows: Sequence[ChannelSums], channels: int) -> NDArray[np.int64]:
    """Return the sums of single images as a file stores them, shape (n, 3, C); zeros for none.

    Sums, then the high and the low 32 bits of the sums of squares, which may take 92 bits.
    Fractions are stored as the bits of a float64, with -1 instead of the low bits.
    """
    column = np.zeros((len(rows), 3, channels), "<i8")
    for into, row in zip(column, rows, strict=True):
        if all(isinstance(value, int) for value in (*row.sums, *row.squares)):
            into[0] = row.sums or 0
            into[1] = [int(square) >> 32 for square in row.squares] or 0
            into[2] = [int(square) & 0xFFFFFFFF for square in row.squares] or 0
        else:
            into[:2] = np.array([row.sums, row.squares], "<f8").view("<i8")
            into[2] = -1
    return column


def stored_sums(column: NDArray[np.int64], *, images: int) -> ChannelSums:
    """Return the total of the sums that `sums_column` stored for single images.

    Parameters
    ----------
    column : ndarray of int64, shape (n, 3, C)
    images : int
        How many of the rows are images.
    """
    is_integer = column[:, 2, 0] >= 0
    integers = column[is_integer]
    sums, high, low = (
        [sum(values) for values in integers[:, part].T.tolist()] for part in range(3)
    )
    squares = tuple((a << 32) + b for a, b in zip(high, low, strict=True))
    total = ChannelSums(0, tuple(sums), squares)
    for row in column[~is_integer]:
        total += _fraction_sums(row)
    return replace(total, images=images)


def _fraction_sums(row: NDArray[np.int64]) -> ChannelSums:
    """Return the sums of a row of `sums_column` whose sums are fractions."""
    from fractions import Fraction

    values = np.ascontiguousarray(row[:2]).view("<f8")
    if not np.isfinite(values).all():  # no build writes them
        values = np.zeros_like(values)
    sums, squares = (tuple(map(Fraction, part)) for part in values.tolist())
    return ChannelSums(1, sums, squares)


Parts = list[tuple[int, NDArray[Any]]]
"""The sum of each column, and the weighted terms of its sum of squares."""


def _byte_sums(block: NDArray[np.uint8]) -> Parts:
    values = block.astype(np.float32)
    sums = np.einsum("ij->j", values)
    squares = np.einsum("ij,ij->j", values, values)
    return [(1, sums.astype(np.int64)), (1, squares.astype(np.int64))]


def _sums(values: NDArray[np.int64]) -> Parts:
    """Sum integers of up to 32 bits: squares by halves, whose products stay below 2**40."""
    high, low = values >> 16, values & 0xFFFF
    return [
        (1, np.einsum("ij->j", values)),
        (1, np.einsum("ij,ij->j", low, low)),
        (1 << 17, np.einsum("ij,ij->j", high, low)),
        (1 << 32, np.einsum("ij,ij->j", high, high)),
    ]


def _integers(lines: NDArray[np.float32], scale: np.float32) -> NDArray[Any] | None:
    """Return floats as multiples of `scale`, integers of at most 32 bits; None if impossible.

    Infinite values, which a huge rescale may have made, become the largest.
    """
    found = np.rint(lines.astype(np.float64) / np.float64(scale))
    low, high = float(found.min()), float(found.max())
    if math.isfinite(low) and math.isfinite(high):
        if max(-low, high) > 2.0**31:
            return None
        if not np.array_equal(found.astype(np.float32) * scale, lines):
            return None
    if low >= 0 and high <= np.iinfo(np.uint8).max:
        return found.astype(np.uint8)
    return np.clip(found, -(2.0**31), 2.0**31).astype(np.int64)


def mean_and_std(
    total: ChannelSums, image_shape: tuple[int, int, int], scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and (population) standard deviation of each channel, times `scale`, shape (C,).

    NaN if there are no images.
    """
    height, width, channels = image_shape
    count = total.images * height * width
    if not count:
        return np.full(channels, np.nan), np.full(channels, np.nan)
    # Python divides integers of any size with a single rounding.
    means = [scale * float(s / count) for s in total.sums]
    variances = [
        (count * q - s * s) / count**2 for s, q in zip(total.sums, total.squares, strict=True)
    ]
    # below 0 only where fractions were rounded
    deviations = [abs(scale) * math.sqrt(max(variance, 0)) for variance in variances]
    return np.array(means, "<f8"), np.array(deviations, "<f8")


class ChannelTotals:
    """The sums of each split of a build."""

    def __init__(self) -> None:
        self._totals: dict[str, ChannelSums] = {}

    def add(self, split: str, sums: ChannelSums) -> None:
        """Add the sums over some images of a split."""
        self._totals[split] = self._totals.get(split, ChannelSums()) + sums

    def mean_and_std(
        self, split: str, image_shape: tuple[int, int, int], scale: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and deviation over the images of a split, as `mean_and_std` does."""
        return mean_and_std(self._totals.get(split, ChannelSums()), image_shape, scale)
