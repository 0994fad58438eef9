"""The commands on files of their sources' own bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.drawing import encoded, photo, save
from helpers.running import Run

SMALL = ("--target-size", "20x16", "--store", "encoded")


@pytest.fixture
def out(photos: Path, tmp_path: Path, run: Run) -> Path:
    """Build a small encoded file, of which an image is left out."""
    save(photos / "cat" / "z.jpg", b"bad")
    done = run("build", photos, tmp_path / "out.h5", *SMALL, "--on-error", "skip")
    assert done.returncode == 0, done.stderr
    assert "images of 20×16×3 uint8 (as encoded files), 2 classes" in done.stdout
    return tmp_path / "out.h5"


def test_a_plan_tells_the_bytes(photos: Path, tmp_path: Path, run: Run) -> None:
    """All files of a split in one column; nothing is written."""
    total = sum(path.stat().st_size for path in photos.rglob("*.jpg"))
    done = run("build", photos, "out.h5", *SMALL, "--dry-run", "--json")
    plan = json.loads(done.stdout)
    columns = {name: split["columns"] for name, split in plan["splits"].items()}
    nbytes = {name: found["encoded"]["shape"][0] for name, found in columns.items()}
    assert sum(nbytes.values()) == total
    assert columns["train"]["image_extents"]["shape"] == [plan["splits"]["train"]["rows"], 2]
    assert plan["config"]["store"] == "encoded"
    text = run("build", photos, "out.h5", *SMALL, "--dry-run", "-v").stdout
    assert f"encoded        {nbytes['train']}" in text
    assert not list(tmp_path.glob("out.h5*"))


def test_inspect_tells_what_is_served(out: Path, run: Run) -> None:
    """Its shape and dtype; the bytes are those in the file."""
    text = run("inspect", out).stdout
    assert "20×16×3  uint8" in text
    assert "the files as they are" in text
    assert "encoded: image files, decoded when they are read" in text
    assert "rows are slices of the file" not in text
    split = json.loads(run("inspect", out, "--json").stdout)["splits"]["train"]
    assert (split["store"], split["chunk_rows"]) == ("encoded", None)
    assert (split["shape"], split["dtype"]) == ([split["rows"], 20, 16, 3], "uint8")
    assert 0 < split["bytes"] < out.stat().st_size
    assert all(0 < mean < 1 for mean in split["mean"])


def test_a_report_shows_it_and_how_it_was_built(out: Path, tmp_path: Path, run: Run) -> None:
    """Pictures as they are served, and the command."""
    done = run("inspect", out, "--report", "report.html", "--sheet", "sheet.webp")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "--store encoded --on-error skip" in page
    assert page.count('src="data:image/') >= 12
    assert "of them damaged" not in done.stdout


def test_all_commands_take_it(photos: Path, out: Path, run: Run) -> None:
    """verify, with its sources; check of file and folder; build --check; fingerprint."""
    done = run("verify", out, "--source", photos, "--redecode", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "15 image files, 15 of them decoded again" in done.stdout
    assert run("build", photos, out, *SMALL, "--on-error", "skip", "--check").returncode == 0
    assert "is up to date" in run("build", photos, out, *SMALL, "--on-error", "skip").stdout
    first = run("fingerprint", photos, *SMALL).stdout
    assert len(first.split()[0]) == 64
    assert run("check", out).returncode == 0
    assert run("check", photos, *SMALL).returncode == 8  # for the image that cannot be used
    save(photos / "dog" / "new.jpg", encoded(photo(seed=77), "JPEG"))
    assert run("fingerprint", photos, *SMALL).stdout != first
    due = run("build", photos, out, *SMALL, "--on-error", "skip", "--check")
    assert (due.returncode, "dog/new.jpg" in due.stdout) == (9, True)
    done = run("build", photos, out, *SMALL, "--on-error", "skip", "--overwrite")
    assert "copied: 15 rows" in done.stdout


def test_compression_is_a_usage_error(photos: Path, run: Run) -> None:
    """It says why, and does nothing."""
    done = run("build", photos, "out.h5", *SMALL, "--compression", "gzip")
    assert done.returncode == 2
    assert "remove --compression" in done.stderr
    assert done.stderr.count("\n") < 6


def test_the_environment_and_a_configuration_choose_it(
    photos: Path, tmp_path: Path, run: Run
) -> None:
    """As any option."""
    (tmp_path / "batchify.toml").write_text('[tool.batchify.build]\nstore = "encoded"\n')
    done = run("build", photos, "a.h5", "--target-size", "8")
    assert "(as encoded files)" in done.stdout
    done = run("build", photos, "b.h5", "--target-size", "8", BATCHIFY_BUILD_STORE="decoded")
    assert "(as encoded files)" not in done.stdout
