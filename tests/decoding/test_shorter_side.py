"""Images as torchvision's Resize and CenterCrop make them, wherever they are decoded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import encoded, photo, save
from helpers.frameworks import framework
from helpers.running import Run
from helpers.tabled import write_table
from numpy.typing import NDArray
from PIL import Image, ImageOps

import batchify
from batchify import choices
from batchify.decoding.image import decode_image
from batchify.errors import BadImageError, OptionError
from batchify.image_options import DecodeOptions

SIDES = (1, 2, 23, 24, 25, 31, 32, 33, 48, 65)
SIZES = [(width, height) for width in SIDES for height in SIDES]
CASES = [
    (24, (24, 24)),
    (33, (24, 24)),
    (32, (21, 24)),
    (24, (20, 31)),
    (7, (24, 9)),
    (25, (9, 40)),
]
"""Shorter side, and (height, width): odd and even differences, above and below the target."""


def evaluated(
    image: Image.Image, shorter_side: int, target: tuple[int, int], interpolation: str
) -> NDArray[Any]:
    """Resize, pad with zeros and crop an image with Pillow and NumPy alone."""
    width, height = image.size
    longer = int(shorter_side * max(width, height) / min(width, height))
    size = (shorter_side, longer) if width <= height else (longer, shorter_side)
    if image.size != size:
        image = image.resize(size, Image.Resampling[interpolation.upper()])
    array = np.asarray(image)
    for axis, want in enumerate(target):
        lacks = max(want - array.shape[axis], 0)
        around = [(0, 0)] * array.ndim
        around[axis] = (lacks // 2, (lacks + 1) // 2)
        array = np.pad(array, around)
        first = int(round((array.shape[axis] - want) / 2.0))  # noqa: RUF046 - to even, as there
        array = np.take(array, range(first, first + want), axis)
    return array


def decoded(data: bytes, **options: Any) -> NDArray[Any]:
    """Return the pixels of an image file, fitted with --fit crop."""
    return decode_image(data, DecodeOptions(fit="crop", **options)).pixels


def draw(folder: Path) -> dict[bytes, Image.Image]:
    """Draw two classes of JPEG and PNG images; return them as they decode, by their paths."""
    found = {}
    for i, (width, height) in enumerate(
        [(90, 61), (33, 70), (64, 64), (200, 41), (32, 47), (9, 8)]
    ):
        format_name = "PNG" if i % 3 else "JPEG"
        data = encoded(photo(width, height, seed=i), format_name)
        path = save(folder / f"{'ab'[i % 2]}" / f"{i}.{format_name.lower()}", data)
        found[str(path.relative_to(folder)).encode()] = Image.open(io.BytesIO(data)).convert("RGB")
    return found


def test_the_arithmetic_of_resize_and_crop() -> None:
    """For every size, with what rounds to even and where zeros are added."""
    for number, (width, height) in enumerate(SIZES):
        mode, color_mode = (("RGB", "rgb"), ("RGBA", "rgba"), ("L", "grayscale"))[number % 7 % 3]
        image = photo(width, height, number, mode)
        data = encoded(image, "PNG")
        for shorter_side, target in CASES:
            interpolation = choices.INTERPOLATIONS[number % 6]
            got = decoded(
                data, target_size=target, shorter_side=shorter_side, color_mode=color_mode,
                interpolation=interpolation,
            )  # fmt: skip
            expected = evaluated(image, shorter_side, target, interpolation)
            np.testing.assert_array_equal(
                got, expected.reshape(got.shape), f"{width}×{height}, {shorter_side} of {target}"
            )


@pytest.mark.frameworks
def test_torchvision_makes_the_same_images(tmp_path: Path) -> None:
    """Of a file, bit for bit: both generations of its transforms, both filters, and the preset."""
    transforms = framework("torchvision.transforms")
    v2 = framework("torchvision.transforms.v2")
    for number, size in enumerate(SIZES):
        image = photo(*size, number)
        data = encoded(image, "PNG")
        for shorter_side, target in CASES:
            for interpolation in ("bilinear", "bicubic"):
                mode = transforms.InterpolationMode[interpolation.upper()]
                kind = v2 if number % 5 == 0 else transforms
                transform = kind.Compose([kind.Resize(shorter_side, mode), kind.CenterCrop(target)])
                got = decoded(
                    data, target_size=target, shorter_side=shorter_side, interpolation=interpolation
                )  # fmt: skip
                np.testing.assert_array_equal(got, np.asarray(transform(image)), str(size))
    folder, out = tmp_path / "dataset", tmp_path / "out.h5"
    images = draw(folder)
    options: batchify.OptionKeywords = {
        "target_size": (28, 28), "shorter_side": 32, "interpolation": "bilinear", "fit": "crop",
        "validation_split": 0,
    }  # fmt: skip
    batchify.build(folder, out, **options)
    transform = transforms.Compose(
        [transforms.Resize(32), transforms.CenterCrop(28), transforms.ToTensor()]
    )
    train = batchify.open(out)["train"]
    usual = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    batchify.build(folder, tmp_path / "preset.h5", preset="imagenet", validation_split=0)
    preset = batchify.open(tmp_path / "preset.h5")["train"]
    for pixels, path in zip(np.asarray(preset.images), preset.paths, strict=True):
        np.testing.assert_array_equal(pixels, np.asarray(usual(images[path.encode()])))
    for (tensor, _), path in zip(train.to_torch(), train.paths, strict=True):
        expected = transform(images[path.encode()]).numpy()  # / 255, and not * (1 / 255)
        np.testing.assert_array_almost_equal_nulp(tensor.numpy(), expected)
        np.testing.assert_array_equal((tensor.numpy() * 255).round(), (expected * 255).round())


@pytest.mark.parametrize("store", ["decoded", "encoded"])
@pytest.mark.parametrize("dtype", choices.DTYPES)
def test_files_and_loaders_have_the_same_images(
    tmp_path: Path, store: choices.Store, dtype: choices.Dtype
) -> None:
    """Of pixels and of encoded files, and without a file; recorded, and part of the identity."""
    folder, out = tmp_path / "dataset", tmp_path / "out.h5"
    images = draw(folder)
    options: batchify.OptionKeywords = {
        "target_size": (20, 27), "shorter_side": 31, "interpolation": "bicubic", "fit": "crop",
        "shuffle": False, "validation_split": 0, "store": store, "dtype": dtype,
    }  # fmt: skip
    batchify.build(folder, out, **options)
    with batchify.open(out) as file, h5py.File(out) as plain:
        train = file["train"]
        rows = train.images[:]
        assert b'"shorter_side":31' in plain.attrs["config"]
        loader = batchify.Loader.from_directory(folder, subset="train", **options)
        batch, _ = loader[0]
        for row, path in enumerate(train.paths):
            expected = evaluated(images[path.encode()], 31, (20, 27), "bicubic")
            scaled = expected.astype(np.float32) * np.float32(1 / 255)
            np.testing.assert_array_equal(rows[row], scaled if dtype == "float32" else expected)
            np.testing.assert_array_equal(batch[row], scaled)
        if store == "encoded":
            image = images[train.paths[0].encode()]
            for given in None, 50:
                other = train.resized((40, 9), shorter_side=given)
                expected = evaluated(image, given or 31, (40, 9), "bicubic")
                if dtype != "float32":
                    np.testing.assert_array_equal(other.images[0], expected)
            whole = options.copy()
            whole["shorter_side"] = None
            batchify.build(folder, tmp_path / "whole.h5", **whole)
            largest = batchify.open(tmp_path / "whole.h5")["train"]
            fits: tuple[choices.Fit, ...] = ("stretch", "crop", "pad")
            for fit in fits:  # without the recorded shorter side
                np.testing.assert_array_equal(
                    train.resized((20, 27), fit=fit).images,
                    largest.resized((20, 27), fit=fit).images,
                )
            np.testing.assert_array_equal(
                train.resized((20, 27), fit="crop", shorter_side=31).images, rows
            )
    assert batchify.build(folder, out, **options).up_to_date
    identity = batchify.plan_build(folder, **options).identity
    options["shorter_side"] = 32
    assert identity != batchify.plan_build(folder, **options).identity


def test_masks_are_fitted_with_their_images(tmp_path: Path) -> None:
    """By the nearest pixel, with class 0 where the image has black; the border is a warning."""
    values = np.random.default_rng(1).integers(0, 9, (57, 40), np.uint8)
    save(tmp_path / "photos" / "i.png", encoded(photo(40, 57), "PNG"))
    save(tmp_path / "photos" / "m.png", encoded(Image.fromarray(values), "PNG"))
    table = write_table(tmp_path / "t.csv", [{"path": "i.png", "label": "m.png"}])
    options: batchify.OptionKeywords = {
        "manifest": table, "class_mode": "mask", "fit": "crop", "shorter_side": 23,
        "target_size": (26, 30), "interpolation": "bilinear", "validation_split": 0,
    }  # fmt: skip
    with pytest.warns(
        batchify.BatchifyWarning, match=r"in 26×30; --shorter-side 30 or more"
    ) as found:
        batchify.build(tmp_path / "photos", tmp_path / "out.h5", **options)
    assert [getattr(each.message, "code", "") for each in found] == ["border"]
    options["shorter_side"] = 30
    assert not batchify.plan_build(tmp_path / "photos", **options).warnings
    with h5py.File(tmp_path / "out.h5") as file:
        expected = evaluated(Image.fromarray(values), 23, (26, 30), "nearest")
        np.testing.assert_array_equal(file["train/labels"][0], expected)
        expected = evaluated(photo(40, 57), 23, (26, 30), "bilinear")
        np.testing.assert_array_equal(file["train/images"][0], expected)


@pytest.mark.parametrize("turn", [1, 3, 6])
def test_a_scaled_jpeg_keeps_its_geometry(turn: int) -> None:
    """It is cropped as the whole image is, and differs by a few levels; turned upright first."""
    smooth = photo(16, 12).resize((1001, 751), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x112] = turn
    data = encoded(smooth, "JPEG", quality=92, exif=exif)
    options: dict[str, Any] = {
        "target_size": (80, 91), "shorter_side": 94, "interpolation": "bilinear", "exif": "apply"
    }  # fmt: skip
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
    assert upright is not None
    full = evaluated(upright, 94, (80, 91), "bilinear").astype(int)
    np.testing.assert_array_equal(decoded(data, **options), full)
    scaled = decoded(data, scaled_decode=True, **options)
    difference = np.abs(full - scaled)
    assert difference.any(), "the decoder did not shrink anything"
    assert difference.mean() < 1.5
    assert difference.max() <= 16


def test_what_makes_no_sense_is_refused(tmp_path: Path, run: Run) -> None:
    """Before any image is decoded; only an image that is far too long fails later."""
    draw(tmp_path / "dataset")
    build = ("build", "dataset", "out.h5", "--target-size", "20x20")
    for words, message in (
        (("--shorter-side", "30"), "--shorter-side requires --fit crop, and fit is stretch"),
        (("--shorter-side", "30", "--fit", "pad"), "requires --fit crop, and fit is pad"),
        (("--shorter-side", "0", "--fit", "crop"), "0 is not in the range x>=1"),
        (("--shorter-side", "20000", "--fit", "crop"), "every image has more than 178,956,970"),
    ):
        done = run(*build, *words)
        assert done.returncode == 2
        assert message in done.stderr
    with pytest.raises(OptionError, match="shorter side must be a whole number"):
        DecodeOptions(fit="crop", shorter_side=2.5)  # type: ignore[arg-type]
    long = encoded(photo(1, 3000), "PNG")
    with pytest.raises(BadImageError, match=r"its longer side is 900,000 pixels.*--max-pixels"):
        decoded(long, target_size=(20, 20), shorter_side=300)
    small = decoded(long, target_size=(20, 20), shorter_side=60, max_pixels=3000)
    assert small.shape == (20, 20, 3)


def test_check_names_what_is_enlarged(tmp_path: Path) -> None:
    """Images whose shorter side is less; the target size alone does not matter."""
    draw(tmp_path / "dataset")
    report = batchify.check(
        tmp_path / "dataset", fit="crop", shorter_side=33, target_size=(20, 20), validation_split=0
    )  # fmt: skip
    (problem,) = (each for each in report.problems if each.code == "upscaled")
    assert str(problem).startswith("2 of 6 images have a shorter side below 33 (--shorter-side)")
