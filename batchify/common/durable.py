"""Durable files: write, sync, lock, reserve space, write atomically.

===================  =======================  ==================================================
call                 missing on               instead
===================  =======================  ==================================================
``fallocate``        macOS, Windows           free space is checked first; not reserved
``pwrite``           Windows                  seek and write, one thread at a time
``flock``            Windows                  ``msvcrt.locking`` of one byte
fsync of a folder    Windows                  nothing: NTFS journals renames
``F_FULLFSYNC``      Linux, Windows           ``fsync``, which flushes the device there
===================  =======================  ==================================================

Some file systems (NFS, Lustre, FUSE, network shares) lack calls that the system has:

===================  ===========================================================================
``flock``            `batchify.common.lock_file.LockFile`
``fsync``            nothing: the file system decides when data are durable
``fallocate``        as where it is missing
===================  ===========================================================================
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import threading
import zlib

from batchify.common.text import printable
from batchify.errors import OptionError, OutputIOError, OutputPathError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
    import resource


O_BINARY = getattr(os, "O_BINARY", 0)
_SEEKING = threading.Lock()
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LACKING = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What a call answers that a file system does not have."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


def io_error(what: str, path: bytes, error: OSError) -> OutputIOError:
    """Return the error of a failed write: what, where and what to do."""
    advice = ""
    limit = file_size_limit()
    if error.errno == errno.EFBIG and limit is not None:
        advice = (
            f" (the limit for files of this process is {limit:,} bytes, ulimit -f); raise "
            "the limit and run the command again"
        )
    elif error.errno in _NO_SPACE:
        missing = missing_nbytes(path)
        needed = f"{missing:,} bytes are still needed, " if missing else ""
        free = f"{free_nbytes(path):,} bytes are free"
        advice = f" ({needed}{free}); free some space and run the command again"
    # HDF5 puts times, addresses and line breaks into its own messages.
    reason = os.strerror(error.errno) if error.errno else printable(str(error))
    return OutputIOError(f"{what} {printable(path)} failed: {reason}{advice}")


def free_nbytes(path: bytes) -> int:
    """Return the bytes that this user may still write on the file system of `path`'s folder."""
    return shutil.disk_usage(os.fsdecode(os.path.dirname(os.path.abspath(path)))).free


def missing_nbytes(path: bytes) -> int:
    """Return the bytes of a file that have no blocks yet; at least a block, for what comes next.

    0 if there is no such file, and on Windows, which does not report it.
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
    """Check that a file fits on its disk, before anything is written.

    Raises
    ------
    OutputIOError
        With the bytes needed and the bytes free.
    """
    limit = file_size_limit()
    if limit is not None and nbytes > limit:
        raise OutputIOError(
            f"{printable(path)} needs {nbytes:,} bytes, but the limit for files of this process is "
            f"{limit:,} bytes (ulimit -f); raise the limit"
        )
    free = free_nbytes(path)
    if nbytes > free:
        raise OutputIOError(
            f"{printable(path)} needs {nbytes:,} bytes, but {free:,} are free; make room, or name "
            "a target on another disk"
        )


def fallocate(fd: int, nbytes: int) -> None:
    """Reserve the blocks of a file's first `nbytes` bytes by the call of the kernel.

    Where a file system lacks it, glibc's ``posix_fallocate`` reads and writes a byte of each block:
    that writes the file twice, and transfers it three times over a network.
    """
    if sys.platform != "linux":
        os.posix_fallocate(fd, 0, nbytes)
        return
    import ctypes  # rarely needed

    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "fallocate64", None) or libc.fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while call(fd, 0, 0, nbytes):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def reserve(fd: int, path: bytes, nbytes: int) -> bool:
    """Reserve the blocks of a file's first `nbytes` bytes for later writes.

    Returns
    -------
    bool
        False if the file system cannot: a full disk shows when it is written.

    Raises
    ------
    OutputIOError
        With the bytes needed and the bytes free, if there is not enough space.
    """
    if not hasattr(os, "posix_fallocate") or not nbytes:
        return True
    try:
        fallocate(fd, nbytes)
    except OSError as error:
        if error.errno in _LACKING:
            return False
        raise OutputIOError(
            f"{printable(path)} needs {nbytes:,} bytes, but {free_nbytes(path):,} are free: "
            f"{error.strerror}; make room, or name a target on another disk"
        ) from error
    return True


def pwrite_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`; continue after a short write, raise errors."""
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
        If the file is shorter.
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
    """Return whether an open file is the one that a path names now."""
    try:
        named = os.lstat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)


def sync(fd: int) -> bool:
    """Make a file's content durable, by a stronger call than fsync if the platform has one.

    Returns
    -------
    bool
        False if the file system has no such call, and decides by itself when data are durable.
    """
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return True
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise  # these two: a file system that only supports fsync
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        return False
    return True


def sync_folder(path: bytes) -> None:
    """Make the names in the folder of `path` durable."""
    if sys.platform == "win32":
        return
    fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (*_LACKING, errno.EBADF):
            raise  # these: a file system that cannot sync folders
    finally:
        os.close(fd)


def try_lock(fd: int, *, shared: bool = False) -> bool | None:
    """Take the exclusive lock of an open file, until it is closed or the process ends.

    Parameters
    ----------
    shared : bool
        Take a lock that others may share, instead. Windows has none that leaves the file readable;
        an open file cannot be removed there.

    Returns
    -------
    bool or None
        False if another process holds it; None if the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            if not shared:  # a byte past the content: a lock there does not block reads
                os.lseek(fd, 1 << 30, os.SEEK_SET)
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def remove(path: bytes) -> None:
    """Remove a file, if it exists."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise io_error("removing", path, error) from error


def check_output_path(
    path: str | bytes | os.PathLike[str],
    suffixes: tuple[str, ...],
    source: str | bytes | os.PathLike[str],
) -> bytes:
    """Check that a picture or page can be written to a path, before any work.

    Parameters
    ----------
    suffixes : tuple of str
        Allowed endings of its name, lower case, with the dot.
    source : path
        The file that it is made from, which it must not replace.

    Returns
    -------
    bytes
        The path to write to: absolute, links followed.

    Raises
    ------
    OptionError
        If its name ends otherwise.
    OutputPathError
        If it is not a regular file, is the source, or its folder is missing.
    OutputIOError
        If its folder cannot be written.
    """
    from batchify.common.paths import is_url, shown_url  # a worker needs no urllib

    name, target = printable(os.fsencode(path)), os.path.realpath(os.fsencode(path))
    if not os.fsdecode(path).lower().endswith(suffixes):
        raise OptionError(f"{name} must end with {' or '.join(suffixes)}")
    folder = os.path.dirname(target)
    if is_url(path):
        raise OutputPathError(f"{shown_url(os.fsdecode(path))} is a URL; name a file")
    if os.path.isdir(target):
        raise OutputPathError(f"{name} is a folder; name a file in it")
    if not os.path.isdir(folder):
        raise OutputPathError(f"{name}: there is no folder {printable(folder)}; make it")
    if os.path.lexists(target):
        if not os.path.isfile(target):
            raise OutputPathError(f"{name} is not a regular file; it is not replaced")
        if os.path.exists(source) and os.path.samefile(target, source):
            raise OutputPathError(f"{name} is the file to read; name another")
    if not os.access(folder, os.W_OK):
        raise OutputIOError(f"{name}: no permission to write in {printable(folder)}")
    return target


def write_atomically(target: bytes, data: bytes) -> None:
    """Write a file under a temporary name next to `target`, then rename it over `target`.

    Parameters
    ----------
    target : bytes
        As `check_output_path` returned it.
    """
    folder, name = os.path.split(target)
    mark = b".batchify-%d-%08x.partial" % (os.getpid(), zlib.crc32(name))
    beside = os.path.join(folder, mark)
    remove(beside)
    try:
        try:
            with open(beside, "xb") as file:
                file.write(data)
                file.flush()
                sync(file.fileno())
            os.replace(beside, target)
            sync_folder(target)
        finally:
            with contextlib.suppress(OSError):  # does not exist after success
                os.unlink(beside)
    except OSError as error:
        raise io_error("writing", target, error) from error
