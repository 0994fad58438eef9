"""The endings of image files: which format has which, and which a file has by its first bytes."""

from __future__ import annotations

from batchify.common.magic import JXL_BOXES, JXL_CODESTREAM, is_avif, is_heic

_FORMATS = (
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    (".png", ".apng"),
    (".webp",),
    (".gif",),
    (".bmp", ".dib"),
    (".tif", ".tiff"),
    (".ppm", ".pgm", ".pbm", ".pnm"),
    (".avif",),
    (".heic", ".heif", ".hif"),
    (".jxl",),
    (".img",),  # what is none of these
)
_FORMAT_OF = {ending: number for number, some in enumerate(_FORMATS) for ending in some}

_STARTS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",  # BigTIFF
    b"MM\0+": ".tif",
    b"P4": ".pbm",
    b"P5": ".pgm",
    b"P6": ".ppm",
    JXL_CODESTREAM: ".jxl",
    JXL_BOXES: ".jxl",
}


def ending_of(image: bytes, path: str) -> str:
    """Return the ending for the name of an image file: by its first bytes, else by its path."""
    for start, ending in _STARTS.items():
        if image.startswith(start):
            return ending
    if image[:4] + image[8:12] == b"RIFFWEBP":
        return ".webp"
    if is_avif(image):
        return ".avif"
    if is_heic(image):
        return ".heic"
    name = path.rpartition("/")[2]
    ending = "." + name.rpartition(".")[2].lower() if "." in name else ".img"
    return ending if ending[1:].isalnum() and ending.isascii() else ".img"


def without_ending(name: str) -> str:
    """Return the name of a file without the ending of an image format, if it has one."""
    stem, _, last = name.rpartition(".")
    return stem if stem and f".{last.lower()}" in _FORMAT_OF else name


def with_ending(name: str, ending: str) -> str:
    """Return the name of a file with the ending of its format; if it has one of them, its own."""
    stem = without_ending(name)
    own = name[len(stem) :].lower()
    is_own = ending in _FORMAT_OF and _FORMAT_OF.get(own) == _FORMAT_OF[ending]
    return name if is_own or name.lower().endswith(ending) else stem + ending
