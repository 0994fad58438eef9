"""The formats: what is opened, what the others are called, and plugins."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.running import Run
from PIL import Image

import batchify
from batchify.choices import PLUGIN_EXTENSIONS
from batchify.decoding import formats
from batchify.decoding.formats import PLUGINS, check_extensions, jxl_size
from batchify.decoding.image import decode_image
from batchify.decoding.pillow_settings import decoder_text, set_pillow_limits
from batchify.errors import BadImageError, ExtraMissingError, OptionError
from batchify.image_options import DecodeOptions

EXTRAS = ("heif", "jxl")


def plugin_image(extra: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    """Return an image that a plugin writes."""
    plugin = PLUGINS[extra]
    module = __import__(plugin.module)
    if extra == "heif":
        module.register_heif_opener()
    buffer = io.BytesIO()
    photo(*size).save(buffer, plugin.format, **options)
    return buffer.getvalue()


def reason(data: bytes, **options: object) -> str:
    """Return why bytes are refused."""
    set_pillow_limits(DecodeOptions())
    with pytest.raises(BadImageError) as caught:
        decode_image(data, DecodeOptions(**options))  # type: ignore[arg-type]
    return str(caught.value)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
BOXES = b"\0\0\0\x18ftyp"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty file (0 bytes)"),
        (LFS, "a Git LFS pointer, not the image: run git lfs pull in its repository"),
        (
            b"/annex/objects/SHA256E-s1--9.jpg\n",
            "a git-annex pointer, not the image: run git annex",
        ),
        (
            b"\xef\xbb\xbf\r\n <!DOCTYPE html><html>",
            "an HTML page, not an image: its download",
        ),
        (b"<!-- 404 --><HTML><body>", "an HTML page, not an image: its download failed"),
        (b'<?xml version="1.0"?><svg>', "format not allowed: SVG"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "format not allowed: XML"),
        (b'{"error": "rate limit"}', "JSON text, not an image: its download failed"),
        (bytes(5000), "not an image: all its bytes are zero"),
        (BOXES + b"qt  \0\0\0\0qt  ", "format not allowed: a video"),
        (BOXES + b"mp42\0\0\0\0isom", "format not allowed: a video"),
        (BOXES + b"crx \0\0\0\1crx ", "format not allowed: a camera raw file (CR3)"),
        (b"RIFF\0\0\0\0AVI LIST", "format not allowed: a video"),
        (bytes(128) + b"DICM", "format not allowed: DICOM"),
        (b"8BPS\0\1", "format not allowed: PSD"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "format not allowed: JPEG 2000"),
        (b"gimp xcf v001", "format not allowed: XCF"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(data: bytes, expected: str) -> None:
    """Whatever the name of the file says."""
    assert reason(data).startswith(expected)


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_format_of_a_plugin_is_named(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the option that takes it, and what to install where its plugin is not there."""
    data, name = plugin_image(extra), PLUGINS[extra].name
    ending = {"heif": "heic", "jxl": "jxl"}[extra]
    pass_it = f"pass --extensions {ending}"
    assert reason(data) == f"a {name} image, whatever its name: {pass_it}"
    monkeypatch.setitem(PLUGINS, extra, PLUGINS[extra]._replace(module="no_such_module"))
    formats._load.cache_clear()
    install = f'pip install "batchify-h5[{extra}]"'
    assert reason(data) == f"a {name} image, whatever its name: {install} and {pass_it}"
    assert reason(data, plugins=(extra,)) == f"a {name} image, whatever its name: {install}"
    with pytest.raises(ExtraMissingError, match=r"--extensions .* needs pillow-.*: pip install"):
        check_extensions((ending,))
    formats._load.cache_clear()


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_plugin_decodes_what_pillow_does(extra: str) -> None:
    """The pixels are those that the plugin gives to Pillow."""
    data = plugin_image(extra, quality=90)
    set_pillow_limits(DecodeOptions())
    found = decode_image(data, DecodeOptions((30, 40), plugins=(extra,)))
    assert found.size == (30, 40)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(found.pixels, np.asarray(image.convert("RGB")))


def test_photos_of_phones_are_upright() -> None:
    """The decoders of both formats turn images themselves; --exif apply turns them no further."""
    exif = Image.Exif()
    exif[0x0112] = 6
    set_pillow_limits(DecodeOptions())
    for extra in EXTRAS:
        data = plugin_image(extra, (40, 30), exif=exif.tobytes())
        ways = [
            decode_image(data, DecodeOptions((8, 8), plugins=(extra,), exif=way))
            for way in ("ignore", "apply")
        ]  # fmt: skip
        np.testing.assert_array_equal(ways[0].pixels, ways[1].pixels)


@pytest.mark.parametrize("size", [(8, 8), (256, 256), (40, 30), (1600, 900), (3000, 17), (1, 1)])
def test_the_size_of_a_jpeg_xl_image_is_in_its_header(size: tuple[int, int]) -> None:
    """The plugin decodes as it opens, so the limits are checked before."""
    for options in ({}, {"use_container": True}):
        assert jxl_size(plugin_image("jxl", size, effort=1, **options)) == size


def test_limits_hold_for_plugins() -> None:
    """A header that claims too much is refused before a pixel is decoded."""
    for extra in EXTRAS:
        data = plugin_image(extra, (90, 60))
        assert "90×60" in reason(data, plugins=(extra,), max_pixels=5000)
        assert "90×60" in reason(data, plugins=(extra,), max_dimension=80)
    assert reason(b"\xff\x0a", plugins=("jxl",)).startswith("a damaged JPEG XL image")
    assert reason(plugin_image("jxl")[:60], plugins=("jxl",))
    assert reason(plugin_image("heif")[:200], plugins=("heif",))


def raw_tiff(**tags: object) -> bytes:
    """Return a TIFF with some tags by number."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    found = ImageFileDirectory_v2()
    for name, value in tags.items():
        found[int(name[1:])] = value
    return encoded(photo(16, 12), "TIFF", tiffinfo=found)


def test_the_thumbnail_of_a_raw_file_is_not_the_image() -> None:
    """A camera's raw file is a TIFF whose first image is a preview: silently wrong pixels."""
    tiff = encoded(photo(16, 12, mode="L"), "TIFF")
    canon = tiff[:4] + (16).to_bytes(4, "little") + b"CR\2\0\0\0\0\0" + tiff[8:]
    for data in (raw_tiff(_50706=b"\1\4\0\0"), raw_tiff(_254=1, _330=8), canon):
        assert reason(data).startswith("a camera raw file, in which only a thumbnail")
    assert decode_image(raw_tiff(_254=1), DecodeOptions()).size == (12, 16)


def test_plugins_are_recorded_where_they_are_asked_for() -> None:
    """And only there: files of today keep their bytes."""
    assert "heif" not in decoder_text()
    assert decoder_text(("heif", "jxl")).count("pillow-") == 2
    options = batchify.BuildOptions(discover=batchify.DiscoverOptions(extensions=("heic",)))
    assert options.decode.plugins == ("heif",)
    assert "plugins" not in options.config(layout="classes")
    options = batchify.BuildOptions(discover=batchify.DiscoverOptions(extensions=("all",)))
    assert options.decode.plugins == EXTRAS
    assert set(PLUGIN_EXTENSIONS.values()) == set(EXTRAS)


def test_an_iphone_folder_is_built(tmp_path: Path, run: Run) -> None:
    """With --extensions heic, also photos that were only renamed; as pixels and as files."""
    root = draw_dataset(tmp_path / "photos", {"cat": 3, "dog": 3})
    for i in range(3):
        save(root / "cat" / f"IMG_{i}.HEIC", plugin_image("heif", (40 + i, 30)))
    save(root / "dog" / "renamed.jpg", plugin_image("heif", (44, 30)))
    arguments = ("--target-size", "12", "--extensions", "heic")
    done = run("build", root, "a.h5", *arguments)
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "a.h5") as file:
        assert sum(len(file[split]["paths"]) for split in ("train", "validation")) == 10
        assert b"pillow-heif" in file.attrs["decoder"]
        assert json.loads(file.attrs["config"])["extensions"] == ["heic"]
    assert run("verify", "a.h5", "--source", root, "--redecode", "all").returncode == 0
    assert run("build", root, "a.h5", *arguments, "--check").returncode == 0
    assert run("build", root, "b.h5", *arguments, "--store", "encoded").returncode == 0
    np.testing.assert_array_equal(
        batchify.open(tmp_path / "b.h5")["train"].images[:],
        batchify.open(tmp_path / "a.h5")["train"].images[:],
    )
    done = run("build", root, "c.h5", "--exclude", "*.HEIC")
    assert done.returncode == 3
    assert "renamed.jpg: a HEIC image, whatever its name: pass --extensions heic" in done.stderr


def test_plugins_are_imported_for_their_files_alone(tmp_path: Path) -> None:
    """Also where they are asked for: a worker loads one when it meets such a file."""
    draw_dataset(tmp_path / "photos", {"cat": 3, "dog": 3})
    code = (
        "import batchify, sys; batchify.build('photos', 'a.h5', batchify.BuildOptions(discover="
        "batchify.DiscoverOptions(extensions=('heic', 'jxl')))); "
        "print([name for name in sys.modules if name in ('pillow_heif', 'pillow_jxl')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "[]\n"


def test_an_unknown_ending_is_refused() -> None:
    """What no file name can end with."""
    for name in ("", "*.jpg", "a/b", "x y"):
        with pytest.raises(OptionError, match="is not an ending of files"):
            batchify.DiscoverOptions(extensions=(name,))
