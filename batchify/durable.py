"""The system calls that durable files need, with a fallback where a platform lacks one.

===================  =======================  ==================================================
call                 missing on               instead
===================  =======================  ==================================================
``posix_fallocate``  macOS, Windows           free space is compared before; blocks come later
``pwrite``           Windows                  seek and write, one thread at a time
``flock``            Windows                  ``msvcrt.locking`` of one byte
fsync of a folder    Windows                  nothing: NTFS journals a rename by itself
``F_FULLFSYNC``      Linux, Windows           ``fsync``, which flushes the device there
===================  =======================  ==================================================
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator

from batchify.errors import OutputIOError
from batchify.names import printable

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
    import resource

O_BINARY = getattr(os, "O_BINARY", 0)
_SEEKING = threading.Lock()
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fill_standard_files() -> None:
    """Open the null device in the place of a standard file that is closed.

    Otherwise the next file takes its number, and what a C library prints lands in it; in a worker
    process too, which opens files of its own before any code of ours runs.
    """
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)


@contextlib.contextmanager
def signals_blocked(*names: str) -> Iterator[None]:
    """Hold back signals, given by name; processes started within never see them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    numbers = [getattr(signal, name) for name in names]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def io_error(what: str, path: bytes, error: OSError) -> OutputIOError:
    """Return the error of a failed write: what, where and what to do."""
    advice = ""
    limit = file_size_limit()
    if error.errno == errno.EFBIG and limit is not None:
        advice = (
            f" (files of this process end at {limit:,} bytes, ulimit -f); raise the limit and run "
            "the command again"
        )
    elif error.errno in _NO_SPACE:
        missing = missing_nbytes(path)
        needed = f"{missing:,} bytes are still needed, " if missing else ""
        advice = (
            f" ({needed}{free_nbytes(path):,} bytes are free); make room and run the command again"
        )
    # HDF5 puts times, addresses and line breaks into its own messages.
    reason = os.strerror(error.errno) if error.errno else printable(str(error))
    return OutputIOError(f"{what} {printable(path)} failed: {reason}{advice}")


def free_nbytes(path: bytes) -> int:
    """Return the bytes that this user may still write on the file system of `path`'s folder."""
    return shutil.disk_usage(os.fsdecode(os.path.dirname(os.path.abspath(path)))).free


def missing_nbytes(path: bytes) -> int:
    """Return the bytes of a file that have no blocks yet; at least a block, for what comes next.

    0 where there is no such file, and on Windows, which does not tell.
    """
    try:
        status = os.stat(path)
    except OSError:
        return 0
    if sys.platform == "win32":
        return 0
    return max(status.st_size - 512 * status.st_blocks, status.st_blksize)


def file_size_limit() -> int | None:
    """Return the process' limit on the size of a file (``ulimit -f``), in bytes; None if none."""
    if sys.platform == "win32":
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def check_room(path: bytes, nbytes: int) -> None:
    """Refuse what cannot fit, before anything is written.

    Raises
    ------
    OutputIOError
        With the bytes needed and the bytes free.
    """
    limit = file_size_limit()
    if limit is not None and nbytes > limit:
        raise OutputIOError(
            f"{printable(path)} needs {nbytes:,} bytes, but files of this process end at "
            f"{limit:,} bytes (ulimit -f); raise the limit"
        )
    free = free_nbytes(path)
    if nbytes > free:
        raise OutputIOError(
            f"{printable(path)} needs {nbytes:,} bytes, but {free:,} are free; make room, or name "
            "a target on another disk"
        )


def reserve(fd: int, path: bytes, nbytes: int) -> None:
    """Reserve the blocks of a file's first `nbytes` bytes, so that later writes find room.

    Raises
    ------
    OutputIOError
        With the bytes needed and the bytes free, if there is no room.
    """
    if not hasattr(os, "posix_fallocate") or not nbytes:
        return
    try:
        os.posix_fallocate(fd, 0, nbytes)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return  # this file system cannot; a full disk shows when it is written
        raise OutputIOError(
            f"{printable(path)} needs {nbytes:,} bytes, but {free_nbytes(path):,} are free: "
            f"{error.strerror}; make room, or name a target on another disk"
        ) from error


def pwrite_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`; a short write is continued, an error is raised."""
    view = memoryview(data).cast("B")
    while len(view):
        if sys.platform == "win32":
            with _SEEKING:
                os.lseek(fd, offset, os.SEEK_SET)
                written = os.write(fd, view)
        else:
            written = os.pwrite(fd, view, offset)
        if written == 0:
            raise OSError(errno.EIO, "write of 0 bytes")
        offset += written
        view = view[written:]


def pread_all(fd: int, nbytes: int, offset: int) -> bytes:
    """Read exactly `nbytes` at `offset`.

    Raises
    ------
    OSError
        If the file ends before.
    """
    pieces = []
    while nbytes:
        if sys.platform == "win32":
            with _SEEKING:
                os.lseek(fd, offset, os.SEEK_SET)
                piece = os.read(fd, nbytes)
        else:
            piece = os.pread(fd, nbytes, offset)
        if not piece:
            raise OSError(errno.EIO, "file ends early")
        pieces.append(piece)
        offset += len(piece)
        nbytes -= len(piece)
    return b"".join(pieces)


def is_named(fd: int, path: bytes) -> bool:
    """Tell whether an open file is the one that a path names now."""
    try:
        named = os.lstat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)


def sync(fd: int) -> None:
    """Make a file's content durable; where the platform has a stronger call than fsync, that."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise  # these two: a file system that knows fsync alone
    os.fsync(fd)


def sync_folder(path: bytes) -> None:
    """Make the names in the folder of `path` durable."""
    if sys.platform == "win32":
        return
    fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise  # these: a file system that syncs no folders
    finally:
        os.close(fd)


def try_lock(fd: int) -> bool:
    """Take the exclusive lock of an open file, until it is closed or the process ends.

    Returns
    -------
    bool
        False if another process holds it.
    """
    try:
        if sys.platform == "win32":
            os.lseek(fd, 1 << 30, os.SEEK_SET)  # a byte past the content: a lock there bars no read
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def remove(path: bytes) -> None:
    """Remove a file that may be there.

    Raises
    ------
    OutputIOError
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise io_error("removing", path, error) from error
