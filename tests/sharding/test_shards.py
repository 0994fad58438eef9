"""A build cut into shards: the rows of the one file, each shard a whole file of its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.files import contents
from helpers.running import Run
from hypothesis import given
from hypothesis import strategies as st

import batchify
from batchify.common.progress import Progress
from batchify.errors import (
    BadImagesError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
    OptionError,
    OutputExistsError,
    OutputLockedError,
    OutputPathError,
    ResumeError,
    WorkerDiedError,
)
from batchify.format.shard_index import INDEX_NAME, is_shard_name, parse_index, read_index
from batchify.sharding import build, shards, task
from batchify.sharding.folder import LocalShards
from batchify.sharding.shards import cut

OPTIONS = batchify.BuildOptions(decode=batchify.DecodeOptions((12, 10)))
COLUMNS = ("images", "labels", "paths", "source_sha256", "row_crc32", "source_size", "record_crc32")


@given(
    rows=st.lists(st.integers(0, 50), min_size=1, max_size=3),
    count=st.integers(1, 60),
)
def test_shards_have_every_row_once_in_order(rows: list[int], count: int) -> None:
    """They differ by one row at most; none is empty but that of an empty split."""
    splits = list(zip(("train", "validation", "test"), rows, strict=False))
    parts = cut(splits, count)
    for split, total in splits:
        mine = [shard for shard in parts if shard.split == split]
        assert [row for shard in mine for row in range(shard.start, shard.stop)] == list(
            range(total)
        )
        assert len(mine) == max(1, min(count, total))
        assert max(map(len, mine)) - min(map(len, mine)) <= 1
        assert [shard.index for shard in mine] == list(range(len(mine)))
        assert {shard.count for shard in mine} == {len(mine)}
        assert all(is_shard_name(shard.name) for shard in mine)


def test_shards_hold_the_rows_of_the_one_file(photos: Path, tmp_path: Path) -> None:
    """In its order, with the same columns; each is whole by itself, and lists which it is."""
    batchify.build(photos, tmp_path / "one.h5", OPTIONS)
    report = batchify.build_shards(photos, tmp_path / "shards", OPTIONS, shards=4)
    assert report.index.rows == {"train": 12, "validation": 3}
    names = [f"train-0000{i}-of-00004.h5" for i in range(4)]
    names += [f"validation-0000{i}-of-00003.h5" for i in range(3)]
    assert sorted(os.listdir(tmp_path / "shards")) == ["manifest.json", *names]
    with h5py.File(tmp_path / "one.h5") as one, contextlib.ExitStack() as files:
        opened = [files.enter_context(h5py.File(tmp_path / "shards" / name)) for name in names]
        for split in ("train", "validation"):
            for column in COLUMNS:
                parts = [shard[split][column][:] for shard in opened if split in shard]
                np.testing.assert_array_equal(np.concatenate(parts), one[split][column][:])
        config = json.loads(one.attrs["config"])
        for i, shard in enumerate(opened[:4]):
            assert json.loads(shard.attrs["config"]) == config | {"shard": i, "shards": 4}
            assert shard.attrs["classes"].tolist() == [b"cat", b"dog"]
            assert list(shard) == ["X_train", "content_sha256", "statistics", "train", "y_train"]
    for name in names:
        assert batchify.verify(tmp_path / "shards" / name).is_ok


def test_the_manifest_lists_classes_rows_and_digests(tmp_path: Path) -> None:
    """As plain JSON in ASCII; a name that is not UTF-8 comes back as it was."""
    photos = draw_dataset(tmp_path / "photos", {"cat": 3, "é": 2})
    os.rename(os.fsencode(photos / "é"), os.fsencode(photos) + b"/\xff\n")
    batchify.build_shards(photos, tmp_path / "shards", OPTIONS, shards=2)
    data = (tmp_path / "shards" / "manifest.json").read_bytes()
    found = json.loads(data.decode("ascii"))
    assert found["format"] == "batchify-shards"
    assert found["version"] == found["schema_version"] == 1
    assert list(map(os.fsencode, found["classes"])) == [b"cat", b"\xff\n"]
    assert found["splits"]["train"]["rows"] == 5
    assert found["splits"]["validation"] == {
        "rows": 0,
        "shards": [found["splits"]["validation"]["shards"][0]],
    }
    for shard in found["splits"]["train"]["shards"]:
        path = tmp_path / "shards" / shard["file"]
        assert path.stat().st_size == shard["bytes"]
        with h5py.File(path) as file:
            assert file["content_sha256"][:].tobytes().hex() == shard["content_sha256"]
            assert len(file["train/images"]) == shard["rows"]
    with h5py.File(tmp_path / "shards" / "train-00000-of-00002.h5") as file:
        config = json.loads(file.attrs["config"])
    assert found["config"] == {k: v for k, v in config.items() if k not in ("shard", "shards")}


def test_shards_do_not_depend_on_workers_or_runs(photos: Path, tmp_path: Path) -> None:
    """The same dataset and options give the same files, the manifest included."""
    for name, workers in (("a", 1), ("b", 2)):
        batchify.build_shards(photos, tmp_path / name, OPTIONS, shards=3, workers=workers)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_shard_that_stands_is_not_built_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the build was stopped in between, the shards that are done stay, untouched."""
    batchify.build_shards(photos, tmp_path / "whole", OPTIONS, shards=3)
    asked = iter([1, 1, 0])
    build_shard = task.build_shard

    def stopped(*arguments: object, **options: object) -> object:
        if not next(asked):
            raise KeyboardInterrupt
        return build_shard(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(build, "build_shard", stopped)
        with pytest.raises(KeyboardInterrupt):
            batchify.build_shards(photos, tmp_path / "shards", OPTIONS, shards=3)
    done = [f"train-0000{i}-of-00003.h5" for i in range(2)]
    assert sorted(os.listdir(tmp_path / "shards")) == done, "no list, no lock, no other shard"
    with pytest.raises(FileMissingError, match=r"without manifest\.json: .*run batchify build"):
        batchify.open(tmp_path / "shards")
    before = [(tmp_path / "shards" / name).stat().st_mtime_ns for name in done]
    report = batchify.build_shards(photos, tmp_path / "shards", OPTIONS, shards=3)
    assert report.shards_kept == 2
    assert not report.up_to_date
    assert [(tmp_path / "shards" / name).stat().st_mtime_ns for name in done] == before
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")
    assert batchify.build_shards(photos, tmp_path / "shards", OPTIONS, shards=3).up_to_date


@pytest.mark.parametrize("what", ["image", "record", "cut", "gone"])
def test_a_shard_that_is_damaged_is_built_again(photos: Path, tmp_path: Path, what: str) -> None:
    """Without --overwrite: nothing is lost with it; the others stay, and so does every byte."""
    folder = tmp_path / "shards"
    batchify.build_shards(photos, folder, OPTIONS, shards=2)
    before = contents(folder)
    path = folder / "train-00001-of-00002.h5"
    if what == "gone":
        path.unlink()
    elif what == "cut":
        os.truncate(path, 5000)
    else:
        with h5py.File(path, "r+") as file:
            file["train/images" if what == "image" else "train/labels"][1] = 77
    changes = batchify.find_shard_changes(photos, folder, OPTIONS, shards=2)
    assert changes.lines() == ["1 shard damaged or missing: train-00001-of-00002.h5"]
    report = batchify.build_shards(photos, folder, OPTIONS, shards=2)
    assert report.shards_kept == 3
    assert contents(folder) == before


def test_shards_of_another_build_are_not_replaced(photos: Path, tmp_path: Path) -> None:
    """Without --overwrite; with it, new shards take their place and those of another count go."""
    folder = tmp_path / "shards"
    batchify.build_shards(photos, folder, OPTIONS, shards=3)
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    for count, options in ((2, OPTIONS), (3, batchify.BuildOptions())):
        with pytest.raises(OutputExistsError, match="pass --overwrite"):
            batchify.build_shards(photos, folder, options, shards=count)
    save(photos / "cat" / "new.jpg", encoded(photo(seed=99), "JPEG"))
    with pytest.raises(OutputExistsError, match=r"1 new: cat/new\.jpg"):
        batchify.build_shards(photos, folder, OPTIONS, shards=3)
    assert contents(folder) == before
    batchify.build_shards(photos, folder, OPTIONS, shards=2, overwrite=True)
    batchify.build_shards(photos, tmp_path / "fresh", OPTIONS, shards=2)
    assert contents(folder) == contents(tmp_path / "fresh") | {"notes.txt": b"mine"}


def test_what_moved_to_another_shard_is_neither_new_nor_gone(photos: Path, tmp_path: Path) -> None:
    """A file more shifts the others: --check names that file alone."""
    folder = tmp_path / "shards"
    options = batchify.BuildOptions(
        split=batchify.SplitOptions(shuffle=False, validation=0.0), decode=OPTIONS.decode
    )
    batchify.build_shards(photos, folder, options, shards=5)
    assert batchify.find_shard_changes(photos, folder, options, shards=5).lines() == []
    save(photos / "cat" / "a.jpg", encoded(photo(seed=99), "JPEG"))
    changes = batchify.find_shard_changes(photos, folder, options, shards=5)
    assert changes.lines() == ["1 new: cat/a.jpg"]
    (photos / "cat" / "a.jpg").rename(photos / "cat" / "img_000.jpg")
    changes = batchify.find_shard_changes(photos, folder, options, shards=5)
    assert changes.lines() == ["1 changed: cat/img_000.jpg"]


def test_images_that_cannot_be_used_are_named_over_all_shards(photos: Path, tmp_path: Path) -> None:
    """In the order of the rows; the good shards are kept, and skipping lists each in its shard."""
    for name in ("cat/img_004.jpg", "dog/img_003.jpg", "dog/img_009.jpg"):
        (photos / name).write_bytes(b"no")
    (photos / "cat" / "pipe.jpg").unlink(missing_ok=True)
    os.mkfifo(photos / "cat" / "pipe.jpg")
    folder = tmp_path / "shards"
    with pytest.raises(BadImagesError, match="3 of 15 images failed") as error:
        batchify.build_shards(photos, folder, OPTIONS, shards=4)
    assert sorted(entry.path for entry in error.value.bad) == [
        b"cat/img_004.jpg", b"dog/img_003.jpg", b"dog/img_009.jpg",
    ]  # fmt: skip
    assert "manifest.json" not in os.listdir(folder)
    with pytest.raises(BadImagesError, match="more than --max-skipped allows"):
        batchify.build_shards(photos, folder, OPTIONS, shards=4, on_error="skip", max_skipped=3)
    report = batchify.build_shards(
        photos, folder, OPTIONS, shards=4, on_error="skip", max_skipped=4
    )
    assert [entry.path for entry in report.skipped] == [entry.path for entry in error.value.bad]
    assert report.index.rows == {"train": 9, "validation": 3}
    assert report.index.skipped == 4
    listed: list[bytes] = []
    for file in report.index.files:
        with h5py.File(folder / file.name) as shard:
            listed += shard["skipped"]["path"].tolist() if "skipped" in shard else []
    assert listed[0] == b"cat/pipe.jpg"
    assert listed[1:] == [entry.path for entry in error.value.bad]
    assert batchify.build_shards(
        photos, folder, OPTIONS, shards=4, on_error="skip", max_skipped=4
    ).up_to_date


def test_a_shard_may_lose_all_of_its_images_but_not_all_of_them(tmp_path: Path) -> None:
    """It is a file without rows; where no image is left at all, nothing is made."""
    photos = draw_dataset(tmp_path / "photos", {"cat": 4})
    options = batchify.BuildOptions(
        split=batchify.SplitOptions(validation=0.0, shuffle=False), decode=OPTIONS.decode
    )
    (photos / "cat" / "img_001.jpg").write_bytes(b"no")
    report = batchify.build_shards(photos, tmp_path / "shards", options, shards=4, on_error="skip")
    assert [file.rows for file in report.index.files] == [1, 0, 1, 1]
    assert len(batchify.open(tmp_path / "shards")["train"]) == 3
    for path in (photos / "cat").iterdir():
        path.write_bytes(b"no")
    with pytest.raises(BadImagesError, match="no images are left"):
        batchify.build_shards(photos, tmp_path / "none", options, shards=4, on_error="skip")


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_build_that_is_killed_goes_on(photos: Path, tmp_path: Path, stop: int) -> None:
    """At its n-th commit, kill -9: the same command ends in the same files."""
    arguments = ["build", str(photos), str(tmp_path / "out"), "--shards=3", "--target-size=12x10"]
    program = (
        "import os, sys\n"
        "from batchify.building import jobs, workfile\n"
        "from batchify.cli import main\n"
        "jobs.TASK_ROWS, workfile.COMMIT_NBYTES, commit = 2, 1, workfile.WorkFile.commit\n"
        f"left = iter(range({stop}, -1, -1))\n"
        "workfile.WorkFile.commit = lambda self: (commit(self), next(left) or os.kill(0, 9))\n"
        "os.setpgid(0, 0)\n"
        "main(sys.argv[1:])\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--workers=1", "--batch-size=2"],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "manifest.json" not in os.listdir(tmp_path / "out")
    batchify.build_shards(photos, tmp_path / "out", OPTIONS, shards=3)
    batchify.build_shards(photos, tmp_path / "whole", OPTIONS, shards=3)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_second_build_of_the_same_folder_ends_at_once(photos: Path, tmp_path: Path) -> None:
    """Whatever shard the first is at; the first is unharmed."""
    folder = tmp_path / "shards"
    folder.mkdir()
    with open(folder / "manifest.json.partial", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputLockedError, match="another build is writing this target"):
            batchify.build_shards(photos, folder, OPTIONS, shards=2)
    batchify.build_shards(photos, folder, OPTIONS, shards=2)


def test_places_that_cannot_be_are_refused(photos: Path, tmp_path: Path) -> None:
    """Before any work: a file, a folder in the dataset, one in a folder that is not there."""
    (tmp_path / "file").write_text("")
    for place in ("file", "photos/shards", "none/shards"):
        with pytest.raises(OutputPathError):
            batchify.build_shards(photos, tmp_path / place, OPTIONS, shards=2)
    with pytest.raises(OptionError, match="shards must be a whole number"):
        batchify.build_shards(photos, tmp_path / "shards", OPTIONS, shards=0)
    with pytest.raises(batchify.BatchifyError, match="does not exist"):
        batchify.build_shards(tmp_path / "nowhere", tmp_path / "shards", OPTIONS, shards=2)
    assert not (tmp_path / "shards").exists()


def test_restart_begins_shards_anew(photos: Path, tmp_path: Path) -> None:
    """Those of an unfinished build by itself, those of a finished one with overwrite alone."""
    folder = tmp_path / "shards"
    batchify.build_shards(photos, folder, OPTIONS, shards=2)
    with pytest.raises(OutputExistsError):
        batchify.build_shards(photos, folder, OPTIONS, shards=2, restart=True)
    (folder / "manifest.json").unlink()
    other = batchify.BuildOptions(decode=batchify.DecodeOptions((8, 8)))
    with pytest.raises(OutputExistsError, match="target_size was"):
        batchify.build_shards(photos, folder, other, shards=2)
    report = batchify.build_shards(photos, folder, other, shards=2, restart=True)
    assert report.shards_kept == report.kept == report.copied == 0
    assert batchify.open(folder)["train"].images.shape == (12, 8, 8, 3)


def test_a_leak_over_shards_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that come to be the same between hashing and decoding would be in several splits."""
    photos = draw_dataset(tmp_path / "photos", {"cat": 8, "dog": 8})
    options = batchify.BuildOptions(
        split=batchify.SplitOptions("stratified", group_duplicates=True), decode=OPTIONS.decode
    )
    cut_plan = shards.cut_plan

    def changed(plan: object, count: int) -> object:
        for path in (photos / "cat").iterdir():
            path.write_bytes((photos / "cat" / "img_000.jpg").read_bytes())
        return cut_plan(plan, count)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "cut_plan", changed)
    with pytest.raises(ResumeError, match=r"would be in several splits, cat/img.*--restart"):
        batchify.build_shards(photos, tmp_path / "shards", options, shards=2)
    assert not (tmp_path / "shards" / "manifest.json").exists()


def test_any_executor_makes_the_same_shards(photos: Path, tmp_path: Path) -> None:
    """Threads and spawned processes here; progress ends at all images."""
    batchify.build_shards(photos, tmp_path / "own", OPTIONS, shards=3)
    seen: list[Progress] = []
    with ThreadPoolExecutor(2) as threads:
        batchify.build_shards(
            photos, tmp_path / "threads", OPTIONS, shards=3, executor=threads, progress=seen.append
        )
    assert [(p.done, p.total) for p in seen if p.stage == "fill"][-1] == (15, 15)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        batchify.build_shards(photos, tmp_path / "processes", OPTIONS, shards=3, executor=processes)
    assert contents(tmp_path / "threads") == contents(tmp_path / "own")
    assert contents(tmp_path / "processes") == contents(tmp_path / "own")


class Dying(ThreadPoolExecutor):
    """An executor whose second task is lost."""

    count = 0

    def submit(self, *arguments: object, **options: object) -> Future[object]:  # type: ignore[override]
        """Hand a task over, or fail."""
        self.count += 1
        if self.count == 2:
            future: Future[object] = Future()
            future.set_exception(RuntimeError("gone"))
            return future
        return super().submit(*arguments, **options)  # type: ignore[arg-type]


def test_an_executor_that_loses_a_shard_ends_the_build(photos: Path, tmp_path: Path) -> None:
    """It is named; what is done is kept, and the next build goes on."""
    with Dying(1) as pool, pytest.raises(WorkerDiedError, match=r"train-00001-of-00003.*gone"):
        batchify.build_shards(photos, tmp_path / "shards", OPTIONS, shards=3, executor=pool)
    assert not (tmp_path / "shards" / "manifest.json").exists()
    report = batchify.build_shards(photos, tmp_path / "shards", OPTIONS, shards=3)
    assert report.index.rows == {"train": 12, "validation": 3}


def test_workers_stop_when_nobody_waits_any_more(photos: Path, tmp_path: Path) -> None:
    """Their ticket is the file of the lock: it goes with the build, whatever ended that."""
    folder = LocalShards(os.fsencode(tmp_path / "shards"))
    with folder.claim() as ticket:
        assert ticket is not None
        assert ticket.is_valid
    assert not ticket.is_valid
    with folder.claim() as other:
        assert other is not None
        assert other.is_valid
        assert not ticket.is_valid


def test_a_folder_of_shards_is_opened_as_one(photos: Path, tmp_path: Path) -> None:
    """By its manifest: what else lies there does not count, and what is missing is told."""
    batchify.build(photos, tmp_path / "one.h5", OPTIONS)
    batchify.build_shards(photos, tmp_path / "shards", OPTIONS, shards=4)
    (tmp_path / "shards" / "train-00000-of-00009.h5").write_bytes(b"of another build")
    one, many = batchify.open(tmp_path / "one.h5"), batchify.open(tmp_path / "shards")
    for split in ("train", "validation"):
        images, labels = many[split][:]
        np.testing.assert_array_equal(images, one[split].images)
        np.testing.assert_array_equal(labels, one[split].labels)
        assert list(many[split].paths) == list(one[split].paths)
    whole, parts = batchify.summarize(tmp_path / "one.h5"), batchify.summarize(tmp_path / "shards")
    for mine, theirs in zip(whole.splits, parts.splits, strict=True):
        assert (mine.rows, mine.class_counts) == (theirs.rows, theirs.class_counts)
        assert (mine.flags, mine.image_shape) == (theirs.flags, theirs.image_shape)
        np.testing.assert_allclose(mine.mean + mine.std, theirs.mean + theirs.std)
    assert parts.config == {**whole.config, "target_size": [12, 10], "extensions": []}
    with pytest.raises(FileAccessError, match="folder of shards; name one of them"):
        batchify.write_sheet(tmp_path / "shards", tmp_path / "sheet.png")
    (tmp_path / "shards" / "train-00002-of-00004.h5").unlink()
    for read in (batchify.open, batchify.summarize):
        with pytest.raises(FileMissingError, match=r"there is no .*train-00002-of-00004"):
            read(tmp_path / "shards")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "other"),
        ("version", 2),
        ("splits", {}),
        ("splits", {"more": {"shards": []}}),
        ("splits", []),
        ("classes", 1),
        ("config", "no"),
        ("file", "../../secret.h5"),
        ("file", 5),
        ("content_sha256", "zz"),
        ("rows", "many"),
        ("rows", -1),
        ("rows", float("inf")),
        ("file", "train-00001-of-00002.h5"),
        ("file", "validation-00000-of-00002.h5"),
        ("bytes", -1),
    ],
)
def test_a_hostile_manifest_is_refused(
    photos: Path, tmp_path: Path, key: str, value: object
) -> None:
    """It names no file outside of the folder, and none that is no shard."""
    folder = tmp_path / "shards"
    batchify.build_shards(photos, folder, OPTIONS, shards=2)
    found = json.loads((folder / "manifest.json").read_bytes())
    into = found if key in found else found["splits"]["train"]["shards"][0]
    into[key] = value
    (folder / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(FileFormatError, match=r"manifest\.json is not a valid shard index"):
        read_index(os.fsencode(folder))


@given(st.binary(max_size=60))
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    """Whatever they are."""
    with pytest.raises(FileFormatError):
        parse_index(data, b"manifest.json")


def test_the_command_builds_shards(photos: Path, tmp_path: Path, run: Run) -> None:
    """It plans, builds, finds them up to date, and tells what is due."""
    arguments = ("build", photos, "out", "--shards", "2", "--target-size", "12x10")
    planned = run(*arguments, "--dry-run")
    assert "shards    4: train-00000-of-00002.h5 … validation-00001-of-00002.h5" in planned.stdout
    assert not (tmp_path / "out").exists()
    listed = json.loads(run(*arguments, "--dry-run", "--json").stdout)["shards"]
    assert listed[0] == {"file": "train-00000-of-00002.h5", "rows": 6}
    missing = run(*arguments, "--check")
    assert (missing.returncode, missing.stderr) == (9, "")
    assert "there is no manifest.json" in missing.stdout
    made = run(*arguments)
    assert made.returncode == 0, made.stderr
    assert "out, 4 shards: 12 train + 3 validation images of 12×10×3 uint8" in made.stdout
    again = run(*arguments)
    assert "out, 4 shards: up to date: 12 train + 3 validation images\ncheck: " in again.stdout
    report = json.loads(run(*arguments, "--json").stdout)
    assert report["up_to_date"] is True
    assert report["shards_kept"] == len(report["shards"]) == 4
    assert run(*arguments, "--check").returncode == 0
    assert run("inspect", "out").stdout.startswith("out: batchify schema 1")
    refused = run("build", photos, "out", "--scheduler", "tcp://127.0.0.1:8786")
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (
        2, "Error: --scheduler requires --shards",
    )  # fmt: skip
    other = run(*arguments[:-3], "3")
    assert other.returncode == 1
    assert "holds shards that are not up to date" in other.stderr


ONE_SHARD = """
import sys, time
from batchify.cli import main
from batchify.sharding import build

build_shard = build.build_shard

def build_one(*arguments, **options):
    outcome = build_shard(*arguments, **options)
    print("built", flush=True)
    time.sleep(600)
    return outcome

build.build_shard = build_one
main(sys.argv[1:])
"""
"""The command, which waits for a signal after its first shard."""


def test_a_signal_ends_a_build_of_shards(tmp_path: Path) -> None:
    """With the message and the code of its number; the lock goes, and the next build goes on."""
    photos = draw_dataset(tmp_path / "photos", {"cat": 60})
    arguments = ["build", str(photos), str(tmp_path / "out"), "--shards=20", "--workers=1"]
    with subprocess.Popen(
        [sys.executable, "-c", ONE_SHARD, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "built\n"
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM
    assert stderr == "Error: stopped by SIGTERM; run the same command again to continue\n"
    left = set(os.listdir(tmp_path / "out"))
    assert "manifest.json.partial" not in left
    assert "manifest.json" not in left
    report = batchify.build_shards(photos, tmp_path / "out", shards=20)
    assert report.shards_kept >= 1
    shutil.rmtree(tmp_path / "out")


def test_a_folder_of_shards_is_verified_as_one(photos: Path, tmp_path: Path) -> None:
    """Each shard and the list; a file of the dataset that no shard has is new, but to one alone."""
    folder = tmp_path / "shards"
    batchify.build_shards(photos, folder, OPTIONS, shards=3)
    result = batchify.verify(folder, source=photos, redecode=7)
    assert result.is_ok
    assert (result.rows, result.images, result.sources, result.decoded) == (15, 15, 15, 7)
    one = folder / "train-00001-of-00003.h5"
    assert batchify.verify(one, source=photos, redecode="all").is_ok
    save(photos / "cat" / "new.jpg", encoded(photo(seed=99), "JPEG"))
    with h5py.File(one, "r+") as file:
        file["train/images"][2] = 7
        (photos / os.fsdecode(file["train/paths"][0])).write_bytes(b"changed")
    shutil.copy(folder / "train-00000-of-00003.h5", folder / "train-00002-of-00003.h5")
    (folder / "validation-00001-of-00003.h5").unlink()
    result = batchify.verify(folder, source=photos)
    assert result.counts == {
        "image": 1, "digest": 1, "structure": 1, "changed": 1,
        "new": 1 + 4 + 1,  # with those of the shards that are gone
    }  # fmt: skip
    messages = [finding.message for finding in result.findings]
    assert "train-00001-of-00003.h5: checksum mismatch (row_crc32)" in messages
    assert "validation-00001-of-00003.h5: there is no such file" in messages


def test_a_list_that_says_no_rows_is_damage(photos: Path, tmp_path: Path) -> None:
    """Also where a share of its rows is to be decoded again."""
    folder = tmp_path / "shards"
    batchify.build_shards(photos, folder, OPTIONS, shards=1)
    found = json.loads((folder / "manifest.json").read_bytes())
    for split in found["splits"].values():
        split["shards"][0]["rows"] = 0
    (folder / "manifest.json").write_text(json.dumps(found))
    result = batchify.verify(folder, source=photos, redecode=1)
    assert result.counts == {"digest": 3}  # of both shards, and the list itself


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"cat"', b'"cow"'),
        (b'"seed": 0', b'"seed": 1'),
        (b'"skipped": 0', b'"skipped": 1'),
        (b'"bytes": ', b'"bytes": 1'),
        (b'"decoder": "', b'"decoder": "not '),
        (b'"format"', b'"more": 1, "format"'),
    ],
)
def test_every_change_of_the_list_is_found(
    photos: Path, tmp_path: Path, old: bytes, new: bytes
) -> None:
    """By verify and --check; the next build writes it as it was."""
    folder = tmp_path / "shards"
    batchify.build_shards(photos, folder, OPTIONS, shards=2)
    path = folder / "manifest.json"
    before = path.read_bytes()
    assert old in before
    path.write_bytes(before.replace(old, new))
    assert set(batchify.verify(folder).counts) == {"digest"}
    changes = batchify.find_shard_changes(photos, folder, OPTIONS, shards=2)
    assert changes.lines() == ["manifest.json is damaged"]
    batchify.build_shards(photos, folder, OPTIONS, shards=2)
    assert path.read_bytes() == before


def test_a_shard_in_the_place_of_another_is_told(photos: Path, tmp_path: Path, run: Run) -> None:
    """Also one of another split, by all who read the folder."""
    folder = tmp_path / "shards"
    batchify.build_shards(photos, folder, OPTIONS, shards=2)
    shutil.copy(folder / "validation-00000-of-00002.h5", folder / "train-00000-of-00002.h5")
    for command in ("inspect", "check"):
        result = run(command, str(folder))
        assert result.returncode == 1
        assert "train-00000-of-00002.h5 is damaged: it is not from the build" in result.stderr
    assert batchify.verify(folder).counts == {"digest": 1}


@pytest.mark.parametrize("is_hdf5", [True, False])
def test_somebody_elses_file_is_not_a_damaged_shard(
    photos: Path, tmp_path: Path, is_hdf5: bool
) -> None:
    """Without a list that has it, only --overwrite replaces it."""
    folder = tmp_path / "shards"
    folder.mkdir()
    path = folder / "train-00000-of-00002.h5"
    path.write_bytes(b"precious")
    if is_hdf5:
        with h5py.File(path, "w") as file:
            file["mine"] = [1, 2, 3]
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="pass --overwrite"):
        batchify.build_shards(photos, folder, OPTIONS, shards=2)
    assert path.read_bytes() == before
    batchify.build_shards(photos, folder, OPTIONS, shards=2, overwrite=True)
    batchify.build_shards(photos, tmp_path / "fresh", OPTIONS, shards=2)
    assert contents(folder) == contents(tmp_path / "fresh")


def test_a_list_that_cannot_be_read_says_what_to_do(photos: Path, tmp_path: Path) -> None:
    """It may be somebody's, so that not even --overwrite replaces it."""
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "manifest.json").write_text('{"name": "my app"}')
    with pytest.raises(FileFormatError, match="name another folder, or remove that file"):
        batchify.build_shards(photos, tmp_path / "shards", OPTIONS, shards=2, overwrite=True)
    assert (tmp_path / "shards" / "manifest.json").read_text() == '{"name": "my app"}'


def test_a_folder_of_shards_may_be_a_file_url(photos: Path, tmp_path: Path) -> None:
    """For everything that reads one."""
    folder = tmp_path / "shards"
    batchify.build_shards(photos, folder.as_uri(), OPTIONS, shards=2)
    assert sum(map(len, batchify.open(folder.as_uri()).values())) == 15
    assert batchify.summarize(folder.as_uri()).classes == (b"cat", b"dog")
    assert batchify.check(folder.as_uri()).images == 15
    assert batchify.verify(folder.as_uri()).is_ok


def test_a_folder_that_is_not_done_is_told(photos: Path, tmp_path: Path) -> None:
    """It is no file, and what is missing is named."""
    folder = tmp_path / "shards"
    batchify.build_shards(photos, folder, OPTIONS, shards=2)
    (folder / "manifest.json").unlink()
    for read in (batchify.summarize, batchify.verify):
        with pytest.raises(FileAccessError, match=r"folder without manifest\.json: .* finish them"):
            read(folder)


def test_a_folder_in_the_place_of_a_shard_is_refused(photos: Path, tmp_path: Path) -> None:
    """Before anything is decoded for it."""
    folder = tmp_path / "shards"
    (folder / "train-00000-of-00002.h5").mkdir(parents=True)
    seen: list[Progress] = []
    with pytest.raises(OutputPathError, match=r"train-00000-of-00002\.h5 is a folder"):
        batchify.build_shards(
            photos, folder, OPTIONS, shards=2, overwrite=True, progress=seen.append
        )
    assert "fill" not in {progress.stage for progress in seen}


def test_shards_of_before_go_though_a_build_died_after_its_list(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What died between the new list and the last of the old shards is done by the next build."""
    folder = tmp_path / "shards"
    batchify.build_shards(photos, folder, OPTIONS, shards=3)

    def die(self: LocalShards, name: bytes) -> None:
        if name != INDEX_NAME:
            raise KeyboardInterrupt
        remove(self, name)

    remove = LocalShards.remove
    monkeypatch.setattr(LocalShards, "remove", die)
    with pytest.raises(KeyboardInterrupt):
        batchify.build_shards(photos, folder, OPTIONS, shards=2, overwrite=True)
    monkeypatch.undo()
    assert (folder / "train-00000-of-00003.h5").exists()
    assert batchify.build_shards(photos, folder, OPTIONS, shards=2).up_to_date
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        *(f"{split}-0000{i}-of-00002.h5" for split in ("train", "validation") for i in range(2)),
    }


def test_a_folder_of_shards_is_checked_as_one(tmp_path: Path) -> None:
    """Leaks between shards are found, with the rows that they have in the whole."""
    photos = draw_dataset(tmp_path / "photos", {"cat": 12, "dog": 12})
    leak = (photos / "cat" / "img_000.jpg").read_bytes()  # the first is validation
    (photos / "dog" / "img_011.jpg").write_bytes(leak)
    batchify.build(photos, tmp_path / "one.h5", OPTIONS)
    batchify.build_shards(photos, tmp_path / "shards", OPTIONS, shards=5)
    one, many = batchify.check(tmp_path / "one.h5"), batchify.check(tmp_path / "shards")
    assert one.problems == many.problems
    assert {problem.code for problem in many.problems} >= {"leak", "label-conflict"}
    with pytest.raises(OptionError, match="options of a build are for a dataset"):
        batchify.check(tmp_path / "shards", OPTIONS)
