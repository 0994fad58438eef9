"""The work file and its journal: locked, allocated whole, committed in records that check."""

from __future__ import annotations

import base64
import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchify.building.fill import FilledRows
from batchify.building.journal import Journal, header
from batchify.building.target import Target
from batchify.building.workfile import COMMIT_NBYTES, WorkFile
from batchify.common import durable
from batchify.errors import OutputIOError, OutputLockedError, ResumeError, Skipped
from batchify.format.rows import RowWriter
from batchify.format.schema import RowOffsets
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions
from batchify.planning.planner import plan_build

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """Return a target that is not there yet."""
    return Target(os.fsencode(tmp_path / "out.h5"), overwrite=False)


def records(path: bytes) -> list[dict[str, Any]]:
    """Return the records of a journal that nobody holds, or that this process does."""
    return [json.loads(line[9:]) for line in Path(os.fsdecode(path)).read_bytes().splitlines()]


def test_the_journal_holds_what_was_committed(photos: Path, target: Target) -> None:
    """The plan first, then the rows, neighbours joined, those whose file failed, and stamps."""
    plan = plan_build(photos, SMALL)
    with WorkFile(target) as work:
        work.allocate(plan)
        work.record(FilledRows("train", 0, 4, ((2, Skipped(b"a\xff", "why")),)))
        work.record(FilledRows("train", 4, 8, (), stamps=(0, 1, 2**64 - 1, 3)))
        work.record(FilledRows("validation", 0, 3, ()))
        work.commit()
        work.commit()
    first, second = records(work.journal.path)
    assert first == header(plan)
    assert first["plan"] == plan.identity
    assert [row[:3] for row in second["rows"]] == [["train", 0, 8], ["validation", 0, 3]]
    assert all(0 <= row[3] < 2**32 for row in second["rows"])
    assert second["bad"] == [["train", 2]]
    stamps = [np.frombuffer(base64.b64decode(text), "<u8").tolist() for text in second["stamps"]]
    assert stamps == [[0, 0, 0, 0, 0, 1, 2**64 - 1, 3], []]


def test_rows_are_committed_every_64_mib(
    photos: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after every batch, and not only at the end; here after eight rows."""
    assert COMMIT_NBYTES == 64 << 20
    plan = plan_build(photos, SMALL)
    with WorkFile(target) as work:
        work.allocate(plan)
        monkeypatch.setattr("batchify.building.workfile.COMMIT_NBYTES", 8 * plan.row_nbytes)
        work.record(FilledRows("train", 0, 5, ()))
        assert len(records(work.journal.path)) == 1
        work.record(FilledRows("train", 5, 8, ()))
        assert len(records(work.journal.path)) == 2


def committed_thrice(photos: Path, target: Target) -> Path:
    """Leave a work file with three commits; return its journal."""
    with WorkFile(target) as work:
        work.allocate(plan_build(photos, SMALL))
        for start in range(3):
            work.record(FilledRows("train", start, start + 1, ()))
            work.commit()
    return Path(os.fsdecode(work.journal.path))


def test_a_torn_record_is_cut_off(photos: Path, target: Target) -> None:
    """A last record that is cut short was not durable: those before it count; more can follow."""
    path = committed_thrice(photos, target)
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(len(whole) - last, len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(os.fsencode(path)) as journal:
            assert len(journal.records()) == 3
            journal.append({"rows": []})
            assert len(journal.records()) == 4


def test_a_damaged_record_is_said(photos: Path, target: Target) -> None:
    """One before the last is not torn but damaged: nothing after it can be believed."""
    path = committed_thrice(photos, target)
    path.write_bytes(path.read_bytes().replace(b'train",0', b'trein",0'))
    with (
        Journal(os.fsencode(path)) as journal,
        pytest.raises(ResumeError, match=r"record 2 of 4 in .* is damaged"),
    ):
        journal.records()


def test_a_record_is_a_checksum_and_json(target: Target) -> None:
    """So that other tools can read it."""
    with Journal(target.path + b".journal") as journal:
        journal.begin({"plan": "abc"})
    line = Path(os.fsdecode(target.path + b".journal")).read_bytes()
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    assert int(checksum, 16) == zlib.crc32(text)
    assert json.loads(text) == {"plan": "abc"}


def test_the_lock_is_held_once(target: Target) -> None:
    """Within a process, too; closing releases it."""
    with WorkFile(target), pytest.raises(OutputLockedError) as caught:
        WorkFile(target)
    assert caught.value.exit_code == 5
    WorkFile(target).discard()
    assert not os.path.exists(target.path + b".partial.journal")


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")
def test_a_signal_while_a_target_is_opened_loses_no_journal(
    photos: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next build continues with the rows that it lists; an empty one is removed."""
    with WorkFile(target) as work:
        work.allocate(plan_build(photos, SMALL))
        work.record(FilledRows("train", 0, 4, ()))
        work.commit()
    before = records(work.journal.path)

    def interrupted(_work: WorkFile) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(WorkFile, "_check_ours", interrupted)
    for expected in (True, False):
        with pytest.raises(KeyboardInterrupt):
            WorkFile(target)
        assert os.path.exists(work.journal.path) == expected
        if expected:
            assert records(work.journal.path) == before
            os.truncate(work.journal.path, 0)
    monkeypatch.undo()
    os.unlink(work.path)
    WorkFile(target).close()  # the lock was released


def test_a_journal_that_was_removed_meanwhile_is_made_anew(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on a file that has no name any more protects nothing: the inode is checked again."""
    path = target.path + b".partial.journal"
    real_lock, calls = durable.try_lock, []

    def lock_late(fd: int) -> bool | None:
        calls.append(fd)
        if len(calls) == 1:
            os.unlink(path)  # the holder before finished between our open and our lock
        return real_lock(fd)

    monkeypatch.setattr(durable, "try_lock", lock_late)
    with Journal(path):
        assert len(calls) == 2
        assert os.path.exists(path)


def test_blocks_are_reserved(photos: Path, target: Target) -> None:
    """After allocation the file has its blocks, so that a later write finds room."""
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("no posix_fallocate on this platform")
    with WorkFile(target) as work:
        plan = plan_build(photos, BuildOptions())
        work.allocate(plan)
        status = os.stat(work.path)
        assert status.st_size == plan.nbytes
        assert status.st_blocks * 512 >= plan.nbytes


def test_no_room_is_said_with_what_to_do(
    photos: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reservation that fails (a quota, a disk that filled up meanwhile) ends before a decode."""
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("no posix_fallocate on this platform")

    def full(_fd: int, _nbytes: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "fallocate", full)
    with WorkFile(target) as work:
        with pytest.raises(OutputIOError, match=r"needs .* bytes, but .* are free: No space left"):
            work.allocate(plan_build(photos, SMALL))
        work.discard()


def test_a_file_system_without_reservation_is_taken_as_it_is(
    photos: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EOPNOTSUPP is no error: the documented fallback."""

    def unsupported(_fd: int, _nbytes: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(durable, "fallocate", unsupported)
    with WorkFile(target) as work:
        work.allocate(plan_build(photos, SMALL))


def test_rows_go_where_they_belong(tmp_path: Path) -> None:
    """Over runs of chunks that do not lie side by side, and through short writes."""
    path = os.fsencode(tmp_path / "rows")
    Path(os.fsdecode(path)).write_bytes(bytes(100))
    where = RowOffsets(2, (0, 3, 5), (40, 10, 80))
    assert list(where.extents(1, 7)) == [(42, 1, 3), (10, 3, 5), (80, 5, 7)]
    writer = RowWriter(path, {"train/x": where})
    rows = np.arange(12, dtype=np.uint8).reshape(6, 2)
    writer.put("train", 1, {"x": rows})
    assert writer.get("train", "x", 1, 7) == rows.tobytes()
    writer.close()
    data = Path(os.fsdecode(path)).read_bytes()
    assert (data[42:46], data[10:14], data[80:84]) == (
        bytes([0, 1, 2, 3]), bytes([4, 5, 6, 7]), bytes([8, 9, 10, 11]),
    )  # fmt: skip


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little the kernel takes; a write of nothing is an error, not a loop."""
    if sys.platform == "win32":
        pytest.skip("no pwrite there")
    real_pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real_pwrite(fd, data[:3], at))
    fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    durable.pwrite_all(fd, b"0123456789", 5)
    assert durable.pread_all(fd, 10, 5) == b"0123456789"
    with pytest.raises(OSError, match="file ends early"):
        durable.pread_all(fd, 11, 5)
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(OSError, match="write of 0 bytes"):
        durable.pwrite_all(fd, b"x", 0)
    os.close(fd)
