"""Decode image bytes to an (H, W, C) array, within limits of format and size.

The only reader of images. Only formats of `ALLOWED_FORMATS` are opened; nothing is executed, no
other file is read, and sizes are checked before pixels are allocated.

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
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from batchify import choices
from batchify.common.text import printable
from batchify.errors import BadImageError, OptionError
from batchify.image_options import DecodeOptions


def crop_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the centered box with the target's aspect ratio, in the integer arithmetic of Keras 3.

    The rule is that of ``keras.utils.load_img(keep_aspect_ratio=True)``. On an image a few pixels
    wide the box may be empty; Pillow then samples along a line, as it does for Keras.
    """
    (width, height), (target_width, target_height) = size, target
    crop_height = min(height, width * target_height // target_width)
    crop_width = min(width, height * target_width // target_height)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return left, top, left + crop_width, top + crop_height


def contained_size(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size of the same aspect ratio within the target, sides at least 1."""
    (width, height), (target_width, target_height) = size, target
    if width * target_height >= height * target_width:
        return target_width, max(1, (2 * height * target_width + width) // (2 * width))
    return max(1, (2 * width * target_height + height) // (2 * height)), target_height


_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}

_JPEG_MARGIN = 2
"""How many times larger than the target, at least, a reduced JPEG must stay on each side.

At 2 a photo of 2 megapixels decodes 4 times faster and differs by 1 level on average; at 1 it
differs by 5 (2 megapixels to 150 x 150, bilinear)."""


def shrink_jpeg(image: Image.Image, options: DecodeOptions, *, transposed: bool) -> None:
    """Let the JPEG decoder reduce the image, down to `_JPEG_MARGIN` times its fitted size."""
    height, width = options.target_size
    if transposed:
        height, width = width, height
    if options.fit == "crop":  # the crop box, not the image, must stay larger than the target
        left, top, right, bottom = crop_box(image.size, (width, height))
        width = -(-image.width * width // max(1, right - left))
        height = -(-image.height * height // max(1, bottom - top))
    elif options.fit == "pad":
        width, height = contained_size(image.size, (width, height))
    image.draft(None, (width * _JPEG_MARGIN, height * _JPEG_MARGIN))


def fit_image(image: Image.Image, options: DecodeOptions) -> Image.Image:
    """Return the image in the target size."""
    height, width = options.target_size
    target, resample = (width, height), _RESAMPLING[options.interpolation]
    if image.size == target:
        return image
    if options.fit == "crop":
        return image.resize(target, resample, box=crop_box(image.size, target))
    if options.fit == "stretch":
        return image.resize(target, resample)
    inner = contained_size(image.size, target)
    if image.size != inner:
        image = image.resize(inner, resample)
    padded = Image.new(image.mode, target)  # zeros: black, transparent where there is alpha
    padded.paste(image, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return padded


ALLOWED_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "GIF", "WEBP", "AVIF")
"""The formats that are opened, by Pillow's names; bytes of any other format are refused."""

_KNOWN_MAGIC = (
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


def _why_refused(data: bytes) -> str:
    """Return the reason to refuse bytes that are of no allowed format."""
    for magic, name in _KNOWN_MAGIC:
        if data.startswith(magic):
            return f"format not allowed: {name}"
    return f"not an image, or a damaged one, of an allowed format ({', '.join(ALLOWED_FORMATS)})"


_MODES = {"rgb": ("RGB",), "rgba": ("RGBA",), "grayscale": ("L", "I;16", "I")}
_ANIMATED, _MPO, _EXIF, _ALPHA, _CMYK, _SIXTEEN, _PALETTE, _GREY = map(
    choices.flag_bit, choices.FLAGS
)
_MODE_FLAGS = {
    "P": _PALETTE,
    "PA": _PALETTE | _ALPHA,
    "CMYK": _CMYK,
    **dict.fromkeys(("RGBA", "RGBa"), _ALPHA),
    **dict.fromkeys(("1", "L"), _GREY),
    **dict.fromkeys(("LA", "La"), _GREY | _ALPHA),
    **dict.fromkeys(("I", "F"), _GREY | _SIXTEEN),
}

_EXIF_KEYS = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Where Pillow finds an orientation."""

_KEPT_BLOCKS = 4
_core: Any = vars(Image)["core"]  # its block allocator is documented, but not exported
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


def library_versions() -> dict[str, str]:
    """Return the names and versions of the libraries that decode images."""
    from PIL import features

    turbo = features.check_feature("libjpeg_turbo")
    jpeg = features.version_feature("libjpeg_turbo") if turbo else features.version_codec("jpg")
    return {
        "Pillow": PIL.__version__,
        "libjpeg-turbo" if turbo else "libjpeg": jpeg or "unknown",
    }


def check_extensions(extensions: tuple[str, ...]) -> None:
    """Refuse an extension that this build of Pillow cannot read."""
    from PIL import features

    for name in extensions:
        if name in ("webp", "avif") and not features.check(name):
            raise OptionError(f"this Pillow was built without {name}; leave it out of --extensions")


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
        flags = _flags(image)
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
        with Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS) as image:
            _check_size_limits(*image.size, options)
            if image.format == "TIFF":
                _check_tile_limits(image, options)
            yield image
    except BadImageError:
        raise
    except UnidentifiedImageError:
        raise BadImageError(_why_refused(data)) from None
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


def _flags(image: ImageFile.ImageFile) -> int:
    """Return the flags of an image that is opened, but not loaded."""
    mode, info = image.mode, image.info
    flags = _MODE_FLAGS.get(mode, 0)
    if mode.startswith("I;16"):
        flags |= _GREY | _SIXTEEN
    elif _is_sixteen_bit(image):
        flags |= _SIXTEEN
    if "transparency" in info:
        flags |= _ALPHA
    if image.format == "MPO":
        flags |= _MPO
    elif getattr(image, "is_animated", False):
        flags |= _ANIMATED
    if exif_orientation(image) > 1:
        flags |= _EXIF
    return flags


def _is_sixteen_bit(image: ImageFile.ImageFile) -> bool:
    """Tell whether the decoder cuts 16-bit channels to 8 (its raw mode says so, e.g. RGB;16B)."""
    if not image.tile:
        return False
    arguments = image.tile[0][3]
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return isinstance(raw, str) and ";16" in raw


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none, or EXIF that cannot be read."""
    if not _EXIF_KEYS.intersection(image.info) and image.format != "TIFF":
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, struct.error, KeyError, TypeError, IndexError):
        return 1
    return orientation if orientation in range(1, 9) else 1


def _converted(image: Image.Image, options: DecodeOptions, flags: int, *, fit: bool) -> Image.Image:
    """Return the image in the mode and the size of `options`."""
    turn = options.exif == "apply" and bool(flags & _EXIF)
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


def decoder_text() -> str:
    """Return the decoding libraries as a file records them: ``Pillow 13.0.0, …``."""
    return ", ".join(f"{name} {version}" for name, version in library_versions().items())
