"""`batchify inspect`: what a person reads, what a machine reads, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.running import Run
from PIL import Image

import batchify


def test_what_a_person_reads(run: Run, tmp_path: Path) -> None:
    """Splits, balance, options, sources and skipped images, aligned."""
    root = draw_dataset(tmp_path / "d", {"cat": 10, "dog": 5})
    (root / "empty").mkdir()
    save(root / "cat" / "rgba.png", encoded(photo(mode="RGBA"), "PNG"))
    save(root / "dog" / "bad\x1b[31m.jpg", b"bad")
    run("build", "d", "out.h5", "--target-size", "20x16", "--on-error", "skip")
    done = run("inspect", "out.h5")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("out.h5: batchify schema 1, ")
    assert lines[2].split() == ["split", "rows", "images", "dtype", "bytes", "chunks"]
    assert lines[3].split()[:4] == ["train", "14", "20×16×3", "uint8"]
    assert lines[4].split()[:3] == ["validation", "2", "20×16×3"]
    assert lines[6].split() == ["channels", "mean", "standard", "deviation"]
    with h5py.File(tmp_path / "out.h5") as file:
        told = [f"{value:#.4g}" for value in file["statistics/mean_train"][:]]
    assert lines[7].startswith("train ")
    assert ", ".join(told) in lines[7]
    assert "of pixels × 1/255" in lines
    assert "classes: 3" in lines
    assert "  0  cat        9           2  ████████████████████" in lines
    assert "  1  dog        5           0  ██████████" in lines
    assert "  2  empty      0           0" in lines
    assert "  batchify build DATASET OUT --target-size 20x16 --on-error skip" in lines
    assert "image files: 1 with alpha" in lines
    assert "skipped: 1" in lines
    assert "  - dog/bad\\x1b[31m.jpg: " in done.stdout
    assert "\x1b" not in done.stdout


def test_what_a_machine_reads(run: Run, photos: Path) -> None:
    """The same, as JSON."""
    run("build", photos, "out.h5", "--target-size", "20x16")
    found = json.loads(run("inspect", "out.h5", "--json").stdout)
    assert found["splits"]["train"]["class_counts"] == [4, 8]
    assert found["config"]["target_size"] == [20, 16]


def test_many_classes_fit_a_screen(run: Run, tmp_path: Path) -> None:
    """The largest and the smallest, the others counted; --all shows all, and all options."""
    draw_dataset(tmp_path / "d", {f"class_{i:03}": 1 + (i % 100 == 7) * 4 for i in range(200)})
    run("build", "d", "out.h5", "--target-size", "4")
    lines = run("inspect", "out.h5").stdout.splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 80
    start = lines.index("classes: 200 (--all shows all)")
    table = [line.split() for line in lines[start + 1 : start + 19]]
    assert table[0] == ["class", "train", "validation"]
    assert table[1][:4] == ["7", "class_007", "4", "1"]
    assert table[2][:4] == ["107", "class_107", "4", "1"]
    assert table[3][:4] == ["0", "class_000", "1", "0"]
    assert table[9] == ["…", "184", "more,", "1", "each", "184", "0"]
    assert [row[0] for row in table[10:]] == [str(i) for i in range(192, 200)]
    assert lines[start + 19] == ""
    lines = run("inspect", "out.h5", "--all").stdout.splitlines()
    start = lines.index("classes: 200")
    assert [line.split()[0] for line in lines[start + 2 : start + 202]] == list(
        map(str, range(200))
    )
    assert "  target-size        4x4" in lines


def test_without_labels_there_is_no_balance(run: Run, photos: Path) -> None:
    """Class mode none says so."""
    run("build", photos, "out.h5", "--class-mode", "none")
    assert "classes: 2 (no labels are stored)" in run("inspect", "out.h5").stdout


def test_many_skipped_images_are_cut_short(run: Run, photos: Path) -> None:
    """The first of them, and how many more."""
    for i in range(25):
        save(photos / "cat" / f"bad_{i:02}.jpg", b"bad")
    run("build", photos, "out.h5", "--on-error", "skip", "--target-size", "8")
    done = run("inspect", "out.h5")
    assert "skipped: 25" in done.stdout
    assert "… and 5 more (--json lists all)" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="encodings differ there")
def test_a_terminal_without_unicode_gets_ascii(run: Run, run_process: Run, photos: Path) -> None:
    """Bars and crosses are replaced, nothing fails."""
    run("build", photos, "out.h5", "--target-size", "8")
    done = run_process("inspect", "out.h5", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "8x8x3" in done.stdout
    assert "####" in done.stdout


def test_a_file_that_is_none_is_refused(run: Run, tmp_path: Path) -> None:
    """Exit 1 and a message, no traceback."""
    (tmp_path / "text.h5").write_text("hello")
    for name, message in [("none.h5", "there is no file"), ("text.h5", "is not an HDF5 file")]:
        done = run("inspect", name)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ")
        assert message in done.stderr


def test_a_sheet_is_written_beside_the_text(run: Run, photos: Path, tmp_path: Path) -> None:
    """The text is the same, and a line more; with --json stdout is JSON alone."""
    run("build", photos, "out.h5", "--target-size", "20x16")
    plain = run("inspect", "out.h5").stdout
    done = run("inspect", "out.h5", "--sheet", "sheet.png", "--seed", "7")
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(tmp_path / "sheet.png") as image:
        size = f"{image.width:,}×{image.height:,}"
    assert done.stdout == f"{plain}\nsheet: sheet.png, {size} pixels, 15 images, seed 7\n"
    as_json = run("inspect", "out.h5", "--sheet", "sheet.webp", "--json")
    assert json.loads(as_json.stdout)["splits"]["train"]["rows"] == 12
    with Image.open(tmp_path / "sheet.webp") as image:
        assert image.format == "WEBP"


def test_a_damaged_image_of_a_sheet_is_told(run: Run, photos: Path, tmp_path: Path) -> None:
    """Split and row, and what lists more."""
    run("build", photos, "out.h5", "--target-size", "20x16")
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        file["train/images"][3] ^= 1
    done = run("inspect", "out.h5", "--sheet", "sheet.png")
    assert done.returncode == 0
    assert (
        "  1 of them damaged; `batchify verify` lists all damage\n  - train, row 3" in done.stdout
    )


def test_the_font_of_a_sheet_is_checked_first(run: Run, out: Path, tmp_path: Path) -> None:
    """It needs a sheet, and must be a font; nothing is written for another."""
    for arguments, code, message in [
        (["--font", "x.ttf"], 2, "--font requires --sheet"),
        (["--font", "x.ttf", "--sheet", "s.png"], 2, "cannot use the font x.ttf: No such file"),
    ]:
        done = run("inspect", "out.h5", *arguments)
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "s.png").exists()


def test_a_sheet_that_cannot_be_is_refused(run: Run, photos: Path, tmp_path: Path) -> None:
    """Usage errors exit with 2, places that cannot be with 1; the message says why."""
    run("build", photos, "out.h5", "--target-size", "8")
    (tmp_path / "dir.png").mkdir()
    for code, name, message in [
        (2, "sheet.gif", "sheet.gif must end with .png or .webp"),
        (1, "none/sheet.png", "there is no folder"),
        (1, "s3://bucket/sheet.png", "s3://bucket/sheet.png is a URL; name a file"),
        (1, "dir.png", "dir.png is a folder; name a file in it"),
    ]:
        done = run("inspect", "out.h5", "--sheet", name)
        assert done.returncode == code
        assert message in done.stderr
        assert done.stdout == ""


def test_images_beyond_the_limits_are_not_called_damaged(run: Run, tmp_path: Path) -> None:
    """They verify; --trusted draws them, if they are the user's own."""
    save(tmp_path / "data" / "a" / "0.png", encoded(Image.new("L", (70_000, 2)), "PNG"))
    batchify.build(tmp_path / "data", tmp_path / "out.h5", target_size=8, store="encoded",
                   max_dimension=80_000, validation_split=0.0, workers=1)  # fmt: skip
    draw = ("inspect", "out.h5", "--sheet", "s.png", "--report", "r.html")
    shown = run(*draw).stdout
    assert "1 of them not decoded: beyond the limits for images (--trusted)" in shown
    assert "damaged" not in shown
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "not decoded: beyond the limits" in page
    assert "of those shown: damaged" not in page
    assert "not decoded" not in run(*draw, "--trusted").stdout
    assert "not decoded" not in (tmp_path / "r.html").read_text(encoding="utf-8")
    alone = run("inspect", "out.h5", "--trusted")
    assert alone.returncode == 2
    assert "--trusted requires --sheet or --report" in alone.stderr
