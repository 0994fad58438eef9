"""Find which stored row a picture on the screen shows, and whether it is upright."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_DIFFERENCE = 6.0
"""Mean levels (of 255) between a row and its picture: edges are drawn smooth."""
MIN_CORRELATION = 0.7

Pixels = NDArray[np.float64]


def stored(path: Path) -> Pixels:
    """Return the images of train as levels of 0 to 255, shape (N, H, W, C)."""
    with h5py.File(path) as file:
        images = file["train/images"]
        levels = images[:].astype(np.float64)
        return levels if "scale_factor" in images.attrs else levels * 255


def cut(path: Path, box: tuple[float, float, float, float], shape: tuple[int, int]) -> Pixels:
    """Return the part of a screenshot from left, upper to right, lower, as (H, W, 3)."""
    height, width = shape
    with Image.open(path) as shot:
        part = shot.convert("RGB").resize((width, height), Image.Resampling.BOX, box)
    return np.asarray(part, np.float64)


def nearest(shown: Pixels, rows: Pixels) -> tuple[str, int, float]:
    """Return which form of which row is nearest to a picture, and how near in levels."""
    forms = {
        "upright": rows,
        "upside down": rows[:, ::-1],
        "mirrored": rows[:, :, ::-1],
        "red and blue exchanged": rows[..., 2::-1],
    }
    distances = {form: np.abs(each - shown).mean((1, 2, 3)) for form, each in forms.items()}
    form = min(distances, key=lambda each: float(distances[each].min()))
    return form, int(distances[form].argmin()), float(distances[form].min())


def likest(shown: Pixels, rows: Pixels) -> tuple[str, int, float]:
    """Return which form of which row a picture in false colors is most like: its correlation.

    The brightness of the default colors grows with the value.
    """
    brightness = shown @ (0.2126, 0.7152, 0.0722)
    best = ("nothing", -1, 0.0)
    for form, each in {"upright": rows[..., 0], "upside down": rows[:, ::-1, :, 0]}.items():
        for row, values in enumerate(each):
            likeness = float(np.corrcoef(brightness.ravel(), values.ravel())[0, 1])
            best = max(best, (form, row, likeness), key=lambda found: found[2])
    return best
