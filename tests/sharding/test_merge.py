"""Shards are put together: the file of a direct build, byte for byte, or none."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.running import Run

import batchify
from batchify.common import durable
from batchify.errors import (
    FileFormatError,
    FileMissingError,
    OutputExistsError,
    OutputIOError,
    OutputLockedError,
    OutputPathError,
    ResumeError,
)

SMALL = batchify.DecodeOptions((12, 10))
VARIANTS = {
    "plain": batchify.BuildOptions(decode=SMALL),
    "large rows": batchify.BuildOptions(decode=batchify.DecodeOptions((160, 150))),
    "gzip, shared chunks": batchify.BuildOptions(
        decode=SMALL, store=batchify.StoreOptions(compression="gzip")
    ),
    "gzip, a chunk a row": batchify.BuildOptions(
        decode=batchify.DecodeOptions((160, 150)),
        store=batchify.StoreOptions(compression="gzip", compression_level=1),
    ),
    "float32, one-hot, gzip": batchify.BuildOptions(
        decode=SMALL,
        store=batchify.StoreOptions("categorical", "float32", "1/7", "gzip"),
    ),
    "uint16, grey, no labels": batchify.BuildOptions(
        decode=batchify.DecodeOptions((9, 31), "grayscale"),
        store=batchify.StoreOptions("none", "uint16"),
    ),
    "files as they are": batchify.BuildOptions(
        decode=SMALL, store=batchify.StoreOptions(store="encoded")
    ),
    "three splits, in order": batchify.BuildOptions(
        decode=SMALL,
        split=batchify.SplitOptions("stratified", test=0.2, shuffle=False),
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("count", [1, 4])
def test_the_file_is_that_of_a_direct_build(
    photos: Path, tmp_path: Path, name: str, count: int
) -> None:
    """For any number of shards, dtype, labels and compression."""
    options = VARIANTS[name]
    batchify.build(photos, tmp_path / "one.h5", options)
    batchify.build_shards(photos, tmp_path / "shards", options, shards=count)
    report = batchify.merge(tmp_path / "shards", tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert report.nbytes == (tmp_path / "one.h5").stat().st_size
    assert sum(report.rows.values()) == 15
    assert {path.name for path in tmp_path.iterdir()} == {
        "photos", "shards", "one.h5", "merged.h5",
    }  # fmt: skip


@pytest.mark.parametrize(
    "store",
    [
        batchify.StoreOptions(),
        batchify.StoreOptions(compression="gzip"),
        batchify.StoreOptions(store="encoded"),
    ],
)
def test_skipped_files_are_listed_as_a_direct_build_lists_them(
    photos: Path, tmp_path: Path, store: batchify.StoreOptions
) -> None:
    """Those of the walk first, then those of each split in the order of their rows."""
    for name in ("cat/img_000.jpg", "cat/img_004.jpg", "dog/img_003.jpg", "dog/img_009.jpg"):
        (photos / name).write_bytes(b"no" * len(name))
    (photos / "dog" / ("long_" * 20 + ".jpg")).write_bytes(b"the longest name of all is dropped")
    os.mkfifo(photos / "dog" / "pipe.jpg")
    options = batchify.BuildOptions(decode=SMALL, store=store)
    batchify.build(photos, tmp_path / "one.h5", options, on_error="skip")
    batchify.build_shards(photos, tmp_path / "shards", options, shards=5, on_error="skip")
    batchify.merge(tmp_path / "shards", tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    with h5py.File(tmp_path / "merged.h5") as file:
        assert len(file["skipped"]) == 6


def test_everything_that_keras_reads_is_merged(zoo: Path, tmp_path: Path) -> None:
    """Odd names, empty classes, every mode."""
    options = batchify.BuildOptions(discover=batchify.DiscoverOptions(hidden=True), decode=SMALL)
    batchify.build(zoo, tmp_path / "one.h5", options)
    batchify.build_shards(zoo, tmp_path / "shards", options, shards=3)
    batchify.merge(tmp_path / "shards", tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()


def test_a_folder_that_is_split_already_is_merged(tmp_path: Path) -> None:
    """Its layout is recorded in shards as in the one file."""
    photos = draw_dataset(tmp_path / "photos" / "train", {"cat": 5, "dog": 4}).parent
    draw_dataset(photos / "val", {"cat": 2, "eel": 1})
    batchify.build(photos, tmp_path / "one.h5", batchify.BuildOptions(decode=SMALL))
    batchify.build_shards(
        photos, tmp_path / "shards", batchify.BuildOptions(decode=SMALL), shards=2
    )
    batchify.merge(tmp_path / "shards", tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()


@pytest.fixture
def shards(photos: Path, tmp_path: Path) -> Path:
    """Three shards a split."""
    options = batchify.BuildOptions(decode=SMALL)
    batchify.build_shards(photos, tmp_path / "shards", options, shards=3)
    return tmp_path / "shards"


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        ("train/images", "checksum mismatch in the image of row 1"),
        ("train/labels", "record_crc32 mismatch in a row"),
        ("train/paths", "record_crc32 mismatch in a row"),
        ("statistics/mean_train", "content_sha256 mismatch"),
        ("train/record_crc32", "record_crc32 mismatch"),
    ],
)
def test_damage_of_a_shard_is_named(
    shards: Path, tmp_path: Path, dataset: str, reason: str
) -> None:
    """Nothing is made of it, and nothing is left beside."""
    with h5py.File(shards / "train-00001-of-00003.h5", "r+") as file:
        file[dataset][1] = b"x" if dataset == "train/paths" else 77
    with pytest.raises(FileFormatError, match=f"train-00001-of-00003.h5 is damaged: .*{reason}"):
        batchify.merge(shards, tmp_path / "merged.h5")
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "shards"}


def test_a_shard_of_another_build_is_refused(shards: Path, photos: Path, tmp_path: Path) -> None:
    """Also where it is whole: of other options, at another place, or of another split."""
    other = batchify.BuildOptions(decode=batchify.DecodeOptions((10, 12)))
    batchify.build_shards(photos, tmp_path / "other", other, shards=3)
    name = "train-00001-of-00003.h5"
    whole = (shards / name).read_bytes()
    for source in (
        tmp_path / "other" / name,
        shards / "train-00000-of-00003.h5",
        shards / "validation-00001-of-00003.h5",
    ):
        shutil.copy(source, shards / name)
        with pytest.raises(FileFormatError, match=f"{name} is damaged: it is not from the build"):
            batchify.merge(shards, tmp_path / "merged.h5")
        (shards / name).write_bytes(whole)
    (shards / name).unlink()
    with pytest.raises(FileMissingError, match=f"there is no .*{name}; run batchify build again"):
        batchify.merge(shards, tmp_path / "merged.h5")


def test_shards_of_another_version_are_refused(shards: Path, tmp_path: Path) -> None:
    """The merged file would not be that of a direct build."""
    found = json.loads((shards / "manifest.json").read_bytes())
    found["creator"] = "batchify 0.0.1"
    (shards / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(FileFormatError, match=r"made by batchify 0\.0\.1, this is batchify"):
        batchify.merge(shards, tmp_path / "merged.h5")


def test_targets_that_cannot_be_are_refused(shards: Path, photos: Path, tmp_path: Path) -> None:
    """A shard itself, a folder, a file that exists, one that is being built."""
    for place in (shards, shards / "train-00009-of-00010.h5", tmp_path / "none" / "out.h5"):
        with pytest.raises(OutputPathError):
            batchify.merge(shards, place)
    (tmp_path / "link").symlink_to(shards, target_is_directory=True)
    before = {path: path.read_bytes() for path in shards.iterdir()}
    for place in (shards / "manifest.json", tmp_path / "link" / min(before).name):
        with pytest.raises(OutputPathError, match="is a shard, or the shard index"):
            batchify.merge(shards, place, overwrite=True)
    assert {path: path.read_bytes() for path in shards.iterdir()} == before
    out = tmp_path / "out.h5"
    out.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="pass --overwrite"):
        batchify.merge(shards, out)
    assert out.read_bytes() == b"mine"
    batchify.merge(shards, out, overwrite=True)
    assert batchify.verify(out).is_ok
    out.with_name("out.h5.partial").write_bytes(b"half")
    out.with_name("out.h5.partial.journal").write_bytes(b'01234567 {"format"')
    with pytest.raises(ResumeError, match="belongs to an unfinished build"):
        batchify.merge(shards, out, overwrite=True)
    assert out.with_name("out.h5.partial").read_bytes() == b"half"
    with pytest.raises(FileMissingError, match=r"without manifest\.json"):
        batchify.merge(photos, tmp_path / "more.h5")


def test_a_refused_merge_removes_nothing_that_it_did_not_make(shards: Path, tmp_path: Path) -> None:
    """An unfinished file without a journal may be somebody's."""
    out, partial = tmp_path / "out.h5", tmp_path / "out.h5.partial"
    out.write_bytes(b"mine")
    partial.write_bytes(b"half")
    with pytest.raises(OutputExistsError, match="is not the unfinished file of a build"):
        batchify.merge(shards, out)
    assert (out.read_bytes(), partial.read_bytes()) == (b"mine", b"half")
    assert {path.name for path in tmp_path.iterdir()} == {
        "photos", "shards", "out.h5", "out.h5.partial"
    }  # fmt: skip


def test_a_build_finds_the_merged_file_up_to_date(
    shards: Path, photos: Path, tmp_path: Path
) -> None:
    """For it is its own."""
    batchify.merge(shards, tmp_path / "merged.h5")
    report = batchify.build(photos, tmp_path / "merged.h5", batchify.BuildOptions(decode=SMALL))
    assert report.up_to_date


def test_a_merge_that_is_killed_leaves_the_target_as_it_was(shards: Path, tmp_path: Path) -> None:
    """The next one cleans up after it."""
    program = (
        "import os, sys\n"
        "import batchify.sharding.merge as merging\n"
        "merging.write_checksums = lambda *_: os.kill(os.getpid(), 9)\n"
        "merging.merge(sys.argv[1], sys.argv[2], overwrite=True)\n"
    )
    out = tmp_path / "out.h5"
    out.write_bytes(b"mine")
    arguments = [sys.executable, "-c", program, str(shards), str(out)]
    assert subprocess.run(arguments, check=False).returncode == -9
    assert out.read_bytes() == b"mine"
    assert out.with_name("out.h5.partial.sealing").exists()
    batchify.merge(shards, out, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "shards", "out.h5"}
    assert batchify.verify(out).is_ok


@pytest.mark.parametrize("call", ["pwrite_all", "sync"])
def test_a_disk_that_fails_leaves_nothing_half(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The error is of the output, exit code 4; what is half is removed."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, call, fail)
    with pytest.raises(OutputIOError, match="No space left on device"):
        batchify.merge(shards, tmp_path / "merged.h5")
    monkeypatch.undo()
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "shards"}


def test_a_second_merge_into_the_same_file_ends_at_once(shards: Path, tmp_path: Path) -> None:
    """As a second build does."""
    from batchify.building.target import Target
    from batchify.building.workfile import WorkFile

    target = Target(os.fsencode(tmp_path / "out.h5"), overwrite=False)
    with WorkFile(target) as work:
        with pytest.raises(OutputLockedError):
            batchify.merge(shards, tmp_path / "out.h5")
        work.journal.remove()


def test_the_command_merges(shards: Path, tmp_path: Path, run: Run) -> None:
    """It says what it made, in words and as JSON, and what it would not."""
    done = run("merge", "shards", "merged.h5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'merged.h5'}: ")
    assert "12 train + 3 validation images of 6 shards" in done.stdout
    again = run("merge", "shards", "merged.h5")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.endswith("merged.h5 exists; pass --overwrite to replace it\n")
    found = json.loads(run("merge", "shards", "merged.h5", "--overwrite", "--json").stdout)
    assert found["rows"] == {"train": 12, "validation": 3}
    assert found["shards"] == 6
    none = run("merge", "photos", "more.h5")
    assert none.returncode == 1
    assert "is a folder without manifest.json" in none.stderr
    with h5py.File(tmp_path / "merged.h5") as file:
        assert np.isfinite(file["statistics/mean_train"][:]).all()
