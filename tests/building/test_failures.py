"""Images that failed: grouped by reason in the message, all of them in a list and in JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from helpers.drawing import encoded, photo, save
from helpers.running import Run

from batchify.building import failures
from batchify.building.build import build
from batchify.building.failures import failed_error, group_by_reason, listed_failures, listing
from batchify.common import durable
from batchify.errors import BadImagesError, DatasetError, OutputIOError, Skipped
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions
from batchify.sharding.build import build_shards

SMALL = BuildOptions(decode=DecodeOptions((20, 16)))
SIZE = ("--target-size", "20x16", "--workers", "1")
EMPTY = "empty file (0 bytes)"


def spoil(photos: Path) -> list[str]:
    """Spoil three of fifteen photos for two reasons; return the lines of their list."""
    for name in ("dog/img_003.jpg", "cat/img_001.jpg"):
        (photos / name).write_bytes(b"")
    save(photos / "dog" / "img_000.jpg", b"bad")
    reason = "not an image, or a damaged one, of an allowed format "
    reason += "(JPEG, PNG, BMP, PPM, TIFF, GIF, WEBP, AVIF)"
    return [
        f"cat/img_001.jpg\t{EMPTY}",
        f"dog/img_003.jpg\t{EMPTY}",
        f"dog/img_000.jpg\t{reason}",
    ]


def test_reasons_are_grouped_the_most_frequent_first() -> None:
    """Sorted by path within; reasons that differ by numbers or by the mask are one."""
    entries = [
        Skipped(b"z", "file of 7,000 bytes is larger than 5,000"),
        Skipped(b"c", "empty"),
        Skipped(b"b", "its mask m/b.png: empty"),
        Skipped(b"a", "its mask m/a.png: empty"),
        Skipped(b"y", "file of 5,001 bytes is larger than 5,000"),
        Skipped(b"d", "empty"),
        Skipped(b"x", "file of 9 bytes is larger than 5,000"),
    ]
    assert [(reason, [e.path for e in group]) for reason, group in group_by_reason(entries)] == [
        ("file of N bytes is larger than N", [b"x", b"y", b"z"]),
        ("empty", [b"c", b"d"]),
        ("its mask: empty", [b"a", b"b"]),
    ]
    assert listing(entries).splitlines() == [
        "  file of N bytes is larger than N (3 images):",
        "  - x: file of 9 bytes is larger than 5,000",
        "  - y: file of 5,001 bytes is larger than 5,000",
        "  - z: file of 7,000 bytes is larger than 5,000",
        "  empty (2 images):",
        "  - c",
        "  - d",
        "  its mask: empty (2 images):",
        "  - a: its mask m/a.png: empty",
        "  - b: its mask m/b.png: empty",
    ]


def test_ten_examples_of_each_reason_are_named() -> None:
    """And ten reasons; a name is escaped, and begins no line."""
    entries = [Skipped(b"\n%03d" % i, "empty") for i in range(1234)]
    lines = listing(entries).splitlines()
    assert lines[0] == "  empty (1,234 images):"
    assert lines[1:] == [f"  - \\n{i:03}" for i in range(10)] + ["    … and 1,224 more"]
    entries = [Skipped(b"x", "reason " + chr(97 + i)) for i in range(13)]
    assert listing(entries).splitlines()[-2:] == [
        "  - x: reason j",
        "  … and 3 images for 3 more reasons",
    ]
    assert listing(entries[:11]).endswith("  … and 1 image for 1 more reason")


def test_the_message_says_what_is_kept_and_what_to_do() -> None:
    """Except where nothing is."""
    bad = [Skipped(b"a", "empty")]
    assert "\nthe other 1 row is kept: " not in str(failed_error(bad, 1))
    assert str(failed_error(bad, 1)).endswith("\nno images are left")
    assert "\nthe other row is kept: fix or remove these files and " in str(failed_error(bad, 2))
    assert str(failed_error(bad, 1201)).endswith(
        "\nthe other 1,200 rows are kept: fix or remove these files and run the same command "
        "again, or pass --on-error skip to skip them"
    )


def test_all_that_failed_are_listed_next_to_the_target(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    """By the next failing build again; a successful one removes the list."""
    expected = spoil(photos)
    path = tmp_path / "out.h5.errors.txt"
    done = run("build", photos, "out.h5", *SIZE)
    assert done.returncode == 3
    assert done.stderr.endswith(f"\nall of them are listed in {path}\n")
    head, *lines = path.read_text("utf-8").splitlines()
    assert head.startswith("# batchify: ")
    assert lines == expected
    (photos / "cat" / "img_001.jpg").unlink()
    run("build", photos, "out.h5", *SIZE, "--on-error", "skip", "--max-skipped", "1")
    assert len(path.read_text("utf-8").splitlines()) == 3
    assert run("build", photos, "out.h5", *SIZE, "--on-error", "skip").returncode == 0
    assert sorted(os.listdir(tmp_path)) == ["out.h5", "photos"]


def test_a_question_writes_no_list(run: Run, photos: Path, tmp_path: Path) -> None:
    """Neither a dry run nor a check; they remove none either."""
    spoil(photos)
    run("build", photos, "out.h5", *SIZE, "--on-error", "skip")
    path = save(tmp_path / "out.h5.errors.txt", failures._HEAD)
    skip = ("--on-error", "skip", "--max-skipped")
    done = run("build", photos, "out.h5", *SIZE, *skip, "1", "--check")
    assert done.returncode == 3
    assert "errors.txt" not in done.stderr
    assert run("build", photos, "out.h5", *SIZE, *skip, "9", "--check").returncode == 0
    assert run("build", photos, "out.h5", *SIZE, "--dry-run").returncode == 0
    assert path.read_bytes() == failures._HEAD
    assert run("build", photos, "out.h5", *SIZE, *skip, "9").returncode == 0  # up to date
    assert not path.exists()


def status(path: Path) -> tuple[int, ...]:
    """Return what changes if a file is replaced or written to; reading it is allowed."""
    found = os.lstat(path)
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("kind", ["file", "folder", "link", "pipe"])
def test_a_file_of_the_user_is_not_touched(photos: Path, tmp_path: Path, kind: str) -> None:
    """Neither replaced nor removed, whatever it is; the message says why there is no list."""
    spoil(photos)
    path = tmp_path / "out.h5.errors.txt"
    elsewhere = save(tmp_path / "elsewhere", failures._HEAD + b"mine")
    if kind == "file":
        path.write_bytes(b"my notes")
    elif kind == "folder":
        path.mkdir()
    elif sys.platform == "win32":
        pytest.skip("links and pipes need a right there")
    elif kind == "link":
        path.symlink_to(elsewhere)
    else:
        os.mkfifo(path)
    before = status(path)
    with pytest.raises(BadImagesError) as caught:
        build(photos, tmp_path / "out.h5", SMALL)
    assert f"(they are not listed in {path}, which is another file)" in str(caught.value)
    build(photos, tmp_path / "out.h5", SMALL, on_error="skip")
    assert status(path) == before
    assert elsewhere.read_bytes().endswith(b"mine")


def test_a_list_that_cannot_be_written_is_said(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is still that of the images; nothing is half written."""
    spoil(photos)

    def full(*_: object) -> None:
        raise OutputIOError("no space")

    monkeypatch.setattr(durable, "write_atomically", full)
    with pytest.raises(BadImagesError, match=r"of all of them cannot be written: no space"):
        build(photos, tmp_path / "out.h5", SMALL)


def test_other_failures_leave_the_list_alone(tmp_path: Path) -> None:
    """Only the images decide about it."""
    path = save(tmp_path / "out.h5.errors.txt", failures._HEAD)
    with pytest.raises(DatasetError), listed_failures(os.fsencode(tmp_path / "out.h5")):
        raise DatasetError("else")
    assert path.exists()


def test_the_list_of_shards_is_next_to_their_folder(photos: Path, tmp_path: Path) -> None:
    """One for all shards."""
    expected = spoil(photos)
    path = tmp_path / "shards.errors.txt"
    with pytest.raises(BadImagesError, match=r"the other 12 rows are kept") as caught:
        build_shards(photos, f"{tmp_path / 'shards'}/", SMALL, shards=2)
    assert f"all of them are listed in {path}" in str(caught.value)
    assert path.read_text("utf-8").splitlines()[1:] == expected
    for line in expected:
        (photos / line.split("\t")[0]).write_bytes(encoded(photo(seed=len(line)), "JPEG"))
    build_shards(photos, tmp_path / "shards", SMALL, shards=2)
    assert not path.exists()
    assert not [name for name in os.listdir(tmp_path / "shards") if "errors" in name]


def test_json_has_the_failure_and_all_that_failed(run: Run, photos: Path, tmp_path: Path) -> None:
    """One object on stdout, in addition to the message on stderr."""
    lines = spoil(photos)
    done = run("build", photos, "out.h5", *SIZE, "--json")
    result = json.loads(done.stdout)
    assert list(result) == ["json_version", "error", "code", "failed"]
    assert result["code"] == done.returncode == 3
    assert done.stderr == f"Error: {result['error']}\n"
    failed = [f"{entry['path']}\t{entry['reason']}" for entry in result["failed"]]
    assert sorted(failed) == sorted(lines)
    for arguments, code in (
        (("nowhere", "out.h5"), 1),
        ((photos, "out.h5", "--max-skipped", "1"), 2),
        ((photos, "out.h5", "--dry-run", "--check"), 2),
    ):
        done = run("build", *arguments, "--json")
        result = json.loads(done.stdout)
        assert (result["code"], result["failed"]) == (code, [])
        assert done.returncode == code
        assert result["error"] in done.stderr
