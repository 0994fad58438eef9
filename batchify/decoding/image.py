"""Bytes to an (H, W, C) array, guarded.

The only reader of images. Every format that is opened is on an allow-list; nothing is executed,
no other file is read, and caps hold before pixels are allocated.

What becomes of special images, each counted by a flag:

- animated (GIF, WebP, APNG, multi-page TIFF) and MPO: the first frame;
- EXIF-rotated: ignored, as Keras does, or turned upright with ``exif="apply"``; Pillow turns a TIFF
  in any case;
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
from batchify.options import DecodeOptions


def crop_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the centred box of the target's aspect, by the integer arithmetic of Keras 3.

    The source is ``keras.utils.load_img(keep_aspect_ratio=True)``. On an image a few pixels wide
    the box may be empty; Pillow then samples along a line, here as there.
    """
    (width, height), (target_width, target_height) = size, target
    crop_height = min(height, width * target_height // target_width)
    crop_width = min(width, height * target_width // target_height)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return left, top, left + crop_width, top + crop_height


def contained_size(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size of the same aspect within the target, each side at least 1."""
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


_DRAFT_GAP = 2
"""How much larger than the target a reduced JPEG must stay, at least, on each side.

At 2 a photo of 2 megapixels decodes 4 times faster and differs by 1 level on average; at 1 it
differs by 5 (2 megapixels to 150 x 150, bilinear)."""


def draft(image: Image.Image, options: DecodeOptions, *, transposed: bool) -> None:
    """Let the JPEG decoder shrink the image, as far as its fitted size allows twice over."""
    height, width = options.target_size
    if transposed:
        height, width = width, height
    if options.fit == "crop":  # the crop box, not the image, must stay twice the target
        left, top, right, bottom = crop_box(image.size, (width, height))
        width = -(-image.width * width // max(1, right - left))
        height = -(-image.height * height // max(1, bottom - top))
    elif options.fit == "pad":
        width, height = contained_size(image.size, (width, height))
    image.draft(None, (width * _DRAFT_GAP, height * _DRAFT_GAP))


def fitted(image: Image.Image, options: DecodeOptions) -> Image.Image:
    """Return the image at the target size."""
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


def versions() -> dict[str, str]:
    """Return the names and versions of the libraries that decode."""
    from PIL import features

    turbo = features.check_feature("libjpeg_turbo")
    jpeg = features.version_feature("libjpeg_turbo") if turbo else features.version_codec("jpg")
    return {
        "Pillow": PIL.__version__,
        "libjpeg-turbo" if turbo else "libjpeg": jpeg or "unknown",
    }


def check_extensions(extensions: tuple[str, ...]) -> None:
    """Refuse an extension that this build of Pillow cannot read.

    Raises
    ------
    OptionError
    """
    from PIL import features

    for name in extensions:
        if name in ("webp", "avif") and not features.check(name):
            raise OptionError(f"this Pillow was built without {name}; leave it out of --extensions")


def guard(options: DecodeOptions) -> None:
    """Set Pillow's process-wide switches so that the caps hold.

    A truncated file is an error whatever the process chose before; Pillow's own pixel limit is
    raised where `options` ask for more, never lowered.
    """
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    if Image.MAX_IMAGE_PIXELS is not None and options.max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = options.max_pixels


def quiet() -> None:
    """Keep Pillow's remarks on odd images off the console, for good, whoever's process it is.

    They are of images that were judged when they were stored; and where warnings are errors, an
    image that was good would be none. The bomb warning is another kind, and stays.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@contextmanager
def own_pillow() -> Iterator[None]:
    """Have Pillow for oneself: for a worker, or the main thread of a build.

    Its warnings stay off the console: the bomb warning is an error, flags count the rest. The
    memory of an image is kept for the next one (at most 4 blocks of 16 MiB): to give it back and
    take it again costs a photo of 2 megapixels a fifth of its time in page faults.
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


def decode(data: bytes, options: DecodeOptions, *, fit: bool = True) -> Decoded:
    """Decode, convert and resize one image, in that order; `guard` must have been called.

    Parameters
    ----------
    data : bytes
        The whole file.
    options : DecodeOptions
    fit : bool
        False keeps the size of the source.

    Returns
    -------
    Decoded
        Pixels as ``keras_preprocessing.image.load_img`` makes them from the same bytes, before
        they become floats.

    Raises
    ------
    BadImageError
        With the reason, whatever Pillow raised.
    """
    with opened(data, options) as image:
        width, height = image.size
        if options.exif == "apply" and image.format == "PNG":
            image.load()  # its EXIF may come after the pixels
        flags = _flags(image)
        pixels = np.asarray(_converted(image, options, flags, fit=fit))
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    return Decoded(pixels, (height, width), flags)


@contextmanager
def opened(data: bytes, options: DecodeOptions) -> Iterator[ImageFile.ImageFile]:
    """Open an image within the caps; nothing is decoded yet.

    Raises
    ------
    BadImageError
        With the reason, whatever Pillow raises as long as it is open.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size, options)
            if image.format == "TIFF":
                _check_tiles(image, options)
            yield image
    except BadImageError:
        raise
    except UnidentifiedImageError:
        raise BadImageError(unidentified(data)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(f"decompression bomb: {_one_line(error)}") from error
    except MemoryError as error:
        raise BadImageError("needs more memory than there is") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on hostile bytes
        raise BadImageError(f"cannot be decoded: {_one_line(error)}") from error


def _check_size(width: int, height: int, options: DecodeOptions) -> None:
    if max(width, height) > options.max_dimension:
        raise BadImageError(
            f"{width}×{height} pixels: a side is longer than {options.max_dimension:,} "
            "(see --max-dimension)"
        )
    if width * height > options.max_pixels:
        raise BadImageError(
            f"{width}×{height} pixels are more than {options.max_pixels:,} (see --max-pixels)"
        )


def _check_tiles(image: ImageFile.ImageFile, options: DecodeOptions) -> None:
    """Hold the tiles of a TIFF to the caps: a tile is unpacked whole, however small the image."""
    tags: Mapping[int, int] = vars(image)["tag_v2"]
    width, height = tags.get(_TILE_WIDTH, 1), tags.get(_TILE_LENGTH, 1)
    if max(width, height) > options.max_dimension or width * height > options.max_pixels:
        raise BadImageError(f"tiles of {width}×{height} pixels are too large (see --max-pixels)")


def _flags(image: ImageFile.ImageFile) -> int:
    """Return what is special about an opened image, before it is loaded."""
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
    if orientation_of(image) > 1:
        flags |= _EXIF
    return flags


def _is_sixteen_bit(image: ImageFile.ImageFile) -> bool:
    """Tell whether the decoder cuts 16-bit channels to 8 (its raw mode says so, e.g. RGB;16B)."""
    if not image.tile:
        return False
    arguments = image.tile[0][3]
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return isinstance(raw, str) and ";16" in raw


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none, or EXIF that cannot be read."""
    if not _EXIF_KEYS.intersection(image.info) and image.format != "TIFF":
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, struct.error, KeyError, TypeError, IndexError):
        return 1
    return orientation if orientation in range(1, 9) else 1


def _converted(image: Image.Image, options: DecodeOptions, flags: int, *, fit: bool) -> Image.Image:
    """Return the image in the mode and of the size that was asked for."""
    turn = options.exif == "apply" and bool(flags & _EXIF)
    if options.scaled_decode and fit:
        draft(image, options, transposed=turn and orientation_of(image) >= 5)
    if turn:
        from PIL import ImageOps  # rarely needed, and workers start sooner without it

        image = ImageOps.exif_transpose(image)
    modes = _MODES[options.color_mode]
    if image.mode not in modes:
        image = image.convert(modes[0])
    return fitted(image, options) if fit else image


def _one_line(error: BaseException) -> str:
    """Return what an error says, on one printable line, and not longer than a reason should be."""
    text = printable(str(error).split(" at 0x")[0]) or type(error).__name__
    return text[:200]


def decoder_text() -> str:
    """Return the libraries that decode here, as a file records them: ``Pillow 13.0.0, …``."""
    return ", ".join(f"{name} {version}" for name, version in versions().items())
