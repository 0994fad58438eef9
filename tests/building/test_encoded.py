"""Files' own bytes, stored: they are the files', whatever happens while they are written."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, draw_zoo, encoded, photo, save
from helpers.encoding import SMALL, check_files, columns, decoded
from helpers.packing import members, pack
from helpers.running import Run
from helpers.stopping import StopError, stop_after

from batchify.building import jobs, workfile
from batchify.building.build import build
from batchify.building.changes import find_changes
from batchify.checking.verify import verify
from batchify.common import durable
from batchify.common.progress import Progress
from batchify.dataset_options import DiscoverOptions, SplitOptions
from batchify.datasets.discovery import discover
from batchify.errors import BadImagesError, OptionError, OutputIOError
from batchify.format.structure import read_row_offsets
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.planning.planner import fingerprint, make_plan, plan_build


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Draw 40 photos; tasks are a batch and commits some batches, so that there is a middle."""
    monkeypatch.setattr(jobs, "TASK_ROWS", 4)
    monkeypatch.setattr(workfile, "COMMIT_NBYTES", 8 << 10)
    return draw_dataset(tmp_path / "data", {"cat": 15, "dog": 25})


def test_the_bytes_are_those_of_the_files(tmp_path: Path) -> None:
    """Of every format and mode, one after another in the order of the rows; nothing else is."""
    root, out = draw_zoo(tmp_path / "zoo"), tmp_path / "out.h5"
    report = build(root, out, SMALL)
    assert check_files(root, out) == report.plan.images == 20
    with h5py.File(out) as file:
        train = file["train"]
        assert json.loads(file.attrs["config"])["store"] == "encoded"
        assert "images" not in train
        assert "X_train" not in file
        assert file["y_train"] == train["labels"]
        assert train["encoded"].dtype == np.uint8
        assert (train["encoded"].maxshape, train["image_extents"].maxshape) == ((None,), (None, 2))
        assert train["encoded"].chunks[0] <= 65536
        assert train["image_extents"].dtype == np.int64
        assert train.attrs["scale_factor"] == np.float32(1 / 255)
        assert not train["encoded"].attrs
        assert "signal" not in train.attrs
        assert "default" not in file.attrs
    assert verify(out, source=root, redecode="all").is_ok
    assert len(read_row_offsets(os.fsencode(out))["train/encoded"].offsets) == 1
    assert report.plan.nbytes == out.stat().st_size


def test_a_file_of_pixels_says_nothing_of_it(photos: Path, tmp_path: Path) -> None:
    """Its bytes are what they were before there was a choice."""
    build(photos, tmp_path / "out.h5", decoded(SMALL))
    with h5py.File(tmp_path / "out.h5") as file:
        assert "store" not in json.loads(file.attrs["config"])


@pytest.mark.parametrize(
    ("color_mode", "dtype"),
    [("rgb", "uint8"), ("rgba", "float32"), ("grayscale", "uint16"), ("grayscale", "float32")],
)
def test_all_else_is_as_in_a_file_of_pixels(tmp_path: Path, color_mode: Any, dtype: Any) -> None:
    """Labels, paths, hashes, sizes, flags and statistics; the checksums are of other bytes."""
    root = draw_zoo(tmp_path / "zoo")
    options = dataclasses.replace(
        SMALL,
        decode=DecodeOptions((20, 16), color_mode, "bilinear"),
        store=StoreOptions(dtype=dtype, store="encoded"),
    )
    build(root, tmp_path / "a.h5", options)
    build(root, tmp_path / "b.h5", decoded(options))
    mine, theirs = columns(tmp_path / "a.h5"), columns(tmp_path / "b.h5")
    own = {"encoded", "image_extents", "channel_sums"}
    assert {name for name in mine if name not in theirs} == {
        f"{split}/{name}" for split in ("train", "validation") for name in own
    }
    for name, values in theirs.items():
        if not name.endswith(("/images", "/row_crc32", "/record_crc32")):
            np.testing.assert_array_equal(mine[name], values, err_msg=name)


def test_the_sums_of_each_image_are_kept(photos: Path, tmp_path: Path) -> None:
    """Sums and squares of its channels, so that nothing need be decoded to know them."""
    build(photos, tmp_path / "a.h5", SMALL)
    build(photos, tmp_path / "b.h5", decoded(SMALL))
    sums = columns(tmp_path / "a.h5")["train/channel_sums"]
    pixels = columns(tmp_path / "b.h5")["train/images"].astype(np.int64)
    np.testing.assert_array_equal(sums[:, 0], pixels.sum((1, 2)))
    np.testing.assert_array_equal((sums[:, 1] << 32) + sums[:, 2], (pixels**2).sum((1, 2)))


@pytest.mark.parametrize(("workers", "batch_size"), [(2, 4), (2, 7), (1, 1), (1, 100)])
def test_workers_and_batches_change_no_byte(
    root: Path, tmp_path: Path, workers: int, batch_size: int
) -> None:
    """Nor does where a batch ends."""
    build(root, tmp_path / "a.h5", SMALL, workers=1)
    options = dataclasses.replace(SMALL, batch_size=batch_size)
    build(root, tmp_path / "b.h5", options, workers=workers)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize("name", ["data.zip", "data.tar"])
def test_members_of_an_archive_are_kept(root: Path, tmp_path: Path, name: str) -> None:
    """Unpacked, each byte by byte: the file is that of the folder."""
    archive = pack(tmp_path / name, members(root))
    build(archive, tmp_path / "a.h5", SMALL, workers=1)
    build(root, tmp_path / "b.h5", SMALL, workers=1)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert verify(tmp_path / "a.h5", source=archive, redecode="all").is_ok


def test_a_stopped_build_goes_on(root: Path, tmp_path: Path) -> None:
    """From what was committed, which is not decoded again; the bytes are the same."""
    out = tmp_path / "out.h5"
    with pytest.raises(StopError):
        build(root, out, SMALL, workers=1, progress=stop_after(20))
    report = build(root, out, SMALL, workers=1)
    assert 0 < report.kept < 40
    assert report.redone == 0
    build(root, tmp_path / "fresh.h5", SMALL, workers=1)
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_rows_that_rotted_or_changed_are_made_again(root: Path, tmp_path: Path) -> None:
    """Stored bytes, their decoded columns, and a source with as many other bytes."""
    out, partial = tmp_path / "out.h5", tmp_path / "out.h5.partial"
    with pytest.raises(StopError):
        build(root, out, SMALL, workers=1, progress=stop_after(24))
    where = read_row_offsets(os.fsencode(partial))
    with partial.open("r+b") as file:
        file.seek(where["train/encoded"].offsets[0] + 700)
        file.write(b"damage")
    with h5py.File(partial) as file:
        path = root / file["train/paths"][2].decode()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # of the pixels
    path.write_bytes(data)
    report = build(root, out, SMALL, workers=1)
    assert report.redone == 2
    build(root, tmp_path / "fresh.h5", SMALL, workers=1)
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_a_killed_command_goes_on(root: Path, tmp_path: Path, run: Run) -> None:
    """At any size of what is left: the file is that of a build that nothing disturbed."""
    target = tmp_path / "out.h5"
    with pytest.raises(StopError):
        build(root, target, SMALL, workers=2, progress=stop_after(28))
    options = ("--target-size", "20x16", "--store", "encoded", "--workers", "2")
    done = run("build", root, target, *options)
    assert done.returncode == 0, done.stderr
    build(root, tmp_path / "fresh.h5", SMALL)
    assert target.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def spoil(root: Path) -> list[str]:
    """Spoil some files: at the ends of splits and side by side, empty, and too large."""
    bad = {
        "cat/img_000.jpg": b"bad",
        "cat/img_005.jpg": b"",
        "dog/img_003.jpg": b"bad" * 5000,
        "dog/img_004.jpg": b"\xff\xd8\xff" + bytes(200_000),
        "dog/img_024.jpg": b"bad",
    }
    for name, data in bad.items():
        (root / name).write_bytes(data)
    return sorted(bad)


@pytest.mark.parametrize("shuffle", [True, False])
def test_skipped_files_leave_no_gap(root: Path, tmp_path: Path, shuffle: bool) -> None:
    """The columns are those of a build without them, and whole; resumed or not."""
    bad = spoil(root)
    options = dataclasses.replace(
        SMALL,
        split=SplitOptions("hash", shuffle=shuffle),
        decode=DecodeOptions((20, 16), max_file_size=100_000),
    )
    out = tmp_path / "out.h5"
    report = build(root, out, options, on_error="skip", workers=2)
    assert sorted(os.fsdecode(entry.path) for entry in report.plan.skipped) == bad
    assert check_files(root, out) == 35
    assert verify(out, source=root).counts == {}
    with pytest.raises(StopError):
        build(
            root, tmp_path / "again.h5", options, on_error="skip", workers=1,
            progress=stop_after(20),
        )  # fmt: skip
    build(root, tmp_path / "again.h5", options, on_error="skip")
    assert out.read_bytes() == (tmp_path / "again.h5").read_bytes()
    for name in bad:
        (root / name).unlink()
    if not shuffle:  # with it the order of the others is another
        build(root, tmp_path / "without.h5", options)
        mine, theirs = columns(out), columns(tmp_path / "without.h5")
        assert list(mine) == list(theirs)
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


def test_what_is_too_large_takes_no_room(photos: Path, tmp_path: Path) -> None:
    """Nor does what cannot be looked at: a file is reserved for what may be in it."""
    options = dataclasses.replace(SMALL, decode=DecodeOptions((20, 16), max_file_size=5000))
    before = plan_build(photos, options).nbytes
    (photos / "dog" / "img_003.jpg").write_bytes(bytes(1 << 20))
    assert plan_build(photos, options).nbytes < before
    with pytest.raises(BadImagesError, match="file of 1,048,576 bytes is larger than 5,000"):
        build(photos, tmp_path / "out.h5", options)


def change_when(stage: str, path: Path, data: bytes) -> Callable[[Progress], None]:
    """Return a progress callback that writes a file when a stage begins."""

    def step(progress: Progress) -> None:
        if progress.stage == stage and not progress.done:
            path.write_bytes(data)

    return step


def test_a_file_of_another_size_than_was_planned_is_bad(root: Path, tmp_path: Path) -> None:
    """It is left out, or fails the build, as there is no room for it; the next build has some."""
    path, out = root / "dog" / "img_007.jpg", tmp_path / "out.h5"
    before, now = path.read_bytes(), encoded(photo(90, 70, seed=9), "JPEG")
    change = change_when("allocate", path, now)
    report = build(root, out, SMALL, workers=1, on_error="skip", progress=change)
    reason = "its size changed since the folder was scanned"
    assert [(s.path, s.reason) for s in report.plan.skipped] == [(b"dog/img_007.jpg", reason)]
    assert check_files(root, out) == 39
    path.write_bytes(before)
    other = tmp_path / "other.h5"
    with pytest.raises(BadImagesError, match=reason):
        build(root, other, SMALL, workers=1, progress=change)
    assert build(root, other, SMALL, workers=1).kept == 39
    assert check_files(root, other) == 40


def test_compression_is_refused() -> None:
    """The files are compressed already."""
    with pytest.raises(OptionError, match="remove --compression"):
        StoreOptions(compression="gzip", store="encoded")
    with pytest.raises(
        OptionError, match="store must be one of decoded, encoded, jpeg, webp, png, not 'x'"
    ):
        StoreOptions(store="x")  # type: ignore[arg-type]


def test_sizes_belong_to_a_plan(photos: Path) -> None:
    """Of two that differ in the size of a file the identities do, too; a plan needs them."""
    before = plan_build(photos, SMALL)
    save(photos / "cat" / "img_001.jpg", encoded(photo(60, 60, seed=3), "JPEG"))
    after = plan_build(photos, SMALL)
    assert before.identity != after.identity
    assert plan_build(photos, decoded(SMALL)).dataset.samples.sizes is None
    assert fingerprint(photos, SMALL).hexdigest != fingerprint(photos, decoded(SMALL)).hexdigest
    with pytest.raises(ValueError, match="the sizes of the files are not known"):
        make_plan(discover(photos, DiscoverOptions()), SMALL, decoder="")


def test_memory_is_that_of_the_largest_batch(photos: Path) -> None:
    """Its files and its pixels."""
    plan = plan_build(photos, SMALL)
    sizes = plan.file_sizes(plan.splits[0])
    largest = max(int(sizes[i : i + 4].sum()) for i in range(len(sizes) - 3))
    assert plan.batch_nbytes == largest + 4 * 20 * 16 * 3
    one = plan_build(photos, dataclasses.replace(SMALL, batch_size=100))
    assert one.batch_nbytes == int(sizes.sum()) + 100 * 20 * 16 * 3


def test_what_did_not_change_is_up_to_date(photos: Path, tmp_path: Path) -> None:
    """--check and build agree; a changed file is due, and only it is decoded."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL)
    assert not find_changes(photos, out, SMALL).is_due
    assert build(photos, out, SMALL).up_to_date
    assert find_changes(photos, out, decoded(SMALL)).lines() == ["store was encoded, now not given"]
    save(photos / "dog" / "img_009.jpg", encoded(photo(70, 20, seed=8), "JPEG"))
    assert find_changes(photos, out, SMALL).changed == [b"dog/img_009.jpg"]
    report = build(photos, out, SMALL, overwrite=True)
    assert report.copied == 14
    build(photos, tmp_path / "fresh.h5", SMALL)
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


@pytest.mark.parametrize("first", ["encoded", "decoded"])
def test_pixels_and_bytes_are_not_copied_from_each_other(
    photos: Path, tmp_path: Path, first: str
) -> None:
    """They are other rows; the file is that of a fresh build."""
    kinds = [SMALL, decoded(SMALL)]
    one, two = kinds if first == "encoded" else kinds[::-1]
    out = tmp_path / "out.h5"
    build(photos, out, one)
    assert build(photos, out, two, overwrite=True).copied == 0
    build(photos, tmp_path / "fresh.h5", two)
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


@pytest.mark.parametrize("column", ["channel_sums", "source_size", "row_crc32"])
def test_damaged_rows_are_not_copied(photos: Path, tmp_path: Path, column: str) -> None:
    """They are decoded again, and the file is that of a fresh build."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL)
    where = read_row_offsets(os.fsencode(out))[f"train/{column}"]
    with out.open("r+b") as file:
        file.seek(where.offsets[0] + where.row_nbytes)
        file.write(b"\x99")
    assert build(photos, out, SMALL, overwrite=True).copied == 14
    build(photos, tmp_path / "fresh.h5", SMALL)
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_a_split_may_be_empty(tmp_path: Path) -> None:
    """Without a byte; it is read and verified as any other."""
    root, out = draw_dataset(tmp_path / "data", {"a": 2, "b": 1}), tmp_path / "out.h5"
    report = build(root, out, SMALL)
    assert [len(split) for split in report.plan.splits] == [3, 0]
    assert check_files(root, out) == 3
    assert verify(out, source=root, redecode="all").is_ok
    with h5py.File(out) as file:
        assert file["validation/encoded"].shape == (0,)
        assert np.isnan(file["statistics/mean_validation"][()]).all()


def test_options_of_pixels_are_recorded(photos: Path, tmp_path: Path) -> None:
    """They say how the bytes are decoded when they are read."""
    options = BuildOptions(
        decode=DecodeOptions((7, 9), "grayscale", "bicubic", "pad", "apply"),
        store=StoreOptions("none", "float32", "1/127.5", store="encoded"),
    )
    build(photos, tmp_path / "out.h5", options)
    with h5py.File(tmp_path / "out.h5") as file:
        config = json.loads(file.attrs["config"])
        assert "scale_factor" not in file["train"].attrs
    assert (config["target_size"], config["fit"], config["exif"]) == ([7, 9], "pad", "apply")
    assert (config["dtype"], config["rescale"]) == ("float32", "1/127.5")


def test_a_failed_write_is_resumable(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed before it is kept."""
    real, calls = durable.pwrite_all, [0]

    def failing(fd: int, data: Any, offset: int) -> None:
        calls[0] += 1
        if calls[0] == 50:
            raise OSError(28, "No space left on device")
        real(fd, data, offset)

    monkeypatch.setattr(durable, "pwrite_all", failing)
    out = tmp_path / "out.h5"
    with pytest.raises(OutputIOError):
        build(root, out, SMALL, workers=1)
    monkeypatch.setattr(durable, "pwrite_all", real)
    build(root, out, SMALL, workers=1)
    assert check_files(root, out) == 40
