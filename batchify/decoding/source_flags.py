"""What is special about an image file: its flags, `batchify.choices.FLAGS`."""

from __future__ import annotations

import struct

from PIL import ExifTags, Image, ImageFile

from batchify import choices

_ANIMATED, _MPO, EXIF_ROTATED, _ALPHA, _CMYK, _SIXTEEN, _PALETTE, _GREY = map(
    choices.flag_bit, choices.FLAGS
)
_MODE_FLAGS = {
    "P": _PALETTE,
    "PA": _PALETTE | _ALPHA,
    "CMYK": _CMYK,
    **dict.fromkeys(("RGBA", "RGBa"), _ALPHA),
    **dict.fromkeys(("1", "L"), _GREY),
    **dict.fromkeys(("LA", "La"), _GREY | _ALPHA),
    **dict.fromkeys(("I", "F"), _GREY | _SIXTEEN),
}

_EXIF_KEYS = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Where Pillow finds an orientation."""


def source_flags(image: ImageFile.ImageFile) -> int:
    """Return the flags of an image that is opened, but not loaded."""
    mode, info = image.mode, image.info
    flags = _MODE_FLAGS.get(mode, 0)
    if mode.startswith("I;16"):
        flags |= _GREY | _SIXTEEN
    elif _is_sixteen_bit(image):
        flags |= _SIXTEEN
    if "transparency" in info:
        flags |= _ALPHA
    if image.format == "MPO":
        flags |= _MPO
    elif getattr(image, "is_animated", False):
        flags |= _ANIMATED
    if exif_orientation(image) > 1:
        flags |= EXIF_ROTATED
    return flags


def _is_sixteen_bit(image: ImageFile.ImageFile) -> bool:
    """Tell whether the decoder cuts 16-bit channels to 8 (its raw mode says so, e.g. RGB;16B)."""
    if not image.tile:
        return False
    arguments = image.tile[0][3]
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return isinstance(raw, str) and ";16" in raw


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none, or EXIF that cannot be read."""
    if not _EXIF_KEYS.intersection(image.info) and image.format != "TIFF":
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, struct.error, KeyError, TypeError, IndexError):
        return 1
    return orientation if orientation in range(1, 9) else 1
