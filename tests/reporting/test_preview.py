"""What a notebook shows of a file and of a split."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.tabled import write_table
from numpy.typing import NDArray
from PIL import Image

import batchify
from batchify.loading.split import Split

ODD = "a<b>&\"c'"
"""A name that would be markup."""


def opened(root: Path, out: Path, **options: Any) -> batchify.DatasetFile:
    """Build and open a file of small images, in the order of their names."""
    given = {"target_size": (8, 8), "shuffle": False, **options}
    batchify.build(root, out, workers=1, **given)
    return batchify.open(out)


def shown(what: Split | batchify.DatasetFile) -> str:
    """Return the HTML that a notebook shows, which asks for nothing from outside."""
    text = what._repr_html_()
    assert text is not None
    for address in re.findall(r"(?:src|href|action)=\"([^\"]*)", text):
        assert address.startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
    assert not re.search(r"<(script|style|link|iframe|object)|url\(|@import|\son\w+=", text)
    assert len(text) < 1_000_000
    return text


def pictures(text: str) -> list[NDArray[np.uint8]]:
    """Return the pictures in some HTML."""
    found = re.findall(r'src="data:image/\w+;base64,([^"]*)"', text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_small_images_are_shown_pixel_by_pixel(tmp_path: Path) -> None:
    """In lines of classes, five at most of each, with their paths; a file shows every split."""
    root = draw_dataset(tmp_path / "data", {"cat": 9, "dog": 4})
    file = opened(root, tmp_path / "out.h5")
    train = file["train"]
    text = shown(train)
    assert [f">{name}</bdi>" in text for name in ("cat", "dog")] == [True, True]
    assert text.count("<img") == 5 + 4
    assert text.startswith("<div><b>train</b>: 12 images of 8×8×3 uint8, 2 classes</div>")
    assert "8 images" in text
    expected = [*train.images[:5], *train.images[8:]]
    for picture, image in zip(pictures(text), expected, strict=True):
        assert picture.shape == (64, 64, 3)
        np.testing.assert_array_equal(picture[::8, ::8], image)
    assert f'alt="{train.paths[0]}"' in text
    whole = shown(file)
    assert "<b>train</b>" in whole
    assert "<b>validation</b>" in whole
    assert whole.count("<img") == 9 + 1
    assert "out.h5</bdi></b>: 8×8×3 uint8, 2 classes" in whole


def test_names_are_text(tmp_path: Path) -> None:
    """Of classes, images and files, whatever they contain."""
    root = tmp_path / "data"
    for name in (ODD, "b"):
        save(root / name / f"{ODD}.png", encoded(photo(8, 8), "PNG"))
    file = opened(root, tmp_path / f"{ODD}.h5", validation_split=0)
    for text in (shown(file), shown(file["train"])):
        assert "<b>&" not in text
        assert html.escape(ODD) in text
        assert html.escape(f"{ODD}/{ODD}.png") in text


@pytest.mark.parametrize(
    "options",
    [
        {"store": "encoded"},
        {"compression": "gzip", "color_mode": "rgba"},
        {"color_mode": "grayscale", "dtype": "uint16"},
        {"dtype": "float32", "rescale": "1/127"},
        {"class_mode": "categorical"},
    ],
)
def test_every_storage_form_shows_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    """Decoded, inflated, gray and as the bytes that floats came from."""
    root = draw_dataset(tmp_path / "data", {"cat": 3, "dog": 2})
    plain = opened(root, tmp_path / "plain.h5", color_mode=options.get("color_mode", "rgb"))
    other = opened(root, tmp_path / "other.h5", **options)
    expected, found = (pictures(shown(file["train"])) for file in (plain, other))
    assert len(expected) == 5
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_large_images_and_many_classes_take_little(tmp_path: Path) -> None:
    """Reduced, in JPEG, of ten classes."""
    root = draw_dataset(tmp_path / "data", {f"class {i:02}": 6 for i in range(12)})
    file = opened(root, tmp_path / "out.h5", target_size=(96, 128), validation_split=0)
    text = shown(file["train"])
    assert text.count("<img") == 50
    assert "… and 2 more classes" in text
    assert {picture.shape for picture in pictures(text)} == {(48, 64, 3)}
    assert len(text) < 250_000
    assert shown(file).count("<img") == 10


@pytest.mark.parametrize(
    ("mode", "columns", "caption"),
    [
        ("multilabel", ["x<y", "z"], "x&lt;y"),
        ("regression", ["z"], ">2<"),
        ("mask", ["mask"], 'alt="mask of 2.png"'),
        ("none", [], 'alt="2.png"'),
    ],
)
def test_labels_that_are_no_classes(
    tmp_path: Path, mode: str, columns: list[str], caption: str
) -> None:
    """Numbers, names of labels and masks are below the images."""
    rows = []
    for i in range(3):
        save(tmp_path / "data" / f"{i}.png", encoded(photo(8, 8, i), "PNG"))
        save(tmp_path / "data" / f"mask{i}.png", encoded(photo(8, 8, i, "1").convert("L"), "PNG"))
        number = i if mode == "regression" else i % 2
        row = {"path": f"{i}.png", "x<y": 1, "z": number, "mask": f"mask{i}.png"}
        rows.append({name: row[name] for name in ("path", *columns)})
    table = write_table(tmp_path / "table.csv", rows)
    given: dict[str, Any] = {"manifest": table, "class_mode": mode, "label_columns": columns}
    if not columns:
        del given["label_columns"]
    file = opened(tmp_path / "data", tmp_path / "out.h5", validation_split=0, **given)
    for text in (shown(file), shown(file["train"])):
        assert caption in text
        assert len(pictures(text)) == 3 * (1 + (mode == "mask"))
    if mode == "mask":
        assert {0, 255} == set(np.unique(pictures(shown(file))[1]).tolist())


def test_what_cannot_be_read_is_crossed_out(tmp_path: Path) -> None:
    """With the reason; the other images are there, and a notebook never shows a traceback."""
    root = draw_dataset(tmp_path / "data", {"cat": 3, "dog": 2})
    out = tmp_path / "out.h5"
    opened(root, out, store="encoded", validation_split=0)
    data = bytearray(out.read_bytes())
    first = (root / "cat" / "img_000.jpg").read_bytes()
    start = data.index(first)
    data[start : start + len(first)] = bytes(len(first))
    out.write_bytes(data)
    text = shown(batchify.open(out)["train"])
    tiles = pictures(text)
    assert len(tiles) == 5
    assert tiles[0][0, 0].tolist() == [176, 0, 32]
    assert "row 0 of train cannot be decoded" in text
    floats = opened(root, tmp_path / "floats.h5", dtype="float32", validation_split=0)
    (tmp_path / "floats.h5").unlink()  # only the file says how its floats were scaled
    assert "floats.h5" in shown(floats["train"])


def test_a_split_that_cannot_be_shown_has_its_repr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook shows that instead."""
    file = opened(draw_dataset(tmp_path / "data", {"a": 1}), tmp_path / "out.h5")
    assert "<img" not in shown(file["validation"])  # it is empty

    def fails(*_: object) -> None:
        raise OSError("no")

    closed = opened(tmp_path / "data", tmp_path / "closed.h5")
    split = closed["train"]
    closed.close()
    assert closed._repr_html_() is split._repr_html_() is None
    monkeypatch.setattr("batchify.reporting.preview.draw_pixels", fails)
    assert file["train"]._repr_html_() is None
    assert file._repr_html_() is None
