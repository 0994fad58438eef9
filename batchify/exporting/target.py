"""The target of an export: a folder or file of this machine, or a URL."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import os
import shutil
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from batchify.common import durable
from batchify.common.text import plural, printable
from batchify.errors import OutputExistsError, OutputIOError, OutputPathError
from batchify.exporting.formats import WrittenFile, write_text

MARKER = b".batchify-export.json"
"""The file in a folder that says which export it is; readers ignore hidden files."""

REPLACED = b".replaced"
"""Ending of the former target, while it is removed."""


_OF_SYSTEM = (b".DS_Store", b"Thumbs.db", b"desktop.ini")
"""Names of files that file managers add to folders that they show; they do not count."""


class ExportTarget(ABC):
    """Where an export is published.

    Attributes
    ----------
    base : bytes
        The absolute path to whose end the names of unfinished files are appended.
    url : str
        The URL that files are uploaded to as they are finished; empty for none.
    denied : OutputIOError or None
        Why nothing can be written next to a target that may be up to date.
    """

    url = ""
    denied: OutputIOError | None = None

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

    @property
    def replaces(self) -> bool:
        """Whether a folder is renamed to `REPLACED` when the export is published."""
        return False

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
            self.denied = OutputIOError(
                f"target {name}: no permission to write in {printable(parent)}"
            )
            if is_file or not os.path.isfile(os.path.join(target, MARKER)):
                raise self.denied
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
        if not self.is_file:
            try:
                with open(os.path.join(target, MARKER), "rb") as file:
                    marker = file.read()
            except OSError as error:
                raise foreign(name) from error
            check_own(name, marker, file_names(target))
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
        """Rename the folder, and what it replaces to another name."""
        target, old = self.base, self.base + REPLACED
        if self.replaces:
            self.check_free(overwrite=True)  # files may have been added
            remove_folder(old)
        try:
            if self.is_file:
                os.replace(os.path.join(folder, NPZ), target)
            else:
                found = {**facts, "files": files_digest(_stamps(folder)), **own(file_names(folder))}
                write_text(folder, os.fsdecode(MARKER), json.dumps(found) + "\n")
                for each, _, _ in os.walk(folder):
                    durable.sync_folder(os.path.join(each, MARKER))
                if self.replaces:
                    os.rename(target, old)
                elif os.path.lexists(target):
                    os.rmdir(target)
                os.rename(folder, target)
            durable.sync_folder(target)
        except OSError as error:
            raise durable.io_error("publishing", target, error) from error

    @property
    def replaces(self) -> bool:
        """Whether there is a folder that is not empty."""
        return not self.is_file and os.path.isdir(self.base) and bool(os.listdir(self.base))


def exists(name: str, *, is_file: bool) -> OutputExistsError:
    """Return the error for an earlier export that is not to be replaced."""
    state = "exists" if is_file else "exists and is not up to date"
    return OutputExistsError(f"target {name} {state}; pass --overwrite to replace it")


def foreign(name: str) -> OutputExistsError:
    """Return the error for a folder with other files."""
    return OutputExistsError(
        f"target {name} has files in it that are no export of batchify, so it is not replaced; "
        "name another folder"
    )


def own(names: Iterable[bytes]) -> dict[str, str]:
    """Return what a marker says of the names of all files: 8 bytes of the digest of each."""
    return {"names": base64.b64encode(b"".join(sorted(map(_short, names)))).decode()}


def _short(name: bytes) -> bytes:
    return hashlib.blake2b(name, digest_size=8).digest()


def check_own(target: str, marker: bytes, names: Iterable[bytes]) -> None:
    """Refuse to replace an earlier export whose folder has files that are no part of it.

    Parameters
    ----------
    target : str
        For the message.
    names : iterable of bytes
        Of all files that are there.
    """
    known = b""
    with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged: none is known
        known = base64.b64decode(json.loads(marker)["names"])
    mine = {_short(MARKER), *(known[i : i + 8] for i in range(0, len(known), 8))}
    check_known(target, [name for name in names if _short(name) not in mine])


def check_known(target: str, others: Sequence[bytes]) -> None:
    """Refuse to replace an earlier export if there are files that it did not make."""
    if others:
        shown = ", ".join(map(printable, sorted(others)[:3]))
        more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
        raise OutputExistsError(
            f"target {target} has {plural(len(others), 'file')} in it that the earlier export did "
            f"not make: {shown}{more}; move what you need elsewhere, or name another target"
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
            if name not in _OF_SYSTEM and (where != folder or name != MARKER):
                status = os.stat(path)
                size = status.st_size if status.st_mtime_ns <= written_ns else None
                yield os.path.relpath(path, folder).replace(os.fsencode(os.sep), b"/"), size


def file_names(folder: bytes) -> Iterator[bytes]:
    """Yield the names of all files in a folder, "/" separated, without those of file managers."""
    for where, _, names in os.walk(folder):
        above = os.path.relpath(where, folder).replace(os.fsencode(os.sep), b"/")
        for name in names:
            if name not in _OF_SYSTEM:
                yield name if above == b"." else above + b"/" + name


def remove_folder(folder: bytes) -> None:
    """Remove a folder, if it exists."""
    if not os.path.lexists(folder):
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise durable.io_error("removing", folder, error) from error
