"""Recognize image files by their first bytes, and formats that need a plugin of Pillow."""

from __future__ import annotations

AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset(
    {
        b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1",
        b"mif2", b"mif3",
    }
)  # fmt: skip
JXL_CODESTREAM, JXL_BOXES = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"

_STARTS = (
    b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"P5\n", b"P6\n", b"P4\n",
    JXL_CODESTREAM, JXL_BOXES,
)  # fmt: skip


def _brands(data: bytes) -> set[bytes]:
    """Return the brands of a file of boxes (ISO/IEC 14496-12); empty if it is not one."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[i : i + 4] for i in range(16, end, 4))}


def is_heic(data: bytes) -> bool:
    """Return whether a file is a HEIC image, by its brands."""
    brands = _brands(data)
    return not brands & AVIF_BRANDS and bool(brands & _HEIC_BRANDS)


def is_avif(data: bytes) -> bool:
    """Return whether a file is an AVIF image, by its brands."""
    return bool(_brands(data) & AVIF_BRANDS)


def is_image_head(data: bytes) -> bool:
    """Return whether the first 32 bytes of a file are those of an image."""
    is_bitmap = data[:2] == b"BM" and data[6:10] == bytes(4)
    is_webp = data[:4] + data[8:12] == b"RIFFWEBP"
    is_boxes = bool(_brands(data) & (AVIF_BRANDS | _HEIC_BRANDS))
    return is_bitmap or is_webp or is_boxes or data.startswith(_STARTS)
