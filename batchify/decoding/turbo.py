"""Decode intact JPEG images with simplejpeg, which takes less time than Pillow for the same pixels.

It is an extra. Both decode with libjpeg-turbo, and simplejpeg writes all rows of an image at once.
Whether it is installed changes no pixel and no message: whatever it warns about is left to Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, features

from batchify.decoding.formats import Plugin

LIBRARY = Plugin("JPEG", "JPEG", "simplejpeg", "simplejpeg")

_LAYOUTS = {"RGB": "RGBX", "L": "GRAY"}
"""How Pillow keeps the pixels of its modes, by the names of simplejpeg."""

_UNSCALED = ((), (1, 0))
"""What `draft` tells Pillow's decoder about an image that is not reduced."""

_SCAN, _END = b"\xff\xda", b"\xff\xd9"


def fill(memory: bytearray | NDArray[np.uint8], image: ImageFile.ImageFile) -> bool:
    """Decode an open JPEG image into memory, in the layout of Pillow; return whether it is there.

    It is not if anything is unusual, and if the library is not used here: Pillow decodes the image
    then, as it does without the library.
    """
    layout = _LAYOUTS.get(image.mode)
    if layout is None or image.decoderconfig not in _UNSCALED or not is_used():
        return False
    if not isinstance(image.fp, io.BytesIO) or len(image.tile) != 1 or image.tile[0].offset:
        return False
    found = _decoded(image.fp.getvalue(), layout, memory)
    return found is not None and found.shape[1::-1] == image.size


def _decoded(
    data: bytes, layout: str, memory: bytearray | NDArray[np.uint8] | None = None
) -> NDArray[np.uint8] | None:
    """Return the pixels of a JPEG image; None if it is damaged, or not supported."""
    import simplejpeg  # of an extra

    try:
        found: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, layout, buffer=memory, strict=True)
    except (ValueError, RuntimeError):  # any warning of libjpeg-turbo is one
        return None
    return found


@cache
def is_used() -> bool:
    """Return whether simplejpeg is installed and decodes as Pillow does, which a few images show.

    Pillow may be built with another libjpeg, or another version of it.
    """
    if not LIBRARY.is_installed or not features.check_feature("libjpeg_turbo"):
        return False
    try:
        return all(_is_same(data) for data in _samples())
    except (ImportError, AttributeError, TypeError, ValueError):  # a version that does not fit
        return False


def library_version() -> dict[str, str]:
    """Return the name and version of the library if it is used."""
    if not is_used():
        return {}
    from importlib import metadata  # slow to import

    return {LIBRARY.distribution: metadata.version(LIBRARY.distribution)}


def _is_same(data: bytes) -> bool:
    """Return whether both libraries decode an image alike, and this one refuses a damaged one."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        expected = np.asarray(image)
    found = _decoded(data, "RGB")
    damaged = _decoded(data[: -len(_END)], "RGB")
    return found is not None and damaged is None and np.array_equal(found, expected)


def _samples() -> Iterator[bytes]:
    """Yield JPEG images of noise: one for each way to subsample, and one of a coarse first scan."""
    import simplejpeg  # of an extra

    shape = (19, 21, 3)
    numbers = np.arange(np.prod(shape), dtype=np.uint32)
    noise = (numbers**2 * np.uint32(2654435761) >> 24).astype(np.uint8).reshape(shape)
    for subsampling in ("444", "422", "420", "440", "411"):
        yield simplejpeg.encode_jpeg(noise, 75, "RGB", subsampling)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "JPEG", progressive=True)
    first, second, *_ = content.getvalue().split(_SCAN)
    yield first + _SCAN + second + _END  # libjpeg smooths what later scans refine
