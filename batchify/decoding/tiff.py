"""Read what Pillow does not report about a TIFF: bands, pages, and why it cannot be read."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, ImageFile, TiffImagePlugin

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_BANDS = 4
_PLANAR, _SEPARATE = ExifTags.Base.PlanarConfiguration, 2
_BITS, SAMPLES = ExifTags.Base.BitsPerSample, ExifTags.Base.SamplesPerPixel


def tiff_tags(image: ImageFile.ImageFile) -> Mapping[int, Any]:
    """Return the tags of a TIFF, by number."""
    tags: Mapping[int, Any] = vars(image)["tag_v2"]
    return tags


def tiff_bits(image: ImageFile.ImageFile) -> int:
    """Return the largest number of bits of a TIFF's channels."""
    bits = tiff_tags(image).get(_BITS, (1,))
    return int(max(bits if isinstance(bits, tuple) else (bits,)))


def is_misread_tiff(image: ImageFile.ImageFile) -> bool:
    """Return whether Pillow reads the bytes of a TIFF's channels wrongly.

    It reads uncompressed 16-bit planes as 8-bit planes (Pillow 13, ``TiffImagePlugin._setup``).
    """
    is_planar = tiff_tags(image).get(_PLANAR, 1) == _SEPARATE and len(image.getbands()) > 1
    return is_planar and not vars(image)["use_load_libtiff"] and tiff_bits(image) > 8


def unread_tiff(data: bytes) -> str:
    """Return why Pillow does not read a TIFF; empty if it is not a TIFF, or damaged."""
    if not data.startswith(TIFF):
        return ""
    try:
        header = data[:16] if data[2:3] == b"+" or data[3:4] == b"+" else data[:8]
        tags: Any = TiffImagePlugin.ImageFileDirectory_v2(header)
        content = io.BytesIO(data)
        content.seek(tags.next)
        tags.load(content)
        bands, bits = int(tags.get(SAMPLES, 1)), tags[_BITS]
    except (Warning, OSError, ValueError, SyntaxError, struct.error, LookupError, TypeError):
        return ""
    if bands > _MOST_BANDS:
        return f"a TIFF of {bands:,} bands; batchify takes up to {_MOST_BANDS}"
    depth = "×".join(map(str, sorted({*bits} if isinstance(bits, tuple) else {bits})))
    return f"a kind of TIFF that Pillow does not read: {bands} × {depth} bits"


def tiff_pages(data: bytes, most: int = 100_000) -> int:
    """Return how many pages a TIFF has up to the first damage, at most `most`."""
    order = "<" if data[:2] == b"II" else ">"
    offset_of, count_of, entry_nbytes = ("I", "H", 12)
    where = 4
    if struct.unpack(order + "H", data[2:4])[0] == 43:
        offset_of, count_of, entry_nbytes = ("Q", "Q", 20)
        where = 8
    seen: set[int] = set()
    while len(seen) < most:
        try:
            (offset,) = struct.unpack_from(order + offset_of, data, where)
            (entries,) = struct.unpack_from(order + count_of, data, offset)
        except struct.error:
            break
        if not offset or offset in seen:
            break
        seen.add(offset)
        where = offset + struct.calcsize(order + count_of) + entries * entry_nbytes
    return len(seen)
