"""Recognize, list and read a .zip or .tar archive in place."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from batchify.common.split_names import named_split
from batchify.common.text import printable
from batchify.dataset_options import DiscoverOptions
from batchify.errors import (
    BadImageError,
    DatasetError,
    DatasetIOError,
    Skipped,
)
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.storage import tar_reader, zip_reader
from batchify.storage.archive_file import ArchiveFile, Stamp, reopen
from batchify.storage.hidden import is_hidden
from batchify.storage.listed_tree import ListedTree
from batchify.storage.outage import wait_out
from batchify.storage.patterns import PathFilter
from batchify.storage.source import Member, SourceFile, patience
from batchify.storage.stamps import UNKNOWN, file_stamp, settled_stamp

Kind = Literal["zip", "tar"]
READ_MEMBER = {"zip": zip_reader.read_member, "tar": tar_reader.read_member}

_NBYTES_AT = {"zip": 2, "tar": 1}
"""Index of the unpacked size in an extent."""


@dataclass(frozen=True, slots=True)
class ArchiveSource:
    """An archive of a dataset, as it was when it was listed.

    Parameters
    ----------
    path : bytes
        Absolute.
    kind : str
        ``zip`` or ``tar``.
    timeout_s : float
        See `batchify.storage.source.FolderSource`.
    """

    path: bytes
    kind: Kind
    stamp: Stamp
    timeout_s: float = IMAGE_TIMEOUT_S

    @property
    def location(self) -> bytes:
        """The path of the archive."""
        return self.path

    def below(self, _name: bytes) -> ArchiveSource:
        """Return the archive: members are found by their extents."""
        return self

    def exists(self) -> bool:
        """Return whether the archive still exists."""
        return os.path.isfile(self.path)

    def open_reader(self) -> ArchiveReader:
        """Return a reader of its members.

        Raises
        ------
        DatasetNotFoundError, DatasetError
            If it no longer exists, or was replaced.
        """
        return ArchiveReader(self)


class ArchiveReader:
    """A reader of an archive's members, which several threads may use."""

    def __init__(self, archive: ArchiveSource) -> None:
        self._archive = archive
        self._opened_ns = time.time_ns()
        self.stamp = UNKNOWN
        self._file = reopen(archive.path, archive.stamp, patience(archive.timeout_s))

    def read_files(
        self, files: Sequence[SourceFile], max_nbytes: int
    ) -> Iterator[bytes | BadImageError]:
        """Yield the content of each member, or why it cannot be read.

        Raises
        ------
        DatasetError
            If the archive changed since it was listed.
        DatasetIOError
            If its drive fails.
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
            self.stamp = settled_stamp(self._file.status, self._opened_ns, *file.extent)
            yield content

    def file_sizes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each member, as the archive says."""
        at = _NBYTES_AT[self._archive.kind]
        for file in files:
            assert file.extent is not None
            yield file.extent[at]

    def stamps(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the stamp of each member: that of the archive, and where the member is."""
        for file in files:
            assert file.extent is not None
            yield file_stamp(self._file.status, *file.extent)

    def close(self) -> None:
        """Close the archive."""
        self._file.close()

    def __reduce__(self) -> tuple[type[ArchiveReader], tuple[ArchiveSource]]:
        return type(self), (self._archive,)


PATH_NBYTES = 4096

NAME_NBYTES = 255
"""The longest path, and the longest name in a path, that file systems accept."""

_DRIVE = re.compile(rb"[A-Za-z]:[/\\]")


def refusal(name: bytes) -> str | None:
    """Return why a name is not a valid path within a dataset; None if it is.

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


def listable_name(name: bytes) -> bytes:
    """Return a refused name as HDF5 files list it: not empty, not too long, without NUL."""
    name = name.replace(b"\0", b"\\x00") or b"(no name)"
    return name if len(name) <= NAME_NBYTES else name[:NAME_NBYTES] + "…".encode()


_LIST_MEMBERS = {"zip": zip_reader.list_members, "tar": tar_reader.list_members}

_OTHERS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x1f\x9d", "compress"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "RAR"),
)
"""The first bytes of other archives and of compressed files."""


def archive_kind(path: str | os.PathLike[str]) -> str | None:
    """Return what kind of archive a file is, by its first bytes; None if it is not one.

    ``zip`` and ``tar`` can be read in place; the others are only named in a message.

    Raises
    ------
    DatasetIOError
        If its drive fails.
    """
    try:
        head, tail = wait_out(lambda: _head_and_tail(path), os.fsencode(path))
    except DatasetIOError:
        raise
    except (OSError, ValueError):
        return None
    if head.startswith(zip_reader.MAGIC) or zip_reader.is_last_part(tail):
        return "zip"
    if tar_reader.is_header(head):
        return "tar"
    return next((name for magic, name in _OTHERS if head.startswith(magic)), None)


def _head_and_tail(path: str | os.PathLike[str]) -> tuple[bytes, bytes]:
    """Return the first and the last bytes of a plain file; none of another one."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        return b"", b""
    with open(path, "rb") as file:
        head = file.read(tar_reader.BLOCK)
        file.seek(-min(zip_reader.END_NBYTES, len(head)), os.SEEK_END)
        return head, file.read()


def list_archive(
    path: str | os.PathLike[str],
    kind: str,
    options: DiscoverOptions,
    patterns: PathFilter | None = None,
    *,
    timeout_s: float = IMAGE_TIMEOUT_S,
) -> ListedTree:
    """Return the folders of an archive.

    If everything is in one folder, and that folder holds folders and no images, as with
    ``zip -r photos.zip photos``, then that folder is the dataset. Hidden files, and files next to
    it that are not images, do not count. A folder that is named like a split is never taken as
    the dataset.

    Parameters
    ----------
    kind : str
        As `archive_kind` returns it.
    timeout_s : float
        See `ArchiveSource`.

    Raises
    ------
    DatasetError
        If it is another kind of archive, damaged, or hostile.
    """
    full = os.path.abspath(os.fsencode(path))
    readable: Kind = "zip" if kind == "zip" else "tar"
    if kind != readable:
        raise DatasetError(
            f"dataset {printable(full)} is compressed ({kind}) as a whole and cannot be read in "
            "place; decompress it, or make a .zip or a plain .tar of it"
        )
    try:
        with contextlib.closing(ArchiveFile(full)) as file:
            tree = ListedTree(ArchiveSource(full, readable, file.stamp, timeout_s))
            for member in _LIST_MEMBERS[readable](file):
                _add(tree, member, options)
            file.check_same(file.stamp)
    except PermissionError as error:
        raise DatasetError(f"dataset {printable(full)}: no permission to read it") from error
    while (top := _top_folder(tree, options, patterns)) is not None:
        tree.make_root(top)
    tree.refused.sort(key=lambda entry: (entry.path, entry.reason))
    return tree


def _add(tree: ListedTree, member: Member, options: DiscoverOptions) -> None:
    """Add a member to the tree, if its name is valid."""
    name = member.name
    while name.startswith(b"./"):  # `tar -c .` writes all names this way
        name = name[2:]
    is_folder = member.extent is None and not member.reason
    if is_folder:
        name = name.removesuffix(b"/")
        if name in (b"", b"."):
            return
    if reason := refusal(name):
        tree.refused.append(Skipped(listable_name(member.name), reason))
    elif is_folder:
        tree.add_folder(name)
    elif member.extent is not None:
        tree.add_file(name, member.extent)
    elif options.name_test(name):
        tree.add_special(name, member.reason)
    elif options.hidden or not any(map(is_hidden, name.split(b"/"))):
        # it may be a link to the folder of a whole class, which must be reported
        tree.refused.append(Skipped(listable_name(member.name), member.reason))


def _top_folder(
    tree: ListedTree, options: DiscoverOptions, patterns: PathFilter | None
) -> bytes | None:
    """Return the folder in the root that is the dataset; None if the root is."""
    folders = _folders(tree, b"", options, patterns)
    if folders is None or len(folders) != 1 or not _folders(tree, folders[0], options):
        return None
    return None if named_split(os.fsdecode(folders[0])) else folders[0]


def _folders(
    tree: ListedTree, path: bytes, options: DiscoverOptions, patterns: PathFilter | None = None
) -> list[bytes] | None:
    """Return the folders in a folder; None if it also holds images."""
    folders = []
    for entry in tree.list_folder(path):
        if is_hidden(entry.name) and not options.hidden:
            continue
        paths = (tree.entered + b"/" + entry.name, entry.name) if tree.entered else (entry.name,)
        if patterns is not None and not patterns.takes(*paths, is_folder=entry.is_dir()):
            continue
        if entry.is_dir():
            folders.append(entry.name)
        elif options.name_test(entry.name):
            return None
    return folders
