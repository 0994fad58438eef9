"""What libtiff says about an image is attached to it, and never printed."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.running import Run
from PIL import Image

from batchify.decoding import complaints
from batchify.decoding.image import decode_image
from batchify.decoding.pillow_settings import set_pillow_limits
from batchify.errors import BadImageError
from batchify.image_options import DecodeOptions

OPTIONS = DecodeOptions((8, 8))

if complaints._functions()[0] is None:
    pytest.skip("Pillow's libtiff is linked statically", allow_module_level=True)


def damaged(compression: str, mode: str) -> bytes:
    """Return a TIFF with other bytes in the middle of its pixels."""
    content = io.BytesIO()
    photo(60, 50).convert(mode).save(content, "TIFF", compression=compression)
    data = bytearray(content.getvalue())
    start = len(data) // 3 if mode == "RGB" else 60
    data[start : start + 40] = bytes(range(7, 47))
    return bytes(data)


ZIP, FAX = damaged("tiff_adobe_deflate", "RGB"), damaged("group4", "1")
ZIP_SAID = "ZIPDecode: Decoding error at scanline 0, "
FAX_SAID = "Fax4Decode: Bad code word at line "


def test_the_build_tells_what_libtiff_said_of_each_image(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As the reason of one that fails, and as a warning about one that is decoded all the same."""
    root = draw_dataset(tmp_path / "data", {"cat": 3, "dog": 3})
    save(root / "cat" / "zip.tif", ZIP)
    save(root / "dog" / "fax.tif", FAX)
    save(root / "dog" / "good.tif", encoded(photo(9, 8), "TIFF"))
    size = ("--target-size", "8x8", "--workers", "1")
    done = run("build", root, "out.h5", *size)
    assert done.returncode == 3
    assert f"  - cat/zip.tif: cannot be decoded: decoder error -2 ({ZIP_SAID}" in done.stderr
    done = run("build", root, "out.h5", *size, "--on-error", "skip", "--json", "--restart")
    found = {each["code"]: each["message"] for each in json.loads(done.stdout)["warnings"]}
    message = "1 of 8 images are damaged, although they were decoded (dog/fax.tif: " + FAX_SAID
    assert found["damaged"].startswith(message)
    strict = run("build", root, "strict.h5", *size, "--strict-decode")
    assert f"  - dog/fax.tif: its data is damaged: {FAX_SAID}" in strict.stderr
    checked = json.loads(run("check", root, *size, "--json").stdout)["findings"]
    (tiff,) = [each for each in checked if each["code"] == "damaged"]
    assert tiff["examples"][0]["message"].startswith(FAX_SAID)
    assert capfd.readouterr().err == ""


def test_other_threads_and_other_times_have_the_handler_of_before(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Libtiff has one handler for the process: what a program decodes itself is printed as ever."""
    set_pillow_limits(OPTIONS)

    def decode_myself() -> None:
        with Image.open(io.BytesIO(FAX)) as image:
            np.asarray(image)

    with complaints.caught_complaints(FAX) as said:
        thread = threading.Thread(target=decode_myself)
        thread.start()
        thread.join()
        assert capfd.readouterr().err.startswith(FAX_SAID)
        assert said == []
        decode_myself()
        assert said[0].startswith(FAX_SAID)
        assert len(said) <= 4
    assert capfd.readouterr().err == ""
    decode_myself()
    assert capfd.readouterr().err.startswith(FAX_SAID)


def test_threads_that_decode_together_hear_each_of_their_own_image(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """However they are interleaved."""
    set_pillow_limits(OPTIONS)
    wrong: list[str] = []

    def decode(data: bytes, expected: str) -> None:
        for _ in range(40):
            try:
                said = decode_image(data, OPTIONS).lost.complaint
            except BadImageError as error:
                said = str(error)
            if expected not in said:
                wrong.append(said)

    cases = ((ZIP, ZIP_SAID), (FAX, FAX_SAID)) * 3
    threads = [threading.Thread(target=decode, args=case) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert capfd.readouterr().err == ""
