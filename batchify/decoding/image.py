"""Decode image bytes to an (H, W, C) array, within limits of format and size.

Nothing else reads images. Only formats of `batchify.decoding.formats` are opened; nothing is
executed, no other file is read, and sizes are checked before pixels are allocated.

How special images are decoded, each counted by a flag:

- animated (GIF, WebP, APNG), MPO and TIFF of several pages: the first frame or page;
- EXIF orientation: ignored, as Keras does, or applied with ``exif="apply"``; Pillow always applies
  that of a TIFF, which has no flag;
- alpha: dropped, not blended, for rgb and grayscale; kept for rgba;
- bands beyond those of the color mode, in a TIFF: dropped;
- CMYK and palette: converted by Pillow's ``convert``;
- 16-bit: for rgb and rgba clipped at 255 (single channel), as Pillow does and hence Keras, or
  scaled with ``depth="scale"``; several channels are cut to their high bytes by Pillow's decoder.
  For grayscale the values of a single channel are kept;
- floating point, 32-bit and signed integers: kept for grayscale; refused otherwise, unless they are
  whole numbers from 0 to 255. NaN and infinity are refused;
- an incomplete file: refused, or with ``truncated="accept"`` decoded as far as it goes, the rest
  black or gray.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from batchify.common.system import all_memory
from batchify.common.text import printable
from batchify.decoding.complaints import caught_complaints, heard
from batchify.decoding.fitting import fit_image, shrink_jpeg
from batchify.decoding.formats import check_opened, check_size_limits, openable_formats, why_refused
from batchify.decoding.losses import NOTHING_LOST, Lost
from batchify.decoding.pillow_settings import READ_NBYTES, decode_at_once
from batchify.decoding.salvage import (
    Content,
    accepting_truncated,
    without_metadata,
)
from batchify.decoding.source_flags import (
    CLIPPED,
    CUT,
    EXIF_ROTATED,
    PAGES,
    SIXTEEN_BIT,
    THIRTY_TWO_BIT,
    TRUNCATED,
    exif_orientation,
    source_flags,
)
from batchify.decoding.tiff import is_misread_tiff, tiff_pages, tiff_tags
from batchify.errors import BadImageError
from batchify.image_options import DecodeOptions

MODES = {
    "rgb": ("RGB",),
    "rgba": ("RGBA",),
    "grayscale": ("L", "I;16", "I;16L", "I;16B", "I", "F"),
}
_MAX_BYTE = 255
_SAMPLE_FORMAT, _UNSIGNED = 339, 1
_TILE_WIDTH, _TILE_LENGTH = 322, 323

_PIXEL_NBYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2}
"""Bytes that Pillow takes for a pixel; 4 in any other mode."""

_LARGE_NBYTES = 32 << 20
"""Images below this are decoded without a look at the memory there is."""

NO_MEMORY = "needs more memory than is available"


class Decoded(NamedTuple):
    """One decoded image.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, C)
        The dtype is the depth that was decoded: uint8; uint16 for 16 bits; int32 for signed and
        32-bit integers; float32.
    size : tuple of int
        (height, width) of the source.
    flags : int
        Mask of `batchify.choices.FLAGS`.
    lost : Lost
        Pixels that were clipped, and pages that were not decoded.
    is_intact : bool
        Whether it is known that `batchify.decoding.damage.jpeg_damage` finds nothing.
    """

    pixels: NDArray[Any]
    size: tuple[int, int]
    flags: int
    lost: Lost = NOTHING_LOST
    is_intact: bool = False


class DamagedError(BadImageError):
    """An image that Pillow fails to decode."""


_Result = TypeVar("_Result")


def decode_image(
    data: bytes, options: DecodeOptions, *, fit: bool = True, deep: bool = False
) -> Decoded:
    """Decode, convert and resize one image, in that order.

    `set_pillow_limits` must have been called.

    Parameters
    ----------
    data : bytes
        The content of the file.
    fit : bool
        False returns the image in its own size.
    deep : bool
        Return a single channel of 16 bits as it is, whatever the color mode.

    Returns
    -------
    Decoded
        The pixels that ``keras_preprocessing.image.load_img`` makes from the same bytes, before
        they become floats.

    Raises
    ------
    BadImageError
        With the reason, for anything that Pillow raises.
    """
    found, is_truncated = read_truncated(
        data, options, lambda image: _decoded(image, data, options, fit=fit, deep=deep)
    )
    return found._replace(flags=found.flags | TRUNCATED) if is_truncated else found


def read_truncated(
    data: bytes, options: DecodeOptions, read: Callable[[ImageFile.ImageFile], _Result]
) -> tuple[_Result, bool]:
    """Open an image; return the result of `read`, and whether the file is incomplete.

    Raises
    ------
    BadImageError
        As `read_opened`; and if the file is incomplete, unless the options accept it.
    """
    try:
        return read_image(data, options, read), False
    except DamagedError as error:
        content = Content(without_metadata(data) or data)
        try:
            with accepting_truncated(content):
                found = read_opened(content, options, read)
        except (BadImageError, EOFError):
            raise error from None
        if options.truncated == "error":
            raise BadImageError(f"{error}; --truncated accept decodes what is there") from error
        return found, True


def read_image(
    data: bytes, options: DecodeOptions, read: Callable[[ImageFile.ImageFile], _Result]
) -> _Result:
    """Open an image, and return the result of `read`; large metadata do not matter.

    Raises
    ------
    BadImageError
        As `read_opened`.
    """
    try:
        return read_opened(io.BytesIO(data), options, read)
    except DamagedError:
        plain = without_metadata(data)
        if plain is None:
            raise
    return read_opened(io.BytesIO(plain), options, read)


def read_opened(
    content: io.BytesIO, options: DecodeOptions, read: Callable[[ImageFile.ImageFile], _Result]
) -> _Result:
    """Open an image of an allowed format and size; return the result of `read`, which decodes it.

    Raises
    ------
    BadImageError
        With the reason, for anything that Pillow raises.
    MemoryError
        If it is true: there is not enough for the pixels, and the image is not at fault.
    """
    data, nbytes = content.getvalue(), 0
    complaints: list[str] = []
    try:
        with caught_complaints(data) as complaints:
            image = _opened(content, data, options)
            nbytes = _pixel_nbytes(image)
            check_size_limits(*image.size, options)
            _check_memory(nbytes, image, options)
            check_opened(image, data)
            if image.format == "TIFF":
                _check_tiff(image, options)
            return read(image)
    except BadImageError:
        raise
    except UnidentifiedImageError:
        raise BadImageError(why_refused(data, options)) from None
    except MemoryError as error:
        if _is_short_of(2 * nbytes + len(data)):
            raise
        raise BadImageError(NO_MEMORY) from error
    except Exception as error:  # Pillow's plugins raise nearly anything on hostile bytes
        said = f" ({complaints[0]})" if complaints else ""
        raise DamagedError(f"cannot be decoded: {_one_line(error)}{said}") from error


def _opened(content: io.BytesIO, data: bytes, options: DecodeOptions) -> ImageFile.ImageFile:
    """Open an image of any size, as `PIL.Image.open`; the caller checks the limits."""
    prefix = data[:16]
    for name in openable_formats(data, options):
        if name not in Image.OPEN:
            Image.preinit()  # the frequent formats
        if name not in Image.OPEN:
            Image.init()
        factory, accept = Image.OPEN[name]
        try:
            accepted = accept is None or accept(prefix)
            if accepted and not isinstance(accepted, str):  # a text says what Pillow lacks
                content.seek(0)
                image = factory(content, "")
                image.decodermaxblock = READ_NBYTES
                return image
        except (SyntaxError, IndexError, TypeError, struct.error):
            pass  # another format, maybe
    raise UnidentifiedImageError


def _pixel_nbytes(image: Image.Image) -> int:
    """Return how many bytes the pixels take once they are decoded."""
    width, height = image.size
    return width * height * _PIXEL_NBYTES.get(image.mode, 4)


def _is_short_of(nbytes: int) -> bool:
    """Return whether this process cannot have so many bytes more."""
    try:
        np.empty(nbytes, np.uint8)
    except MemoryError:
        return True
    return False


def _check_memory(nbytes: int, image: Image.Image, options: DecodeOptions) -> None:
    """Refuse an image that no number of workers can decode here: it would end the process."""
    if nbytes < _LARGE_NBYTES or (image.format == "JPEG" and options.scaled_decode):
        return
    memory = all_memory()
    if memory is not None and nbytes > memory:
        raise BadImageError(NO_MEMORY)


def _check_tiff(image: ImageFile.ImageFile, options: DecodeOptions) -> None:
    """Refuse a TIFF that Pillow misreads, or with tiles beyond the limits."""
    tags = tiff_tags(image)
    width, height = tags.get(_TILE_WIDTH, 1), tags.get(_TILE_LENGTH, 1)
    if is_misread_tiff(image):
        raise BadImageError("a TIFF with separate planes of 16 bits; save it with interleaved ones")
    if max(width, height) > options.max_dimension or width * height > options.max_pixels:
        raise BadImageError(f"tiles of {width}×{height} pixels are too large (see --max-pixels)")


def _decoded(
    image: ImageFile.ImageFile, data: bytes, options: DecodeOptions, *, fit: bool, deep: bool
) -> Decoded:
    """Decode an open image; `data` is the content of its file."""
    width, height = image.size
    flags, lost = flags_to_decode(image, options), NOTHING_LOST
    is_scalar = bool(flags & SIXTEEN_BIT) and not flags & CUT
    modes = MODES["grayscale" if is_scalar and deep else options.color_mode]
    if flags & THIRTY_TWO_BIT:
        _check_deep(image, options)
    elif is_scalar and image.mode not in modes and options.depth == "clip":
        values = np.asarray(image)
        if clipped := int(np.count_nonzero(values > _MAX_BYTE)):
            flags, lost = flags | CLIPPED, Lost(clipped, values.size)
    found, is_intact = converted(image, options, flags, modes, fit=fit)
    pixels = _as_array(found)
    if image.format == "PNG" and exif_orientation(image) > 1:
        flags |= EXIF_ROTATED
    if pixels.itemsize > 1:
        pixels = _deep_pixels(pixels, flags)
    if complaints := heard():
        lost += Lost(damaged=1, complaint=complaints[0])
    if flags & PAGES:
        lost += Lost(pages=tiff_pages(data) - 1)
    return Decoded(pixels, (height, width), flags, lost, is_intact)


def _as_array(image: Image.Image) -> NDArray[Any]:
    """Return the pixels of an image, shape (H, W, C)."""
    if image.mode not in ("RGB", "RGBA", "L"):
        return np.asarray(image)[:, :, np.newaxis]
    width, height = image.size  # the rest is what numpy.asarray takes longer for
    return np.frombuffer(image.tobytes(), np.uint8).reshape(height, width, -1)


def flags_to_decode(image: ImageFile.ImageFile, options: DecodeOptions) -> int:
    """Return the flags of an open image that decide how it is decoded."""
    if options.exif == "apply" and image.format == "PNG":
        image.load()  # its EXIF may come after the pixels
    return source_flags(image)


def _check_deep(image: ImageFile.ImageFile, options: DecodeOptions) -> None:
    """Refuse floating point and 32-bit integers that would be changed."""
    if image.mode == "F":
        if options.color_mode != "grayscale":
            raise BadImageError(FLOAT_ADVICE)
        return
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    tags = tiff_tags(image) if image.format == "TIFF" else {}
    formats = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))
    if low < 0 and formats[0] == _UNSIGNED:
        raise BadImageError("it has values above 2,147,483,647, which Pillow does not read")
    if options.color_mode != "grayscale" and not 0 <= low <= high <= _MAX_BYTE:
        raise BadImageError(
            f"values from {low:,} to {high:,}: signed and 32-bit integers need "
            "--color-mode grayscale --dtype float32"
        )


FLOAT_ADVICE = "floating point needs --color-mode grayscale --dtype float32"


def scaled_to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Map 0 to 65535 to 0 to 255, rounded to the nearest."""
    found: NDArray[np.uint8] = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return found


def _deep_pixels(pixels: NDArray[Any], flags: int) -> NDArray[Any]:
    """Return pixels of more than 8 bits in the dtype of their depth.

    Raises
    ------
    BadImageError
        If some are not finite.
    """
    if flags & SIXTEEN_BIT:  # a filter may have exceeded the values of a PPM, which has mode I
        values: NDArray[np.uint16] = np.clip(pixels, 0, 65535).astype(np.uint16)
        return values
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        count = int(np.count_nonzero(~np.isfinite(pixels)))
        raise BadImageError(
            f"{count:,} of its {pixels.size:,} pixels are NaN or infinite; replace them first"
        )
    return pixels


def converted(
    image: Image.Image, options: DecodeOptions, flags: int, modes: tuple[str, ...], *, fit: bool
) -> tuple[Image.Image, bool]:
    """Return the image in one of some modes and in the size of `options`, and if it is intact.

    With `fit`, copy its pixels before another image is decoded: see `decode_at_once`.
    """
    turn = options.exif == "apply" and bool(flags & EXIF_ROTATED)
    source = None
    if options.scaled_decode and fit:
        source = shrink_jpeg(image, options, transposed=turn and exif_orientation(image) >= 5)
    nbytes = _pixel_nbytes(image)
    is_intact = decode_at_once(image, nbytes, reuse=fit and nbytes < _LARGE_NBYTES)
    if turn:
        from PIL import ImageOps  # rarely needed, and workers start faster without it

        image = ImageOps.exif_transpose(image)
    if image.mode not in modes:
        if options.depth == "scale" and flags & SIXTEEN_BIT and not flags & CUT:
            image = Image.fromarray(scaled_to_bytes(np.asarray(image)))
        image = image.convert(modes[0])
    return (fit_image(image, options, source) if fit else image), is_intact


def _one_line(error: BaseException) -> str:
    """Return the message of an error as one printable line of at most 200 characters."""
    text = printable(str(error).split(" at 0x")[0]) or type(error).__name__
    return text[:200]
