"""Stored rows as pictures: what a person sees is what is stored."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from numpy.typing import NDArray
from PIL import Image

import batchify
from batchify.errors import FileFormatError
from batchify.format.reader import Reader
from batchify.reporting.pictures import Pictures, fit_size


def build(root: Path, out: Path, size: tuple[int, int] = (30, 40), **options: Any) -> Path:
    """Build a file in this process; `size` is (height, width)."""
    color_mode = options.pop("color_mode", "rgb")
    batchify.build(
        root,
        out,
        batchify.BuildOptions(
            split=batchify.SplitOptions(validation=0, shuffle=False),
            decode=batchify.DecodeOptions(target_size=size, color_mode=color_mode),
            store=batchify.StoreOptions(**options),
        ),
        workers=1,
    )
    return out


def pictures_of(path: Path) -> list[NDArray[np.uint8]]:
    """Return all pictures of the train split."""
    with Reader(path) as reader, Pictures(reader, "train") as pictures:
        return [np.asarray(pictures.get(row)) for row in range(len(pictures))]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_bytes_are_shown_as_they_are(photos: Path, tmp_path: Path, compression: str) -> None:
    """Each picture equals its row; each path is that of its row."""
    path = build(photos, tmp_path / "out.h5", compression=compression)
    with h5py.File(path) as file:
        rows, paths = file["train/images"][()], file["train/paths"][()]
    assert np.array_equal(pictures_of(path), rows)
    with Reader(path) as reader, Pictures(reader, "train") as pictures:
        assert [pictures.path(row) for row in range(len(pictures))] == list(paths)


@pytest.mark.parametrize("rescale", ["1/255", "1", "-2.5", "1e-30"])
def test_floats_are_shown_as_the_pixels_they_came_from(
    photos: Path, tmp_path: Path, rescale: str
) -> None:
    """Divided by the rescale they were multiplied with, exactly."""
    plain = build(photos, tmp_path / "plain.h5")
    floats = build(photos, tmp_path / "floats.h5", dtype="float32", rescale=rescale)
    assert np.array_equal(pictures_of(plain), pictures_of(floats))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_sixteen_bits_are_shown_by_their_high_byte(tmp_path: Path, dtype: str) -> None:
    """65535 is white; 8-bit neighbours in the same file stay as they are."""
    deep = np.linspace(0, 65535, 30 * 40).round().astype("<u2").reshape(30, 40)
    save(tmp_path / "d" / "c" / "a.png", encoded(Image.fromarray(deep), "PNG"))
    plain = photo(mode="L")
    save(tmp_path / "d" / "c" / "b.png", encoded(plain, "PNG"))
    path = build(tmp_path / "d", tmp_path / "o.h5", color_mode="grayscale", dtype=dtype)
    first, second = pictures_of(path)
    assert np.array_equal(first, np.repeat(np.rint(deep / 257)[..., np.newaxis], 3, 2))
    assert np.array_equal(second, np.asarray(plain.convert("RGB")))


def test_floating_point_images_are_shown_around_their_mean(tmp_path: Path) -> None:
    """Three standard deviations of the split to each side; one value alone is shown somehow."""
    heat = (20 + 5 * np.random.RandomState(0).standard_normal((30, 40))).astype("<f4")
    save(tmp_path / "d" / "c" / "a.tif", encoded(Image.fromarray(heat), "TIFF"))
    path = build(tmp_path / "d", tmp_path / "o.h5", color_mode="grayscale", dtype="float32")
    (shown,) = pictures_of(path)
    expected = (heat - heat.mean()) / heat.std() * 255 / 6 + 127.5
    assert np.abs(shown[:, :, 0] - expected.clip(0, 255)).max() <= 1
    heat[:] = 1e6
    save(tmp_path / "d" / "c" / "a.tif", encoded(Image.fromarray(heat), "TIFF"))
    path = build(tmp_path / "d", tmp_path / "one.h5", color_mode="grayscale", dtype="float32")
    assert len(np.unique(pictures_of(path)[0])) == 1


@pytest.mark.parametrize(
    ("dtype", "store"),
    [("uint16", "decoded"), ("uint16", "encoded"), ("float32", "decoded")],
)
def test_twelve_bits_in_sixteen_are_not_black(tmp_path: Path, dtype: str, store: str) -> None:
    """White is three standard deviations above the mean."""
    deep = np.random.RandomState(0).randint(0, 4096, (30, 40)).astype("<u2")
    save(tmp_path / "d" / "c" / "a.png", encoded(Image.fromarray(deep), "PNG"))
    path = build(
        tmp_path / "d", tmp_path / "o.h5", color_mode="grayscale", dtype=dtype, store=store
    )
    (shown,) = pictures_of(path)
    expected = deep * (255 / (deep.mean() + 3 * deep.std()))
    assert np.abs(shown[:, :, 0] - expected).max() <= 1


def test_transparent_pixels_show_a_checkerboard(tmp_path: Path) -> None:
    """Opaque pixels are as stored, transparent ones light and dark squares."""
    pixels = np.zeros((24, 24, 4), np.uint8)
    pixels[:12] = (10, 20, 30, 255)
    save(tmp_path / "d" / "c" / "a.png", encoded(Image.fromarray(pixels), "PNG"))
    path = build(tmp_path / "d", tmp_path / "o.h5", size=(24, 24), color_mode="rgba")
    (shown,) = pictures_of(path)
    assert (shown[:12] == (10, 20, 30)).all()
    assert shown[12, :4, 0].tolist() == [255, 255, 204, 204]
    assert shown[14, :4, 0].tolist() == [204, 204, 255, 255]


def test_numbers_that_are_none_are_shown_somehow(photos: Path, tmp_path: Path) -> None:
    """NaN is black, an infinity white, and the rest of the row is as it was."""
    path = build(photos, tmp_path / "o.h5", dtype="float32")
    before = pictures_of(path)[0]
    with h5py.File(path, "r+") as file:
        row = file["train/images"][0]
        row[0, 0], row[0, 1], row[0, 2] = np.nan, np.inf, -np.inf
        file["train/images"][0] = row
        file["train/row_crc32"][0] = zlib.crc32(row.tobytes())
    after = pictures_of(path)[0]
    assert after[0, :3, 0].tolist() == [0, 255, 0]
    assert np.array_equal(after[1:], before[1:])


def test_a_small_image_is_enlarged_by_whole_factors(tmp_path: Path) -> None:
    """Each stored pixel is a square; the aspect is kept."""
    draw_dataset(tmp_path / "d", {"c": 1}, size=(9, 8), format_name="PNG")
    path = build(tmp_path / "d", tmp_path / "o.h5", size=(8, 9))
    with Reader(path) as reader, Pictures(reader, "train") as pictures:
        row, thumbnail = np.asarray(pictures.get(0)), np.asarray(pictures.thumbnail(0, 50))
    assert np.array_equal(thumbnail, row.repeat(5, 0).repeat(5, 1))


def test_a_large_image_is_reduced(tmp_path: Path) -> None:
    """It fits, keeps its aspect, and a strip keeps a pixel."""
    draw_dataset(tmp_path / "d", {"c": 1}, size=(400, 300))
    for size, expected in [((300, 400), (80, 60)), ((2, 400), (80, 1)), ((80, 40), (40, 80))]:
        path = build(tmp_path / "d", tmp_path / f"{size[0]}.h5", size=size)
        with Reader(path) as reader, Pictures(reader, "train") as pictures:
            assert fit_size(pictures.size, 80) == expected
            assert pictures.thumbnail(0, 80).size == expected


@pytest.mark.parametrize("webp", [True, False])
def test_a_data_address_holds_the_thumbnail(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, webp: bool
) -> None:
    """A WebP, or a PNG where Pillow has none: exact where nothing was reduced."""
    monkeypatch.setattr("batchify.reporting.pictures.features.check", lambda _name: webp)
    path = build(photos, tmp_path / "o.h5")
    with Reader(path) as reader, Pictures(reader, "train") as pictures:
        uri, thumbnail = pictures.data_uri(3, 80), pictures.thumbnail(3, 80)
        reduced = pictures.data_uri(3, 20)
    head, _, data = uri.partition(",")
    assert head == f"data:image/{'webp' if webp else 'png'};base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert np.array_equal(np.asarray(image), np.asarray(thumbnail))
    with Image.open(io.BytesIO(base64.b64decode(reduced.partition(",")[2]))) as image:
        assert image.size == (20, 15)


def test_a_damaged_row_hides_no_other(photos: Path, tmp_path: Path) -> None:
    """Its picture is an error that names it, its thumbnail a tile of its own, and it is told."""
    path = build(photos, tmp_path / "o.h5")
    with h5py.File(path, "r+") as file:
        file["train/images"][2] ^= 1
    with Reader(path) as reader, Pictures(reader, "train") as pictures:
        with pytest.raises(FileFormatError, match="train, row 2 is damaged: checksum mismatch"):
            pictures.get(2)
        tiles = [pictures.thumbnail(row, 40) for row in range(4)]
        assert pictures.damaged == {2}
        assert {tile.size for tile in tiles} == {(40, 30)}
        assert tiles[2].getpixel((20, 2)) == (250, 224, 224)


def test_an_image_beyond_the_limits_is_not_called_damaged(tmp_path: Path) -> None:
    """Verifying the file finds nothing: its limits were raised for the build."""
    save(tmp_path / "data" / "a" / "0.png", encoded(Image.new("L", (70_000, 2)), "PNG"))
    batchify.build(tmp_path / "data", tmp_path / "out.h5", target_size=(8, 8), store="encoded",
                   max_dimension=80_000, validation_split=0.0, workers=1)  # fmt: skip
    with Reader(tmp_path / "out.h5") as reader, Pictures(reader, "train") as pictures:
        with pytest.raises(FileFormatError, match=r"row 0 cannot be decoded: .* longer than"):
            pictures.get(0)
        assert pictures.thumbnail(0, 8).size == (8, 8)


def test_a_damaged_chunk_is_told(photos: Path, tmp_path: Path) -> None:
    """What cannot be inflated is a damaged row too."""
    path = build(photos, tmp_path / "o.h5", size=(200, 200), compression="gzip")
    with h5py.File(path) as file:
        chunk = file["train/images"].id.get_chunk_info(1)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + 50] = bytes(50)
    path.write_bytes(data)
    with Reader(path) as reader, Pictures(reader, "train") as pictures:
        pictures.thumbnail(0, 40)
        pictures.thumbnail(1, 40)
        assert pictures.damaged == {1}
