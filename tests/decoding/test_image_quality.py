"""Brightness, sharpness and entropy are those of CleanVision, from the pixels that are stored."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from helpers.drawing import photo
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageStat

from batchify import choices
from batchify.decoding.appearance import measure
from batchify.decoding.image import Decoded
from batchify.decoding.image_quality import Quality
from batchify.image_options import DecodeOptions


def quality(image: Image.Image, size: tuple[int, int] | None = None, **options: object) -> Quality:
    """Return the measures of stored pixels; `size` is the (height, width) of the image file."""
    pixels = np.atleast_3d(np.asarray(image))
    fit: DecodeOptions = DecodeOptions(pixels.shape[:2], **options)  # type: ignore[arg-type]
    return Quality(*measure(Decoded(pixels, size or pixels.shape[:2], 0), fit)[1:])


def scene(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Return a picture with smooth shades and some detail."""
    small = photo(12, 9, seed).resize(size, Image.Resampling.BICUBIC)
    return Image.blend(small, photo(*size, seed), 0.3)


def cleanvision(image: Image.Image) -> list[float]:
    """Return percentiles of brightness, sharpness and entropy by the code of CleanVision 0.3.7."""
    red, green, blue = np.asarray(image).astype(int).transpose(2, 0, 1)
    brightness = np.sqrt(0.241 * red * red + 0.691 * green * green + 0.068 * blue * blue) / 255
    gray = image.convert("L")
    edges = math.sqrt(ImageStat.Stat(gray.filter(ImageFilter.FIND_EDGES)).var[0])
    contrast = 1 - math.exp(-0.01 * float(np.std(gray.histogram())))
    sharpness = 1 - math.exp(-0.01 * edges) + (contrast if contrast > 0.18 else 0)
    return [*np.percentile(brightness, [5, 99]), min(sharpness, 1), image.entropy()]


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "plain": lambda image: image,
    "dark": lambda image: image.point(lambda value: value // 6),
    "bright": lambda image: image.point(lambda value: 255 - value // 12),
    "blurry": lambda image: image.filter(ImageFilter.GaussianBlur(6)),
    "flat": lambda image: image.point(lambda value: 100 + value // 60),
}


@pytest.mark.parametrize("edit", EDITS)
def test_the_measures_are_those_of_cleanvision(edit: str) -> None:
    """In a size of 64 pixels, in which it measures blur; to the last decimal."""
    for seed in range(4):
        image = EDITS[edit](scene(seed))
        assert quality(image)[:4] == pytest.approx(cleanvision(image), abs=0.004)


def test_a_stretched_image_is_measured_as_the_file_was() -> None:
    """And a larger one as if it was reduced; so is the part of a padded one within its bars."""
    for seed in range(4):
        image = scene(seed, (384, 288)).filter(ImageFilter.GaussianBlur(3))
        low, high, _, entropy = cleanvision(image)
        sharpness = cleanvision(image.resize((64, 48)))[2]
        stretched = quality(image.resize((256, 256)), (288, 384))
        padded = Image.new("RGB", (256, 256))
        padded.paste(image.resize((256, 192)), (0, 32))
        for found in (stretched, quality(padded, (288, 384), fit="pad")):
            assert found[:4] == pytest.approx([low, high, sharpness, entropy], abs=0.06)
        assert quality(padded, (288, 384)).brightness_p5 == 0


def test_a_gray_image_says_as_much_in_one_channel_as_in_three() -> None:
    """So does one with alpha."""
    gray = scene().convert("L")
    assert quality(gray) == quality(gray.convert("RGB")) == quality(gray.convert("RGBA"))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 300), (500, 2), (65, 64)])
def test_any_size_is_measured(size: tuple[int, int]) -> None:
    """Of the stored image, and of the file; a plain one has its color, and no information."""
    found = quality(Image.new("RGB", size, (255, 128, 1)), (3000, 10))
    assert (found.mean_red, found.mean_green, found.mean_blue) == (255, 128, 1)
    assert found.brightness_p5 == found.brightness_p99 == pytest.approx(0.6443, abs=0.001)
    assert found.entropy == pytest.approx(math.log2(3), abs=0.001)


def test_the_columns_have_the_names_and_the_order() -> None:
    """Those of the file."""
    assert tuple(choices.APPEARANCE) == ("phash", *Quality._fields)
    extremes: NDArray[np.uint8] = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    assert 0 <= quality(Image.fromarray(extremes)).brightness_p5 <= 1
