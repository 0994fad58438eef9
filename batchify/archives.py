"""Recognises archives by their content, and makes the tree of one."""

from __future__ import annotations

import contextlib
import os
import stat

from batchify import schema, tars, zips
from batchify.archive import Archive, ArchiveFile, Kind
from batchify.errors import DatasetError, Skipped
from batchify.listing import ListedTree
from batchify.members import Member, refusal, told
from batchify.names import printable
from batchify.options import DiscoverOptions
from batchify.walk import is_hidden

_LIST_MEMBERS = {"zip": zips.list_members, "tar": tars.list_members}

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
"""What other archives, and compressed ones, begin with."""


def archive_kind(path: str | os.PathLike[str]) -> str | None:
    """Return what kind of archive a file is, by its first bytes; None if it is none.

    ``zip`` and ``tar`` can be read in place, the others are named for the message alone.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            head = file.read(tars.BLOCK)
            file.seek(-min(zips.END_NBYTES, len(head)), os.SEEK_END)
            tail = file.read()
    except (OSError, ValueError):
        return None
    if head.startswith(zips.MAGIC) or zips.is_last_part(tail):
        return "zip"
    if tars.is_header(head):
        return "tar"
    return next((name for magic, name in _OTHERS if head.startswith(magic)), None)


def list_archive(path: str | os.PathLike[str], kind: str, options: DiscoverOptions) -> ListedTree:
    """Return the folders of an archive.

    Where all that it holds lies in one folder, and that one holds folders and no images, as
    ``zip -r photos.zip photos`` makes them, then that folder is the dataset; files beside it that
    are no images, and hidden ones, do not count. A folder that is named like a split is never
    taken for that.

    Parameters
    ----------
    path : path
    kind : str
        As `archive_kind` has it.
    options : DiscoverOptions

    Raises
    ------
    DatasetError
        If it is of another kind, damaged, or hostile.
    """
    full = os.path.abspath(os.fsencode(path))
    known: Kind = "zip" if kind == "zip" else "tar"
    if kind != known:
        raise DatasetError(
            f"dataset {printable(full)} is compressed ({kind}) as a whole and cannot be read in "
            "place; make a .zip or a plain .tar of it"
        )
    try:
        with contextlib.closing(ArchiveFile(full)) as file:
            tree = ListedTree(Archive(full, known, file.stamp))
            for member in _LIST_MEMBERS[known](file):
                _add(tree, member, options)
            file.check_same(file.stamp)
    except PermissionError as error:
        raise DatasetError(f"dataset {printable(full)}: no permission to read it") from error
    while (top := _top_folder(tree, options)) is not None:
        tree.enter(top)
    tree.refused.sort(key=lambda entry: (entry.path, entry.reason))
    return tree


def _add(tree: ListedTree, member: Member, options: DiscoverOptions) -> None:
    """Put a member into the tree, if its name is one that can be there."""
    name = member.name
    while name.startswith(b"./"):  # as `tar -c .` has all names
        name = name[2:]
    is_folder = member.extent is None and not member.reason
    if is_folder:
        name = name.removesuffix(b"/")
        if name in (b"", b"."):
            return
    if reason := refusal(name):
        tree.refused.append(Skipped(told(member.name), reason))
    elif is_folder:
        tree.add_folder(name)
    elif member.extent is not None:
        tree.add_file(name, member.extent)
    elif name.lower().endswith(options.suffixes):
        tree.add_special(name, member.reason)
    elif options.hidden or not any(map(is_hidden, name.split(b"/"))):
        # it may be a link to a folder, of a whole class: that is to be told
        tree.refused.append(Skipped(told(member.name), member.reason))


def _top_folder(tree: ListedTree, options: DiscoverOptions) -> bytes | None:
    """Return the folder in the root that is the dataset, where the root is not."""
    folders = _folders(tree, b"", options)
    if folders is None or len(folders) != 1 or not _folders(tree, folders[0], options):
        return None
    return None if os.fsdecode(folders[0]).lower() in schema.SPLIT_FOLDERS else folders[0]


def _folders(tree: ListedTree, path: bytes, options: DiscoverOptions) -> list[bytes] | None:
    """Return the folders in a folder; None where there are images in it, too."""
    folders = []
    for entry in tree.scan(path):
        if is_hidden(entry.name) and not options.hidden:
            continue
        if entry.is_dir():
            folders.append(entry.name)
        elif entry.name.lower().endswith(options.suffixes):
            return None
    return folders
