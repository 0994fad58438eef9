"""The target of an export: made under another name, resumed, and published when it is complete."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from typing import Any

from batchify.building.journal import Journal
from batchify.building.target import PARTIAL
from batchify.common import durable
from batchify.common.closing import Closing
from batchify.common.text import printable
from batchify.errors import OutputExistsError, OutputIOError, OutputPathError, ResumeError
from batchify.exporting.layout import WrittenFile, write_text

MARKER = b".batchify-export.json"
"""The file in a folder that says which export it is; readers ignore hidden files."""

REPLACED = b".replaced"
"""Ending of the former target, while it is removed."""


class ExportFolder(Closing):
    """The unfinished target, ``TARGET.partial``, and its journal; locked while this is open.

    Parameters
    ----------
    target : bytes
        Absolute.
    identity : str
        Different for any export that would write other files.
    is_file : bool
        The target is a file, which is made in the folder.

    Raises
    ------
    OutputExistsError, OutputPathError, OutputIOError
        If the target may not be written or replaced.
    OutputLockedError
        If another export is writing it.
    """

    def __init__(self, target: bytes, identity: str, *, is_file: bool, overwrite: bool) -> None:
        self._target = target
        self._identity = identity
        self._is_file = is_file
        self.path = target + PARTIAL
        _check_writable(target, is_file=is_file)
        self.is_up_to_date = _is_same(target, identity, is_file=is_file)
        if not self.is_up_to_date:
            _check_free(target, is_file=is_file, overwrite=overwrite)
        self._journal = Journal(self.path + b".journal")
        self.warnings = self._journal.warnings
        self._written: dict[tuple[str, int], list[WrittenFile]] = {}
        try:
            self._resume()
        except BaseException:
            self._journal.close()
            raise

    def _resume(self) -> None:
        """Take over what an interrupted run of the same export wrote; else start from scratch."""
        records: list[dict[str, Any]] = []
        with contextlib.suppress(ResumeError):  # a damaged journal: from scratch
            records = self._journal.records()
        begun = bool(records) and records[0].get("format") == "batchify-export"
        if os.path.lexists(self.path) and not begun:
            self._journal.remove()
            raise OutputExistsError(
                f"{printable(self.path)}, where the target is made, has something else in it; "
                "rename that, or name another target"
            )
        header = {"format": "batchify-export", "version": 1, "export": self._identity}
        if self.is_up_to_date or records[:1] != [header]:
            self._remove(self.path)
            self._journal.begin(header)
        for record in records[1:] if records[:1] == [header] else []:
            files = [WrittenFile(_decoded(name), *rest) for name, *rest in record["files"]]
            self._written[record["split"], record["piece"]] = files
        try:
            os.makedirs(self.path, exist_ok=True)
        except OSError as error:
            raise durable.io_error("making", self.path, error) from error

    def finished(self, split: str, number: int) -> list[WrittenFile] | None:
        """Return the files of a piece that an earlier run finished; None if it has to be written.

        Every byte is compared with its checksum.
        """
        files = self._written.get((split, number))
        if files is None or not all(map(self._is_intact, files)):
            return None
        return files

    def _is_intact(self, file: WrittenFile) -> bool:
        nbytes, crc32 = 0, 0
        try:
            with open(os.path.join(self.path, os.fsencode(file.name)), "rb") as opened:
                while data := opened.read(1 << 20):
                    nbytes, crc32 = nbytes + len(data), zlib.crc32(data, crc32)
        except OSError:
            return False
        return (nbytes, crc32) == file[1:]

    def record(self, split: str, number: int, files: list[WrittenFile]) -> None:
        """Record that a piece is finished."""
        described = [(_encoded(file.name), *file[1:]) for file in files]
        self._journal.append({"split": split, "piece": number, "files": described})

    def publish(self, name: bytes = b"") -> None:
        """Give the target its name; an old target is removed after that.

        Parameters
        ----------
        name : bytes
            The file in the folder, if the target is a file.
        """
        done = os.path.join(self.path, name) if self._is_file else self.path
        if not self._is_file:
            facts = {"format": "batchify-export", "version": 1, "export": self._identity}
            facts["bytes"] = _tree_nbytes(self.path)
            write_text(self.path, os.fsdecode(MARKER), json.dumps(facts) + "\n")
        old = self._target + REPLACED
        try:
            for folder, _, _ in os.walk(self.path):
                durable.sync_folder(os.path.join(folder, MARKER))
            if self._is_file:
                os.replace(done, self._target)
            else:
                if os.path.lexists(self._target) and not os.listdir(self._target):
                    os.rmdir(self._target)
                if os.path.lexists(self._target):
                    self._remove_replaced()
                    os.rename(self._target, old)
                os.rename(done, self._target)
            durable.sync_folder(self._target)
        except OSError as error:
            raise durable.io_error("publishing", self._target, error) from error
        self.discard()

    def discard(self) -> None:
        """Remove what is left of the unfinished target, and of the one that was replaced."""
        self._remove(self.path)
        self._remove_replaced()
        self._journal.remove()

    def _remove_replaced(self) -> None:
        old = self._target + REPLACED
        if os.path.isfile(os.path.join(old, MARKER)):  # else it is not ours
            self._remove(old)

    def _remove(self, folder: bytes) -> None:
        if not os.path.lexists(folder):
            return
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise durable.io_error("removing", folder, error) from error

    def close(self) -> None:
        """Release the lock; an unfinished target is kept, to be resumed."""
        self._journal.close()


def _check_writable(target: bytes, *, is_file: bool) -> None:
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
        raise OutputPathError(f"target {name} is not a folder; name one that does not exist yet")


def _check_free(target: bytes, *, is_file: bool, overwrite: bool) -> None:
    name = printable(target)
    if not os.path.lexists(target) or (not is_file and not os.listdir(target)):
        return
    if not is_file and not os.path.isfile(os.path.join(target, MARKER)):
        raise OutputExistsError(
            f"target {name} has files in it that are no export of batchify, so it is not replaced; "
            "name another folder"
        )
    if not overwrite:
        raise OutputExistsError(f"target {name} exists; pass --overwrite to replace it")


def _is_same(target: bytes, identity: str, *, is_file: bool) -> bool:
    """Return whether a target is the complete result of the same export."""
    if is_file:
        return False
    try:
        with open(os.path.join(target, MARKER), "rb") as file:
            facts = json.load(file)
        return bool(facts["export"] == identity and facts["bytes"] == _tree_nbytes(target))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _tree_nbytes(folder: bytes) -> int:
    """Return the bytes of all files in a folder, except the marker; links count as their target."""
    return sum(
        os.stat(os.path.join(where, name)).st_size
        for where, _, names in os.walk(folder)
        for name in names
        if name != MARKER
    )


def _encoded(name: str) -> str:
    """Return a name as text that JSON can store, whatever bytes it has."""
    return os.fsencode(name).decode("latin-1")


def _decoded(text: str) -> str:
    return os.fsdecode(text.encode("latin-1"))
