"""Pillow's process-wide settings while batchify decodes, and the versions of its libraries."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageFile

from batchify.decoding import turbo
from batchify.decoding.formats import plugin_versions
from batchify.image_options import DecodeOptions

_BLOCK_NBYTES = 120 << 10
"""Pillow returns the pixels of an image in blocks of this size, which it joins; from 128 KiB on,
malloc maps new memory for each block."""

READ_NBYTES = 1 << 16
"""Pillow's decoders are fed with pieces of this size; what they say about damage depends on it."""

_ALL_NBYTES = 1 << 30

_SMALL_NBYTES = 64 << 10
"""Images up to this are decoded in one piece anyway, and zeros are cheap."""


class _Truncation(threading.local):
    """The value of Pillow's switch for incomplete files, separate for each thread.

    Pillow has one switch for the process, which it only tests for truth.

    Attributes
    ----------
    accepted : bool
    """

    accepted = False

    def __bool__(self) -> bool:
        return self.accepted


TRUNCATION = _Truncation()


class _Memory(threading.local):
    """The memory that each thread decodes into."""

    pixels = bytearray()


_MEMORY = _Memory()


def decode_at_once(image: Image.Image, nbytes: int, *, reuse: bool) -> bool:
    """Let a JPEG be decoded at once, into memory that is not filled with zeros before.

    `batchify.decoding.turbo` decodes it here if it can. Otherwise, Pillow will: it would cut a
    larger image into pieces. The decoder fills all of the memory, or fails, unless incomplete files
    are accepted.

    Parameters
    ----------
    nbytes : int
        What the pixels take.
    reuse : bool
        Decode into the memory of the JPEG before.

    Returns
    -------
    bool
        Whether it is decoded, and hence intact.
    """
    if not isinstance(image, ImageFile.ImageFile) or image.format not in ("JPEG", "MPO"):
        return False
    if TRUNCATION or not image.tile:
        return False
    if not reuse and not turbo.is_used():
        return False
    memory: bytearray | NDArray[np.uint8] = _MEMORY.pixels
    if not reuse:
        memory = np.empty(nbytes, np.uint8)
    elif len(memory) < nbytes:
        memory = _MEMORY.pixels = bytearray(nbytes)
    is_decoded = turbo.fill(memory, image)
    if not is_decoded:
        if not reuse or nbytes <= _SMALL_NBYTES:
            return False
        image.decodermaxblock = _ALL_NBYTES
    with suppress(AttributeError, TypeError):  # not in the public API of Pillow
        map_buffer = vars(Image)["core"].map_buffer
        image.im = map_buffer(memory, image.size, "raw", 0, (image.mode, 0, 1))
        if is_decoded:
            image.tile, image.fp = [], None  # as Pillow leaves an image that it decoded
    return is_decoded


def set_pillow_limits(options: DecodeOptions) -> None:
    """Set Pillow's process-wide switches so that the limits of `options` hold.

    A truncated file is an error, except in a thread that accepts it. Pillow refuses images of twice
    its own pixel limit; it is raised if `options` allow more pixels, and never lowered.
    """
    vars(ImageFile)["LOAD_TRUNCATED_IMAGES"] = TRUNCATION
    if Image.MAX_IMAGE_PIXELS is not None and options.max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = -(-options.max_pixels // 2)


def silence_pillow() -> None:
    """Silence Pillow's warnings about odd images in this process, permanently.

    The images were accepted when they were stored; if warnings are errors, they would fail now.
    This includes the warning about large images, since batchify has its own limits.
    """
    for category in (UserWarning, Image.DecompressionBombWarning):
        warnings.filterwarnings("ignore", category=category, module=r"PIL\.")


@contextmanager
def pillow_for_decoding() -> Iterator[None]:
    """Change Pillow's settings for a process that decodes: a worker, or a build's main thread.

    Its warnings are silenced: flags count odd images, and batchify limits large ones.
    """
    logger = logging.getLogger("PIL.TiffImagePlugin")  # it prints what is also raised
    level, block = logger.level, ImageFile.MAXBLOCK
    logger.setLevel(logging.CRITICAL)
    vars(ImageFile)["MAXBLOCK"] = _BLOCK_NBYTES
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        vars(ImageFile)["MAXBLOCK"] = block


def library_versions(plugins: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the names and versions of the libraries that decide the pixels of images.

    simplejpeg is not one of them: it decodes only what it decodes as Pillow does, and rows that
    were made without it are copied by a build with it.

    Parameters
    ----------
    plugins : tuple of str
        Plugins to include; see `batchify.image_options.DecodeOptions`.
    """
    from PIL import features

    turbo = features.check_feature("libjpeg_turbo")
    jpeg = features.version_feature("libjpeg_turbo") if turbo else features.version_codec("jpg")
    return {
        "Pillow": PIL.__version__,
        "libjpeg-turbo" if turbo else "libjpeg": jpeg or "unknown",
        **plugin_versions(plugins),
    }


def decoder_text(plugins: tuple[str, ...] = (), store: str = "decoded") -> str:
    """Return the libraries for a file's records: ``Pillow 13.0.0, …``.

    Parameters
    ----------
    plugins : tuple of str
        See `library_versions`.
    store : str
        How images are stored; what encodes them again is included, since it decides their bytes.
    """
    found = library_versions(plugins) | _encoder_versions(store)
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _encoder_versions(store: str) -> dict[str, str]:
    """Return the name and version of the library that encodes images again; JPEG has that above."""
    from PIL import features

    if store == "webp":
        return {"libwebp": features.version("webp") or "unknown"}
    if store == "png":
        is_ng = features.check_feature("zlib_ng")
        version = features.version_feature("zlib_ng") if is_ng else features.version_codec("zlib")
        return {"zlib-ng" if is_ng else "zlib": version or "unknown"}
    return {}
