"""The folder of this machine where what goes to a URL is made, and what is known of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from types import TracebackType
from typing import Any

from batchify import durable
from batchify.errors import OutputIOError, OutputPathError, ResumeError
from batchify.journal import Journal
from batchify.names import printable
from batchify.urls import base_name, shown_url

_LOG = b"remote.journal"


def cache_folder() -> str:
    """Return where this user's programs keep what can be made again."""
    if sys.platform == "win32":
        return os.environ.get("LOCALAPPDATA") or os.path.expanduser("~\\AppData\\Local")
    return os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")


class WorkFolder:
    """The locked folder of one URL: the file, its unfinished build, and a log.

    Parameters
    ----------
    url : str
    parent : path or None
        The cache folder of this user by default.

    Raises
    ------
    OutputLockedError
        If another build of this machine holds it.
    OutputIOError, OutputPathError
        If it cannot be made.
    """

    def __init__(self, url: str, parent: str | os.PathLike[str] | None) -> None:
        top = os.path.join(cache_folder(), "batchify") if parent is None else os.fsdecode(parent)
        # By what is shown: with another password it is the same file.
        digest = hashlib.sha256(shown_url(url).encode("utf-8", "surrogateescape")).hexdigest()
        self.folder = os.path.abspath(os.fsencode(os.path.join(top, digest[:32])))
        _make(self.folder)
        self.path = os.path.join(self.folder, os.fsencode(base_name(url)))
        self.fetched = self.path + b".fetched"
        self._log = Journal(os.path.join(self.folder, _LOG))

    def note(self, **facts: Any) -> None:
        """Keep some facts, durably, until the folder goes."""
        self._log.append(facts)

    def noted(self, name: str) -> Any:
        """Return what was noted last under a name; None where nothing was."""
        try:
            records = self._log.records()
        except ResumeError:  # damaged: what is in the folder is taken for a build's
            self._log.empty()
            return None
        return next((record[name] for record in reversed(records) if name in record), None)

    @property
    def is_copy(self) -> bool:
        """Whether the file is there, and is what was downloaded."""
        return os.path.exists(self.path) and self.noted("copy") == stamp(self.path)

    @property
    def is_unsent(self) -> bool:
        """Whether the file is there, whole, and is not what was downloaded."""
        return os.path.exists(self.path) and not self.is_copy

    def take_fetched(self, version: list[str]) -> None:
        """Give what was downloaded the name of the file."""
        self.note(copy=stamp(self.fetched), version=version)
        os.replace(self.fetched, self.path)

    def remove(self, *paths: bytes) -> None:
        """Remove files that may be there."""
        for path in paths:
            durable.remove(path)

    def close(self) -> None:
        """Let go of the folder; it goes, too, where nothing of use is left in it."""
        with contextlib.suppress(OSError, OutputIOError):
            if set(os.listdir(self.folder)) <= {_LOG}:
                self._log.remove()
                os.rmdir(self.folder)
        self._log.close()

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def stamp(path: bytes) -> list[int]:
    """Return what tells a file from one that takes its name later."""
    status = os.stat(path)
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _make(folder: bytes) -> None:
    try:
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
    except OSError as error:
        raise durable.io_error("making", folder, error) from error
    status = os.lstat(folder)
    ours = sys.platform == "win32" or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
    if os.path.islink(folder) or not os.path.isdir(folder) or not ours:
        raise OutputPathError(
            f"{printable(folder)} is not a folder of this user alone; remove it, or name another "
            "with --work-dir"
        )
