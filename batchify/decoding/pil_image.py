"""Decode images to PIL images, which the transforms of other libraries take."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from batchify.decoding.image import MODES, converted, flags_to_decode, read_truncated
from batchify.decoding.source_flags import CUT, SIXTEEN_BIT, THIRTY_TWO_BIT
from batchify.image_options import DecodeOptions

PilImage = Image.Image


def decode_pil_image(data: bytes, options: DecodeOptions) -> PilImage | None:
    """Decode and convert one image, in its own size.

    Returns
    -------
    PIL.Image.Image or None
        Mode RGB, RGBA or L: the pixels that `decode_image` makes, without a copy of them as an
        array. None if the file has more than 8 bits per channel, which Pillow does not convert.

    Raises
    ------
    BadImageError
        As `batchify.decoding.image.decode_image`.
    """

    def read(image: ImageFile.ImageFile) -> PilImage | None:
        flags = flags_to_decode(image, options)
        if flags & THIRTY_TWO_BIT or (flags & SIXTEEN_BIT and not flags & CUT):
            return None
        found, _ = converted(image, options, flags, MODES[options.color_mode], fit=False)
        found.load()
        # Once loaded, an image outlives its file, unless it has frames to seek there.
        return found.copy() if getattr(found, "is_animated", False) else found

    return read_truncated(data, options, read)[0]


def as_pil_image(pixels: NDArray[np.uint8]) -> PilImage:
    """Return pixels, shape (h, w, C), as a PIL image."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels)
