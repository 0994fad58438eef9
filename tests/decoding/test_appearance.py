"""Measures of an image: a perceptual hash that edits hardly change."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.drawing import encoded, photo
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from batchify.decoding.appearance import gray_image, measure, phash
from batchify.decoding.image import Decoded
from batchify.image_options import DecodeOptions


def scene(seed: int) -> Image.Image:
    """Return a drawn picture with shapes and smooth shades, as photos have them."""
    random = np.random.RandomState(seed)
    noise = Image.fromarray(random.randint(0, 256, (6, 8, 3), np.uint8))
    return noise.resize((320, 240), Image.Resampling.BICUBIC)


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of an image, fitted as a build would."""
    return np.asarray(image.resize((96, 96), Image.Resampling.BILINEAR))


def distance(one: Image.Image, other: Image.Image) -> int:
    """Return in how many bits the hashes of two images differ."""
    first, second = (phash(gray_image(pixels(each))) for each in (one, other))
    return (first ^ second).bit_count()


def marked(image: Image.Image) -> Image.Image:
    """Write on an image."""
    copy = image.copy()
    ImageDraw.Draw(copy).text((250, 225), "(c) me", fill="white")
    return copy


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "resized": lambda image: image.resize((150, 110)),
    "recompressed": lambda image: Image.open(io.BytesIO(encoded(image, "JPEG", quality=30))),
    "brighter": lambda image: image.point(lambda value: min(255, value + 20)),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "marked": marked,
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_changes_few_bits(edit: str) -> None:
    """Other images differ in about half of the bits."""
    for seed in range(5):
        image = scene(seed)
        assert distance(image, EDITS[edit](image)) <= 4
        assert distance(image, scene(seed + 10)) >= 16


def test_the_hash_is_that_of_its_definition() -> None:
    """The signs of the lowest frequencies around their median, by sums that are written out."""
    image = photo(64, 32).convert("L")
    small = np.asarray(image, np.float64).reshape(32, 1, 32, 2).mean(axis=(1, 3))
    small = np.floor(small + 0.5)
    waves = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(32) + 1) / 64)
    found = np.einsum("ik,jl,kl->ij", waves, waves, small).ravel()
    bits = "".join("1" if value > np.median(found) else "0" for value in found)
    assert f"{phash(image):064b}" == bits


def test_plain_images_have_next_to_no_bits() -> None:
    """Solid colors and even gradients, which are never near duplicates."""
    for image in (Image.new("L", (50, 50), 77), Image.new("L", (9, 9)), Image.linear_gradient("L")):
        assert phash(image).bit_count() <= 5


DEPTHS: dict[str, Callable[[NDArray[np.uint8]], NDArray[Any]]] = {
    "rgba": lambda image: np.dstack([image, image[..., :1]]),
    "16 bits": lambda image: image.astype(np.uint16) * 257,
    "32 bits": lambda image: image.astype(np.int32),
    "large": lambda image: image.astype(np.int32) * 1000 - 5,
    "floats": lambda image: image.astype(np.float32) / 255,
}


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_depth_of_pixels_does_not_matter(depth: str) -> None:
    """Values of more than 8 bits are scaled; alpha is ignored."""
    image = pixels(scene(1))
    image = image.copy() if depth == "rgba" else image[..., :1].copy()
    image[0, 0], image[0, 1] = 0, 255
    options = DecodeOptions((96, 96))

    def measured(pixels: NDArray[Any]) -> Any:
        return measure(Decoded(pixels, pixels.shape[:2], 0), options)

    assert measured(DEPTHS[depth](image)) == measured(image)
    flat = np.full((4, 4, 1), 0.5, np.float32)
    assert measured(flat)[0] == 0
