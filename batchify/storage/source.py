"""Read a dataset's files: the protocols of a source, and the source for a local folder."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, Protocol

from batchify.errors import BadImageError, DatasetError, DatasetIOError
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.storage.outage import PATIENCE_S, wait_out
from batchify.storage.stamps import UNKNOWN, file_stamp, settled_stamp

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO swapped in after the walk must not block
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
_READ_NBYTES = 1 << 30  # macOS and Windows refuse more than 2 GiB in one call

_OURS = (errno.EMFILE, errno.ENFILE)
"""This process has too many files open: not the fault of an image."""


class ChangedError(OSError):
    """The file changed while it was read."""


def read_file(path: bytes, max_nbytes: int, patience_s: float = PATIENCE_S) -> tuple[bytes, int]:
    """Read a regular file in full: never blocking, never a mix of two versions.

    If a file changes, vanishes or fails while it is read, retry once.

    Parameters
    ----------
    patience_s : float
        How long its drive, or the network mount, may fail.

    Returns
    -------
    bytes, int
        Its content and its stamp (`batchify.storage.stamps`).

    Raises
    ------
    BadImageError
        With the reason, if it cannot be read in full.
    DatasetIOError
        If its drive fails longer than that.
    OSError
        If this process, or the system, has too many files open.
    """
    try:
        return _read_once(path, max_nbytes)
    except OSError as error:
        if error.errno in _OURS:
            raise
    try:
        return wait_out(lambda: _read_once(path, max_nbytes), path, patience_s)
    except DatasetIOError:
        raise
    except OSError as error:
        if error.errno in _OURS:
            raise
        raise BadImageError(f"cannot be read: {error.strerror or error}") from error


def patience(timeout_s: float) -> float:
    """Return how long reading a file may wait, so that its worker does not count as hung."""
    return min(PATIENCE_S, timeout_s / 2)


def _read_once(path: bytes, max_nbytes: int) -> tuple[bytes, int]:
    fd = os.open(path, _FLAGS)
    try:
        read_ns = time.time_ns()
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise BadImageError("not a regular file")
        size = before.st_size
        if size > max_nbytes:
            raise BadImageError(f"file of {size:,} bytes is larger than {max_nbytes:,}")
        data = _read(fd, size)
        after = os.fstat(fd)
        if not len(data) == size == after.st_size or after.st_mtime_ns != before.st_mtime_ns:
            raise ChangedError("it changes while it is read")
        if not size:
            raise BadImageError("empty file (0 bytes)")
        return data, settled_stamp(before, read_ns)
    finally:
        os.close(fd)


def _read(fd: int, nbytes: int) -> bytes:
    """Return the `nbytes` bytes of a file: fewer if it ends early, perhaps one more if it grew."""
    pieces = [os.read(fd, min(nbytes + 1, _READ_NBYTES))]
    missing = nbytes - len(pieces[0])
    while missing > 0 and pieces[-1]:
        pieces.append(os.read(fd, min(missing, _READ_NBYTES)))
        missing -= len(pieces[-1])
    return b"".join(pieces) if len(pieces) > 1 else pieces[0]


Extent = tuple[int, ...]
"""Position of a file, as numbers that its source understands."""


class SourceFile(NamedTuple):
    """A file of a dataset.

    Parameters
    ----------
    path : bytes
        Relative to the dataset, "/" separated.
    extent : tuple of int, or None
        Its position, for a source that needs more than the path.
    """

    path: bytes
    extent: Extent | None = None


class FileReader(Protocol):
    """A reader of a source's files, for the process that opened it."""

    def read_files(
        self, files: Sequence[SourceFile], max_nbytes: int
    ) -> Iterator[bytes | BadImageError]:
        """Yield the content of each file, in order, or why it cannot be read.

        Parameters
        ----------
        max_nbytes : int
            A file that is larger is not read.

        Raises
        ------
        OSError
            For failures that are not the fault of a file.
        """
        ...

    def file_sizes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each file, in order, without reading it; 0 if it is not known."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class StampedReader(FileReader, Protocol):
    """A reader that tells whether files changed since they were read."""

    @property
    def stamp(self) -> int:
        """The stamp of the file whose content was yielded last, from before it was read."""
        ...

    def stamps(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the stamp that each file has now, in order, without reading it."""
        ...


class Source(Protocol):
    """Where a dataset's files come from. Picklable; its size does not grow with the dataset."""

    @property
    def location(self) -> bytes:
        """The path or URL, for messages."""
        ...

    def exists(self) -> bool:
        """Return whether the dataset still exists."""
        ...

    def below(self, name: bytes) -> Source:
        """Return the source of a folder of the dataset, for paths relative to it."""
        ...

    def open_reader(self) -> StampedReader:
        """Return a reader of its files, for the calling process."""
        ...


class ReadAhead:
    """A reader that serves one task's files batch by batch from a single prefetching read.

    A reader that reads ahead would otherwise stop and start at every batch.
    """

    def __init__(self, reader: FileReader) -> None:
        self._reader = reader
        self._contents: Iterator[bytes | BadImageError] = iter(())

    def begin(self, files: Sequence[SourceFile], max_nbytes: int) -> None:
        """Start reading the files of a task; they are then asked for in this order."""
        self._contents = self._reader.read_files(files, max_nbytes)

    def read_files(
        self,
        files: Sequence[SourceFile],
        max_nbytes: int,  # noqa: ARG002 - that of the run
    ) -> Iterator[bytes | BadImageError]:
        """Yield the content of the next files of the task, or why it cannot be read."""
        return islice(self._contents, len(files))

    def file_sizes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each file."""
        return self._reader.file_sizes(files)

    def close(self) -> None:
        """Close what is open."""
        self._contents = iter(())
        self._reader.close()


def is_folder_at(path: bytes) -> bool:
    """Return whether a path is that of a folder.

    Raises
    ------
    DatasetIOError
        If its drive fails: the folder may be there.
    """
    try:
        return stat.S_ISDIR(wait_out(lambda: os.stat(path), path).st_mode)
    except DatasetIOError:
        raise
    except (OSError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A dataset folder.

    Parameters
    ----------
    root : bytes
        Absolute.
    timeout_s : float
        The image timeout: a drive that fails must be detected before the worker counts as hung.
    """

    root: bytes
    timeout_s: float = IMAGE_TIMEOUT_S

    @property
    def location(self) -> bytes:
        """The path of the folder."""
        return self.root

    def below(self, name: bytes) -> FolderSource:
        """Return the source of a folder in the folder."""
        return replace(self, root=os.path.join(self.root, name))

    def exists(self) -> bool:
        """Return whether the dataset still exists."""
        return is_folder_at(self.root)

    def open_reader(self) -> FolderReader:
        """Return a reader of its files."""
        return FolderReader(self.root, patience(self.timeout_s))


class FolderReader:
    """A reader of a folder's files; it does not read ahead."""

    def __init__(self, root: bytes, patience_s: float) -> None:
        self._root = os.path.join(root, b"")
        self._patience_s = patience_s
        self.stamp = UNKNOWN

    def read_files(
        self, files: Sequence[SourceFile], max_nbytes: int
    ) -> Iterator[bytes | BadImageError]:
        """Yield the content of each file, or why it cannot be read."""
        for file in files:
            content: bytes | BadImageError
            try:
                content, self.stamp = read_file(
                    self._root + file.path, max_nbytes, self._patience_s
                )
            except BadImageError as error:
                content, self.stamp = error, UNKNOWN
            yield content

    def file_sizes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each file, from the file system."""
        for file in files:
            try:
                yield os.stat(self._root + file.path).st_size
            except OSError:
                yield 0  # the reason is reported when it is read

    def stamps(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the stamp of each file.

        It is opened: without that, NFS may tell the status of a minute ago.
        """
        for file in files:
            try:
                fd = os.open(self._root + file.path, _FLAGS)
            except OSError:
                yield UNKNOWN  # the reason is reported when it is read
                continue
            try:
                stamp = file_stamp(os.fstat(fd))
            except OSError:
                stamp = UNKNOWN
            finally:
                os.close(fd)
            yield stamp

    def close(self) -> None:
        """Nothing is open."""


LINK = "link in an archive"
HARD_LINK = "hard link in an archive"
SPARSE = "sparse file in an archive"

KINDS = {
    stat.S_IFLNK: LINK,
    stat.S_IFIFO: "not a regular file but a FIFO",
    stat.S_IFSOCK: "not a regular file but a socket",
    stat.S_IFCHR: "not a regular file but a device",
    stat.S_IFBLK: "not a regular file but a device",
}
"""File type -> why it is not taken."""


class Member(NamedTuple):
    """An entry of an archive.

    Parameters
    ----------
    name : bytes
        As in the archive.
    extent : tuple of int, or None
        Where a plain file is.
    reason : str
        Why an entry that is neither a plain file nor a folder is not taken.
    """

    name: bytes
    extent: Extent | None = None
    reason: str = ""


class Content(Protocol):
    """The bytes of an archive."""

    @property
    def nbytes(self) -> int:
        """How many there are."""
        ...

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return exactly `nbytes` bytes at `offset`."""
        ...

    def damaged(self, what: str) -> DatasetError:
        """Return the error of an archive that is damaged."""
        ...

    def refused(self, what: str) -> DatasetError:
        """Return the error of an archive that is intact but cannot be read."""
        ...


def check_size(nbytes: int, max_nbytes: int) -> None:
    """Refuse a file that is empty or larger than `max_nbytes`; a size below 0 is not known."""
    if nbytes > max_nbytes:
        raise BadImageError(f"file of {nbytes:,} bytes is larger than {max_nbytes:,}")
    if not nbytes:
        raise BadImageError("empty file (0 bytes)")
