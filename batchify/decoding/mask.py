"""Decode mask images to class indices.

A mask has one channel: the index of a palette, or a gray value; a mask of one bit has 0 and 1. It
has the size of its image, and is rotated and fitted like it, but by the nearest pixel: values are
never mixed. ``pad`` adds zeros, as it adds black to the image.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from batchify.decoding.fitting import fit_image
from batchify.decoding.image import read_image
from batchify.decoding.source_flags import exif_orientation
from batchify.errors import BadImageError
from batchify.image_options import DecodeOptions

_BYTE_MODES = ("1", "L", "P")
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B")
_MAX_VALUE = 255

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that `PIL.ImageOps.exif_transpose` uses for each EXIF orientation."""


def applied_orientation(data: bytes, options: DecodeOptions) -> int:
    """Return the EXIF orientation that ``exif="apply"`` uses for an image, 1 to 8.

    1 for a TIFF, which Pillow rotates itself: its mask must match the rotated image.
    """

    def read(image: ImageFile.ImageFile) -> int:
        if image.format == "TIFF":
            return 1
        if image.format == "PNG":
            image.load()  # its EXIF may come after the pixels
        return exif_orientation(image)

    return read_image(data, options, read)


def decode_mask(
    data: bytes, options: DecodeOptions, size: tuple[int, int], turn: int = 1
) -> NDArray[np.uint8]:
    """Decode a mask, and fit it as its image was fitted.

    `batchify.decoding.pillow_settings.set_pillow_limits` must have been called.

    Parameters
    ----------
    data : bytes
        The content of the file.
    options : DecodeOptions
        The options of the image; `interpolation` and `color_mode` do not matter.
    size : tuple of int
        (height, width) of the image, before it is rotated.
    turn : int
        The EXIF orientation that was applied to the image. The mask's own is ignored.

    Returns
    -------
    ndarray of uint8, shape (H, W)

    Raises
    ------
    BadImageError
        With the reason.
    """

    def read(image: ImageFile.ImageFile) -> Image.Image:
        if image.format == "TIFF" and exif_orientation(image) > 1:
            raise BadImageError("a TIFF with an EXIF orientation; save it without")
        width, height = image.size
        if (height, width) != size:
            raise BadImageError(
                f"it has {width}×{height} pixels, its image {size[1]}×{size[0]}: they must be equal"
            )
        return Image.fromarray(_values(image))

    mask = read_image(data, options, read)
    if turn in _TURNS:
        mask = mask.transpose(_TURNS[turn])
    return np.asarray(
        fit_image(mask, replace(options, interpolation="nearest", scaled_decode=False))
    )


def _values(image: Image.Image) -> NDArray[np.uint8]:
    """Return the value of each pixel."""
    if image.mode in _BYTE_MODES:
        return np.asarray(image).astype(np.uint8)
    if image.mode not in _DEEP_MODES:
        raise BadImageError(
            f"it has the colors of {image.mode}; a mask has one channel with palette indices "
            "or gray values"
        )
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _MAX_VALUE:
        raise BadImageError(f"it has values from {low} to {high}; a mask has 0 to {_MAX_VALUE}")
    return values.astype(np.uint8)
