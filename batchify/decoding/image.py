"""Decode image bytes to an (H, W, C) array, within limits of format and size.

The only reader of images. Only formats of `batchify.decoding.formats` are opened; nothing is
executed, no other file is read, and sizes are checked before pixels are allocated.

How special images are decoded, each counted by a flag:

- animated (GIF, WebP, APNG, multi-page TIFF) and MPO: the first frame;
- EXIF orientation: ignored, as Keras does, or applied with ``exif="apply"``; Pillow always applies
  that of a TIFF;
- alpha: dropped, not blended, for rgb and grayscale; kept for rgba;
- CMYK and palette: converted by Pillow's ``convert``;
- 16-bit: for rgb and rgba clipped at 255 (single channel) or cut to the high byte (several), as
  Pillow does and hence Keras; for grayscale the values are kept.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from batchify.common.text import printable
from batchify.decoding.fitting import fit_image, shrink_jpeg
from batchify.decoding.formats import check_opened, openable_formats, why_refused
from batchify.decoding.source_flags import EXIF_ROTATED, exif_orientation, source_flags
from batchify.errors import BadImageError
from batchify.image_options import DecodeOptions

_MODES = {"rgb": ("RGB",), "rgba": ("RGBA",), "grayscale": ("L", "I;16", "I")}
_TILE_WIDTH, _TILE_LENGTH = 322, 323


class Decoded(NamedTuple):
    """One decoded image.

    Parameters
    ----------
    pixels : ndarray of uint8, uint16 or int32, shape (H, W, C)
    size : tuple of int
        (height, width) of the source.
    flags : int
        Mask of `batchify.choices.FLAGS`.
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int32]
    size: tuple[int, int]
    flags: int


def decode_image(data: bytes, options: DecodeOptions, *, fit: bool = True) -> Decoded:
    """Decode, convert and resize one image, in that order.

    `set_pillow_limits` must have been called.

    Parameters
    ----------
    data : bytes
        The whole file.
    fit : bool
        False returns the image in its own size.

    Returns
    -------
    Decoded
        The pixels that ``keras_preprocessing.image.load_img`` makes from the same bytes, before
        they become floats.

    Raises
    ------
    BadImageError
        With the reason, whatever Pillow raised.
    """
    with open_image(data, options) as image:
        width, height = image.size
        if options.exif == "apply" and image.format == "PNG":
            image.load()  # its EXIF may come after the pixels
        flags = source_flags(image)
        pixels = np.asarray(_converted(image, options, flags, fit=fit))
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    return Decoded(pixels, (height, width), flags)


@contextmanager
def open_image(data: bytes, options: DecodeOptions) -> Iterator[ImageFile.ImageFile]:
    """Open an image of an allowed format and size; nothing is decoded yet.

    Raises
    ------
    BadImageError
        With the reason, whatever Pillow raises while the image is open.
    """
    try:
        with Image.open(io.BytesIO(data), formats=openable_formats(data, options)) as image:
            _check_size_limits(*image.size, options)
            check_opened(image, data)
            if image.format == "TIFF":
                _check_tile_limits(image, options)
            yield image
    except BadImageError:
        raise
    except UnidentifiedImageError:
        raise BadImageError(why_refused(data, options)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(f"decompression bomb: {_one_line(error)}") from error
    except MemoryError as error:
        raise BadImageError("needs more memory than there is") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on hostile bytes
        raise BadImageError(f"cannot be decoded: {_one_line(error)}") from error


def _check_size_limits(width: int, height: int, options: DecodeOptions) -> None:
    if max(width, height) > options.max_dimension:
        raise BadImageError(
            f"{width}×{height} pixels: a side is longer than {options.max_dimension:,} "
            "(see --max-dimension)"
        )
    if width * height > options.max_pixels:
        raise BadImageError(
            f"{width}×{height} pixels are more than {options.max_pixels:,} (see --max-pixels)"
        )


def _check_tile_limits(image: ImageFile.ImageFile, options: DecodeOptions) -> None:
    """Refuse a TIFF with tiles beyond the limits: a tile is unpacked whole, for any image size."""
    tags: Mapping[int, int] = vars(image)["tag_v2"]
    width, height = tags.get(_TILE_WIDTH, 1), tags.get(_TILE_LENGTH, 1)
    if max(width, height) > options.max_dimension or width * height > options.max_pixels:
        raise BadImageError(f"tiles of {width}×{height} pixels are too large (see --max-pixels)")


def _converted(image: Image.Image, options: DecodeOptions, flags: int, *, fit: bool) -> Image.Image:
    """Return the image in the mode and the size of `options`."""
    turn = options.exif == "apply" and bool(flags & EXIF_ROTATED)
    if options.scaled_decode and fit:
        shrink_jpeg(image, options, transposed=turn and exif_orientation(image) >= 5)
    if turn:
        from PIL import ImageOps  # rarely needed, and workers start sooner without it

        image = ImageOps.exif_transpose(image)
    modes = _MODES[options.color_mode]
    if image.mode not in modes:
        image = image.convert(modes[0])
    return fit_image(image, options) if fit else image


def _one_line(error: BaseException) -> str:
    """Return the message of an error as one printable line of at most 200 characters."""
    text = printable(str(error).split(" at 0x")[0]) or type(error).__name__
    return text[:200]
