"""Draws the images that the tests read; nothing comes from outside."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pixels(width: int, height: int, channels: int, seed: int) -> NDArray[np.uint8]:
    """Return smooth noise: blocks of 4 x 4 random colours, so that JPEG keeps most of it."""
    random = np.random.RandomState(seed)
    blocks = random.randint(0, 256, (height // 4 + 1, width // 4 + 1, channels), np.uint8)
    return np.kron(blocks, np.ones((4, 4, 1), np.uint8))[:height, :width]


def photo(width: int = 40, height: int = 30, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Return a drawn picture in any of Pillow's common modes."""
    if mode == "I;16":
        values = np.random.RandomState(seed).randint(0, 65536, (height, width)).astype("<u2")
        return Image.fromarray(values)
    if mode == "CMYK":
        return Image.fromarray(pixels(width, height, 4, seed), "CMYK")
    if mode == "P":
        return Image.fromarray(pixels(width, height, 3, seed)).quantize(32)
    channels = {"RGB": 3, "RGBA": 4, "L": 1, "LA": 2, "1": 1}[mode]
    array = pixels(width, height, channels, seed)
    image = Image.fromarray(array[:, :, 0] if channels == 1 else array)
    return image.convert("1") if mode == "1" else image


def encoded(image: Image.Image, format_name: str, **options: Any) -> bytes:
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def save(path: Path, data: bytes) -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def draw_dataset(
    root: Path,
    counts: dict[str, int],
    *,
    size: tuple[int, int] = (40, 30),
    format_name: str = "JPEG",
) -> Path:
    """Draw a class folder dataset of plain photos; `size` is (width, height)."""
    seed = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            seed += 1
            suffix = {"JPEG": "jpg", "PNG": "png"}[format_name]
            save(root / name / f"img_{i:03}.{suffix}", _drawn(size, seed, format_name))
    return root


@functools.lru_cache(1000)  # hundreds of tests draw the same dozen
def _drawn(size: tuple[int, int], seed: int, format_name: str) -> bytes:
    return encoded(photo(*size, seed=seed), format_name)


def draw_zoo(root: Path) -> Path:
    """Draw a dataset of everything that Keras reads: formats, modes, nesting, odd names."""
    files: dict[str, tuple[str, str, dict[str, Any]]] = {
        "cat/a.jpg": ("RGB", "JPEG", {}),
        "cat/b.JPEG": ("L", "JPEG", {}),
        "cat/cmyk.jpg": ("CMYK", "JPEG", {}),
        "cat/n9151jpg": ("RGB", "JPEG", {}),
        "cat/progressive.jpg": ("RGB", "JPEG", {"progressive": True}),
        "cat/x/deep.png": ("RGB", "PNG", {}),
        "cat/x-y.png": ("RGBA", "PNG", {}),
        "cat-big/palette.png": ("P", "PNG", {}),
        "cat-big/transparent.png": ("P", "PNG", {"transparency": 0}),
        "cat-big/grey.png": ("L", "PNG", {}),
        "cat-big/greyalpha.png": ("LA", "PNG", {}),
        "cat-big/bit.png": ("1", "PNG", {}),
        "cat-big/sub/z.bmp": ("RGB", "BMP", {}),
        "cat-big/sub-a/z.ppm": ("RGB", "PPM", {}),
        "cat-big/sub/a/z.tif": ("RGB", "TIFF", {}),
        "dog/sixteen.png": ("I;16", "PNG", {}),
        "dog/sixteen.tif": ("I;16", "TIFF", {}),
        "dog/lzw.tiff": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        "dog/é.png": ("RGB", "PNG", {}),
        "dog/z.png": ("RGB", "PNG", {}),
        ".hidden/h.png": ("RGB", "PNG", {}),
        "dog/.dot.png": ("RGB", "PNG", {}),
        "dog/.more/i.png": ("RGB", "PNG", {}),
    }
    for seed, (name, (mode, format_name, options)) in enumerate(files.items()):
        size = (20 + seed % 5 * 7, 18 + seed % 3 * 11)
        save(root / name, encoded(photo(*size, seed=seed, mode=mode), format_name, **options))
    (root / "empty").mkdir()
    save(root / "loose.png", b"not in a class")
    save(root / "dog" / "notes.txt", b"not an image")
    return root


def sixteen_bit_rgb() -> bytes:
    """Return a PNG of 16 bits a channel, which Pillow does not write."""
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(range(24)) for _ in range(4))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def tiff(
    pixels: NDArray[Any], *, photometric: int = 2, extra: int = 0, planes: bool = False
) -> bytes:
    """Return an uncompressed TIFF of any number of bands, which Pillow does not write.

    `extra` are the bands beyond those of the photometric interpretation, unspecified.
    """
    height, width, bands = pixels.shape
    ordered = np.ascontiguousarray(pixels.transpose(2, 0, 1) if planes else pixels)
    data, strips = ordered.tobytes(), bands if planes else 1
    start, bits = 2000, pixels.itemsize * 8
    sizes = [len(data) // strips] * strips
    offsets = [start + i * sizes[0] for i in range(strips)]
    tags: dict[int, list[int]] = {
        256: [width], 257: [height], 258: [bits] * bands, 259: [1], 262: [photometric],
        273: offsets, 277: [bands], 278: [height], 279: sizes, 284: [2 if planes else 1],
        **({338: [0] * extra} if extra else {}),
        339: [{"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]] * bands,
    }  # fmt: skip
    entries, values = b"", b""
    for tag, numbers in tags.items():
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(packed) > 4:
            where = 8 + 2 + 12 * len(tags) + 4 + len(values)
            values, packed = values + packed, struct.pack("<I", where)
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + packed
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + values
    return head.ljust(start, b"\0") + data
