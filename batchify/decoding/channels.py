"""Compute the exact sums, mean and deviation of each channel.

A build adds them up while it decodes, and while it checks the rows of an earlier build. Sums are
integers, of pixels before rescale: neither the number of workers nor an interruption changes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LINES = 256
"""Lines of pixels in one sum: float32 holds 256 squares of a byte exactly."""


@dataclass(frozen=True, slots=True)
class ChannelSums:
    """Sums over some images.

    Parameters
    ----------
    sums, squares : tuple of int
        The sum of each channel over all pixels; empty if there are no images.
    """

    images: int = 0
    sums: tuple[int, ...] = ()
    squares: tuple[int, ...] = ()

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
    lines = rows.reshape(count * height, width * channels)
    sums, squares = [0] * channels, [0] * channels
    for start in range(0, len(lines), _LINES):
        block = lines[start : start + _LINES]
        parts = _byte_sums(block) if block.dtype == np.uint8 else _sums(_integers(block, scale))
        for totals, (weight, columns) in zip(
            (sums, squares, squares, squares), parts, strict=False
        ):
            for i, value in enumerate(columns.reshape(-1, channels).sum(0).tolist()):
                totals[i] += weight * int(value)
    return ChannelSums(images, tuple(sums), tuple(squares))


def sums_column(rows: Sequence[ChannelSums], channels: int) -> NDArray[np.int64]:
    """Return the sums of single images as a file stores them, shape (n, 3, C); zeros for none.

    Sums, then the high and the low 32 bits of the sums of squares, which may take 92 bits.
    """
    column = np.zeros((len(rows), 3, channels), "<i8")
    for into, row in zip(column, rows, strict=True):
        if row.sums:
            into[0] = row.sums
            into[1] = [square >> 32 for square in row.squares]
            into[2] = [square & 0xFFFFFFFF for square in row.squares]
    return column


def stored_sums(column: NDArray[np.int64], *, images: int) -> ChannelSums:
    """Return the total of the sums that `sums_column` stored for single images.

    Parameters
    ----------
    column : ndarray of int64, shape (n, 3, C)
    images : int
        How many of the rows are images.
    """
    sums, high, low = ([sum(values) for values in column[:, part].T.tolist()] for part in range(3))
    squares = tuple((a << 32) + b for a, b in zip(high, low, strict=True))
    return ChannelSums(images, tuple(sums), squares)


Parts = list[tuple[int, NDArray[Any]]]
"""The sum of each column, then the terms of its sum of squares, each with its weight."""


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


def _integers(block: NDArray[Any], scale: float | np.float32) -> NDArray[np.int64]:
    """Return stored pixels as integers before rescale, of at most 32 bits."""
    if block.dtype.kind == "f":
        block = np.rint(block.astype(np.float64) / np.float64(np.float32(scale)))
        block = np.clip(block, -(2.0**31), 2.0**31)  # a huge rescale may have made them infinite
    return block.astype(np.int64)


def mean_and_std(
    total: ChannelSums, image_shape: tuple[int, int, int], scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and (population) standard deviation of each channel, times `scale`, shape (C,).

    NaN where there are no images.
    """
    height, width, channels = image_shape
    count = total.images * height * width
    if not count:
        return np.full(channels, np.nan), np.full(channels, np.nan)
    # Python divides integers of any size with a single rounding.
    means = [scale * (s / count) for s in total.sums]
    variances = [
        (count * q - s * s) / count**2 for s, q in zip(total.sums, total.squares, strict=True)
    ]
    deviations = [abs(scale) * math.sqrt(variance) for variance in variances]
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
