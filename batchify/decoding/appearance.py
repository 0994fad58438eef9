"""Measure what an image looks like: a perceptual hash, and what `image_quality` measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from batchify import choices
from batchify.decoding.fitting import contained_size
from batchify.decoding.image import Decoded, scaled_to_bytes
from batchify.decoding.image_quality import measure_quality
from batchify.decoding.source_flags import EXIF_ROTATED
from batchify.image_options import DecodeOptions

APPEARANCE = np.dtype(list(choices.APPEARANCE.items()))
"""What is measured of an image: a column of the file for each field."""

Measures = tuple[Any, ...]
"""The values of the fields of `APPEARANCE` for one image."""

NOT_MEASURED: Measures = (0,) * len(choices.APPEARANCE)

_SIDE = 32
"""Height and width of the gray image whose frequencies are hashed."""

_FREQUENCIES = 8
_DCT = np.rint(
    8192 * np.cos(np.pi / (2 * _SIDE) * np.outer(np.arange(_FREQUENCIES), 2 * np.arange(_SIDE) + 1))
)
"""The lowest frequencies of the discrete cosine transform, as integers: all sums are exact, so that
every processor gives the same hash."""


def measure(decoded: Decoded, options: DecodeOptions) -> Measures:
    """Return the measures of an image, in the size in which it is stored.

    Alpha is ignored. The bars of a padded image only count for its hash.

    Parameters
    ----------
    options : DecodeOptions
        Those that it was decoded with.

    Returns
    -------
    tuple
        See `APPEARANCE`.
    """
    pixels = _as_bytes(decoded.pixels)
    gray = gray_image(pixels)
    found = phash(gray)
    fit = options.fit if options.shorter_side is None and options.max_side is None else "crop"
    is_turned = options.exif == "apply" and bool(decoded.flags & EXIF_ROTATED)
    if fit == "pad" and not is_turned:
        height, width, _ = pixels.shape
        inner = contained_size(decoded.size[::-1], (width, height))
        left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        gray = gray.crop((left, top, left + inner[0], top + inner[1]))
        pixels = pixels[top : top + inner[1], left : left + inner[0]]
    is_stretched = fit == "stretch" and not is_turned
    return found, *measure_quality(pixels, gray, decoded.size, is_stretched=is_stretched)


def appearance_columns(measured: Sequence[Measures]) -> dict[str, NDArray[Any]]:
    """Return the measures of some images as columns, each of shape (n,)."""
    found = np.array(measured, APPEARANCE)
    return {name: np.ascontiguousarray(found[name]) for name in choices.APPEARANCE}


def gray_image(pixels: NDArray[Any]) -> Image.Image:
    """Return the brightness of an image as a Pillow image with 8 bits per pixel.

    16-bit values are scaled. So are other values, from the lowest to the highest, unless they are
    integers of 8 bits.
    """
    plain = _as_bytes(pixels)
    height, width, channels = plain.shape
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    image = Image.frombytes(mode, (width, height), np.ascontiguousarray(plain).data)
    return image if mode == "L" else image.convert("L")


def phash(gray: Image.Image) -> int:
    """Return the perceptual hash of a gray image: images that look alike differ in few of 64 bits.

    A bit says whether one of the 64 lowest frequencies of the image, shrunk to 32×32 pixels, is
    above their median, row by row from the highest bit, which is the mean brightness.
    """
    small = np.asarray(gray.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)
    found = (_DCT @ small @ _DCT.T).ravel()
    middle = np.partition(found, (31, 32))[31:33].mean()
    return int.from_bytes(np.packbits(found > middle).tobytes(), "big")


def _as_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return scaled_to_bytes(pixels)
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind == "i" and low >= 0 and high <= 255:
        return pixels.astype(np.uint8)
    span = (high - low) or 1.0
    return np.rint((pixels.astype(np.float64) - low) * (255 / span)).astype(np.uint8)
