"""An unfinished export: its folder and its journal, by which it is resumed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from batchify.building.journal import Journal, parse_record
from batchify.building.target import PARTIAL, Target
from batchify.building.workfile import JOURNAL, WorkFile
from batchify.common import durable
from batchify.common.closing import Closing
from batchify.common.paths import is_url, local_path
from batchify.common.text import printable
from batchify.errors import (
    BatchifyWarning,
    OptionError,
    OutputExistsError,
    OutputIOError,
    OutputPathError,
)
from batchify.exporting.formats import WrittenFile
from batchify.exporting.target import REPLACED, ExportTarget, LocalTarget, remove_folder

ROWS = PARTIAL + b".h5"
"""Ending of the file with the rows of a dataset, which is removed at the end."""

_HEADER = {"format": "batchify-export", "version": 1}


@contextlib.contextmanager
def open_target(
    target: str | os.PathLike[str], work_dir: str | os.PathLike[str] | None, *, is_file: bool
) -> Iterator[ExportTarget]:
    """Open the target of a path or a URL; a URL is locked for this machine.

    Raises
    ------
    OutputPathError, OutputLockedError
        If it is a bucket instead of a file, or another export is writing it.
    OptionError, ExtraMissingError
        If the URL is not valid, or the library for its store is not installed.
    """
    if not is_url(target):
        yield LocalTarget(os.path.abspath(os.fsencode(local_path(target))), is_file=is_file)
        return
    from batchify.exporting.remote_target import open_remote  # imports asyncio

    with open_remote(os.fsdecode(target), work_dir, is_file=is_file) as found:
        yield found


class ExportFolder(Closing):
    """The unfinished target, ``TARGET.partial``, and its journal; locked while this is open.

    The journal says which names next to the target an export has claimed. What has another such
    name belongs to the user, and is never removed.

    Raises
    ------
    OutputExistsError, OutputIOError
        If something else has the name of the journal, or it cannot be made.
    OutputLockedError
        If another export is writing the target.
    """

    def __init__(self, target: ExportTarget) -> None:
        self.target = target
        self.path = target.base + PARTIAL
        self.identity = ""
        self._has_begun = False
        self._claimed: set[bytes] = set()
        self._written: dict[tuple[str, int], list[WrittenFile]] = {}
        self._journal: Journal | None = None
        if target.denied is not None:
            return
        self._journal = Journal(self.path + b".journal")
        try:
            self._read_journal(self._journal)
        except BaseException:
            self._journal.close()
            raise

    @property
    def warnings(self) -> tuple[BatchifyWarning, ...]:
        """What the file system lacks."""
        return () if self._journal is None else self._journal.warnings

    @property
    def _open_journal(self) -> Journal:
        if self._journal is None:
            raise self.target.denied or ValueError("the journal is not open")
        return self._journal

    def _read_journal(self, journal: Journal) -> None:
        """Take over what an interrupted export claimed and wrote."""
        with open(journal.path, "rb") as file:
            first = file.readline()
        head = parse_record(first)
        if not _is_torn(first) and (head is None or head.get("format") != _HEADER["format"]):
            raise self._foreign(journal.path)
        records = journal.records(trusted=True)  # finished pieces are compared, too
        for record in records:
            if "claims" in record:
                self._claimed.add(os.fsencode(record["claims"]))
            elif "export" in record:
                self.identity = record["export"]
                self._written.clear()
            else:
                files = [WrittenFile(_decoded(name), *rest) for name, *rest in record["files"]]
                self._written[record["split"], record["piece"]] = files

    def _foreign(self, path: bytes) -> OutputExistsError:
        return OutputExistsError(
            f"{printable(path)} is there, and no export of batchify made it; rename or remove it, "
            "or name another target"
        )

    def check_name(self, ending: bytes) -> bytes:
        """Return a path next to the target that this export may use.

        Raises
        ------
        OutputExistsError
            If something is there that no export made.
        """
        path = self.target.base + ending
        if ending not in self._claimed and os.path.lexists(path):
            raise self._foreign(path)
        return path

    def claim(self, ending: bytes) -> bytes:
        """Return a path next to the target for this export, which removes it at the end.

        Raises
        ------
        OutputExistsError
            If something is there that no export made.
        """
        path = self.check_name(ending)
        if ending not in self._claimed:
            self._open_journal.append({**_HEADER, "claims": os.fsdecode(ending)})
            self._claimed.add(ending)
        return path

    def begin(self, identity: str) -> None:
        """Take over what an interrupted run of the same export wrote; else start from scratch.

        Parameters
        ----------
        identity : str
            Different for any export that would write other files.
        """
        if self.target.replaces:
            self.check_name(REPLACED)
        self.claim(PARTIAL)
        self._has_begun = True
        if self.identity != identity:
            remove_folder(self.path)
            self._open_journal.append({"export": identity})
            self.identity = identity
            self._written.clear()
        try:
            os.makedirs(self.path, exist_ok=True)
        except OSError as error:
            raise durable.io_error("making", self.path, error) from error

    def finished(self, split: str, number: int) -> list[WrittenFile] | None:
        """Return the files of a piece that an earlier run finished; None if it has to be written.

        They are compared with what was written.
        """
        files = self._written.get((split, number))
        if files is None or not all(self.target.is_intact(self.path, file) for file in files):
            return None
        return files

    def record(self, split: str, number: int, files: list[WrittenFile]) -> None:
        """Record that a piece is finished."""
        self._written[split, number] = files
        described = [(_encoded(file.name), *file[1:]) for file in files]
        self._open_journal.append({"split": split, "piece": number, "files": described})

    def publish(self, facts: Mapping[str, Any], written: Iterable[WrittenFile] = ()) -> None:
        """Give the target its name; what it replaces is removed by `discard`."""
        if self.target.replaces:
            self.claim(REPLACED)
        head = {**_HEADER, "export": self.identity}
        self.target.publish(self.path, {**head, **facts}, written)

    def discard(self) -> None:
        """Remove what this export claimed: what is left unfinished, and what was replaced."""
        if self._journal is None:
            return
        if ROWS in self._claimed:
            remove_rows(self.target.base + ROWS)
        if PARTIAL in self._claimed:
            remove_folder(self.path)
        if REPLACED in self._claimed:
            old = self.target.base + REPLACED
            try:
                remove_folder(old)
            except OutputIOError as error:
                raise OutputIOError(
                    f"{error}; the export is complete, and that was the earlier one: remove "
                    f"{printable(old)}"
                ) from error
        self._journal.remove()
        self._written.clear()
        self._claimed.clear()

    def __exit__(self, *exception: object) -> None:
        if self._has_begun and isinstance(exception[1], OptionError | OutputPathError):
            self.discard()  # no repetition helps
        super().__exit__(*exception)

    def close(self) -> None:
        """Release the lock; an unfinished target is kept if some of it is finished."""
        if self._journal is None:
            return
        try:
            if self._journal.is_named and not (self._written or self._is_needed(ROWS, REPLACED)):
                self.discard()
        finally:
            self._journal.close()

    def _is_needed(self, *endings: bytes) -> bool:
        """Return whether a claimed file is there."""
        paths = [self.target.base + ending for ending in endings if ending in self._claimed]
        return any(os.path.lexists(path + more) for path in paths for more in (b"", JOURNAL))


def remove_rows(path: bytes) -> None:
    """Remove the file of the rows of a dataset, with what its unfinished build left."""
    if os.path.lexists(path + JOURNAL):
        with WorkFile(Target(path, overwrite=True)) as work:
            work.start_over()
    durable.remove(path)


def _is_torn(line: bytes) -> bool:
    """Return whether the only line of a journal was not written in full; or it is empty.

    A power loss may leave zeros.
    """
    found = re.fullmatch(rb"[0-9a-f]{0,8}( (\{.*)?)?|\0+", line, re.DOTALL)
    return found is not None and not line.endswith(b"\n")


def _encoded(name: str) -> str:
    """Return a name as text that JSON can store, whatever bytes it has."""
    return os.fsencode(name).decode("latin-1")


def _decoded(text: str) -> str:
    return os.fsdecode(text.encode("latin-1"))
