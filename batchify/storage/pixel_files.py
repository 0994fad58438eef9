"""Write pixels of an array as an image file, whose bytes are the same on every machine.

Images of arrays are then read, hashed and stored as those of any dataset. No library is used,
since the bytes that one writes depend on its version. Formats: PNG (https://www.w3.org/TR/png-3/)
with blocks that are not compressed (RFC 1950 and 1951), TIFF 6.0.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLOR_TYPES = {1: 0, 3: 2, 4: 6}
_BLOCK_NBYTES = 65535
_TIFF = struct.Struct("<4sLH120sL")
_TIFF_DATA = 8 + 2 + 10 * 12 + 4


def image_file(pixels: NDArray[Any]) -> bytes:
    """Return pixels as an image file: PNG, or TIFF for floats.

    Parameters
    ----------
    pixels : ndarray of uint8 or uint16, shape (H, W, C), or of float32, shape (H, W, 1)
    """
    return _tiff(pixels) if pixels.dtype.kind == "f" else _png(pixels)


def ending_of(dtype: np.dtype[Any]) -> str:
    """Return the ending for the name of such a file, with the dot."""
    return ".tif" if dtype.kind == "f" else ".png"


def _png(pixels: NDArray[Any]) -> bytes:
    height, width, channels = pixels.shape
    depth = 8 * pixels.itemsize
    rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).view(np.uint8)
    data = np.zeros((height, 1 + rows.size // height), np.uint8)  # each row begins with its filter
    data[:, 1:] = rows.reshape(height, -1)
    header = struct.pack(">2L5B", width, height, depth, _COLOR_TYPES[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", _zlib_stream(data.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(content)) + name + content + struct.pack(">L", _crc32(name, content))
        for name, content in chunks
    )


def _crc32(name: bytes, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(name))


def _zlib_stream(data: bytes) -> bytes:
    """Return data as a zlib stream of stored blocks."""
    pieces = [b"\x78\x01"]
    for start in range(0, len(data), _BLOCK_NBYTES):
        piece = data[start : start + _BLOCK_NBYTES]
        is_last = start + len(piece) == len(data)
        pieces += [struct.pack("<B2H", is_last, len(piece), len(piece) ^ 0xFFFF), piece]
    return b"".join([*pieces, struct.pack(">L", zlib.adler32(data))])


def _tiff(pixels: NDArray[Any]) -> bytes:
    height, width, _ = pixels.shape
    data = pixels.astype("<f4").tobytes()
    tags = (
        (256, 4, width),
        (257, 4, height),
        (258, 3, 32),  # bits per sample
        (259, 3, 1),  # not compressed
        (262, 3, 1),  # black is zero
        (273, 4, _TIFF_DATA),
        (277, 3, 1),  # samples per pixel
        (278, 4, height),  # rows per strip
        (279, 4, len(data)),
        (339, 3, 3),  # floating point
    )
    entries = b"".join(struct.pack("<2H2L", tag, kind, 1, value) for tag, kind, value in tags)
    return _TIFF.pack(b"II*\0", 8, len(tags), entries, 0) + data
