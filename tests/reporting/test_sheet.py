"""The contact sheet: what it shows, what it says, how large it is, and where it may be put."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from PIL import Image, ImageFont

import batchify
from batchify.errors import OptionError, OutputIOError, OutputPathError
from batchify.format.reader import Reader
from batchify.reporting import fonts, sheet
from batchify.reporting.fonts import Fonts
from batchify.reporting.pictures import Pictures
from batchify.reporting.typesetting import Block, Layout, Lettering, Tile, flow, shares


def build(root: Path, out: Path, size: tuple[int, int] = (16, 16), **groups: Any) -> Path:
    """Build a file in this process; `size` is (height, width)."""
    decode = batchify.DecodeOptions(target_size=size, **groups.pop("decode", {}))
    batchify.build(root, out, batchify.BuildOptions(decode=decode, **groups), workers=1)
    return out


@pytest.fixture
def laid_out(monkeypatch: pytest.MonkeyPatch) -> list[Layout]:
    """Keep what was drawn, of every sheet that the test writes."""
    layouts: list[Layout] = []
    draw = sheet._drawn

    def drawn(layout: Layout, pictures: dict[str, Pictures]) -> Image.Image:
        layouts.append(layout)
        return draw(layout, pictures)

    monkeypatch.setattr(sheet, "_drawn", drawn)
    return layouts


@pytest.fixture(autouse=True)
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show the same on every machine."""
    monkeypatch.setattr(fonts, "font_folders", list)


def texts(layout: Layout) -> list[str]:
    """Return all that a sheet says, in the order it is drawn."""
    return [words.text for words in layout.words]


def test_tiles_are_the_stored_pixels(tmp_path: Path, laid_out: list[Layout]) -> None:
    """At the place of each row, its thumbnail, and only rows of the class above it."""
    root = draw_dataset(tmp_path / "d", {"cat": 12, "dog": 3})
    path = build(root, tmp_path / "o.h5", (20, 30))
    done = batchify.write_sheet(path, tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as image:
        assert (image.format, image.size, image.mode) == ("PNG", (done.width, done.height), "RGB")
        pixels = np.asarray(image)
    with Reader(path) as reader:
        for split in reader.splits:
            with Pictures(reader, split) as pictures:
                boxes = [box for box in laid_out[0].boxes if box.split == split]
                assert len(boxes) == len(pictures)
                for box in boxes:
                    tile = np.asarray(pictures.thumbnail(box.row, sheet.SIDE))
                    height, width = tile.shape[:2]
                    shown = pixels[box.y : box.y + height, box.x : box.x + width]
                    assert np.array_equal(shown, tile)
    assert done.images == 15
    assert done.damaged == ()


def test_a_class_is_told_above_its_images_and_paths_below(
    tmp_path: Path, laid_out: list[Layout]
) -> None:
    """The class with its count, then file names, in the order of the rows."""
    root = draw_dataset(tmp_path / "d", {"cat": 2, "dog": 1})
    save(root / "cat" / "deep" / "er.png", encoded(photo(), "PNG"))
    options = batchify.SplitOptions(validation=0, shuffle=False)
    batchify.write_sheet(build(root, tmp_path / "o.h5", split=options), tmp_path / "s.png")
    assert texts(laid_out[0]) == [
        "train",
        "4 images of 2 classes, 16×16×3 uint8",
        *("cat", "3 images", "img_000.jpg", "img_001.jpg", "deep/er.png"),
        *("dog", "1 image", "img_000.jpg"),
    ]


def test_a_folder_of_splits_tells_the_class_once(tmp_path: Path, laid_out: list[Layout]) -> None:
    """Neither the folder of the split nor that of the class is in the caption."""
    draw_dataset(tmp_path / "d" / "train", {"cat": 1})
    draw_dataset(tmp_path / "d" / "val", {"cat": 1})
    batchify.write_sheet(build(tmp_path / "d", tmp_path / "o.h5"), tmp_path / "s.png")
    about = "1 image of 1 class, 16×16×3 uint8"
    of_each = [about, "cat", "1 image", "img_000.jpg"]
    assert texts(laid_out[0]) == ["train", *of_each, "validation", *of_each]


def test_without_labels_the_whole_path_is_told(tmp_path: Path, laid_out: list[Layout]) -> None:
    """There is no heading."""
    root = draw_dataset(tmp_path / "d", {"cat": 1})
    store = batchify.StoreOptions(class_mode="none")
    batchify.write_sheet(build(root, tmp_path / "o.h5", store=store), tmp_path / "s.png")
    about = "1 image, no labels, 16×16×3 uint8"
    assert texts(laid_out[0])[:3] == ["train", about, "cat/img_000.jpg"]


def test_an_empty_split_says_so(tmp_path: Path, laid_out: list[Layout]) -> None:
    """It is shown, with nothing in it."""
    root = draw_dataset(tmp_path / "d", {"cat": 1})
    done = batchify.write_sheet(build(root, tmp_path / "o.h5"), tmp_path / "s.png")
    assert texts(laid_out[0])[-2:] == ["validation", "empty: no images"]
    assert done.images == 1


def test_classes_without_an_image_are_named(tmp_path: Path, laid_out: list[Layout]) -> None:
    """In the split that has none of them."""
    root = draw_dataset(tmp_path / "d", {"cat": 5, "dog": 2, "fox": 1})
    batchify.write_sheet(build(root, tmp_path / "o.h5"), tmp_path / "s.png")
    assert "classes without an image here: dog, fox" in texts(laid_out[0])


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """In either format, wherever the file is; another seed gives another picture."""
    root = draw_dataset(tmp_path / "d", {"cat": 90}, size=(16, 16))
    path = build(root, tmp_path / "o.h5")
    (tmp_path / "other").mkdir()
    moved = tmp_path / "other" / "name.h5"
    moved.write_bytes(path.read_bytes())
    for suffix in ("png", "webp"):
        batchify.write_sheet(path, tmp_path / f"a.{suffix}", seed=5)
        batchify.write_sheet(moved, tmp_path / f"b.{suffix}", seed=5)
        batchify.write_sheet(path, tmp_path / f"c.{suffix}", seed=6)
        first, again, other = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "abc")
        assert first == again != other


def test_thousands_of_classes_make_a_sheet_to_read(tmp_path: Path, laid_out: list[Layout]) -> None:
    """Some of the classes, many in a line, and how many more there are."""
    data = encoded(photo(8, 8), "PNG")
    image = save(tmp_path / "d" / "class_0000" / "a.png", data)
    for i in range(1, 2500):
        (tmp_path / "d" / f"class_{i:04}").mkdir()
        os.link(image, tmp_path / "d" / f"class_{i:04}" / "a.png")
    path = build(tmp_path / "d", tmp_path / "o.h5", (8, 8))
    done = batchify.write_sheet(path, tmp_path / "s.png", seed=3)
    layout = laid_out[0]
    assert done.images == 16 * layout.columns
    assert (
        f"... and {2500 - done.images:,} more classes; those shown were drawn by seed 3"
        in texts(layout)
    )
    assert done.width < 1400
    assert done.height < 4000


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (512, 512), (1, 300), (300, 1), (60, 100)])
def test_no_sheet_is_too_large_for_its_formats(size: tuple[int, int]) -> None:
    """WebP ends at 16,383 pixels a side: three full splits of long names stay well below."""
    side = sheet.SIDE
    tile = tuple(max(1, n * side // max(size)) for n in size)
    layout = Layout((tile[0], tile[1]), Fonts())
    name = b"n" * 300
    for index, split in enumerate(["train", "validation", "test"]):
        lines = 8 if index else 16
        layout.title(split)
        for _ in range(3):
            layout.text("about")
        layout.space()
        tiles = [Tile(0, layout.caption(name))]
        blocks = [Block(layout.heading(name, 1), "9,999,999 images", tuple(tiles))]
        for line in flow(blocks * (lines * layout.columns), layout.columns):
            layout.line(split, line)
    assert layout.size[0] <= 1310
    assert layout.size[1] <= 8800


@pytest.mark.parametrize(
    ("color_mode", "dtype"),
    [("rgba", "uint8"), ("grayscale", "uint16"), ("rgb", "float32"), ("grayscale", "float32")],
)
def test_every_kind_of_image_is_shown(
    zoo: Path, tmp_path: Path, color_mode: str, dtype: str
) -> None:
    """Whatever Keras reads, in every colour mode and dtype, from tiny to large."""
    store = batchify.StoreOptions(dtype=dtype, compression="gzip")  # type: ignore[arg-type]
    for size in [(8, 8), (512, 512)]:
        path = build(zoo, tmp_path / "o.h5", size, decode={"color_mode": color_mode}, store=store)
        done = batchify.write_sheet(path, tmp_path / "s.webp")
        with Image.open(tmp_path / "s.webp") as image:
            assert (image.format, image.size) == ("WEBP", (done.width, done.height))
        path.unlink()


def test_a_damaged_image_is_told_and_hides_no_other(photos: Path, tmp_path: Path) -> None:
    """The sheet is made; split and row are named."""
    path = build(photos, tmp_path / "o.h5")
    with h5py.File(path, "r+") as file:
        file["validation/images"][1] ^= 1
    done = batchify.write_sheet(path, tmp_path / "s.png")
    assert done.damaged == ("validation, row 1",)
    assert done.images == 15


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="such names cannot be there")
def test_names_that_do_not_print_are_told_losslessly(
    tmp_path: Path, laid_out: list[Layout]
) -> None:
    """Line breaks, escape codes, bytes that are not UTF-8, characters that no font has."""
    for name in [b"a\nb", b"c\x1b[31m", b"d\xff", "e猫".encode(), "f\x85é".encode(), b"g\\u732b"]:
        save(tmp_path / "d" / os.fsdecode(name) / "i.png", encoded(photo(), "PNG"))
    path = build(tmp_path / "d", tmp_path / "o.h5", split=batchify.SplitOptions(validation=0))
    batchify.write_sheet(path, tmp_path / "s.png")
    told = [text for text in texts(laid_out[0]) if text[0] in "acdefg"]
    assert told == [
        *("a\\nb", "c\\x1b[31m", "d\\xff", "e\\u732b", "f\\x85é", "g\\\\u732b"),
    ]


def test_a_name_of_spaces_can_be_seen() -> None:
    """It stands in quotes, as in the report."""
    assert Lettering(Fonts(), 15).lines(b"  ", 100, most=1) == ["'  '"]


def test_long_names_lose_their_middle(tmp_path: Path) -> None:
    """Lines break at words where they can; beginning and end stay, and nothing is too wide."""
    lettering = Lettering(Fonts(), 12)
    assert lettering.lines(b"short.png", 100, most=2) == ["short.png"]
    assert lettering.lines(b"the quick brown fox.png", 90, most=2) == ["the quick", "brown fox.png"]
    one = lettering.lines(b"a" * 99 + b"z.png", 100, most=1)
    assert len(one) == 1
    assert one[0].startswith("aaa")
    assert "..." in one[0]
    assert one[0].endswith("z.png")
    for name in (b"w" * 5000, "猫".encode() * 50, b" " * 40, b""):
        for most in (1, 2, 3):
            lines = lettering.lines(name, 100, most=most)
            assert 1 <= len(lines) <= most
            assert max(map(lettering.width, lines)) <= 100


@pytest.mark.parametrize("has_freetype", [True, False])
def test_a_pillow_without_freetype_writes_less_prettily(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_freetype: bool
) -> None:
    """With the one bitmap font that it has."""
    if not has_freetype:
        bitmap = ImageFont.load_default_imagefont()
        monkeypatch.setattr("batchify.reporting.fonts.features.check", lambda name: name == "webp")
        monkeypatch.setattr("batchify.reporting.fonts.ImageFont.load_default", lambda: bitmap)
    (photos / "cat").rename(photos / "猫")
    done = batchify.write_sheet(build(photos, tmp_path / "o.h5"), tmp_path / "s.png")
    assert done.images == 15


def test_blocks_flow() -> None:
    """Small ones beside each other, large ones over several lines, none lost."""

    def block(name: str, tiles: int) -> Block:
        return Block((name,), "", tuple(Tile(i, ()) for i in range(tiles)))

    blocks = [block("a", 1), block("b", 2), block("c", 2), block("d", 9), block("e", 3)]
    lines = [
        [(column, of.heading, len(of.tiles)) for column, of in line] for line in flow(blocks, 4)
    ]
    assert lines == [
        [(0, ("a",), 1), (1, ("b",), 2)],
        [(0, ("c",), 2)],
        [(0, ("d",), 4)],
        [(0, (), 4)],
        [(0, (), 1), (1, ("e",), 3)],
    ]


def test_shares_never_need_more_lines_than_there_are() -> None:
    """For any number of classes, columns and lines."""
    for columns in (1, 2, 9, 10, 11):
        for lines in (1, 8, 16):
            for classes in (0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 50, 160, 161, 5000):
                per_class, most = shares(classes, columns, lines)
                assert per_class >= 1
                assert most >= 1
                tiles = tuple(Tile(i, ()) for i in range(per_class))
                blocks = [Block(("c",), "", tiles)] * min(classes, most)
                assert len(list(flow(blocks, columns))) <= lines


def test_places_where_no_sheet_can_be(photos: Path, tmp_path: Path) -> None:
    """Each is refused with a reason, and nothing is written."""
    path = build(photos, tmp_path / "o.h5")
    (tmp_path / "folder.png").mkdir()
    os.link(path, tmp_path / "same.png")
    before = path.read_bytes()
    for name, error, message in [
        ("s.jpg", OptionError, "must end with .png or .webp"),
        ("o.h5", OptionError, "must end with .png or .webp"),
        ("same.png", OutputPathError, "is the file to read"),
        ("folder.png", OutputPathError, "is a folder"),
        ("none/s.png", OutputPathError, "there is no folder"),
    ]:
        with pytest.raises(error, match=message):
            batchify.write_sheet(path, tmp_path / name)
    with pytest.raises(OptionError, match="seed"):
        batchify.write_sheet(path, tmp_path / "s.png", seed=-1)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        *("folder.png", "o.h5", "photos", "same.png"),
    ]


def test_a_folder_that_cannot_be_written_is_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is drawn."""
    path = build(photos, tmp_path / "o.h5")
    monkeypatch.setattr("batchify.common.durable.os.access", lambda _path, _mode: False)
    with pytest.raises(OutputIOError, match="no permission to write in"):
        batchify.write_sheet(path, tmp_path / "s.png")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no FIFOs in folders")
def test_what_is_no_file_is_not_replaced(photos: Path, tmp_path: Path) -> None:
    """A FIFO is left alone."""
    path = build(photos, tmp_path / "o.h5")
    os.mkfifo(tmp_path / "s.png")
    with pytest.raises(OutputPathError, match="not a regular file"):
        batchify.write_sheet(path, tmp_path / "s.png")


def test_a_sheet_is_replaced_when_the_next_one_is_whole(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails leaves the old one, and nothing beside it."""
    path = build(photos, tmp_path / "o.h5")
    batchify.write_sheet(path, tmp_path / "s.png")
    before = (tmp_path / "s.png").read_bytes()

    def fail(source: bytes, target: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("batchify.common.durable.os.replace", fail)
        with pytest.raises(OutputIOError, match="No space left"):
            batchify.write_sheet(path, tmp_path / "s.png", seed=1)
    assert (tmp_path / "s.png").read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["o.h5", "photos", "s.png"]


def test_a_pillow_without_webp_says_so(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And names what can be had."""
    path = build(photos, tmp_path / "o.h5")
    monkeypatch.setattr("batchify.reporting.sheet.features.check", lambda _name: False)
    with pytest.raises(OptionError, match=r"without WebP; name a \.png"):
        batchify.write_sheet(path, tmp_path / "s.webp")
