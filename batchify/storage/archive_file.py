"""The open file of an archive, read at any offset while it does not change."""

from __future__ import annotations

import errno
import os
import stat
import weakref
from typing import NamedTuple

from batchify.common import durable
from batchify.common.text import printable
from batchify.errors import DatasetError, DatasetNotFoundError
from batchify.storage.outage import PATIENCE_S, is_outage, wait_out

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | durable.O_BINARY


class Stamp(NamedTuple):
    """The identity of a file, which differs once the file is changed or replaced."""

    device: int
    inode: int
    nbytes: int
    mtime_ns: int


class ArchiveFile:
    """An open archive, which any number of threads may read.

    Parameters
    ----------
    patience_s : float
        How long its drive, or the network mount, may fail.

    Attributes
    ----------
    path : bytes
        As it was given.

    Raises
    ------
    DatasetIOError
        If its drive fails longer than that.
    OSError
        If it cannot be opened.
    DatasetError
        If it is not a plain file.
    """

    def __init__(self, path: bytes, patience_s: float = PATIENCE_S) -> None:
        self.path = path
        self._patience_s = patience_s
        self._fd = wait_out(lambda: os.open(path, _FLAGS), path, patience_s)
        self.close = weakref.finalize(self, os.close, self._fd)
        self.status = self._status()
        self.stamp = _stamp(self.status)
        if not stat.S_ISREG(self.status.st_mode):
            self.close()
            raise DatasetError(f"{printable(path)} is not a regular file any more")

    def _status(self) -> os.stat_result:
        return wait_out(lambda: os.fstat(self._fd), self.path, self._patience_s)

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self.stamp.nbytes

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return exactly `nbytes` bytes at `offset`.

        Raises
        ------
        DatasetError
            If the file ends before.
        DatasetIOError
            If its drive fails.
        """
        if offset < 0 or nbytes < 0 or offset + nbytes > self.nbytes:
            raise self.damaged("it ends too early")
        try:
            return durable.pread_all(self._fd, nbytes, offset)
        except OSError as error:
            if not is_outage(error):
                raise
        return wait_out(lambda: self._read_again(offset, nbytes), self.path, self._patience_s)

    def _read_again(self, offset: int, nbytes: int) -> bytes:
        """Open the archive again and read: an open file does not outlive the mount that it is on.

        The new file takes the number of the old one, which other threads may be reading.
        """
        try:
            fd = os.open(self.path, _FLAGS)
        except FileNotFoundError as error:  # its mount is gone for now
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN)) from error
        try:
            os.dup2(fd, self._fd, inheritable=False)
        finally:
            os.close(fd)
        self.check_same(self.stamp)
        return durable.pread_all(self._fd, nbytes, offset)

    def damaged(self, what: str) -> DatasetError:
        """Return the error of an archive that is damaged, and what to do."""
        return DatasetError(
            f"archive {printable(self.path)} is truncated or damaged: {what}; copy or download "
            "it again, or create it again"
        )

    def refused(self, what: str) -> DatasetError:
        """Return the error of an archive that cannot be read in place, and what to do."""
        return DatasetError(f"archive {printable(self.path)} cannot be read in place: {what}")

    def check_same(self, stamp: Stamp) -> None:
        """Refuse an archive that changed since it was listed: offsets are no longer valid."""
        if _stamp(self._status()) != stamp:
            raise DatasetError(
                f"archive {printable(self.path)} changed while it was read; run the same command "
                "again when it is complete (decoded rows are kept)"
            )


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def reopen(path: bytes, stamp: Stamp, patience_s: float) -> ArchiveFile:
    """Open an archive again, as it was when it was listed.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If it no longer exists, or was replaced.
    """
    try:
        file = ArchiveFile(path, patience_s)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(
            f"archive {printable(path)} vanished while it was read; what is decoded is kept: run "
            "the same command again when it is there"
        ) from error
    try:
        file.check_same(stamp)
    except DatasetError:
        file.close()
        raise
    return file
