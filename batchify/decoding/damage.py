"""Find JPEG images that are damaged but decode: Pillow drops the warnings of its JPEG decoder."""

from __future__ import annotations

from batchify.decoding import turbo
from batchify.decoding.formats import install_advice
from batchify.decoding.losses import NOTHING_LOST, Lost
from batchify.errors import ExtraMissingError
from batchify.image_options import DecodeOptions

_INSTALL = install_advice("turbo")
NO_DAMAGE_NOTE = f"damaged JPEGs were not looked for: {_INSTALL}"

_START = b"\xff\xd8"
_METADATA = (*range(0xE0, 0xF0), 0xFE)
_TABLES = (*range(0xC0, 0xD0), *range(0xDB, 0xE0))
"""Kinds of segments in front of the first scan: application data and comments, and the others."""

_LOSSLESS = (b"\xff\xc3", b"\xff\xc7", b"\xff\xcb", b"\xff\xcf")
"""The markers of lossless frames: no file without one of these in its bytes is lossless."""

_CORRUPT = "Corrupt JPEG data: "
_DAMAGE = (_CORRUPT, "Premature end", "Inconsistent progression")
"""How the warnings of libjpeg (jerror.h) begin that are about pixels.

Other texts are about metadata, wrong parameters that phones write, or limits of the library.
"""


def finds_damage() -> bool:
    """Return whether damaged JPEG images can be found here."""
    return turbo.LIBRARY.is_installed


def check_strict_decode(options: DecodeOptions) -> None:
    """Refuse ``strict_decode`` if damaged JPEG images cannot be found here."""
    if options.strict_decode and not finds_damage():
        raise ExtraMissingError(f"--strict-decode needs {turbo.LIBRARY.distribution}: {_INSTALL}")


def jpeg_damage(data: bytes) -> Lost:
    """Return what is wrong with the data of a JPEG image that Pillow decodes.

    Nothing if it is whole, or not a JPEG. Wrong metadata, such as an incomplete color profile,
    is no damage: the pixels do not depend on it.

    Notes
    -----
    All data is read, but pixels are computed for an eighth of the width and height only, unless the
    image may be lossless.
    """
    if not data.startswith(_START):
        return NOTHING_LOST
    complaint = _warning(data) and _warning(_without_metadata(data))
    if not complaint.startswith(_DAMAGE):
        return NOTHING_LOST
    return Lost(damaged=1, complaint=complaint.removeprefix(_CORRUPT))


def _warning(data: bytes) -> str:
    """Return the first warning, or the error, of libjpeg-turbo about a JPEG image."""
    import simplejpeg  # of an extra

    # TurboJPEG 3.1 writes a lossless image in its own size behind the end of a smaller array.
    least = 0 if any(marker in data for marker in _LOSSLESS) else 1
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=least, min_width=least, strict=True)
    except ValueError as error:
        return str(error)
    return ""


def _without_metadata(data: bytes) -> bytes:
    """Return a JPEG image without its application segments and comments."""
    kept, position = [_START], len(_START)
    while position + 4 <= len(data) and data[position] == 0xFF:
        kind = data[position + 1]
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if kind in _TABLES:
            kept.append(data[position:end])
        elif kind not in _METADATA:
            break
        position = end
    return b"".join([*kept, data[position:]])
