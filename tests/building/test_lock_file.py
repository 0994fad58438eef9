"""The lock of a target on a file system without file locks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.drawing import draw_dataset
from helpers.running import Run

import batchify
from batchify.building.build import build
from batchify.building.journal import Journal
from batchify.common import lock_file
from batchify.common.lock_file import LockFile
from batchify.errors import OutputIOError, OutputLockedError

if sys.platform == "win32":
    pytest.skip("Windows locks a byte of the journal", allow_module_level=True)


@pytest.fixture(autouse=True)
def _no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer as NFS does without a lock daemon."""

    def flock(_fd: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr(lock_file, "_TRY_S", 0.001)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Return the path of the lock file of ``out.h5``."""
    return tmp_path / "out.h5.partial.journal.lock"


@pytest.fixture
def dead() -> Iterator[int]:
    """Return the number of a process that has ended; on Linux, nobody waited for it: a zombie."""
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        if sys.platform != "linux":
            process.wait()
        yield process.pid


def write(path: Path, **changes: Any) -> None:
    """Write the lock file of this process, with changes."""
    mine = LockFile(os.fsencode(path) + b".mine")
    holder = json.loads((path.parent / (path.name + ".mine")).read_bytes())
    mine.release()
    path.write_text(json.dumps({**holder, **changes}))


def test_two_builds_exclude_each_other(run: Run, tmp_path: Path, lock: Path) -> None:
    """The second says who holds the target, and ends with exit code 5; the first is unharmed."""
    root = draw_dataset(tmp_path / "data", {"cat": 3, "dog": 3})
    with Journal(os.fsencode(tmp_path / "out.h5.partial.journal")) as journal:
        assert lock.exists()
        done = run("build", root, "out.h5")
        assert done.returncode == 5
        expected = f"process {os.getpid()} on {os.uname().nodename} holds {lock}; wait for it"
        assert expected in done.stderr
        assert journal.is_named
        journal.remove()
    assert os.listdir(tmp_path) == ["data"]


def test_the_lock_of_a_killed_build_is_taken_over_and_said(
    run: Run, tmp_path: Path, lock: Path, dead: int
) -> None:
    """Also that of a process from before a reboot, or whose number another process has now."""
    root = draw_dataset(tmp_path / "data", {"cat": 3, "dog": 3})
    for stale in ({"pid": dead}, {"boot": "another"}, {"started": "1"}, {"pid": 1 << 30}):
        write(lock, **stale)
        done = run("build", root, "out.h5")
        assert done.returncode == 0, done.stderr
        assert "out.h5.partial.journal.lock was left by process" in done.stdout
        assert "has no file locks" in done.stdout
        assert sorted(os.listdir(tmp_path)) == ["data", "out.h5"]


def test_a_lock_that_may_be_held_is_never_taken_over(tmp_path: Path, lock: Path) -> None:
    """One of another machine or container, and one that does not say whose it is."""
    for held in ({"host": "elsewhere", "boot": "x"}, {"processes": "pid:[1]", "pid": 1 << 30}):
        write(lock, **held)
        with pytest.raises(OutputLockedError, match=r"remove that file, if you know that"):
            LockFile(os.fsencode(lock))
    contents = [b"", b"{", b"[1]", b'{"pid": 1}']
    for wrong in ({"pid": "1"}, {"pid": -1}, {"pid": 1 << 40}, {"token": "/../../x"}, {"token": 1}):
        write(lock, boot="another", **wrong)
        contents.append(lock.read_bytes())
    for content in contents:
        lock.write_bytes(content)
        with pytest.raises(OutputLockedError, match="does not say which; if none is, remove"):
            LockFile(os.fsencode(lock))
        assert lock.read_bytes() == content
    assert os.listdir(tmp_path) == [lock.name]


def test_of_two_that_find_a_stale_lock_one_takes_it(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is later, even between any two steps of the other, finds it held."""
    path = os.fsencode(lock)
    steps = ("_create", "_read", "replace")
    for step in steps:
        for call in range(4):
            write(lock, pid=1 << 30)
            held: list[LockFile] = []
            _call_before(monkeypatch, step, call, lambda held=held: held.append(_taken(path)))
            mine = _taken(path)
            monkeypatch.undo()
            taken = [each for each in (mine, *held) if each is not None]
            assert len(taken) == 1, (step, call)
            taken[0].release()
            assert os.listdir(tmp_path) == [], (step, call)


def _taken(path: bytes) -> LockFile | None:
    """Return the lock, or None if another holds it."""
    try:
        return LockFile(path)
    except OutputLockedError:
        return None


def _call_before(monkeypatch: pytest.MonkeyPatch, step: str, at: int, what: Any) -> None:
    """Do something before a certain call of a step of taking a lock."""
    owner: Any = {"_create": LockFile, "_read": lock_file, "replace": os}[step]
    real, calls = getattr(owner, step), []

    def call(*arguments: Any) -> Any:
        calls.append(step)
        if len(calls) == at + 1:
            what()
        return real(*arguments)

    monkeypatch.setattr(owner, step, call)


def test_a_lock_file_that_cannot_be_made_is_an_error_of_the_output(tmp_path: Path) -> None:
    """With the path and the reason."""
    with pytest.raises(OutputIOError, match=r"locking .*/gone/lock failed: No such file"):
        LockFile(os.fsencode(tmp_path / "gone" / "lock"))


def test_a_full_disk_leaves_no_lock(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty one would keep all later builds away."""

    def full(_fd: int, _data: bytes, _offset: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("batchify.common.durable.pwrite_all", full)
    with pytest.raises(OutputIOError, match=r"locking .* failed: No space left"):
        LockFile(os.fsencode(lock))
    assert os.listdir(tmp_path) == []


def test_a_build_with_locks_heeds_the_lock_file_of_one_without(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock daemon may come back, and machines may mount a file system in different ways."""
    root = draw_dataset(tmp_path / "data", {"cat": 3, "dog": 3})
    write(lock)
    monkeypatch.undo()
    with pytest.raises(OutputLockedError, match="holds"):
        build(root, tmp_path / "out.h5")
    write(lock, pid=1 << 30)
    made = build(root, tmp_path / "out.h5")
    assert "stale-lock" in [warning.code for warning in made.warnings]


def test_a_merge_says_whose_lock_it_took_over(tmp_path: Path, lock: Path) -> None:
    """As a build does, in the report, its lines and its JSON."""
    root = draw_dataset(tmp_path / "data", {"cat": 3, "dog": 3})
    made = batchify.build_shards(root, tmp_path / "s", shards=2, target_size=(8, 8))
    assert [warning.code for warning in made.warnings].count("no-locks") == 1
    write(lock, pid=1 << 30)
    with pytest.warns(batchify.BatchifyWarning, match="was left by process"):
        merged = batchify.merge(tmp_path / "s", tmp_path / "out.h5")
    assert [warning.code for warning in merged.warnings] == ["no-locks", "stale-lock"]
    assert "warning: " in str(merged)
    assert merged.as_json()["warnings"][1]["code"] == "stale-lock"
