"""Mask images to (H, W) arrays: the class of each pixel of an image, in its geometry.

A mask has one channel: the index of a palette, or the grey value; of one bit, 0 and 1. It is as
large as its image, turned as its image is, and fitted in the same way, by the nearest pixel: no
value is mixed. What ``pad`` adds is 0, as it is black in the image.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from batchify.decode import opened, orientation_of
from batchify.errors import BadImageError
from batchify.fitting import fitted
from batchify.options import DecodeOptions

_PLAIN = ("L", "P")
_DEEP = ("I", "I;16", "I;16L", "I;16B")
_MOST = 255
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""As `PIL.ImageOps.exif_transpose` turns an image."""


def orientation(data: bytes, options: DecodeOptions) -> int:
    """Return how an image is turned upright by ``exif="apply"``: its EXIF orientation, 1 to 8.

    1 for a TIFF, which Pillow turns by itself: there its mask is to be as Pillow shows it.

    Raises
    ------
    BadImageError
    """
    with opened(data, options) as image:
        if image.format == "TIFF":
            return 1
        if image.format == "PNG":
            image.load()  # its EXIF may come after the pixels
        return orientation_of(image)


def decode_mask(
    data: bytes, options: DecodeOptions, size: tuple[int, int], turn: int = 1
) -> NDArray[np.uint8]:
    """Decode a mask, and fit it as its image was; `batchify.decode.guard` must have been called.

    Parameters
    ----------
    data : bytes
        The whole file.
    options : DecodeOptions
        Those of the image; `interpolation` and `color_mode` do not count.
    size : tuple of int
        (height, width) of the image, before it is turned.
    turn : int
        The EXIF orientation that the image was turned upright by. The mask's own is ignored.

    Returns
    -------
    ndarray of uint8, shape (H, W)

    Raises
    ------
    BadImageError
        With the reason.
    """
    with opened(data, options) as image:
        if image.format == "TIFF" and orientation_of(image) > 1:
            raise BadImageError("a TIFF with an EXIF orientation; save it without")
        width, height = image.size
        if (height, width) != size:
            raise BadImageError(
                f"it has {width}×{height} pixels, its image {size[1]}×{size[0]}: they must agree"
            )
        mask = Image.fromarray(_values(image))
    if turn in _TURNS:
        mask = mask.transpose(_TURNS[turn])
    return np.asarray(fitted(mask, replace(options, interpolation="nearest", scaled_decode=False)))


def _values(image: Image.Image) -> NDArray[np.uint8]:
    """Return the value of each pixel."""
    if image.mode in _PLAIN or image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode not in _DEEP:
        raise BadImageError(
            f"it has the colours of {image.mode}; a mask has one channel, of palette indices or "
            "grey values"
        )
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _MOST:
        raise BadImageError(f"it has values from {low} to {high}; a mask has 0 to {_MOST}")
    return values.astype(np.uint8)
