"""Names: escaped for people, sorted by code point."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchify.common.paths import sort_names
from batchify.common.text import printable


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
    ],
)
def test_what_does_not_print_is_escaped(name: bytes, shown: str) -> None:
    """Newlines, escape codes and direction marks never reach a terminal or a log."""
    assert printable(name) == shown


@pytest.mark.skipif(sys.platform == "win32", reason="names are UTF-8 there")
def test_bytes_that_are_not_utf8_are_shown_as_bytes() -> None:
    """A lone byte is escaped as itself."""
    assert printable(b"\xff\x80.jpg") == r"\xff\x80.jpg"


@given(name=st.binary(max_size=20))
def test_shown_names_print_on_one_line(name: bytes) -> None:
    """Whatever the bytes."""
    assert printable(os.fsdecode(name) if sys.platform != "win32" else name.hex()).isprintable()


@pytest.mark.skipif(sys.platform == "win32", reason="names are UTF-8 there")
@given(names=st.lists(st.binary(max_size=6)))
def test_names_sort_as_python_sorts_their_text(names: list[bytes]) -> None:
    """Bytes that are not UTF-8 sort where os.fsdecode puts them."""
    expected = sorted(map(os.fsdecode, names))
    sort_names(names)
    assert list(map(os.fsdecode, names)) == expected
