"""The extra `turbo`: whether it is installed changes no pixel, no message and no byte of a file."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from helpers.drawing import draw_zoo, encoded, photo, pixels, save
from helpers.running import Run
from PIL import ExifTags, Image, features

import batchify
from batchify import choices
from batchify.building.build import build
from batchify.decoding import turbo
from batchify.decoding.damage import jpeg_damage
from batchify.decoding.image import decode_image
from batchify.decoding.losses import NOTHING_LOST
from batchify.decoding.pil_image import decode_pil_image
from batchify.decoding.pillow_settings import set_pillow_limits
from batchify.errors import BadImageError
from batchify.image_options import DecodeOptions

END = b"\xff\xd9"
SUBSAMPLINGS = ("444", "422", "420", "440", "411")
ACCEPTING = DecodeOptions((20, 30), truncated="accept")

Options = tuple[DecodeOptions, ...]


class Fills:
    """Counts the images that simplejpeg decoded, and hides it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._patch = monkeypatch
        fill = turbo.fill

        def counted(*arguments: Any) -> bool:
            is_filled = fill(*arguments)
            self.count += is_filled
            return is_filled

        monkeypatch.setattr(turbo, "fill", counted)

    def during(self, call: Callable[[], object]) -> tuple[object, int]:
        """Return what a call returns, and how many images were decoded by simplejpeg."""
        before = self.count
        return call(), self.count - before

    def without(self, call: Callable[[], object]) -> object:
        """Return what a call returns without the library."""
        with self._patch.context() as patched:
            patched.setattr(turbo, "is_used", lambda: False)
            found, count = self.during(call)
        assert not count
        return found


@pytest.fixture
def fills(monkeypatch: pytest.MonkeyPatch) -> Fills:
    """Count what the library decodes, which can be hidden."""
    assert turbo.is_used()
    set_pillow_limits(DecodeOptions())
    return Fills(monkeypatch)


def outcome(data: bytes, options: DecodeOptions, *, fit: bool = True) -> object:
    """Return everything that decoding a file tells, or the message of the error."""
    try:
        found = decode_image(data, options, fit=fit)
        if not fit:
            image = decode_pil_image(data, options)
            assert image is not None
            assert image.tobytes() == found.pixels.tobytes()
    except BadImageError as error:
        return str(error)
    assert not found.is_intact or jpeg_damage(data) is NOTHING_LOST
    found = found._replace(is_intact=False)
    return found._replace(pixels=found.pixels.tobytes()), found.pixels.shape  # type: ignore[arg-type]


def is_same(fills: Fills, data: bytes, options: DecodeOptions, *, fit: bool = True) -> bool:
    """Check that a file is decoded alike with and without the library; return if that was used."""
    call = lambda: outcome(data, options, fit=fit)  # noqa: E731
    found, count = fills.during(call)
    assert found == fills.without(call)
    return count > 0


def own_size(data: bytes) -> DecodeOptions:
    """Return options that resize nothing."""
    with Image.open(io.BytesIO(data)) as image:
        return DecodeOptions(image.size[::-1])


def intact(draw: random.Random) -> bytes:
    """Return a JPEG of any common kind, a few of them larger than what is decoded at once."""
    limit = 200 if draw.random() < 0.05 else 70
    width, height, seed = draw.randint(1, limit), draw.randint(1, limit), draw.randrange(1 << 30)
    quality = draw.randint(1, 100)
    if draw.random() < 0.5:
        colors = np.ascontiguousarray(pixels(width, height, 3, seed))
        return simplejpeg.encode_jpeg(colors, quality, "RGB", draw.choice(SUBSAMPLINGS))  # type: ignore[no-any-return]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = draw.randint(1, 8)
    mode = draw.choice(("RGB", "RGB", "RGB", "L", "CMYK"))
    options: dict[str, Any] = {
        "quality": quality,
        "progressive": draw.random() < 0.5,
        "restart_marker_blocks": draw.choice((0, 0, 1, 5)),
        "exif": exif,
    }
    if mode == "RGB":
        options["keep_rgb"] = draw.random() < 0.2
        options["subsampling"] = 0 if options["keep_rgb"] else draw.randint(0, 2)
    return encoded(photo(width, height, seed, mode), "JPEG", **options)


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Return a file with one of the kinds of damage that files have."""
    at, more = draw.randrange(len(data)), draw.randbytes(draw.randint(1, 9))
    flipped = bytes([data[at] ^ 1 << draw.randrange(8)])
    marker = data.find(b"\xff", at) + 1
    length = int.from_bytes(data[marker + 1 : marker + 3], "big")
    return draw.choice((
        data[:at],
        data[:at] + END,
        data[:at] + flipped + data[at + 1 :],
        data[:at] + flipped + data[at + 1 :],
        data[:at] + data[at + len(more) :],
        data[:at] + more + data[at:],
        data[:at] + more + data[at + len(more) :],
        data[:marker] + more[:1] + data[marker + 1 :],
        data[: marker - 1] + data[marker + 1 + length :],
        data[: marker + 1 + length] + data[marker - 1 :],
        data + data[at:],
    ))  # fmt: skip


def test_intact_images(fills: Fills) -> None:
    """Every subsampling, progressive, restarts, gray, RGB as it is, phones' pairs of images."""
    colors = np.ascontiguousarray(pixels(53, 37, 3, 1))
    pair = {"save_all": True, "append_images": [photo(53, 37, 2)]}
    files = [
        *(simplejpeg.encode_jpeg(colors, 80, "RGB", each) for each in SUBSAMPLINGS),
        encoded(photo(), "JPEG", progressive=True, comment=b"one", icc_profile=bytes(70000)),
        encoded(photo(53, 37), "JPEG", restart_marker_blocks=2),
        encoded(photo(53, 37), "JPEG", keep_rgb=True),
        encoded(photo(53, 37), "MPO", **pair),
        encoded(photo(53, 37, mode="L"), "JPEG", progressive=True),
        encoded(photo(1, 1), "JPEG"),
        encoded(photo(640, 480), "JPEG"),
    ]
    for data in files:
        size = own_size(data)
        assert is_same(fills, data, size)
        assert is_same(fills, data, size, fit=False)
        reducing = DecodeOptions((20, 16), scaled_decode=True, interpolation="box")
        assert is_same(fills, data, reducing) is (min(size.target_size) < 2 * 2 * 16)
        assert is_same(fills, data + bytes(9), DecodeOptions((9, 9), color_mode="grayscale"))
        assert is_same(fills, data, DecodeOptions((9, 9), color_mode="rgba", fit="pad"))
        end = data.index(END)
        assert not is_same(fills, data[:end], ACCEPTING)
        assert not is_same(fills, data[:end] + data[end + 2 :], ACCEPTING)
        assert not is_same(fills, data[:2] + bytes(3) + data[2:], ACCEPTING)


def test_what_is_left_to_pillow(fills: Fills) -> None:
    """CMYK, large images that are reduced, incomplete files, other formats."""
    for data in (
        encoded(photo(mode="CMYK"), "JPEG"),
        encoded(photo(), "JPEG")[:-20],
        encoded(photo(), "PNG"),
        encoded(photo(), "TIFF", compression="jpeg"),
        b"\xff\xd8\xff",
        b"",
    ):
        assert not is_same(fills, data, ACCEPTING)
        assert not is_same(fills, data, ACCEPTING, fit=False)


def test_any_image(fills: Fills, long: bool) -> None:
    """Whatever is in a file, and whatever was done to it, the result or the error is the same."""
    draw = random.Random(1)
    used = 0
    for _ in range(600 if long else 40):
        data = intact(draw)
        options = (own_size(data), ACCEPTING, DecodeOptions((40, 24), exif="apply", fit="crop"))
        used += is_same(fills, data, options[0])
        for _ in range(8):
            fit = draw.random() < 0.8
            is_same(fills, damaged(data, draw), draw.choice(options), fit=fit)
    assert used > (450 if long else 30)


@pytest.mark.long
@pytest.mark.parametrize("number", range(4))
def test_any_cut_and_any_flipped_bit(fills: Fills, number: int) -> None:
    """Of small files, at every place."""
    colors = np.ascontiguousarray(pixels(19, 17, 3, 1))
    data = (
        simplejpeg.encode_jpeg(colors, 30, "RGB", "420"),
        simplejpeg.encode_jpeg(colors, 30, "RGB", "411"),
        encoded(photo(19, 17), "JPEG", quality=30, progressive=True),
        encoded(photo(19, 17), "JPEG", quality=30, restart_marker_blocks=1),
    )[number]
    options = (own_size(data), ACCEPTING)
    for at, each in itertools.product(range(len(data)), options):
        for changed in (data[:at], data[:at] + END, data[:at] + data, data[:at] + data[at + 1 :]):
            is_same(fills, changed, each)
        for bit in range(8):
            is_same(fills, data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :], each)


def test_limits_come_first(fills: Fills, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image beyond them is not decoded."""
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    data = encoded(photo(200, 100), "JPEG")
    for options in (DecodeOptions(max_pixels=19_999), DecodeOptions(max_dimension=199)):
        assert not is_same(fills, data, options)
        assert "see --max" in str(outcome(data, options))


def test_threads_share_no_pixels(fills: Fills) -> None:
    """Threads that decode at the same time, and images that are kept, have their own memory."""
    files = [encoded(photo(60 + i, 90 - i, i), "JPEG") for i in range(24)]
    options = DecodeOptions((150, 150))

    def results() -> list[object]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda data: outcome(data, options), files * 3))

    found, count = fills.during(results)
    assert (found, count) == (fills.without(results), 3 * len(files))
    images = [decode_pil_image(data, options) for data in files]
    expected = [Image.open(io.BytesIO(data)).tobytes() for data in files]
    assert [image.tobytes() for image in images if image is not None] == expected


def other_pixels(*arguments: Any, **options: Any) -> Any:
    """Decode as simplejpeg, but for one pixel."""
    found = DECODE(*arguments, **options)
    found[-1, -1, -1] ^= 1
    return found


def careless(*arguments: Any, **options: Any) -> Any:
    """Decode damaged images, too."""
    return DECODE(*arguments, **{**options, "strict": False})


def older(data: bytes, colorspace: str) -> Any:
    """Decode as a version without some parameters."""
    return DECODE(data, colorspace)


DECODE = simplejpeg.decode_jpeg


@pytest.mark.parametrize("decode", [other_pixels, careless, older])
def test_a_library_that_does_not_fit_is_not_used(
    monkeypatch: pytest.MonkeyPatch, decode: Callable[..., Any], run: Run
) -> None:
    """One that decodes to other pixels, does not refuse damage, or has other parameters."""
    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode)
    monkeypatch.setattr(turbo, "is_used", turbo.is_used.__wrapped__)
    assert not turbo.is_used()
    assert "simplejpeg" not in run("--version").stdout
    assert not turbo.fill(bytearray(3600), Image.open(io.BytesIO(encoded(photo(), "JPEG"))))


def test_where_it_is_not_used(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Without the extra, with a broken one, and with a Pillow of another libjpeg."""
    is_used = turbo.is_used.__wrapped__
    assert is_used()
    assert "simplejpeg 1." in run("--version").stdout
    with monkeypatch.context() as patched:
        patched.setattr(turbo, "LIBRARY", turbo.LIBRARY._replace(module="no_such_module"))
        assert not is_used()
    with monkeypatch.context() as patched:
        patched.setitem(__import__("sys").modules, "simplejpeg", None)
        patched.setattr(type(turbo.LIBRARY), "is_installed", True)
        assert not is_used()
    monkeypatch.setattr(features, "check_feature", lambda name: name != "libjpeg_turbo")
    assert not is_used()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """One of everything, with images that fail and images that are damaged."""
    root = draw_zoo(tmp_path / "zoo")
    data = encoded(photo(90, 70), "JPEG")
    for name, content in {"cut": data[:-9], "warned": data[:-900] + END, "whole": data}.items():
        save(root / "cat" / f"{name}.jpg", content)
    return root


@pytest.mark.parametrize("store", ["decoded", "encoded", "jpeg"])
def test_files_and_what_is_read_from_them(
    fills: Fills, dataset: Path, tmp_path: Path, store: choices.Store
) -> None:
    """The bytes of a file, its rows at any size, and as PIL images."""
    numbers = itertools.count()

    def built() -> bytes:
        out = tmp_path / f"{next(numbers)}.h5"
        build(dataset, out, target_size=(24, 24), store=store, on_error="skip", workers=1)
        return out.read_bytes()

    found, count = fills.during(built)
    assert count >= 5
    assert found == fills.without(built)

    def rows() -> Iterator[bytes]:
        with batchify.open(tmp_path / "0.h5") as file:
            split = file["train"]
            yield split.images[:].tobytes()
            yield split.pil_image(0).tobytes()
            if store != "decoded":
                yield split.resized((30, 20)).images[:].tobytes()
                yield split.decode(1).tobytes()

    found, count = fills.during(lambda: list(rows()))
    assert found == fills.without(lambda: list(rows()))
    assert bool(count) is (store != "decoded")
