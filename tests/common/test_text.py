"""Names: escaped for people, sorted by code point."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchify.common.paths import sort_names
from batchify.common.text import columns_of, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain/name.jpg", "plain/name.jpg"),
        ("é 日本.jpg".encode(), "é 日本.jpg"),
        (b"new\nline\r\t.jpg", r"new\nline\r\t.jpg"),
        (b"\x1b[31mred", r"\x1b[31mred"),
        (b"back\\slash", r"back\\slash"),
        ("\u202egpj".encode(), r"\u202egpj"),
        ("\U000e0001".encode(), r"\U000e0001"),
        ("a\u200db\u200c\u200d".encode(), r"a\u200db\u200c\u200d"),
        ("\u200c猫\u3000".encode(), r"\u200c猫\u3000"),
    ],
)
def test_what_does_not_print_is_escaped(name: bytes, shown: str) -> None:
    """Newlines, escape codes and direction marks never reach a terminal or a log."""
    assert printable(name) == shown


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Ελληνικά",
            "Привет",
            "猫 与 狗",
            "고양이",
            "קטן",
            "قطة",
            "แมวน้ำ",
            "बिल्ली",
            "e\u0301",
            "😀",
        ),
        *("می\u200cشود", "क्\u200dष", "👩\u200d🔬", "❤\ufe0f\u200d🔥", "写真\u30002023"),
    ],
)
def test_every_script_is_shown_as_it_is(name: str) -> None:
    """With the joiners that its words and pictures are written with."""
    assert printable(name) == name


@pytest.mark.parametrize(("text", "columns"), [("abé", 3), ("猫ab", 4), ("e\u0301", 1)])
def test_text_is_as_wide_as_a_terminal_shows_it(text: str, columns: int) -> None:
    """Tables stay aligned."""
    assert columns_of(text) == columns


@pytest.mark.skipif(sys.platform == "win32", reason="names are UTF-8 there")
def test_bytes_that_are_not_utf8_are_shown_as_bytes() -> None:
    """A lone byte is escaped as itself."""
    assert printable(b"\xff\x80.jpg") == r"\xff\x80.jpg"


@given(name=st.binary(max_size=20))
def test_shown_names_print_on_one_line(name: bytes) -> None:
    """Whatever the bytes, but for joiners and wide spaces that can be seen."""
    shown = printable(os.fsdecode(name) if sys.platform != "win32" else name.hex())
    assert shown.translate(dict.fromkeys((0x200C, 0x200D, 0x3000))).isprintable()


@pytest.mark.skipif(sys.platform == "win32", reason="names are UTF-8 there")
@given(names=st.lists(st.binary(max_size=6)))
def test_names_sort_as_python_sorts_their_text(names: list[bytes]) -> None:
    """Bytes that are not UTF-8 sort where os.fsdecode puts them."""
    expected = sorted(map(os.fsdecode, names))
    sort_names(names)
    assert list(map(os.fsdecode, names)) == expected
