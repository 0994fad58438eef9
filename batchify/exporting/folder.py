"""An unfinished export: its folder and its journal, by which it is resumed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from batchify.building.journal import Journal
from batchify.building.target import PARTIAL
from batchify.common import durable
from batchify.common.closing import Closing
from batchify.common.paths import is_url, local_path
from batchify.common.text import printable
from batchify.errors import OutputExistsError, ResumeError
from batchify.exporting.layout import WrittenFile
from batchify.exporting.target import ExportTarget, LocalTarget, remove_folder


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

    Parameters
    ----------
    identity : str
        Different for any export that would write other files; empty to start from scratch.

    Raises
    ------
    OutputExistsError, OutputIOError
        If something else has its name, or it cannot be made.
    OutputLockedError
        If another export is writing it.
    """

    def __init__(self, target: ExportTarget, identity: str) -> None:
        self.target = target
        self.identity = identity
        self.path = target.base + PARTIAL
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
        header = {"format": "batchify-export", "version": 1, "export": self.identity}
        if not self.identity or records[:1] != [header]:
            remove_folder(self.path)
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

        They are compared with what was written.
        """
        files = self._written.get((split, number))
        if files is None or not all(self.target.is_intact(self.path, file) for file in files):
            return None
        return files

    def record(self, split: str, number: int, files: list[WrittenFile]) -> None:
        """Record that a piece is finished."""
        described = [(_encoded(file.name), *file[1:]) for file in files]
        self._journal.append({"split": split, "piece": number, "files": described})

    def publish(self, facts: Mapping[str, Any], written: Iterable[WrittenFile] = ()) -> None:
        """Give the target its name; what it replaces is removed after that."""
        head = {"format": "batchify-export", "version": 1, "export": self.identity}
        self.target.publish(self.path, {**head, **facts}, written)
        self.discard()

    def discard(self) -> None:
        """Remove what is left of the unfinished target, and of the one that was replaced."""
        remove_folder(self.path)
        self.target.discard()
        self._journal.remove()

    def close(self) -> None:
        """Release the lock; an unfinished target is kept, to be resumed."""
        self._journal.close()


def _encoded(name: str) -> str:
    """Return a name as text that JSON can store, whatever bytes it has."""
    return os.fsencode(name).decode("latin-1")


def _decoded(text: str) -> str:
    return os.fsdecode(text.encode("latin-1"))
