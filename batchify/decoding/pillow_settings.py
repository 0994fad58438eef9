"""Pillow's process-wide settings while batchify decodes, and the versions of its libraries."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import PIL
from PIL import Image, ImageFile

from batchify.decoding.formats import plugin_versions
from batchify.image_options import DecodeOptions

_KEPT_BLOCKS = 4
_core: Any = vars(Image)["core"]  # its block allocator is documented, but not exported


def set_pillow_limits(options: DecodeOptions) -> None:
    """Set Pillow's process-wide switches so that the limits of `options` hold.

    A truncated file is an error whatever the process chose before; Pillow's own pixel limit is
    raised if `options` allow more pixels, and never lowered.
    """
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    if Image.MAX_IMAGE_PIXELS is not None and options.max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = options.max_pixels


def silence_pillow() -> None:
    """Silence Pillow's warnings about odd images in this process, permanently.

    The images were accepted when they were stored; where warnings are errors, they would fail
    now. The decompression bomb warning is of another category, and stays.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@contextmanager
def pillow_for_decoding() -> Iterator[None]:
    """Change Pillow's settings for a process that decodes: a worker, or a build's main thread.

    Its warnings are silenced: the bomb warning is an error, flags count the rest. The memory of an
    image is reused for the next one (at most 4 blocks of 16 MiB): returning and allocating it
    again costs a photo of 2 megapixels a fifth of its time in page faults.
    """
    blocks = _core.get_blocks_max()
    _core.set_blocks_max(max(blocks, _KEPT_BLOCKS))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        _core.set_blocks_max(blocks)


def library_versions(plugins: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the names and versions of the libraries that decode images.

    Parameters
    ----------
    plugins : tuple of str
        Those that are asked for; see `batchify.image_options.DecodeOptions`.
    """
    from PIL import features

    turbo = features.check_feature("libjpeg_turbo")
    jpeg = features.version_feature("libjpeg_turbo") if turbo else features.version_codec("jpg")
    return {
        "Pillow": PIL.__version__,
        "libjpeg-turbo" if turbo else "libjpeg": jpeg or "unknown",
        **plugin_versions(plugins),
    }


def decoder_text(plugins: tuple[str, ...] = ()) -> str:
    """Return the decoding libraries as a file records them: ``Pillow 13.0.0, …``."""
    return ", ".join(f"{name} {version}" for name, version in library_versions(plugins).items())
