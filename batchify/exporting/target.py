"""The target of an export: a folder or file of this machine, or a URL."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from batchify.common import durable
from batchify.common.text import printable
from batchify.errors import OutputExistsError, OutputIOError, OutputPathError
from batchify.exporting.layout import WrittenFile, write_text

MARKER = b".batchify-export.json"
"""The file in a folder that says which export it is; readers ignore hidden files."""

REPLACED = b".replaced"
"""Ending of the former target, while it is removed."""


class ExportTarget(ABC):
    """Where an export is published.

    Attributes
    ----------
    base : bytes
        The absolute path to whose end the names of unfinished files are appended.
    url : str
        The URL that files are uploaded to as they are finished; empty for none.
    """

    url = ""

    def __init__(self, base: bytes, *, is_file: bool) -> None:
        self.base = base
        self.is_file = is_file

    @abstractmethod
    def check(self) -> None:
        """Refuse a target that cannot be written, before any work.

        Raises
        ------
        OutputPathError, OutputIOError, RemoteError
            With what to do instead.
        """

    @abstractmethod
    def find_export(self) -> Mapping[str, Any] | None:
        """Return what the marker says; None if there is none, or a file was changed since."""

    @abstractmethod
    def check_free(self, *, overwrite: bool) -> None:
        """Refuse to replace what must not be replaced.

        Raises
        ------
        OutputExistsError
            If something is there, and is no export or `overwrite` is not given.
        """

    def begin(self, identity: str) -> None:  # noqa: B027 - only URLs have something to do
        """Prepare the target, before the first file is written.

        Parameters
        ----------
        identity : str
            Of the export: see `batchify.exporting.request.Request.identity`.
        """

    @abstractmethod
    def is_intact(self, folder: bytes, file: WrittenFile) -> bool:
        """Return whether a file of an unfinished export is as it was written."""

    @abstractmethod
    def publish(
        self, folder: bytes, facts: Mapping[str, Any], written: Iterable[WrittenFile]
    ) -> None:
        """Make a complete export visible under the name of the target.

        Parameters
        ----------
        folder : bytes
            Where it was made; in it, `NPZ` if the target is a file.
        facts : Mapping
            What the marker says.
        """

    def discard(self) -> None:  # noqa: B027
        """Remove what is left of a target that was replaced."""


NPZ = b"arrays.npz"


class LocalTarget(ExportTarget):
    """A folder or file of this machine; `base` is its path."""

    def check(self) -> None:
        """Refuse a target that cannot be written, before any work."""
        target, is_file = self.base, self.is_file
        name, parent = printable(target), os.path.dirname(target)
        if not os.path.isdir(parent):
            raise OutputPathError(f"target {name}: there is no folder {printable(parent)}; make it")
        if not os.access(parent, os.W_OK):
            raise OutputIOError(f"target {name}: no permission to write in {printable(parent)}")
        if not os.path.lexists(target):
            return
        if is_file and not os.path.isfile(target):
            raise OutputPathError(f"target {name} is not a regular file; it is not replaced")
        if not is_file and (os.path.islink(target) or not os.path.isdir(target)):
            raise OutputPathError(
                f"target {name} is not a folder; name one that does not exist yet"
            )

    def find_export(self) -> Mapping[str, Any] | None:
        """Return what the marker says; None if there is none, or a file was changed since.

        Names and sizes of all files are those that it records, and none is newer than the marker,
        which is written last. So nothing is read, and the same export has the same marker.
        """
        if self.is_file:
            return None
        try:
            with open(os.path.join(self.base, MARKER), "rb") as file:
                facts, written_ns = json.load(file), os.fstat(file.fileno()).st_mtime_ns
            if facts["files"] == files_digest(_stamps(self.base, written_ns)):
                return dict(facts)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def check_free(self, *, overwrite: bool) -> None:
        """Refuse to replace what must not be replaced."""
        target, name = self.base, printable(self.base)
        if not os.path.lexists(target) or (not self.is_file and not os.listdir(target)):
            return
        if not self.is_file and not os.path.isfile(os.path.join(target, MARKER)):
            raise foreign(name)
        if not overwrite:
            raise exists(name, is_file=self.is_file)

    def is_intact(self, folder: bytes, file: WrittenFile) -> bool:
        """Return whether every byte of a file is as it was written, by its checksum."""
        nbytes, crc32 = 0, 0
        try:
            with open(os.path.join(folder, os.fsencode(file.name)), "rb") as opened:
                while data := opened.read(1 << 20):
                    nbytes, crc32 = nbytes + len(data), zlib.crc32(data, crc32)
        except OSError:
            return False
        return (nbytes, crc32) == file[1:]

    def publish(
        self,
        folder: bytes,
        facts: Mapping[str, Any],
        written: Iterable[WrittenFile],  # noqa: ARG002
    ) -> None:
        """Rename the folder; what it replaces is removed by `discard`."""
        target, old = self.base, self.base + REPLACED
        try:
            if self.is_file:
                os.replace(os.path.join(folder, NPZ), target)
            else:
                found = {**facts, "files": files_digest(_stamps(folder))}
                write_text(folder, os.fsdecode(MARKER), json.dumps(found) + "\n")
                for each, _, _ in os.walk(folder):
                    durable.sync_folder(os.path.join(each, MARKER))
                if os.path.lexists(target) and not os.listdir(target):
                    os.rmdir(target)
                if os.path.lexists(target):
                    self.discard()
                    os.rename(target, old)
                os.rename(folder, target)
            durable.sync_folder(target)
        except OSError as error:
            raise durable.io_error("publishing", target, error) from error

    def discard(self) -> None:
        """Remove what is left of a target that was replaced."""
        old = self.base + REPLACED
        if os.path.isfile(os.path.join(old, MARKER)):  # else it is not ours
            remove_folder(old)


def exists(name: str, *, is_file: bool) -> OutputExistsError:
    """Return the error for an earlier export that is not to be replaced."""
    what = "it" if is_file else "it, with all files in it"
    return OutputExistsError(f"target {name} exists; pass --overwrite to replace {what}")


def foreign(name: str) -> OutputExistsError:
    """Return the error for a folder with other files."""
    return OutputExistsError(
        f"target {name} has files in it that are no export of batchify, so it is not replaced; "
        "name another folder"
    )


def files_digest(stamps: Iterable[tuple[bytes, object]]) -> str:
    """Return the SHA-256, in hex, of the names and stamps of files, in their order."""
    digest = hashlib.sha256()
    for name, stamp in stamps:
        digest.update(b"%s\0%s\0" % (name, repr(stamp).encode()))
    return digest.hexdigest()


def _stamps(folder: bytes, written_ns: float = math.inf) -> Iterator[tuple[bytes, object]]:
    """Yield name and size of all files, except the marker; of a link, those of its target.

    Parameters
    ----------
    written_ns : float
        The time after which files have been changed; their size is None.
    """
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(where, name)
            if where != folder or name != MARKER:
                status = os.stat(path)
                size = status.st_size if status.st_mtime_ns <= written_ns else None
                yield _slashed(os.path.relpath(path, folder)), size


def _slashed(path: bytes) -> bytes:
    return path.replace(os.fsencode(os.sep), b"/")


def remove_folder(folder: bytes) -> None:
    """Remove a folder, if it exists."""
    if not os.path.lexists(folder):
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise durable.io_error("removing", folder, error) from error
