"""What archives of any kind have in common: members, and the names that are refused."""

from __future__ import annotations

import re
import stat
from typing import NamedTuple, Protocol

from batchify.errors import BadImageError, DatasetError
from batchify.storage import Extent

PATH_NBYTES = 4096
NAME_NBYTES = 255
"""Of a path and of a name in it: what file systems take."""

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
"""File type -> why it is left out."""

_DRIVE = re.compile(rb"[A-Za-z]:[/\\]")


class Member(NamedTuple):
    """An entry of an archive.

    Parameters
    ----------
    name : bytes
        As the archive has it.
    extent : tuple of int, or None
        Where a plain file lies.
    reason : str
        Why what is neither a plain file nor a folder is left out.
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
        """Return exactly so many bytes at a place."""
        ...

    def damaged(self, what: str) -> DatasetError:
        """Return the error of an archive that is not whole."""
        ...

    def refused(self, what: str) -> DatasetError:
        """Return the error of an archive that is whole and cannot be read."""
        ...


def refusal(name: bytes) -> str | None:
    """Return why a name is no path within a dataset; None where it is one.

    Parameters
    ----------
    name : bytes
        Without the slash that ends the name of a folder.
    """
    if b"\0" in name:
        return "name with a NUL byte"
    if name.startswith((b"/", b"\\")) or _DRIVE.match(name):
        return "absolute name in an archive"
    parts = name.split(b"/")
    if b".." in parts:
        return 'name that leads out of the archive ("..")'
    if b"" in parts or b"." in parts:
        return "name with an empty part in an archive"
    if len(name) > PATH_NBYTES or max(map(len, parts)) > NAME_NBYTES:
        return f"name of {len(name):,} bytes in an archive, which no file system takes"
    return None


def told(name: bytes) -> bytes:
    """Return a name that was refused, as a file lists it: not empty, not endless, without NUL."""
    name = name.replace(b"\0", b"\\x00") or b"(no name)"
    return name if len(name) <= NAME_NBYTES else name[:NAME_NBYTES] + "…".encode()


def check_size(nbytes: int, max_nbytes: int) -> None:
    """Refuse a member by its size, as a file is refused.

    Raises
    ------
    BadImageError
    """
    if nbytes > max_nbytes:
        raise BadImageError(f"file of {nbytes:,} bytes is larger than {max_nbytes:,}")
    if not nbytes:
        raise BadImageError("empty file (0 bytes)")
