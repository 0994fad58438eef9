"""The options of a build that decide how an image is decoded and stored."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

from batchify import choices
from batchify.choices import DERIVED, LATER, check_at_least, check_choice, check_flag, parse_rescale
from batchify.errors import OptionError

MIB = 1 << 20

IMAGE_TIMEOUT_S = 120.0
"""Far more than it takes to read and decode any image within the limits of `DecodeOptions`."""

MAX_PIXELS = 2 * 89_478_485
"""The default of `DecodeOptions.max_pixels`: where Pillow, and so Keras, refuses an image."""

RECORDED_MAX_PIXELS = 89_478_485
"""What a file records for the default of `DecodeOptions.max_pixels`.

It was the default of 0.1.0. The number makes no other pixels, and files that were made before the
default was doubled stay up to date.
"""


QUALITY = 90
"""The default of `StoreOptions.quality`, as of FFCV's writer."""

_HEADERS_NBYTES = 4096
"""More than the headers of a small encoded image take."""


@dataclass(frozen=True, slots=True, repr=False)
class DecodeOptions(choices.ShortRepr):
    """How the bytes of a file become an (H, W, C) array, and which files are refused.

    Parameters
    ----------
    target_size : tuple of int
        (height, width); a single int is a square.
    color_mode : str
        Channels to store: ``rgb``, ``rgba`` or ``grayscale``.
    interpolation : str
        How to resize: ``nearest``, ``bilinear``, ``bicubic``, ``box``, ``hamming`` or ``lanczos``.
    fit : str
        If the aspect ratio differs: ``stretch``, ``crop`` the center, or ``pad`` with black.
    shorter_side : int, optional
        With ``crop``: resize the shorter side to so many pixels, and crop the center to
        `target_size`, with black around smaller images: torchvision's ``Resize`` and
        ``CenterCrop``. By default, the largest part with the aspect ratio of `target_size` is
        cropped and resized.
    exif : str
        ``ignore`` EXIF orientation, as Keras does, or ``apply`` it.
    scaled_decode : bool
        Let the JPEG decoder shrink by 2, 4 or 8 before an antialiased resize.
    max_pixels, max_dimension, max_file_size : int
        Limits for an image file: width times height, the longer side in pixels, bytes. The default
        for pixels is where Pillow refuses an image; files record it as `RECORDED_MAX_PIXELS`.
    depth : str
        What becomes of values whose depth is not that of the file. ``clip``: 16-bit values above
        255 become 255, as in Keras, and 8-bit values stay as they are. ``scale``: 0 to 65535
        becomes 0 to 255, rounded to the nearest, and 0 to 255 becomes 0 to 65535 in a uint16 file,
        and in a float32 file with one rescale factor for 16-bit values (below 1/256).
    truncated : str
        Whether an incomplete file is an ``error``; ``accept`` decodes what is there.
    strict_decode : bool
        Refuse JPEG and TIFF images that are damaged, although they decode with gray or wrong parts.
        Needs the extra ``turbo``.
    plugins : tuple of str
        Extras that decode more formats; `batchify.options.BuildOptions` sets them by the endings
        of `batchify.dataset_options.DiscoverOptions`.
    max_side : int, optional
        Only shrink images to this longer side, instead of fitting them to `target_size`; for
        images that are encoded again (`StoreOptions.max_side`).
    """

    target_size: tuple[int, int] = (150, 150)
    color_mode: choices.ColorMode = "rgb"
    interpolation: choices.Interpolation = "nearest"
    fit: choices.Fit = "stretch"
    exif: choices.Exif = "ignore"
    scaled_decode: bool = False
    max_pixels: int = MAX_PIXELS
    max_dimension: int = 65_535
    max_file_size: int = 256 * MIB
    depth: choices.Depth = field(default="clip", metadata=LATER)
    shorter_side: int | None = field(default=None, metadata=LATER)
    truncated: choices.Truncated = field(default="error", metadata=LATER)
    strict_decode: bool = field(default=False, metadata=LATER)
    plugins: tuple[str, ...] = field(default=(), metadata=DERIVED)
    max_side: int | None = field(default=None, metadata=DERIVED)

    def __post_init__(self) -> None:
        size: object = self.target_size
        if isinstance(size, int) and not isinstance(size, bool):  # as on the command line
            object.__setattr__(self, "target_size", (size, size))
        if isinstance(self.target_size, list):
            object.__setattr__(self, "target_size", tuple(self.target_size))
        if not isinstance(self.target_size, tuple) or len(self.target_size) != 2:
            raise OptionError(
                f"target size must be (height, width), such as (224, 224), not {self.target_size!r}"
            )
        for side in self.target_size:
            check_at_least("target size", side, 1)
        check_choice("color mode", self.color_mode, choices.COLOR_MODES)
        check_choice("interpolation", self.interpolation, choices.INTERPOLATIONS)
        check_choice("fit", self.fit, choices.FITS)
        check_choice("exif", self.exif, choices.EXIFS)
        check_choice("depth", self.depth, choices.DEPTHS)
        check_choice("truncated", self.truncated, choices.TRUNCATED)
        check_flag("scaled decode", self.scaled_decode)
        check_flag("strict decode", self.strict_decode)
        for name in ("max_pixels", "max_dimension", "max_file_size"):
            check_at_least(name.replace("_", " "), getattr(self, name), 1)
        if self.shorter_side is not None:
            self._check_shorter_side(self.shorter_side)
        if self.scaled_decode and self.interpolation == "nearest":
            raise OptionError(
                "scaled decode needs an antialiased interpolation (bilinear, bicubic, box, "
                "hamming or lanczos): nearest takes single pixels, which shrinking changes"
            )

    def _check_shorter_side(self, side: int) -> None:
        check_at_least("shorter side", side, 1)
        if self.fit != "crop":
            raise OptionError(
                f"--shorter-side requires --fit crop, and fit is {self.fit}: it resizes an image "
                "before its center is cropped"
            )
        most = self.max_resized_pixels
        if side * side > most:
            raise OptionError(
                f"with --shorter-side {side}, every image has more than {most:,} pixels "
                "(see --max-pixels)"
            )

    def changed(self, **given: Any) -> Self:
        """Return these options with some of them changed; any other `fit` ends `shorter_side`."""
        if given.get("fit", "crop") != "crop":
            given.setdefault("shorter_side", None)
        return replace(self, **given)

    def for_stored(self, max_side: int | None) -> Self:
        """Return the options to decode images with that were encoded again.

        They have the target size already, or sides of at most `max_side`, whatever the limits for
        image files are.
        """
        height, width = self.target_size if max_side is None else (max_side, max_side)
        return replace(
            self,
            max_side=None,
            shorter_side=None if max_side is None else self.shorter_side,
            max_pixels=max(self.max_pixels, height * width),
            max_dimension=max(self.max_dimension, height, width),
        )

    @property
    def max_resized_pixels(self) -> int:
        """Most pixels after `shorter_side`; a `max_pixels` below the default is for files alone."""
        return max(self.max_pixels, MAX_PIXELS)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (*self.target_size, choices.CHANNELS[self.color_mode])


@dataclass(frozen=True, slots=True, repr=False)
class StoreOptions(choices.ShortRepr):
    """How rows are stored.

    Parameters
    ----------
    class_mode : str
        Labels to store: ``sparse`` (class numbers), ``categorical``, ``binary`` or ``none``; with a
        manifest also ``multilabel``, ``regression`` or ``mask``.
    dtype : str
        Data type of the images: ``uint8``, ``uint16``, or ``float32`` for pixels times `rescale`.
    compression : str
        ``none`` or ``gzip``.
    rescale : str, float or None
        A fraction ("1/255") or a number for all images, recorded in the file as it was written;
        None is 1. Or ``auto``: 1/255 in a uint8 file, 1/65535 in a uint16 file, and in a float32
        file by the depth of each image: 1/255, 1/65535, or 1 for floating point and 32-bit
        integers.
    compression_level : int
        1 (fast) to 9 (small).
    store : str
        ``decoded``: pixels. ``encoded``: the encoded files, which are decoded when they are read;
        `dtype` and the size are then those of the images that readers return. ``jpeg``, ``webp`` or
        ``png``: images of the target size, encoded again, which are decoded when they are read.
    quality : int
        Of ``jpeg`` and ``webp``: 1 (small) to 100 (like the pixels).
    max_side : int, optional
        With ``jpeg``, ``webp`` or ``png``: keep the aspect ratio, and shrink images whose longer
        side is larger to so many pixels; they are fitted to the target size when they are read. By
        default, they are fitted before they are encoded.
    keep_fitting : bool
        With ``jpeg``, ``webp`` or ``png``: do not encode image files again that have this format,
        the size and the color mode already; they are stored unchanged.
    appearance : bool
        Store a perceptual hash, brightness, sharpness, entropy and mean color of each image, by
        which near duplicates and unusual images are found.
    """

    class_mode: choices.ClassMode = "sparse"
    dtype: choices.Dtype = "uint8"
    rescale: str | float | None = choices.AUTO
    compression: choices.Compression = "none"
    compression_level: int = 4
    store: choices.Store = field(default="decoded", metadata=LATER)
    max_side: int | None = field(default=None, metadata=LATER)
    quality: int = field(default=QUALITY, metadata=LATER)
    keep_fitting: bool = field(default=False, metadata=LATER)
    appearance: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        check_choice("class mode", self.class_mode, choices.CLASS_MODES)
        check_choice("dtype", self.dtype, choices.DTYPES)
        check_choice("compression", self.compression, choices.COMPRESSIONS)
        check_choice("store", self.store, choices.STORES)
        if self.is_encoded and self.compression != "none":
            raise OptionError(
                f"store {self.store} stores image files, which are compressed already; "
                "remove --compression"
            )
        self._check_encoding()
        check_at_least("compression level", self.compression_level, 1)
        if self.compression_level > 9:
            raise OptionError(f"compression level must be 1 to 9, not {self.compression_level}")
        rescale = 1.0 if self.rescale is None else self.rescale
        object.__setattr__(self, "rescale", str(rescale))
        parse_rescale(self.recorded_rescale)

    def _check_encoding(self) -> None:
        """Refuse options of an encoder that is not used."""
        check_at_least("quality", self.quality, 1)
        check_flag("keep fitting", self.keep_fitting)
        check_flag("appearance", self.appearance)
        if self.quality > 100:
            raise OptionError(f"quality must be 1 to 100, not {self.quality}")
        if self.quality != QUALITY and not self.is_lossy:
            raise OptionError(f"--quality is for --store jpeg and webp; store is {self.store}")
        if self.max_side is not None:
            check_at_least("max side", self.max_side, 1)
        given = {"--max-side": self.max_side is not None, "--keep-fitting": self.keep_fitting}
        for name, is_given in given.items():
            if is_given and not self.is_reencoded:
                raise OptionError(
                    f"{name} is for --store jpeg, webp and png; store is {self.store}"
                )

    @property
    def is_encoded(self) -> bool:
        """Whether encoded images are stored, which are decoded when they are read."""
        return self.store != "decoded"

    @property
    def keeps_files(self) -> bool:
        """Whether all image files are stored unchanged."""
        return self.store == "encoded"

    @property
    def is_reencoded(self) -> bool:
        """Whether images are fitted to the target size and encoded again."""
        return self.store in choices.REENCODED_STORES

    @property
    def is_lossy(self) -> bool:
        """Whether images are encoded again, and lose detail."""
        return self.store in choices.LOSSY_STORES

    def as_pixels(self) -> Self:
        """Return these options for rows of pixels, and nothing about them."""
        plain = replace(self, store="decoded", max_side=None, quality=QUALITY, keep_fitting=False)
        return replace(plain, appearance=False)

    def slot_nbytes(self, decode: DecodeOptions) -> int:
        """Return the most bytes that an image may have after it is encoded again.

        Noise of the best quality takes little more than its pixels (measured).
        """
        height, width, channels = decode.image_shape
        if self.max_side is not None:
            height = width = self.max_side
        pixels = height * width * channels * choices.itemsize(self.dtype)
        return pixels + pixels // 2 + _HEADERS_NBYTES

    @property
    def scales_by_depth(self) -> bool:
        """Whether each image has the factor of its own depth."""
        return self.rescale == choices.AUTO and self.dtype == "float32"

    @property
    def recorded_rescale(self) -> str:
        """The factor as text; with `scales_by_depth`, that of images with 8 bits per channel."""
        auto = self.rescale == choices.AUTO
        return choices.AUTO_RESCALES[self.dtype] if auto else str(self.rescale)

    @property
    def scale(self) -> float:
        """The factor of `recorded_rescale`, as a float64."""
        return parse_rescale(self.recorded_rescale)
