"""Stamps: a number for what a file system tells about a file; none where that is not enough."""

from __future__ import annotations

import os
import sys

import pytest

from batchify.storage.stamps import SETTLED_NS, UNKNOWN, file_stamp, settled_stamp


def status(size: int = 9, mtime: int = 8, ctime: int = 7, inode: int = 6) -> os.stat_result:
    """Return a status with times in nanoseconds."""
    times = {"st_mtime_ns": mtime, "st_ctime_ns": ctime}
    return os.stat_result((0o100644, inode, 1, 1, 0, 0, size, 0, 0, 0), times)


@pytest.mark.skipif(sys.platform == "win32", reason="no stamps there")
def test_a_stamp_is_made_of_all_that_shows_a_change() -> None:
    """Size, both times, the inode, and the place in an archive."""
    found = {
        file_stamp(status()), file_stamp(status(size=1)), file_stamp(status(mtime=1)),
        file_stamp(status(ctime=1)), file_stamp(status(inode=1)), file_stamp(status(), 5),
    }  # fmt: skip
    assert len(found) == 6
    assert file_stamp(status()) == file_stamp(status())


def test_a_file_system_that_tells_too_little_gives_no_stamp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No inodes, no ctime, or Windows, where that is the time of creation."""
    assert file_stamp(status(inode=0)) == file_stamp(status(ctime=0)) == UNKNOWN
    monkeypatch.setattr(sys, "platform", "win32")
    assert file_stamp(status()) == UNKNOWN


@pytest.mark.skipif(sys.platform == "win32", reason="no stamps there")
@pytest.mark.parametrize("name", ["mtime", "ctime"])
def test_a_file_that_changed_just_before_it_was_read_has_no_stamp(name: str) -> None:
    """A minute is enough; a time in the future is not."""
    now = 10**18
    for age_ns, known in ((SETTLED_NS + 1, True), (SETTLED_NS, False), (0, False), (-9, False)):
        found = status(**{name: now - age_ns})
        assert (settled_stamp(found, now) == file_stamp(found)) == known
