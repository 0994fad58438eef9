"""Measure what images lose when they are encoded again: their PSNR."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAME = math.inf
"""The PSNR of pixels that did not change."""


def psnr(before: NDArray[Any], after: NDArray[Any]) -> float:
    """Return the peak signal-to-noise ratio of two images of 8 bits, in dB, as float32 holds it.

    https://en.wikipedia.org/wiki/Peak_signal-to-noise_ratio
    """
    difference = np.subtract(before, after, dtype=np.int32)
    squares = int(np.square(difference, out=difference).sum(dtype=np.int64))
    if not squares:
        return SAME
    return float(np.float32(10 * math.log10(255**2 * before.size / squares)))


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The PSNR of some images, in dB.

    Parameters
    ----------
    images : int
        How many lost something; the others have the same pixels.
    total, least : float
        The sum of their PSNR, and the smallest.
    """

    images: int = 0
    total: float = 0.0
    least: float = SAME

    def __add__(self, other: Fidelity) -> Fidelity:
        least = min(self.least, other.least)
        return Fidelity(self.images + other.images, self.total + other.total, least)

    @property
    def mean(self) -> float:
        """The average over the images that lost something; infinity if none did."""
        return self.total / self.images if self.images else SAME

    def text(self, total: int) -> str:
        """Return what was lost as text, if these are some of `total` images."""
        if not self.images:
            return "nothing is lost"
        same = total - self.images
        others = f"; {same:,} of {total:,} images lost nothing" if same else ""
        return f"PSNR {self.mean:.1f} dB on average, {self.least:.1f} dB at least{others}"

    def as_json(self) -> dict[str, float | None]:
        """Return the mean and the smallest PSNR; null if nothing was lost."""
        if not self.images:
            return {"mean": None, "min": None}
        return {"mean": self.mean, "min": self.least}


def fidelity_of(values: NDArray[np.float32]) -> Fidelity:
    """Return the fidelity of images, given the ``psnr`` of each, shape (n,)."""
    lossy = values[np.isfinite(values)].astype(np.float64)
    if not len(lossy):
        return Fidelity()
    return Fidelity(len(lossy), float(lossy.sum()), float(lossy.min()))
