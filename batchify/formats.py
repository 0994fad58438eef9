"""The formats that are opened, by Pillow's names, and a name for what is none of them."""

from __future__ import annotations

FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "GIF", "WEBP", "AVIF")

_MAGIC = (
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%PDF", "PDF"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"\x89HDF", "HDF5"),
    (b"8BPS", "PSD"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"\0\0\1\0", "ICO"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL", "JPEG XL"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"<", "HTML, SVG or XML"),
)


def unidentified(data: bytes) -> str:
    """Return why bytes that no allowed format accepts are refused."""
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return f"format not allowed: {name}"
    return f"not an image, or a damaged one, of an allowed format ({', '.join(FORMATS)})"
