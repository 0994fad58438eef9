"""JPEG images that are damaged but decode: found by `check`, refused with --strict-decode."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.running import Run
from numpy.typing import NDArray
from PIL import Image

import batchify
from batchify.building.build import build
from batchify.checking.check import check
from batchify.decoding import batch, damage, turbo
from batchify.decoding.batch import BatchReader, ImageRecord
from batchify.decoding.losses import Lost
from batchify.errors import ExtraMissingError

END = b"\xff\xd9"
INSTALL = 'pip install "batchify-h5[turbo]"'
ENDS_EARLY = "premature end of data segment"


def jpeg_damage(data: bytes) -> str:
    """Return what is found in a file."""
    lost = damage.jpeg_damage(data)
    assert lost.damaged == bool(lost.complaint)
    return lost.complaint


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    """Return the file of a photo of 96×64 pixels."""
    return encoded(photo(96, 64, mode=mode), "JPEG", **options)


def half_zeros(data: bytes) -> bytes:
    """Set the second half of the scan to zeros, and keep the end (recipe M7)."""
    half = (data.rindex(b"\xff\xda") + len(data)) // 2
    return data[:half] + bytes(len(data) - 2 - half) + END


def ends_early(data: bytes) -> bytes:
    """Remove the last data of the scan, and keep the end."""
    return data[: 4 * len(data) // 5] + END


def replaced(data: bytes, offset: int, new: bytes, after: bytes) -> bytes:
    """Return data with other bytes at an offset behind a text."""
    start = data.index(after) + len(after) + offset
    return data[:start] + new + data[start + len(new) :]


@pytest.mark.parametrize("options", [{}, {"mode": "CMYK"}, {"mode": "L"}, {"progressive": True}])
def test_damage_of_each_kind_of_jpeg(options: dict[str, str]) -> None:
    """What libjpeg warns of is found; whole images, and bytes behind the end, are not damage."""
    data = jpeg(**options)
    assert jpeg_damage(data) == jpeg_damage(data + bytes(100)) == jpeg_damage(data + END) == ""
    assert jpeg_damage(half_zeros(data))
    assert jpeg_damage(ends_early(data)) == ENDS_EARLY
    assert jpeg_damage(data[:-2]) == "Premature end of JPEG file"
    assert jpeg_damage(data[:2] + bytes(7) + data[2:]).startswith("7 extraneous bytes before")


def lossless(side: int = 600) -> bytes:
    """Return a lossless JPEG of one gray, which Pillow reads but does not write (ITU-T T.81, H)."""
    size = side.to_bytes(2, "big")
    table = b"\xff\xc4\0\x14\0\1" + bytes(16)  # a code of one bit: as the pixel before
    frame = b"\xff\xc3\0\x0b\x08" + size + size + b"\1\1\x11\0"
    scan = b"\xff\xda\0\x08\1\1\0\1\0\0" + bytes(-(-side * side // 8))
    return b"\xff\xd8" + table + frame + scan + END


def test_lossless_images_are_decoded_in_their_size() -> None:
    """The library would write behind the end of a smaller array."""
    with Image.open(io.BytesIO(lossless())) as image:
        assert image.getextrema() == (128, 128)
    assert jpeg_damage(lossless()) == ""
    assert jpeg_damage(ends_early(lossless())) == ENDS_EARLY
    named = jpeg(comment=b"\xff\xc3")
    assert (jpeg_damage(named), jpeg_damage(ends_early(named))) == ("", ENDS_EARLY)


@pytest.mark.parametrize(
    "data",
    [
        replaced(jpeg(), 0, b"\2", b"JFIF\0"),
        replaced(jpeg("CMYK"), 6, b"\7", b"Adobe"),
        replaced(jpeg(icc_profile=bytes(99)), 0, b"\5\3", b"ICC_PROFILE\0"),
        replaced(jpeg(comment=bytes(9), icc_profile=bytes(99)), 0, b"\5\3", b"ICC_PROFILE\0"),
        replaced(jpeg(), 9, b"\x31", b"\xff\xc0"),
        replaced(jpeg(), 10, b"\1", b"\xff\xda"),
        encoded(photo(), "PNG"),
        b"",
        b"\xff\xd8\xff\xe0",
    ],
    ids=[
        "version",
        "transform",
        "profile",
        "comment",
        "subsampling",
        "scan",
        "png",
        "empty",
        "header",
    ],
)
def test_what_is_no_damage(data: bytes) -> None:
    """Wrong metadata, what the library does not know, and files that are no JPEG."""
    assert jpeg_damage(data) == ""
    damaged = replaced(ends_early(jpeg()), 0, b"\2", b"JFIF\0")
    assert jpeg_damage(damaged) == ENDS_EARLY


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Draw 16 photos, of which one is damaged, and one lacks its end."""
    root = draw_dataset(tmp_path / "data", {"cat": 8, "dog": 8}, size=(96, 64))
    save(root / "cat" / "img_000.jpg", ends_early(jpeg()))
    save(root / "dog" / "img_000.jpg", jpeg()[:-200])
    return root


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that hides the library."""
    missing = turbo.LIBRARY._replace(module="no_such_module")

    def hide() -> None:
        monkeypatch.setattr(turbo, "LIBRARY", missing)
        monkeypatch.setattr(turbo, "is_used", lambda: False)

    return hide


def test_check_names_damaged_images(dataset: Path, run: Run) -> None:
    """With their share; a file that lacks its end is not one of them, accepted or not."""
    command = ("check", "data", "--target-size", "16", "--workers", "1", "--json")
    done = run(*command, "--truncated", "accept")
    report = json.loads(done.stdout)
    found = {each["code"]: each for each in report["findings"]}
    damaged = found["damaged"]
    assert (done.returncode, damaged["severity"], found["truncated"]["count"]) == (0, "warning", 1)
    assert damaged["message"] == "1 of 16 images (6.25%) are damaged, although they were decoded"
    assert [(each["path"], each["message"]) for each in damaged["examples"]] == [
        ("cat/img_000.jpg", ENDS_EARLY)
    ]
    assert report["notes"] == []
    strict = json.loads(run(*command, "--strict-decode").stdout)["findings"]
    reasons = {each["path"]: each["message"] for each in strict[0]["examples"]}
    assert strict[0]["code"] == "unreadable"
    assert reasons["cat/img_000.jpg"] == f"its data is damaged: {ENDS_EARLY}"
    assert "truncated" in reasons["dog/img_000.jpg"]
    assert "damaged" not in {each["code"] for each in strict}


def test_only_suspects_are_decoded_twice(
    dataset: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search for damage comes after Pillow only: what simplejpeg decoded is intact."""
    searched: list[bytes] = []

    def spy(data: bytes) -> Lost:
        searched.append(data)
        return damage.jpeg_damage(data)

    monkeypatch.setattr(batch, "jpeg_damage", spy)
    command = ("check", "data", "--target-size", "16", "--workers", "1", "--json")
    found = run(*command).stdout
    assert searched == [ends_early(jpeg())]
    monkeypatch.setattr(turbo, "is_used", lambda: False)
    assert run(*command).stdout == found
    assert len(searched) == 1 + 15


@pytest.mark.parametrize("store", ["decoded", "encoded"])
def test_a_strict_build(
    dataset: Path, tmp_path: Path, run: Run, without_extra: Callable[[], None], store: str
) -> None:
    """Damaged images fail, or are skipped; the file says so, and is read without the extra."""
    words = "build data out.h5 --target-size 16 --workers 1 --truncated accept --strict-decode"
    command = (*words.split(), "--store", store)
    done = run(*command)
    assert done.returncode == 3
    assert f"  - cat/img_000.jpg: its data is damaged: {ENDS_EARLY}\n" in done.stderr
    assert run(*command, "--on-error", "skip").returncode == 0
    with h5py.File(tmp_path / "out.h5") as file:
        assert json.loads(file.attrs["config"])["strict_decode"] is True
        assert sum(len(file[name]["paths"]) for name in ("train", "validation")) == 15
    without_extra()
    with batchify.open(tmp_path / "out.h5") as opened:
        assert opened["train"].images[:].shape == (14, 16, 16, 3)
    verified = batchify.verify(tmp_path / "out.h5", source=dataset, redecode="all", workers=1)
    assert (verified.decoded, dict(verified.counts)) == (15, {})


def test_rows_of_a_strict_build_are_copied(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into one that is not strict; but not the other way round, since nobody looked at them."""
    (dataset / "dog" / "img_000.jpg").unlink()
    out = tmp_path / "out.h5"
    decoded: list[bytes] = []
    decode = BatchReader._decode

    def spy(self: BatchReader, data: bytes, out: NDArray[Any]) -> ImageRecord:
        decoded.append(data)
        return decode(self, data, out)

    monkeypatch.setattr(BatchReader, "_decode", spy)
    for strict, images in ((True, 15), (False, 1), (True, 15)):
        decoded.clear()
        report = build(
            dataset, out, target_size=(16, 16), strict_decode=strict, on_error="skip",
            overwrite=True, workers=1,
        )  # fmt: skip
        assert (len(decoded), len(report.plan.skipped)) == (images, strict)


def test_a_file_does_not_list_damaged_images(dataset: Path, run: Run, tmp_path: Path) -> None:
    """It does not know them, unless it was built without any; the dataset does."""
    assert dataset == tmp_path / "data"
    run("build", "data", "out.h5", "--on-error", "skip")
    done = run("check", "out.h5", "--list", "damaged")
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not record which images are damaged; check the dataset" in done.stderr
    run("build", "data", "strict.h5", "--on-error", "skip", "--strict-decode")
    for name in ("strict.h5", "data"):
        assert run("check", name, "--list", "damaged").returncode == 0


def test_without_the_extra(
    dataset: Path, run: Run, without_extra: Callable[[], None], tmp_path: Path
) -> None:
    """The option is refused before any work, and `check` says in a line what it did not do."""
    without_extra()
    done = run("build", "data", "out.h5", "--strict-decode")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: --strict-decode needs simplejpeg: {INSTALL}\n"
    with pytest.raises(ExtraMissingError):
        batchify.Loader.from_directory(dataset, strict_decode=True)
    note = f"damaged JPEGs were not looked for: {INSTALL}"
    command = ("check", "data", "--target-size", "16", "--workers", "1", "--ignore", "unreadable")
    assert run(*command).stdout.endswith(f"\n  note: {note}\n")
    assert "note" not in run(*command, "--ignore", "damaged").stdout
    github = run(*command, "--output-format", "github").stdout
    assert github.endswith(f"::notice title=batchify::{note}\n")
    shutil.rmtree(dataset)
    draw_dataset(dataset, {"cat": 2}, format_name="PNG")
    assert check(dataset, workers=1).notes == ()
