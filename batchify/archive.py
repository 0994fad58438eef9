"""An archive as a source: one file that stays open, whose members are read at their places."""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from batchify import durable, tars, zips
from batchify.errors import BadImageError, DatasetError, DatasetNotFoundError
from batchify.names import printable
from batchify.storage import SourceFile

Kind = Literal["zip", "tar"]

READ_MEMBER = {"zip": zips.read_member, "tar": tars.read_member}
_NBYTES_AT = {"zip": 2, "tar": 1}
"""Which number of an extent is the size of the member, unpacked."""

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | durable.O_BINARY


class Stamp(NamedTuple):
    """What tells a file from what it becomes when somebody changes or replaces it."""

    device: int
    inode: int
    nbytes: int
    mtime_ns: int


class ArchiveFile:
    """An archive that is open; read at any place, by any number of threads.

    Parameters
    ----------
    path : bytes

    Raises
    ------
    OSError
        If it cannot be opened.
    DatasetError
        If it is no plain file.
    """

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._fd = os.open(path, _FLAGS)
        self.close = weakref.finalize(self, os.close, self._fd)
        status = os.fstat(self._fd)
        self.stamp = _stamp(status)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise DatasetError(f"{printable(path)} is not a regular file any more")

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self.stamp.nbytes

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return exactly so many bytes at a place.

        Raises
        ------
        DatasetError
            If the file has none there.
        OSError
        """
        if offset < 0 or nbytes < 0 or offset + nbytes > self.nbytes:
            raise self.damaged("it ends too early")
        try:
            return durable.pread_all(self._fd, nbytes, offset)
        except OSError as error:
            self.check_same(self.stamp)
            reason = error.strerror or str(error)
            raise OSError(error.errno, reason, os.fsdecode(self._path)) from error

    def damaged(self, what: str) -> DatasetError:
        """Return the error of an archive that is not whole, and what to do."""
        return DatasetError(
            f"archive {printable(self._path)} is truncated or damaged: {what}; copy or download "
            "it again, or make it anew"
        )

    def refused(self, what: str) -> DatasetError:
        """Return the error of an archive that cannot be read in place, and what to do."""
        return DatasetError(f"archive {printable(self._path)} cannot be read in place: {what}")

    def check_same(self, stamp: Stamp) -> None:
        """Refuse an archive that is not what it was: what is where is not known any more.

        Raises
        ------
        DatasetError
        """
        if _stamp(os.fstat(self._fd)) != stamp:
            raise DatasetError(
                f"archive {printable(self._path)} changed while it was read; run the same command "
                "again when it is whole (what is decoded is kept)"
            )


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive of a dataset, as it was when it was listed.

    Parameters
    ----------
    path : bytes
        Absolute.
    kind : str
        ``zip`` or ``tar``.
    stamp : Stamp
    """

    path: bytes
    kind: Kind
    stamp: Stamp

    @property
    def name(self) -> bytes:
        """Its path."""
        return self.path

    def is_there(self) -> bool:
        """Tell whether it is still there."""
        return os.path.isfile(self.path)

    def open(self) -> ArchiveReader:
        """Return who reads its members.

        Raises
        ------
        DatasetNotFoundError, DatasetError
            If it is not there any more, or is another one.
        OSError
        """
        return ArchiveReader(self)


class ArchiveReader:
    """Reads the members of an archive; from several threads at once.

    Parameters
    ----------
    archive : Archive
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        try:
            self._file = ArchiveFile(archive.path)
        except FileNotFoundError as error:
            raise DatasetNotFoundError(
                f"archive {printable(archive.path)} vanished while it was read; what is decoded is "
                "kept: run the same command again when it is back"
            ) from error
        try:
            self._file.check_same(archive.stamp)
        except DatasetError:
            self._file.close()
            raise

    def fetch(
        self, files: Sequence[SourceFile], max_nbytes: int
    ) -> Iterator[bytes | BadImageError]:
        """Yield the content of each member, or why it cannot be had.

        Raises
        ------
        DatasetError
            If the archive is not the one that was listed any more.
        OSError
            If it cannot be read.
        """
        read_member = READ_MEMBER[self._archive.kind]
        for file in files:
            assert file.extent is not None
            content: bytes | BadImageError
            try:
                content = read_member(self._file, file.extent, max_nbytes)
            except BadImageError as error:
                content = error
            self._file.check_same(self._archive.stamp)
            yield content

    def nbytes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each member, as the archive says."""
        at = _NBYTES_AT[self._archive.kind]
        for file in files:
            assert file.extent is not None
            yield file.extent[at]

    def close(self) -> None:
        """Close the archive."""
        self._file.close()

    def __reduce__(self) -> tuple[type[ArchiveReader], tuple[Archive]]:
        return type(self), (self._archive,)
