"""Reading a source file: regular files only, never blocking, never half changed."""

from __future__ import annotations

import errno
import os
import stat

from batchify.errors import BadImageError

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO swapped in after the walk must not block
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)

_READ_NBYTES = 1 << 30  # macOS and Windows refuse more than 2 GiB in one call


_OURS = (errno.EMFILE, errno.ENFILE)
"""This process has too many files open: no fault of an image."""


class _ChangedError(OSError):
    """The file changed between the two looks at it."""


def read_source(path: bytes, max_nbytes: int) -> bytes:
    """Return the whole content of a regular file.

    A file that changes, vanishes or fails while it is read is tried once more.

    Raises
    ------
    BadImageError
        With the reason, if it cannot be read whole.
    OSError
        If this process, or the system, has too many files open.
    """
    try:
        return _read_once(path, max_nbytes)
    except OSError as error:
        if error.errno in _OURS:
            raise
    try:
        return _read_once(path, max_nbytes)
    except OSError as error:
        raise BadImageError(f"cannot be read: {error.strerror or error}") from error


def _read_once(path: bytes, max_nbytes: int) -> bytes:
    fd = os.open(path, _FLAGS)
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise BadImageError("not a regular file")
        size = before.st_size
        if size > max_nbytes:
            raise BadImageError(f"file of {size:,} bytes is larger than {max_nbytes:,}")
        data = _read_at_most(fd, size + 1)
        after = os.fstat(fd)
        if len(data) != size or after.st_mtime_ns != before.st_mtime_ns:
            raise _ChangedError("it changes while it is read")
        if not size:
            raise BadImageError("empty file (0 bytes)")
        return data
    finally:
        os.close(fd)


def _read_at_most(fd: int, nbytes: int) -> bytes:
    data = os.read(fd, min(nbytes, _READ_NBYTES))
    if not data or len(data) == nbytes:
        return data
    pieces = [data]
    nbytes -= len(data)
    while nbytes and (data := os.read(fd, min(nbytes, _READ_NBYTES))):
        pieces.append(data)
        nbytes -= len(data)
    return b"".join(pieces) if len(pieces) > 1 else pieces[0]
