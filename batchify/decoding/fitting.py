"""Fit an image to its target size: stretch, crop or pad, and shrink a JPEG while it is decoded."""

from __future__ import annotations

from PIL import Image

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
"""A reduced JPEG stays at least this many times larger than the target, on each side.

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
    padded = Image.new(image.mode, target)  # zeros: black, or transparent with alpha
    padded.paste(image, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return padded
