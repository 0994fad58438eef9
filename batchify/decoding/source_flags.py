"""Find out what is special about an image file: its flags, `batchify.choices.FLAGS`."""

from __future__ import annotations

import io
import struct

from PIL import ExifTags, Image, ImageFile

from batchify import choices
from batchify.decoding.tiff import SAMPLES, tiff_bits, tiff_tags

(
    _ANIMATED, _MPO, EXIF_ROTATED, ALPHA, _CMYK, SIXTEEN_BIT, _PALETTE, GREY,
    PAGES, _EXTRA_BANDS, THIRTY_TWO_BIT, CLIPPED, CUT, TRUNCATED,
) = map(choices.flag_bit, choices.FLAGS)  # fmt: skip
_MODE_FLAGS = {
    "P": _PALETTE,
    "PA": _PALETTE | ALPHA,
    "CMYK": _CMYK,
    **dict.fromkeys(("RGBA", "RGBa"), ALPHA),
    **dict.fromkeys(("1", "L"), GREY),
    **dict.fromkeys(("LA", "La"), GREY | ALPHA),
    **dict.fromkeys(("I", "F"), GREY | THIRTY_TWO_BIT),
}

_EXIF_KEYS = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Where Pillow finds an orientation."""


def source_flags(image: ImageFile.ImageFile) -> int:
    """Return the flags of an image that is opened, but not loaded."""
    mode, info = image.mode, image.info
    flags = _MODE_FLAGS.get(mode, 0)
    if image.format == "JPEG":
        return flags | EXIF_ROTATED if exif_orientation(image) > 1 else flags
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):
        flags = GREY | SIXTEEN_BIT  # mode I of Pillow has 16 bits only in a PPM
    elif not flags & THIRTY_TWO_BIT and _is_cut(image):
        flags |= SIXTEEN_BIT | CUT
    if "transparency" in info:
        flags |= ALPHA
    if image.format == "MPO":
        flags |= _MPO
    elif getattr(image, "is_animated", False):
        flags |= PAGES if image.format == "TIFF" else _ANIMATED
    if image.format == "TIFF":
        bands = 3 if mode == "RGBX" else len(image.getbands())
        if tiff_tags(image).get(SAMPLES, 1) > bands:
            flags |= _EXTRA_BANDS
    elif exif_orientation(image) > 1:  # Pillow always applies it in a TIFF
        flags |= EXIF_ROTATED
    return flags


def _is_cut(image: ImageFile.ImageFile) -> bool:
    """Return whether the decoder cuts channels of more than 8 bits to their high bytes.

    The arguments of the decoder show it: a raw mode such as RGB;16B, or the largest value of a PPM.
    HEIC and AVIF have 8, 10 or 12 bits, and are always decoded to 8.
    """
    if image.format == "HEIF":
        return int(image.info.get("bit_depth") or 8) > 8
    if image.format == "AVIF" and isinstance(image.fp, io.BytesIO):
        head, _, _ = image.fp.getvalue()[:65536].partition(b"mdat")
        _, _, bits = head.partition(b"pixi")  # version and flags, channels, bits of each
        return len(bits) > 5 and bits[5] > 8
    if not image.tile:
        return False
    arguments = image.tile[0][3]
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    if isinstance(first, str) and ";16" in first:
        return True
    if image.format == "PPM" and isinstance(arguments, tuple):
        return len(arguments) == 2 and int(arguments[1]) > 255
    return image.format == "TIFF" and tiff_bits(image) > 8


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none, or it cannot be read."""
    if _EXIF_KEYS.isdisjoint(image.info) and image.format != "TIFF":
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, struct.error, KeyError, TypeError, IndexError):
        return 1
    return orientation if orientation in range(1, 9) else 1
