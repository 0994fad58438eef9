"""Stamps of files: numbers that show, without reading a file, that it did not change."""

from __future__ import annotations

import os
import sys

UNKNOWN = 0
"""The stamp of a file that must be read to see whether it changed."""

_MOST = (1 << 64) - 1

SETTLED_NS = 60 * 10**9
"""A file that changed within a minute before it was read has no stamp.

It could change again and keep its times: Git calls such files racily clean
(https://git-scm.com/docs/racy-git). Clocks of file systems have steps of up to 2 s (FAT), the clock
of a server may be behind, writes through mmap set the time once until the page is on the disk, and
what is not on the disk yet may be lost with the power.
"""


def file_stamp(status: os.stat_result, *place: int) -> int:
    """Return the stamp of a file: it differs once the file is changed or replaced.

    Made of size, mtime, ctime and inode. Programs can set back the mtime, not the ctime; Windows
    has the time of creation there, and some file systems have no inodes: no stamp then.

    Parameters
    ----------
    *place : int
        Where the file is in an archive, whose status it is.
    """
    if sys.platform == "win32" or not (status.st_ino and status.st_ctime_ns):
        return UNKNOWN
    numbers = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, *place)
    return hash(numbers) & _MOST  # of numbers, it is the same in every process


def settled_stamp(status: os.stat_result, read_ns: int, *place: int) -> int:
    """Return the stamp of a file that is being read; unknown if it changed shortly before.

    Parameters
    ----------
    status : stat_result
        From before the first byte was read.
    read_ns : int
        The time of that.
    """
    if max(status.st_mtime_ns, status.st_ctime_ns) >= read_ns - SETTLED_NS:
        return UNKNOWN
    return file_stamp(status, *place)
