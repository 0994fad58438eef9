"""Values that must not be lost in silence: 16 bits, floats, rotation, bands, pages, ends."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import encoded, photo, save, sixteen_bit_rgb, tiff
from helpers.running import Run
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, PngImagePlugin

import batchify
from batchify import choices
from batchify.decoding.channels import channel_sums, mean_and_std, stored_sums, sums_column
from batchify.decoding.image import Decoded, decode_image
from batchify.decoding.losses import LOSSES, loss_warnings
from batchify.decoding.pillow_settings import pillow_for_decoding, set_pillow_limits
from batchify.decoding.pixel_writer import PixelWriter
from batchify.decoding.source_flags import source_flags
from batchify.errors import BadImageError, BatchifyWarning
from batchify.image_options import RECORDED_MAX_PIXELS, DecodeOptions, StoreOptions
from batchify.options import BuildOptions

ROTATED = Image.Exif()
ROTATED[ExifTags.Base.Orientation] = 6

GREY_16 = np.linspace(1000, 50000, 24 * 16).reshape(16, 24).astype("<u2")
FLOATS = np.linspace(0, 1, 24 * 16, dtype=np.float32).reshape(16, 24)
SMALL = ("--target-size", "16x24")


def decoded(data: bytes, **options: Any) -> Decoded:
    """Decode an image at the size of the drawn ones."""
    set_pillow_limits(DecodeOptions())
    return decode_image(data, DecodeOptions(**{"target_size": (16, 24), **options}))


def flags_of(data: bytes, **options: Any) -> set[str]:
    """Return the names of the flags of a file."""
    flags = decoded(data, **options).flags
    return {name for name in choices.FLAGS if flags & choices.flag_bit(name)}


def stored(data: bytes, store: StoreOptions, **options: Any) -> NDArray[Any]:
    """Return the row of a file."""
    found = decoded(data, **options)
    out = np.zeros(found.pixels.shape, choices.STORED_DTYPES[store.dtype])
    PixelWriter(store, DecodeOptions(**options)).put(found, out)
    return out


def grey16(pixels: NDArray[Any] = GREY_16) -> bytes:
    """Return a PNG of one 16-bit channel."""
    return encoded(Image.fromarray(pixels), "PNG")


def floats(pixels: NDArray[Any] = FLOATS) -> bytes:
    """Return a TIFF of floating point."""
    return encoded(Image.fromarray(pixels), "TIFF")


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that draws a dataset of two classes with six images, each the same."""

    def make(data: bytes, name: str = "png", count: int = 6) -> Path:
        root = tmp_path / "d"
        for i in range(2 * count):
            save(root / "ab"[i % 2] / f"{i:02}.{name}", data)
        return root

    return make


def warned(output: str) -> list[str]:
    """Return the warnings that a command printed."""
    start = "  warning: "
    return [line.removeprefix(start) for line in output.splitlines() if line.startswith(start)]


# 16 bits


def test_v1_clipped_16_bits_are_a_warning(
    run: Run, draw: Callable[..., Path], tmp_path: Path
) -> None:
    """The pixels are Keras', all 255; the warning has the share, and both options."""
    root = draw(grey16())
    done = run("build", root, "out.h5", *SMALL)
    (warning,) = warned(done.stdout)
    assert done.returncode == 0
    assert warning == (
        "12 of 12 images have 16 bits, and their values above 255 are clipped "
        "(100% of their pixels); build with --depth scale, or with --color-mode grayscale "
        "--dtype uint16"
    )
    with h5py.File(tmp_path / "out.h5") as file:
        assert (file["X_train"][()] == 255).all()
        assert file["X_train"].attrs["scale_factor"] == np.float32(1 / 255)
        assert json.loads(file.attrs["config"])["rescale"] == "1/255"
    again = run("build", root, "out.h5", *SMALL, "--json")
    found = json.loads(again.stdout)
    assert [each["code"] for each in found["warnings"]] == ["clipped"]
    assert "are clipped (100% of the images);" in found["warnings"][0]["message"]
    assert (found["sources"]["clipped"], found["up_to_date"]) == (12, True)


def test_v1_the_share_is_that_of_pixels(run: Run, draw: Callable[..., Path]) -> None:
    """An image without values above 255 is not clipped, and no warning."""
    half = GREY_16.copy()
    half[:8] = 7
    done = run("build", draw(grey16(half)), "out.h5", *SMALL)
    assert "(50% of their pixels)" in warned(done.stdout)[0]
    small = run("build", draw(grey16(GREY_16 // 200)), "small.h5", *SMALL)
    assert warned(small.stdout) == []


def test_depth_scale_maps_the_whole_range() -> None:
    """Rounded to the nearest of 257 values each: in rgb, in rgba, and in grey of 8 bits."""
    every = np.arange(65536, dtype="<u2").reshape(256, 256)
    expected = np.rint(every / 257).astype(np.uint8)
    for mode in ("rgb", "rgba", "grayscale"):
        options: dict[str, Any] = {"target_size": (256, 256), "color_mode": mode}
        got = stored(grey16(every), StoreOptions(), depth="scale", **options)
        np.testing.assert_array_equal(got[:, :, 0], expected)
    assert flags_of(grey16(), depth="scale") == {"sixteen_bit", "grayscale"}
    big = encoded(Image.fromarray(GREY_16.astype(">u2")), "TIFF")
    pgm = b"P5\n24 16\n65535\n" + GREY_16.astype(">u2").tobytes()
    for data in (big, pgm):
        np.testing.assert_array_equal(
            stored(data, StoreOptions(), depth="scale")[:, :, 1], np.rint(GREY_16 / 257)
        )
        kept = stored(data, StoreOptions(dtype="uint16"), color_mode="grayscale")
        np.testing.assert_array_equal(kept[:, :, 0], GREY_16)


def test_depth_scale_and_exif_go_together() -> None:
    """A 16-bit image is turned, and then scaled."""
    data = encoded(Image.fromarray(GREY_16), "PNG", exif=ROTATED)
    got = stored(data, StoreOptions(), depth="scale", exif="apply", target_size=(24, 16))
    np.testing.assert_array_equal(got[:, :, 0], np.rint(np.rot90(GREY_16, -1) / 257))


def test_8_bits_in_a_uint16_file(run: Run, draw: Callable[..., Path], tmp_path: Path) -> None:
    """They are a warning, unless they are scaled by 257."""
    root = draw(encoded(photo(24, 16), "PNG"))
    done = run("build", root, "out.h5", *SMALL, "--dtype", "uint16")
    (warning,) = warned(done.stdout)
    assert warning.startswith("12 of 12 images have 8 bits, and are stored as 0 to 255 of 65535;")
    assert "--depth scale" in warning
    scaled = run("build", root, "scaled.h5", *SMALL, "--dtype", "uint16", "--depth", "scale")
    assert (scaled.returncode, warned(scaled.stdout)) == (0, [])
    with h5py.File(tmp_path / "out.h5") as kept, h5py.File(tmp_path / "scaled.h5") as full:
        np.testing.assert_array_equal(full["X_train"][()], kept["X_train"][()] * np.uint16(257))
        assert full["X_train"].attrs["scale_factor"] == np.float32(1 / 65535)
        config = json.loads(full.attrs["config"])
        assert (config["depth"], config["rescale"]) == ("scale", "1/65535")
        assert "depth" not in json.loads(kept.attrs["config"])
    for words in (["verify", "scaled.h5", "--source", root, "--redecode", "all"],
                  ["build", root, "scaled.h5", *SMALL, "--dtype", "uint16", "--depth", "scale",
                   "--check"]):  # fmt: skip
        assert run(*words).returncode == 0


def test_8_bits_in_float32_with_a_factor_for_16() -> None:
    """Both ways that the warning names give the values of 0 to 1."""
    data = encoded(photo(24, 16), "PNG")
    expected = stored(data, StoreOptions(dtype="float32")).astype(np.float64)
    for rescale, depth in (("1/65535", "clip"), ("1/65535", "scale"), ("auto", "clip")):
        store = StoreOptions(dtype="float32", rescale=rescale)
        decode = DecodeOptions(depth=depth)  # type: ignore[arg-type]
        warnings = loss_warnings({0: 3}, decode, store, None)
        if (rescale, depth) == ("1/65535", "clip"):
            (warning,) = warnings
            assert "--depth scale" in str(warning)
            assert "--rescale auto" in str(warning)
            continue
        assert not warnings
        np.testing.assert_allclose(stored(data, store, depth=depth), expected, rtol=1e-6)


def test_grey_of_8_bits_refuses_what_does_not_fit() -> None:
    """As before: nothing is clipped in silence; both ways out are named."""
    with pytest.raises(BadImageError, match=r"do not fit uint8.*--dtype uint16 or --depth scale"):
        stored(grey16(), StoreOptions(), color_mode="grayscale")


def test_v2_16_bits_are_read_as_0_to_1(run: Run, draw: Callable[..., Path], tmp_path: Path) -> None:
    """Rescale auto is 1/65535 for uint16, also for a file that keeps the encoded images."""
    root = draw(grey16())
    for name, more in (("out.h5", []), ("encoded.h5", ["--store", "encoded"])):
        done = run(
            "build", root, name, *SMALL, "--color-mode", "grayscale", "--dtype", "uint16", *more
        )
        assert (done.returncode, warned(done.stdout)) == (0, [])
        images, _ = next(iter(batchify.open(tmp_path / name)["train"].batches(4, shuffle=False)))
        expected = GREY_16.astype(np.float32) * np.float32(1 / 65535)
        np.testing.assert_array_equal(images[0, :, :, 0], expected)


@pytest.mark.parametrize("store", ["decoded", "encoded"])
def test_float32_rows_have_the_factor_of_their_depth(run: Run, tmp_path: Path, store: str) -> None:
    """1/255, 1/65535 or 1; and the statistics are those of the stored values."""
    root = tmp_path / "d"
    byte = encoded(photo(24, 16, mode="L"), "PNG")
    for i, data in enumerate((byte, grey16(), floats())):
        save(root / "abc"[i] / f"{i}.{('png', 'png', 'tif')[i]}", data)
    options = ("--color-mode", "grayscale", "--dtype", "float32", "--validation-split", "0")
    done = run("build", root, "out.h5", *SMALL, *options, "--no-shuffle", "--store", store)
    assert (done.returncode, warned(done.stdout)) == (0, [])
    expected = np.stack([
        np.asarray(photo(24, 16, mode="L"), np.float32) * np.float32(1 / 255),
        GREY_16.astype(np.float32) * np.float32(1 / 65535),
        FLOATS,
    ])[..., np.newaxis]  # fmt: skip
    np.testing.assert_array_equal(batchify.open(tmp_path / "out.h5")["train"].images[:], expected)
    with h5py.File(tmp_path / "out.h5") as file:
        wide = expected.astype(np.float64)
        np.testing.assert_allclose(file["statistics/mean_train"], [wide.mean()], rtol=1e-7)
        np.testing.assert_allclose(file["statistics/std_train"], [wide.std()], rtol=1e-7)
        assert json.loads(file.attrs["config"])["rescale"] == "auto"
    assert run("verify", "out.h5", "--source", root, "--redecode", "all").returncode == 0
    loader = batchify.Loader.from_directory(
        root, target_size=(16, 24), color_mode="grayscale", validation_split=0, shuffle=False
    )
    np.testing.assert_array_equal(next(loader)[0], expected)


def test_rescale_auto_of_8_bits_is_todays_value() -> None:
    """Bit for bit float32(pixel) * float32(1/255)."""
    data = encoded(photo(24, 16), "PNG")
    expected = np.asarray(photo(24, 16), np.float32) * np.float32(1 / 255)
    for rescale in ("auto", "1/255"):
        got = stored(data, StoreOptions(dtype="float32", rescale=rescale))
        np.testing.assert_array_equal(got, expected)
    assert StoreOptions().scale == 1 / 255
    assert StoreOptions(dtype="uint16").scale == 1 / 65535
    assert StoreOptions(dtype="uint16", rescale="1/255").scale == 1 / 255


# Floating point and 32-bit integers


def test_v3_floats_are_stored_as_they_are(
    run: Run, draw: Callable[..., Path], tmp_path: Path
) -> None:
    """In grayscale and float32; they have a flag of their own."""
    options = ("--color-mode", "grayscale", "--dtype", "float32")
    done = run("build", draw(floats(), "tif"), "out.h5", *SMALL, *options)
    assert (done.returncode, warned(done.stdout)) == (0, [])
    assert "image files: 12 grayscale, 12 with 32 bits" in done.stdout
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["X_train"][0, :, :, 0], FLOATS)


@pytest.mark.parametrize(
    "options", [(), ("--color-mode", "grayscale"), ("--dtype", "float32"),
                ("--color-mode", "grayscale", "--dtype", "uint16", "--depth", "scale")]
)  # fmt: skip
def test_v4_floats_are_refused_otherwise(
    run: Run, draw: Callable[..., Path], options: tuple[str, ...]
) -> None:
    """Each image's error names the options."""
    done = run("build", draw(floats(), "tif", 1), "out.h5", *SMALL, *options)
    assert done.returncode == 3
    assert "floating point needs --color-mode grayscale --dtype float32" in done.stderr


def test_32_bit_integers() -> None:
    """As they are in float32; elsewhere only if they fit."""
    deep = GREY_16.astype("<i4") * 3
    data = encoded(Image.fromarray(deep), "TIFF")
    assert flags_of(data, color_mode="grayscale") == {"grayscale", "thirty_two_bit"}
    got = stored(data, StoreOptions(dtype="float32"), color_mode="grayscale")
    np.testing.assert_array_equal(got[:, :, 0], deep.astype(np.float32))
    with pytest.raises(BadImageError, match=r"need --color-mode grayscale --dtype float32"):
        stored(data, StoreOptions())
    with pytest.raises(BadImageError, match=r"do not fit uint16.*see --dtype float32"):
        stored(data, StoreOptions(dtype="uint16"), color_mode="grayscale")
    small = encoded(Image.fromarray(deep // 1000), "TIFF")
    np.testing.assert_array_equal(stored(small, StoreOptions())[:, :, 2], deep // 1000)


def test_signed_16_bits_and_unsigned_32() -> None:
    """Signed values are kept as they are; those that Pillow wraps around are refused."""
    values = (GREY_16 // 2).astype("<i2") - np.int16(2000)
    signed = tiff(values[..., np.newaxis], photometric=1)
    got = stored(signed, StoreOptions(dtype="float32"), color_mode="grayscale")
    np.testing.assert_array_equal(got[:, :, 0], values.astype(np.float32))
    with pytest.raises(BadImageError, match="signed and 32-bit integers need --color-mode"):
        stored(signed, StoreOptions())
    large = tiff(np.full((16, 24, 1), 2**31 + 5, "<u4"), photometric=1)
    with pytest.raises(BadImageError, match="values above 2,147,483,647"):
        decoded(large, color_mode="grayscale")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    """Training with them would give NaN, and so would the statistics."""
    broken = FLOATS.copy()
    broken[0, :3] = value
    with pytest.raises(BadImageError, match="3 of its 384 pixels are NaN or infinite"):
        decoded(floats(broken), color_mode="grayscale")


@pytest.mark.parametrize("scale", [1 / 255, 1.0, -0.25])
@pytest.mark.parametrize("largest", [1.0, 1e-20, 3e30])
def test_sums_of_floats(scale: float, largest: float) -> None:
    """They are fractions, are stored as float64, and give the mean and deviation of the values."""
    rows = np.random.RandomState(3).rand(3, 20, 8, 2).astype(np.float32) * np.float32(largest)
    each = [channel_sums(row[np.newaxis], scale, images=1) for row in rows]
    assert channel_sums(rows, scale, images=3) == each[0] + each[1] + each[2]
    assert stored_sums(sums_column(each, 2), images=3) == each[0] + each[1] + each[2]
    mean, std = mean_and_std(channel_sums(rows, scale, images=3), (20, 8, 2), scale)
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean((0, 1, 2)), rtol=1e-8)
    np.testing.assert_allclose(std, wide.std((0, 1, 2)), rtol=1e-8)


# Several channels of 16 bits


PPM_16 = b"P6\n24 16\n65535\n" + np.repeat(GREY_16.astype(">u2"), 3).tobytes()
RGB_16 = tiff(np.repeat(GREY_16[..., np.newaxis], 3, 2))


@pytest.mark.parametrize("data", [sixteen_bit_rgb(), PPM_16, RGB_16], ids=["png", "ppm", "tiff"])
def test_v5_channels_that_pillow_cuts(run: Run, draw: Callable[..., Path], data: bytes) -> None:
    """A warning where 8 bits are asked for; an error where the dtype or the factor is for 16."""
    root = draw(data, count=1)
    for options in ((), ("--dtype", "float32")):
        done = run("build", root, "out.h5", *SMALL, *options, "--overwrite")
        assert done.returncode == 0, done.stderr
        assert "2 of 2 images have more than 8 bits in several" in done.stdout
    refused = "--dtype uint16", "--dtype uint16 --depth scale", "--dtype float32 --rescale 1/65535"
    for words in refused:
        done = run("build", root, "bad.h5", *SMALL, *words.split(), "--restart")
        assert done.returncode == 3
        assert "only the high 8 bits of its channels are" in done.stderr


def test_10_bits_of_heic_and_avif_are_cut() -> None:
    """Their decoders give 8, and say nothing."""
    heif = pytest.importorskip("pillow_heif")
    pixels = np.repeat(GREY_16[..., np.newaxis], 3, 2)
    file = io.BytesIO()
    heif.from_bytes("RGB;16", (24, 16), pixels.tobytes()).save(file)
    assert flags_of(file.getvalue(), plugins=("heif",)) == {"sixteen_bit", "cut"}
    avif = encoded(photo(24, 16), "AVIF")
    assert flags_of(avif) == set()
    where = avif.index(b"pixi") + 9  # what it says of its bits; there is no encoder here for 10
    with Image.open(io.BytesIO(avif)) as image:
        assert isinstance(image.fp, io.BytesIO)
        image.fp = io.BytesIO(avif[:where] + b"\n\n\n" + avif[where + 3 :])
        assert source_flags(image) == choices.flag_bit("sixteen_bit") | choices.flag_bit("cut")


def test_16_bit_grey_as_rgb_of_16_bits_keeps_its_values(
    run: Run, draw: Callable[..., Path], tmp_path: Path
) -> None:
    """Clipped to 255 it would be black; each channel has the values, and alpha is opaque."""
    root = draw(grey16())
    expected = np.full((16, 24, 4), 65535, "<u2")
    expected[..., :3] = GREY_16[..., np.newaxis]
    for mode, channels in (("rgb", 3), ("rgba", 4)):
        for kind, more in (("pixels", []), ("files", ["--store", "encoded"])):
            name = f"{mode}-{kind}.h5"
            done = run(
                "build", root, name, *SMALL, "--dtype", "uint16", "--color-mode", mode, *more
            )
            assert (done.returncode, warned(done.stdout)) == (0, [])
            images = batchify.open(tmp_path / name)["train"].images
            np.testing.assert_array_equal(images[0], expected[..., :channels])
    done = run("build", root, "f.h5", *SMALL, "--dtype", "float32", "--rescale", "1/65535")
    with h5py.File(tmp_path / "f.h5") as file:
        floats = expected[..., :3].astype(np.float32) * np.float32(1 / 65535)
        np.testing.assert_array_equal(file["X_train"][0], floats)


def test_planes_of_16_bits_are_refused() -> None:
    """Pillow takes their bytes for planes of 8 bits: wrong pixels."""
    with pytest.raises(BadImageError, match="separate planes of 16 bits"):
        decoded(tiff(np.repeat(GREY_16[..., np.newaxis], 3, 2), planes=True))


# What is dropped: rotation, alpha, bands, pages


def losses(tmp_path: Path, data: bytes, name: str = "png", **decode: Any) -> list[str]:
    """Return the codes of a build's warnings, which a check of the file and the dataset finds."""
    for i in range(10):
        save(tmp_path / "d" / "ab"[i % 2] / f"{i}.{name}", data + bytes([i]))
    options = BuildOptions(decode=DecodeOptions(**{"target_size": (16, 24), **decode}))
    with pytest.warns(BatchifyWarning) as found:
        report = batchify.build(tmp_path / "d", tmp_path / "out.h5", options, workers=1)
    codes = [warning.code for warning in report.warnings]
    assert [str(each.message) for each in found] == list(map(str, report.warnings))
    known = {loss.code for loss in LOSSES}
    for checked in (
        batchify.check(tmp_path / "out.h5"),
        batchify.check(tmp_path / "d", options, workers=1),
    ):
        problems = {each.code: each for each in checked.problems if each.code in known}
        assert set(problems) == set(codes)
        for warning in report.warnings:
            problem = problems[warning.code]
            assert str(warning).startswith(problem.message)
            assert str(warning).endswith(problem.advice)
    batchify.write_report(tmp_path / "out.h5", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert all(problem.message in page for problem in problems.values())
    return codes


def test_v6_rotation_is_a_warning(tmp_path: Path) -> None:
    """It names --exif apply, in the build, the check and the report."""
    data = encoded(photo(24, 16), "JPEG", exif=ROTATED)
    assert losses(tmp_path, data, "jpg") == ["exif-ignored"]
    assert flags_of(encoded(photo(24, 16), "PNG", exif=ROTATED)) == {"exif_rotated"}


def test_v6_a_tiff_is_turned_whatever_its_name(tmp_path: Path) -> None:
    """Pillow always turns it: nothing is ignored."""
    data = encoded(photo(24, 16), "TIFF", tiffinfo={274: 6})
    assert flags_of(data) == set()
    for name in ("a", "b"):
        save(tmp_path / "d" / name / "t.png", data)
    assert not batchify.build(tmp_path / "d", tmp_path / "out.h5", workers=1).warnings[1:]


def test_alpha_that_is_dropped(tmp_path: Path) -> None:
    """A warning that names rgba."""
    data = encoded(photo(24, 16, mode="RGBA"), "PNG")
    assert losses(tmp_path, data) == ["alpha-dropped"]


@pytest.mark.parametrize("bands", [4, 5, 6])
def test_v7_bands_that_are_dropped(tmp_path: Path, bands: int) -> None:
    """The first three are stored, and the others are a warning."""
    pixels = np.random.RandomState(1).randint(0, 256, (16, 24, bands)).astype(np.uint8)
    data = tiff(pixels, extra=bands - 3)
    np.testing.assert_array_equal(decoded(data).pixels, pixels[:, :, :3])
    assert losses(tmp_path, data, "tif") == ["extra-bands"]


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize(("bands", "dtype"), [(13, "<u1"), (13, "<u2"), (7, "<u1")])
def test_v8_a_tiff_of_many_bands(bands: int, dtype: str, planes: bool) -> None:
    """The reason says what it is."""
    data = tiff(np.zeros((16, 24, bands), dtype), extra=bands - 3, planes=planes)
    reason = f"^a TIFF of {bands} bands; batchify takes up to 4$"
    with pytest.raises(BadImageError, match=reason), pillow_for_decoding():
        decoded(data)


def test_a_tiff_of_another_kind() -> None:
    """64 bits are a kind that Pillow does not read; a damaged file is damaged."""
    with pytest.raises(BadImageError, match=r"does not read: 1 × 64 bits$"):
        decoded(tiff(np.zeros((16, 24, 1), "<u8"), photometric=1))
    with pytest.raises(BadImageError, match="not an image"), pillow_for_decoding():
        decoded(encoded(photo(24, 16), "TIFF", compression="tiff_lzw")[:100])


def test_v9_pages_are_not_animations(tmp_path: Path) -> None:
    """They have a flag of their own, and the build counts them."""
    data = encoded(
        photo(24, 16), "TIFF", save_all=True, append_images=[photo(24, 16, seed=i) for i in (1, 2)]
    )
    assert flags_of(data) == {"pages"}
    assert decoded(data).lost.pages == 2
    assert losses(tmp_path, data, "tif") == ["pages"]
    os.remove(tmp_path / "out.h5")
    report = batchify.build(tmp_path / "d", tmp_path / "out.h5", workers=1)
    assert "(20 more pages are not stored)" in str(report.warnings[0])


def test_frames_are_a_warning(tmp_path: Path) -> None:
    """Of an animation, the first frame is stored."""
    frames = [photo(24, 16, seed=i) for i in range(3)]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert losses(tmp_path, data) == ["frames"]


def test_warnings_of_shards_are_those_of_one_file(run: Run, draw: Callable[..., Path]) -> None:
    """With the share of pixels; and so are those of the merged file's check."""
    root = draw(grey16())
    one = run("build", root, "out.h5", *SMALL)
    shards = run("build", root, "shards", *SMALL, "--shards", "2")
    assert warned(shards.stdout) == warned(one.stdout) != []
    assert run("merge", "shards", "merged.h5").returncode == 0
    for path in ("merged.h5", "shards"):
        assert "clipped: 12 of 12 images have 16 bits" in run("check", path).stdout


def test_a_loss_is_one_row_of_one_table() -> None:
    """Each code is one of check's, and its advice is the same."""
    from batchify.checking.findings import CHECK_CODES

    for loss in LOSSES:
        assert CHECK_CODES[loss.code].advice == loss.advice


# Files that lack their end


def truncated(format_name: str, by: int) -> bytes:
    """Return a photo without its last bytes."""
    data = encoded(photo(24, 16), format_name)
    return data[: len(data) - by]


def test_v10_a_file_without_its_end(run: Run, draw: Callable[..., Path], tmp_path: Path) -> None:
    """The error names the option, which takes the file, and flags it."""
    root = draw(truncated("JPEG", 1), "jpg")
    done = run("build", root, "out.h5", *SMALL)
    assert done.returncode == 3
    assert "image file is truncated" in done.stderr
    assert "--truncated accept" in done.stderr
    accept = ("--truncated", "accept")
    done = run("build", root, "out.h5", *SMALL, *accept, "--restart")
    assert done.returncode == 0
    assert warned(done.stdout)[0].startswith("12 of 12 images are incomplete")
    with h5py.File(tmp_path / "out.h5") as file:
        expected = decoded(encoded(photo(24, 16), "JPEG")).pixels
        np.testing.assert_array_equal(file["X_train"][0], expected)
        assert json.loads(file.attrs["config"])["truncated"] == "accept"
    assert run("verify", "out.h5", "--source", root, "--redecode", "all").returncode == 0
    assert run("build", root, "out.h5", *SMALL, *accept, "--check").returncode == 0


@pytest.mark.parametrize(
    ("name", "by"), [("JPEG", 1), ("PNG", 30), ("BMP", 1), ("GIF", 60), ("TIFF", 5), ("PPM", 9)]
)
def test_truncated_files_of_each_format(name: str, by: int) -> None:
    """They are flagged; the first lines are there."""
    found = decoded(truncated(name, by), truncated="accept")
    assert "truncated" in flags_of(truncated(name, by), truncated="accept")
    whole = decoded(encoded(photo(24, 16), name))
    np.testing.assert_array_equal(found.pixels[8], whole.pixels[8]) if by < 60 else None
    with pytest.raises(BadImageError, match="; --truncated accept decodes what is there"):
        decoded(truncated(name, by))


def test_other_damage_is_not_accepted() -> None:
    """A PNG with a wrong byte in its middle lacks nothing: it is damaged."""
    data = bytearray(encoded(photo(24, 16), "PNG"))
    data[len(data) // 2] ^= 255
    for options in ({}, {"truncated": "accept"}):
        with pytest.raises(BadImageError) as caught:
            decoded(bytes(data), **options)
        assert "--truncated" not in str(caught.value)


def test_truncated_files_in_threads() -> None:
    """Pillow's switch is one for the process: a thread that accepts changes no other thread."""
    data, wrong = truncated("JPEG", 1), []

    def work(choice: str) -> None:
        for _ in range(200):
            try:
                decoded(data, truncated=choice)
                if choice == "error":
                    wrong.append(choice)
            except BadImageError:
                if choice == "accept":
                    wrong.append(choice)

    threads = [threading.Thread(target=work, args=[name]) for name in ("error", "accept") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_an_encoded_file_serves_truncated_images(draw: Callable[..., Path], tmp_path: Path) -> None:
    """By the options that it records, as the build decoded them."""
    root = draw(truncated("JPEG", 1), "jpg", 2)
    decode = DecodeOptions((16, 24), truncated="accept")
    for store in ("decoded", "encoded"):
        options = BuildOptions(decode=decode, store=StoreOptions(store=store))
        batchify.build(root, tmp_path / f"{store}.h5", options, workers=1)
    pixels = batchify.open(tmp_path / "decoded.h5")["train"].images[:]
    np.testing.assert_array_equal(pixels, batchify.open(tmp_path / "encoded.h5")["train"].images[:])


# Large metadata and large images


def test_v11_large_metadata_do_not_refuse_pixels() -> None:
    """A profile of 3 MB, texts that unpack to more than Pillow's limit: none is needed."""
    text, international = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    text.add_text("big", "x" * (3 << 20), zip=True)
    international.add_itxt("big", "x" * (3 << 20), zip=True)
    image = photo(24, 16)
    for keywords in (
        {"icc_profile": bytes(3 << 20)}, {"pnginfo": text}, {"pnginfo": international},
    ):  # fmt: skip
        data = encoded(image, "PNG", **keywords)
        np.testing.assert_array_equal(decoded(data).pixels, np.asarray(image))
        lacking = decoded(data[: data.index(b"IDAT") + 40], truncated="accept")
        assert lacking.flags == choices.flag_bit("truncated")


def test_v12_large_photos() -> None:
    """The default is where Pillow refuses an image; the message names the option."""
    data = encoded(Image.new("1", (12000, 9000)), "PNG")
    with pillow_for_decoding():
        assert decoded(data, color_mode="grayscale", target_size=(9, 12)).size == (9000, 12000)
        with pytest.raises(BadImageError) as caught:
            decoded(data, max_pixels=100_000_000)
    assert str(caught.value) == "12000×9000 is 108 megapixels (see --max-pixels)"
    assert DecodeOptions().max_pixels == 2 * 89_478_485


def recorded(options: BuildOptions) -> dict[str, Any]:
    """Return the options as a file records them."""
    config: dict[str, Any] = json.loads(choices.canonical_json(options.config(layout="classes")))
    return config


def test_the_default_limit_is_recorded_as_before() -> None:
    """So that files of the default before stay up to date; they are read with the new one."""
    from batchify.format.config import build_command, recorded_options

    config = recorded(BuildOptions())
    assert config["max_pixels"] == RECORDED_MAX_PIXELS == 89_478_485
    assert recorded_options(config).decode.max_pixels == DecodeOptions().max_pixels
    assert build_command(config, skipped=False) == "batchify build DATASET OUT"
    for dtype in choices.DTYPES:
        store = StoreOptions(dtype=dtype)  # type: ignore[arg-type]
        config = recorded(BuildOptions(store=store))
        assert "--rescale" not in build_command(config, skipped=False)
    explicit = recorded(
        BuildOptions(
            decode=DecodeOptions(depth="scale", truncated="accept"),
            store=StoreOptions(dtype="float32", rescale="1/255"),
        )
    )
    assert recorded_options(explicit).decode.depth == "scale"
    assert build_command(explicit, skipped=False).endswith(
        "--dtype float32 --rescale 1/255 --depth scale --truncated accept"
    )


# The page "My data looks like this"


def deep_page() -> dict[str, tuple[bytes, str, str, int, str]]:
    """Return, for each row of the page, an image, its ending, options, the exit code and a text."""
    animated = {"save_all": True, "append_images": [photo(24, 16, seed=1)]}
    bands = np.zeros((16, 24, 13), np.uint8)
    grey = "--color-mode grayscale --dtype"
    return {
        "sixteen-bits": (grey16(), "png", "", 0, "(100% of their pixels)"),
        "sixteen-bits-kept": (grey16(), "png", f"{grey} uint16", 0, ""),
        "floats": (floats(), "tif", f"{grey} float32", 0, ""),
        "sixteen-bit-colors": (PPM_16, "ppm", "", 0, "only the high 8 are decoded"),
        "eight-bits-in-sixteen": (truncated("JPEG", 0), "jpg", "--dtype uint16", 0, "of 65535"),
        "rotated": (encoded(photo(), "JPEG", exif=ROTATED), "jpg", "", 0, "--exif apply"),
        "transparent": (encoded(photo(mode="RGBA"), "PNG"), "png", "", 0, "--color-mode rgba"),
        "five-bands": (tiff(bands[..., :5], extra=2), "tif", "", 0, "more bands than the color"),
        "many-bands": (tiff(bands, extra=10), "tif", "", 3, "a TIFF of 13 bands"),
        "pages": (encoded(photo(), "TIFF", **animated), "tif", "", 0, "(12 more pages are"),
        "truncated": (truncated("JPEG", 1), "jpg", "", 3, "--truncated accept"),
        "damaged": (truncated("JPEG", 99) + b"\xff\xd9", "jpg", "--strict-decode", 3, "is damaged"),
        "large-profile": (encoded(photo(), "PNG", icc_profile=bytes(3 << 20)), "png", "", 0, ""),
        "large-photos": (encoded(photo(), "PNG"), "png", "--max-pixels 99", 3, "--max-pixels"),
    }


def test_the_page_of_values_is_right(run: Run, draw: Callable[..., Path], tmp_path: Path) -> None:
    """Each row is built with a warning or without one, or is refused."""
    rows = deep_page()
    for name, (data, ending, options, code, text) in rows.items():
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        done = run("build", draw(data, ending), f"{name}.h5", *SMALL, *options.split())
        assert done.returncode == code, name
        assert text in done.stdout + done.stderr, name
        assert bool(text) == bool(warned(done.stdout) or code), name
    page = Path(str(batchify.__file__)).with_name("docs") / "data.md"
    section = page.read_text(encoding="utf-8").split("## What the images hold")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE) == list(rows)
