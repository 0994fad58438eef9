"""File systems that lack locks, syncs or reservations, or fail for a while, or are read-only."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from helpers.drawing import draw_dataset
from helpers.faults import build_library, compiler
from helpers.running import Run

import batchify
from batchify.building.build import build
from batchify.common import durable
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions

OPTIONS = ("--target-size", "8x8", "--batch-size", "4", "--workers", "1")
SMALL = BuildOptions(decode=DecodeOptions((8, 8)), batch_size=4)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library that makes calls fail."""
    if compiler() is None:
        pytest.skip("no C compiler for Linux")
    return build_library(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def eio(tmp_path: Path) -> Path:
    """Return a dataset that the library looks for."""
    return draw_dataset(tmp_path / "eio", {"cat": 60, "dog": 60}, size=(9, 8))


def test_a_file_system_that_lacks_calls_and_a_drive_that_fails_for_a_moment(
    run_process: Run, eio: Path, library: Path, tmp_path: Path
) -> None:
    """The file is that of any other disk, nothing is skipped, and what was lacking is said once."""
    expected = build(eio, tmp_path / "expected.h5", SMALL)
    done = run_process(
        "build", eio, "out.h5", *OPTIONS, "--on-error", "skip", "--json",
        LD_PRELOAD=str(library),
        FAULT_FLOCK=str(errno.ENOLCK), FAULT_FSYNC=str(errno.EINVAL),
        FAULT_FALLOCATE=str(errno.EOPNOTSUPP), FAULT_READ=str(errno.EIO), FAULT_READS="40",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "expected.h5").read_bytes()
    codes = [warning["code"] for warning in json.loads(done.stdout)["warnings"]]
    assert codes == ["no-locks", "no-reserve", "no-sync"]
    assert expected.warnings == ()
    assert sorted(os.listdir(tmp_path)) == ["eio", "expected.h5", "out.h5"]


def test_shards_say_what_their_file_system_lacks(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for all of them."""

    def unsupported(_fd: int, _nbytes: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(durable, "fallocate", unsupported)
    with pytest.warns(batchify.BatchifyWarning, match="cannot reserve space"):
        made = batchify.build_shards(photos, tmp_path / "s", shards=3, target_size=(8, 8))
    assert [warning.code for warning in made.warnings] == ["no-reserve"]


def test_a_drive_that_keeps_failing_ends_the_build_and_keeps_its_work(
    run_process: Run, eio: Path, library: Path, tmp_path: Path
) -> None:
    """Exit 4 with the file and what to do; no image is skipped for it."""
    done = run_process(
        "build", eio, "out.h5", *OPTIONS, "--on-error", "skip", "--image-timeout", "1",
        LD_PRELOAD=str(library), FAULT_READ=str(errno.ESTALE), FAULT_READS="1000000",
        FAULT_FLOCK=str(errno.ENOSYS),
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "cannot be read: Stale file handle (retried for " in done.stderr
    assert "check the drive or the network mount" in done.stderr
    assert "what is decoded is kept: run the same command again" in done.stderr
    assert not (tmp_path / "out.h5.partial.journal.lock").exists()
    assert 0 < build(eio, tmp_path / "out.h5", SMALL).kept < 120


@pytest.mark.parametrize("shards", [(), ("--shards", "2")])
def test_an_up_to_date_target_on_a_read_only_mount_is_up_to_date(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: tuple[str, ...]
) -> None:
    """Nothing is written there; if it is not up to date, the build says why and ends with 4."""
    root = draw_dataset(tmp_path / "data", {"cat": 3, "dog": 3})
    disk = tmp_path / "disk"
    disk.mkdir()
    target = disk / "out.h5"
    command = ("build", root, target, *OPTIONS, *shards)
    assert run(*command).returncode == 0
    _make_read_only(disk, monkeypatch)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert "up to date" in done.stdout
    done = run(*command, "--fit", "crop", "--overwrite")
    assert done.returncode == 4, done.stdout
    assert "is not up to date, and there is no permission to write" in done.stderr
    assert "fit was stretch, now crop" in done.stderr
    assert run(*command, "--restart").returncode == 4
    assert run("build", root, disk / "new.h5", *OPTIONS, *shards).returncode == 4


def _make_read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be opened for writing, made or removed in a folder, whoever runs the tests."""
    real_access, real_open = os.access, os.open
    flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def is_inside(path: object) -> bool:
        return isinstance(path, str | bytes) and os.fsdecode(path).startswith(str(folder))

    def access(path: str | bytes, mode: int) -> bool:
        return real_access(path, mode) and not (mode & os.W_OK and is_inside(path))

    def guarded_open(path: str | bytes, how: int, *rest: int) -> int:
        if how & flags and is_inside(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real_open(path, how, *rest)

    def refuse(path: object, *_rest: object) -> None:
        raise AssertionError(f"{path!r} is changed on a read-only mount")

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setattr(os, "open", guarded_open)
    for name in ("unlink", "rename", "replace", "mkdir", "rmdir"):
        monkeypatch.setattr(os, name, refuse)


@pytest.mark.parametrize("content", [b"my notes", b"", "link", "copy", "folder"])
def test_a_file_of_the_user_with_the_name_of_the_unfinished_one_is_left_alone(
    run: Run, photos: Path, tmp_path: Path, content: bytes | str
) -> None:
    """Whatever it is, also with --overwrite and --restart, and a copy of a finished file."""
    partial = tmp_path / "out.h5.partial"
    build(photos, tmp_path / "copy.h5", SMALL)
    if content == "link":
        partial.symlink_to("copy.h5")
    elif content == "folder":
        partial.mkdir()
    else:
        data = (tmp_path / "copy.h5").read_bytes() if content == "copy" else content
        assert isinstance(data, bytes)
        partial.write_bytes(data)
    before = partial.lstat()
    for more in ((), ("--restart", "--overwrite")):
        done = run("build", photos, "out.h5", *OPTIONS, *more)
        assert done.returncode == 1, done.stdout
        assert "out.h5.partial is not the unfinished file of a build" in done.stderr
        assert "rename that file, or name another target" in done.stderr
    assert os.path.samestat(before, partial.lstat())
    assert before.st_mtime_ns == partial.lstat().st_mtime_ns
    assert not (tmp_path / "out.h5").exists()
    assert not (tmp_path / "out.h5.partial.journal").exists()
