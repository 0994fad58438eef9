"""Which font draws a character: the bundled one, the caller's, the system's, or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.drawing import draw_dataset
from helpers.fonts import make_font
from PIL import Image, ImageDraw

import batchify
from batchify.errors import OptionError
from batchify.reporting import fonts
from batchify.reporting.fonts import BundledFace, Face, Fonts
from batchify.reporting.typesetting import Lettering

EUROPE = "crème brûlée Łódź İstanbul Tiếng Việt ə ɛ Ελληνικά ἀρχή Привет ёж Қазақ „“ – … € № ½ ×"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder of the system's fonts; there is none in it."""
    path = tmp_path / "fonts"
    monkeypatch.setattr(fonts, "font_folders", lambda: [str(path), str(tmp_path / "missing")])
    return path


def test_latin_greek_and_cyrillic_need_no_other_font(monkeypatch: pytest.MonkeyPatch) -> None:
    """So they look the same on every machine: no font of the system is looked for."""
    monkeypatch.setattr(fonts, "font_folders", pytest.fail)
    every = Fonts()
    assert every.runs(EUROPE) == [(every.main, EUROPE)]
    assert Lettering(every, 12).lines(EUROPE, 10_000, most=1) == [EUROPE]


def test_a_font_has_what_it_draws() -> None:
    """The table of characters says what the pictures of letters do: all others are one box."""
    face = BundledFace()
    box = bytes(face.sized(20).getmask("\uffff"))
    for char in filter(face.drawn, map(chr, range(0x20, 0x3000))):
        assert face.has(char) == (bytes(face.sized(20).getmask(char)) != box), ascii(char)


@pytest.mark.parametrize("kind", [4, 12])
@pytest.mark.parametrize("collection", [False, True])
def test_tables_of_characters_are_read(folder: Path, kind: int, collection: bool) -> None:
    """Of either format, with gaps in them, and of the first font of a collection."""
    face = Face(str(make_font(folder / "a.ttf", "猫狗犬", kind=kind, collection=collection)))
    assert [face.has(char) for char in "猫狗犬獸A"] == [True, True, True, False, False]
    assert face.shows("猫")


def test_a_font_of_the_system_draws_what_the_bundled_one_lacks(folder: Path) -> None:
    """The first that has a character, plain ones first; files that are no fonts are ignored."""
    make_font(folder / "a" / "Some-Bold.ttf", "猫犬")
    make_font(folder / "z" / "Some-Regular.otf", "猫")
    make_font(folder / "NotoSansCJK-Regular.ttc", "熊", collection=True)
    (folder / "Broken.ttf").write_bytes(b"OTTO" + bytes(40))
    (folder / "Empty.ttf").write_bytes(b"")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "Pipe.ttf")
    names = [Path(path).name for path in fonts.system_fonts()]
    assert names[0] == "NotoSansCJK-Regular.ttc"
    assert names[-1] == "Some-Bold.ttf"
    every = Fonts()
    found = {char: every.face(char) for char in "猫犬熊é狼"}
    files = {char: Path(face._file).name for char, face in found.items() if face}
    assert files == {
        "猫": "Some-Regular.otf",
        "犬": "Some-Bold.ttf",
        "熊": "NotoSansCJK-Regular.ttc",
        "é": "NotoSans-subset.ttf",
    }
    assert Lettering(every, 12).lines("猫 狼.png", 999, most=1) == ["猫 \\u72fc.png"]


def test_the_font_of_the_caller_goes_first(folder: Path, tmp_path: Path) -> None:
    """The system's fonts draw what it lacks."""
    make_font(folder / "System.ttf", "猫犬")
    own = make_font(tmp_path / "own.ttf", "猫")
    every = Fonts(own)
    assert [getattr(every.face(char), "_file", "") for char in "猫犬"] == [
        *(str(own), str(folder / "System.ttf")),
    ]


@pytest.mark.parametrize("name", ["missing.ttf", "notes.ttf"])
def test_what_is_no_font_is_refused(tmp_path: Path, name: str) -> None:
    """The message names the file and the reason."""
    (tmp_path / "notes.ttf").write_text("no font at all, for all its length")
    reason = "No such file" if name == "missing.ttf" else r"not a \.ttf, \.otf or \.ttc font"
    with pytest.raises(OptionError, match=rf"cannot use the font .*{name}: {reason}"):
        Fonts(tmp_path / name)


def test_a_pillow_without_freetype_can_use_no_font_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, rather than ignoring the file."""
    monkeypatch.setattr("batchify.reporting.fonts.features.check", lambda _name: False)
    assert Fonts().face("é") is None
    with pytest.raises(OptionError, match="built without FreeType"):
        Fonts("any.ttf")


def test_letters_keep_their_marks(folder: Path) -> None:
    """Accents are composed; a line never breaks between a letter and its mark."""
    lettering = Lettering(Fonts(), 12)
    assert lettering.lines("re\u0301sume\u0301", 999, most=1) == ["résumé"]
    lines = lettering.lines("q\u0301" * 30, lettering.width("q\u0301" * 10) + 1, most=3)
    assert lines == ["q\u0301" * 10] * 3
    make_font(folder / "a.ttf", "न")
    assert Lettering(Fonts(), 12).lines("नन\u0940", 999, most=1) == ["न\\u0928\\u0940"]


def test_words_of_one_font_are_one_piece(folder: Path) -> None:
    """With the spaces and digits between them, so that they can run from right to left."""
    make_font(folder / "a.ttf", "אב 12")
    every = Fonts()
    assert [text for _, text in every.runs("x אב 12 ב.png")] == ["x ", "אב 12 ב", ".png"]
    assert [text for _, text in every.runs("א.ב")] == ["א", ".", "ב"]


def test_text_of_two_fonts_is_as_wide_as_it_is_drawn(folder: Path) -> None:
    """All ink is within the width, in every size, also in print that is twice as bold."""
    make_font(folder / "a.ttf", "猫")
    for size, bold in ((12, False), (30, True)):
        lettering = Lettering(Fonts(), size, bold=bold)
        image = Image.new("L", (400, 60))
        lettering.draw(ImageDraw.Draw(image), (10, 10), "ab猫猫cd", "white")
        left, top, right, bottom = image.getbbox() or (0, 0, 0, 0)
        assert 10 <= left < right <= 10 + lettering.width("ab猫猫cd") + 1
        assert 10 <= top < bottom <= 10 + lettering.line_height


def test_only_names_that_need_them_depend_on_the_fonts_of_the_system(
    tmp_path: Path, folder: Path
) -> None:
    """A sheet of European names has the same bytes, whatever fonts there are."""
    sheets: dict[str, list[bytes]] = {}
    for name in ("é", "猫"):
        root = draw_dataset(tmp_path / "d" / name, {name: 1}, size=(8, 8))
        decode = batchify.DecodeOptions(target_size=(8, 8))
        batchify.build(root, tmp_path / "o.h5", batchify.BuildOptions(decode=decode), workers=1,
                       overwrite=True)  # fmt: skip
        for has_font in (False, True):
            if has_font:
                make_font(folder / "a.ttf", "é猫")
            batchify.write_sheet(tmp_path / "o.h5", tmp_path / "s.png")
            sheets.setdefault(name, []).append((tmp_path / "s.png").read_bytes())
        (folder / "a.ttf").unlink()
    assert sheets["é"][0] == sheets["é"][1]
    assert sheets["猫"][0] != sheets["猫"][1]
