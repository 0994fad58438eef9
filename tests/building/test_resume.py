"""Resuming: committed rows that are still good are kept, and the bytes are the same."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.drawing import draw_dataset, encoded, photo, pixels, save
from helpers.packing import members, pack
from helpers.running import Run
from helpers.stopping import StopError, stop_after
from helpers.tabled import write_table
from PIL import Image

from batchify.building import jobs, workfile
from batchify.building.build import build
from batchify.common.progress import Progress
from batchify.dataset_options import ManifestOptions, SplitOptions
from batchify.errors import DatasetNotFoundError, OutputExistsError, OutputIOError, ResumeError
from batchify.format.structure import read_row_offsets
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.storage import stamps

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Draw 40 photos; tasks are a batch and commits two batches, so that there is a middle."""
    monkeypatch.setattr("batchify.building.jobs.TASK_ROWS", 4)
    monkeypatch.setattr(workfile, "COMMIT_NBYTES", 2 * 4 * 20 * 16 * 3)
    return draw_dataset(tmp_path / "data", {"cat": 15, "dog": 25})


def stopped(root: Path, out: Path, images: int = 20, options: BuildOptions = SMALL) -> None:
    """Begin a build and end it after some images."""
    with pytest.raises(StopError):
        build(root, out, options, workers=1, progress=stop_after(images))
    assert not out.exists()


def fresh(root: Path, out: Path, options: BuildOptions = SMALL) -> bytes:
    """Return the bytes of a build that nothing disturbed."""
    path = out.with_name("fresh.h5")
    path.unlink(missing_ok=True)
    build(root, path, options, workers=1, on_error="skip")
    return path.read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_build_goes_on_after_the_last_commit(
    root: Path, tmp_path: Path, workers: int, compression: Any
) -> None:
    """Rows that were committed are not decoded again; the result is identical to a fresh build."""
    options = replace(SMALL, store=StoreOptions(compression=compression))
    out = tmp_path / "out.h5"
    stopped(root, out, 20, options)
    report = build(root, out, options, workers=workers)
    assert report.kept == 16
    assert out.read_bytes() == fresh(root, out, options)
    assert not list(tmp_path.glob("out.h5.partial*"))


def test_a_build_may_be_stopped_again_and_again(root: Path, tmp_path: Path) -> None:
    """Each resumes the one before; nothing is lost on the way."""
    out = tmp_path / "out.h5"
    for images in (9, 17, 25, 33):
        stopped(root, out, images)
    assert build(root, out, SMALL).kept >= 32
    assert out.read_bytes() == fresh(root, out)


def test_a_file_that_changed_since_is_decoded_again(root: Path, tmp_path: Path) -> None:
    """The rest is kept; the row is that of the new file."""
    out = tmp_path / "out.h5"
    options = replace(SMALL, split=SplitOptions(shuffle=False, validation=0))
    stopped(root, out, 20, options)
    (root / "cat" / "img_003.jpg").write_bytes(encoded(photo(seed=99), "JPEG"))
    assert build(root, out, options).kept == 15
    assert out.read_bytes() == fresh(root, out, options)


Compared = list[bytes]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Compared:
    """Return what a resumed build reads of sources to compare them; files need not be settled."""
    contents: Compared = []
    real = jobs._difference

    def noted(source: Any, digest: bytes) -> str:
        contents.append(source)
        return real(source, digest)

    monkeypatch.setattr(jobs, "_difference", noted)
    monkeypatch.setattr(stamps, "SETTLED_NS", 0)
    return contents


unless_windows = pytest.mark.skipif(sys.platform == "win32", reason="no stamps there")


@unless_windows
def test_sources_that_did_not_change_are_not_read_again(
    root: Path, tmp_path: Path, compared: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless --verify-sources is given, or they changed within a minute before they were read."""
    out = tmp_path / "out.h5"
    stopped(root, out)
    stopped(root, out, 30)  # what is taken over keeps its stamps
    report = build(root, out, SMALL, workers=1)
    assert (len(compared), report.redone) == (0, 0)
    assert report.kept >= 24
    assert out.read_bytes() == fresh(root, out)
    for settled_ns, verify, count in ((0, True, 16), (60 * 10**9, False, 16), (0, False, 0)):
        monkeypatch.setattr(stamps, "SETTLED_NS", settled_ns)
        out.unlink()
        stopped(root, out)
        del compared[:]
        assert build(root, out, SMALL, workers=1, verify_sources=verify).kept == 16
        assert len(compared) == count


def rewrite(path: Path) -> None:
    """Change the last byte."""
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def replace_file(path: Path) -> None:
    """Put another file in its place."""
    os.replace(save(path.with_suffix(".new"), path.read_bytes()[:-1] + b"!"), path)


@unless_windows
@pytest.mark.parametrize(
    ("change", "kept"),
    [(rewrite, 15), (replace_file, 15), (lambda path: path.chmod(0o600), 16)],
)
def test_a_source_whose_status_changed_is_read_again(
    root: Path, tmp_path: Path, compared: Compared, change: Callable[[Path], object], kept: int
) -> None:
    """Of the same size, with its mtime set back: the ctime or the inode tells."""
    image, out = root / "cat" / "img_003.jpg", tmp_path / "out.h5"
    with image.open("ab") as file:
        file.write(b".")  # what follows the end of a JPEG is not decoded
    options = replace(SMALL, split=SplitOptions(shuffle=False, validation=0))
    stopped(root, out, 20, options)
    status = image.stat()
    change(image)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    report = build(root, out, options, workers=1)
    assert compared == [image.read_bytes()]
    assert (report.kept, report.redone) == (kept, 16 - kept)
    assert out.read_bytes() == fresh(root, out, options)


@unless_windows
def test_a_mask_and_an_archive_have_a_status_too(
    root: Path, tmp_path: Path, compared: Compared
) -> None:
    """A row is read again if its mask changed, and all members of an archive if that did."""
    rows = []
    for number, image in enumerate(sorted(root.rglob("*.jpg"))):
        mask = Image.fromarray(pixels(40, 30, 1, number)[:, :, 0])
        save(root / "masks" / f"{number}.png", encoded(mask, "PNG"))
        rows.append({"path": image.relative_to(root).as_posix(), "label": f"masks/{number}.png"})
    table = ManifestOptions(str(write_table(tmp_path / "table.csv", rows)))
    masks = replace(
        SMALL, manifest=table, store=StoreOptions(class_mode="mask"),
        split=SplitOptions(shuffle=False, validation=0),
    )  # fmt: skip
    out = tmp_path / "out.h5"
    stopped(root, out, 20, masks)
    save(root / "masks" / "3.png", encoded(Image.new("L", (40, 30), 7), "PNG"))
    report = build(root, out, masks, workers=1)
    assert (len(compared), report.redone) == (2, 1)
    assert out.read_bytes() == fresh(root, out, masks)
    for name in ("data.zip", "data.tar"):
        archive, out = pack(tmp_path / name, members(root)), tmp_path / f"{name}.h5"
        stopped(archive, out)
        del compared[:]
        stopped(archive, out, 30)
        assert not compared
        os.utime(archive)
        assert build(archive, out, SMALL, workers=1).kept == len(compared) >= 24


def test_a_row_that_rotted_since_is_decoded_again(root: Path, tmp_path: Path) -> None:
    """Committed rows are checked as they are taken over."""
    out = tmp_path / "out.h5"
    options = replace(SMALL, split=SplitOptions(shuffle=False, validation=0))
    stopped(root, out, 20, options)
    partial = tmp_path / "out.h5.partial"
    data = bytearray(partial.read_bytes())
    offset = read_row_offsets(os.fsencode(partial))["train/images"].offsets[0]
    data[offset + 2 * 20 * 16 * 3 + 5] ^= 1  # a bit of the third row
    partial.write_bytes(data)
    report = build(root, out, options)
    assert (report.kept, report.redone) == (15, 1)
    assert out.read_bytes() == fresh(root, out, options)


@pytest.mark.parametrize(
    ("column", "kept"),
    [
        ("labels", 16), ("paths", 16),  # written anew from the plan
        ("source_sha256", 8), ("row_crc32", 8), ("source_size", 8), ("source_flags", 8),
    ],
)  # fmt: skip
def test_what_rotted_beside_the_images_is_made_anew(
    root: Path, tmp_path: Path, column: str, kept: int
) -> None:
    """Planned columns are written again; decoded ones have a checksum in each commit."""
    out = tmp_path / "out.h5"
    options = replace(SMALL, split=SplitOptions(shuffle=False, validation=0))
    stopped(root, out, 20, options)
    partial = tmp_path / "out.h5.partial"
    where = read_row_offsets(os.fsencode(partial))[f"train/{column}"]
    data = bytearray(partial.read_bytes())
    data[where.offsets[0] + 2 * where.row_nbytes] ^= 1
    partial.write_bytes(data)
    report = build(root, out, options)
    assert report.kept == kept
    assert out.read_bytes() == fresh(root, out, options)


def test_metadata_that_rotted_is_said(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 7, or it is not used: never a traceback, never another file."""
    # Each continues, and would start processes for a third of a second.
    monkeypatch.setattr("batchify.workers.engine.Workers.start", lambda _: None)
    out = tmp_path / "out.h5"
    stopped(root, out)
    partial, journal = tmp_path / "out.h5.partial", tmp_path / "out.h5.partial.journal"
    whole, records = partial.read_bytes(), journal.read_bytes()
    wanted = fresh(root, out)
    used = [offset for offset in range(65536) if whole[offset]]
    for offset in used[::29]:
        data = bytearray(whole)
        data[offset] ^= 1 << offset % 8
        partial.write_bytes(data)
        journal.write_bytes(records)
        try:
            build(root, out, SMALL, workers=1)
        except (ResumeError, OutputIOError):
            continue
        assert out.read_bytes() == wanted
        out.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decode": DecodeOptions((8, 8))}, r"target_size was \[20, 16\], now \[8, 8\]"),
        ({"decode": DecodeOptions((20, 16), fit="pad")}, "fit was stretch, now pad"),
        ({"store": StoreOptions(dtype="uint16")}, "dtype was uint8, now uint16"),
    ],
)
def test_other_options_cannot_continue(
    root: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """Exit 7 where pixels differ, with the options; --restart discards; nothing is lost before."""
    out = tmp_path / "out.h5"
    stopped(root, out)
    with pytest.raises(ResumeError, match=message) as caught:
        build(root, out, replace(SMALL, **change))
    assert caught.value.exit_code == 7
    assert "pass --restart to discard it" in str(caught.value)
    assert build(root, tmp_path / "other.h5", replace(SMALL, **change)).kept == 0
    assert build(root, out, SMALL).kept == 16
    stopped(root, tmp_path / "new.h5")
    report = build(root, tmp_path / "new.h5", replace(SMALL, **change), restart=True)
    assert report.kept == 0


def test_a_dataset_that_vanishes_is_not_skipped(root: Path, tmp_path: Path) -> None:
    """With --on-error skip neither: nothing is published, and what is decoded is kept."""
    out = tmp_path / "out.h5"

    def vanish(progress: Progress) -> None:
        if progress.stage == "fill" and progress.done == 20:
            root.rename(tmp_path / "moved")

    with pytest.raises(DatasetNotFoundError, match="vanished while it was read"):
        build(root, out, SMALL, workers=1, on_error="skip", progress=vanish)
    (tmp_path / "moved").rename(root)
    assert build(root, out, SMALL, on_error="skip").kept == 20
    assert out.read_bytes() == fresh(root, out)


def test_a_dataset_that_is_gone_loses_nothing(root: Path, tmp_path: Path) -> None:
    """An error before the work file is opened leaves it as it was."""
    out = tmp_path / "out.h5"
    stopped(root, out)
    root.rename(tmp_path / "moved")
    root.mkdir()
    with pytest.raises(Exception, match="no class folders"):
        build(root, out, SMALL)
    root.rmdir()
    (tmp_path / "moved").rename(root)
    assert build(root, out, SMALL).kept == 16


@pytest.mark.parametrize("what", ["short", "journal", "garbage"])
def test_damage_is_said_and_never_guessed(root: Path, tmp_path: Path, what: str) -> None:
    """A partial of another size, a journal that does not check, a partial that is no HDF5."""
    out = tmp_path / "out.h5"
    stopped(root, out)
    partial, journal = tmp_path / "out.h5.partial", tmp_path / "out.h5.partial.journal"
    if what == "short":
        os.truncate(partial, 5000)
    elif what == "journal":
        journal.write_bytes(b"00000000 {}\n" + journal.read_bytes())
    else:
        partial.write_bytes(bytes(partial.stat().st_size))
    with pytest.raises(ResumeError, match=r"cannot be continued: .*; pass --restart"):
        build(root, out, SMALL)
    assert partial.exists()
    build(root, out, SMALL, restart=True)
    assert out.read_bytes() == fresh(root, out)


def test_bad_images_are_tried_again(root: Path, tmp_path: Path) -> None:
    """After a failed build the same command with skip continues, and lists the same files."""
    (root / "cat" / "img_001.jpg").write_bytes(b"bad")
    out = tmp_path / "out.h5"
    with pytest.raises(Exception, match="1 of 40 images failed"):
        build(root, out, SMALL, workers=1)
    report = build(root, out, SMALL, on_error="skip")
    assert report.kept == 39
    assert out.read_bytes() == fresh(root, out)


def test_a_kill_in_the_seal_costs_the_pass_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends it before the rename, the decoded rows are there for the next build."""
    options = replace(SMALL, store=StoreOptions(compression="gzip"))
    out = tmp_path / "out.h5"

    def fail(*_: object) -> None:
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(StopError):
            build(root, out, options)
    assert build(root, out, options).kept == 40
    assert out.read_bytes() == fresh(root, out, options)


def test_the_old_file_stays_until_the_rename(root: Path, tmp_path: Path) -> None:
    """With --overwrite too; and without it a finished target is refused, the partial kept."""
    out = tmp_path / "out.h5"
    stopped(root, out)
    out.write_bytes(b"old")
    with pytest.raises(OutputExistsError):
        build(root, out, SMALL)
    with pytest.raises(StopError):
        build(root, out, SMALL, overwrite=True, workers=1, progress=stop_after(30))
    assert out.read_bytes() == b"old"
    assert build(root, out, SMALL, overwrite=True).kept >= 24


def test_the_command_says_what_cannot_be_continued(run: Run, root: Path, tmp_path: Path) -> None:
    """Exit 7; --restart starts over."""
    stopped(root, tmp_path / "out.h5")
    done = run("build", root, "out.h5", "--target-size", "9")
    assert done.returncode == 7
    assert "target_size was [20, 16], now [9, 9]" in done.stderr
    done = run("build", root, "out.h5", "--target-size", "20x16", "--json")
    assert json.loads(done.stdout)["kept"] == 16
