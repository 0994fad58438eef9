"""The endings of exported image files."""

from __future__ import annotations

import pytest
from helpers.drawing import encoded, photo

from batchify.exporting.endings import ending_of, with_ending, without_ending

KINDS = {
    "JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif",
    "PPM": ".ppm", "AVIF": ".avif",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_bytes_decide(kind: str) -> None:
    """Whatever the name is."""
    assert ending_of(encoded(photo(), kind), "a/b.xyz") == KINDS[kind]


def test_names_keep_an_ending_that_fits() -> None:
    """Another one of an image format is replaced; what is none stays, and is followed by one."""
    assert ending_of(b"?", "a.b/c.XYZ") == ".xyz"
    assert ending_of(b"?", "a.b/c") == ".img"
    for name, ending, expected in [
        ("a.JPEG", ".jpg", "a.JPEG"), ("a.png", ".jpg", "a.jpg"), ("a.dat", ".jpg", "a.dat.jpg"),
        (".png", ".jpg", ".png.jpg"), ("a", ".png", "a.png"), ("a.XYZ", ".xyz", "a.XYZ"),
        ("a.img", ".img", "a.img"), ("a.heif", ".heic", "a.heif"), ("a.b.png", ".jpg", "a.b.jpg"),
    ]:  # fmt: skip
        assert with_ending(name, ending) == expected
        assert without_ending(expected) in (name, without_ending(name))
