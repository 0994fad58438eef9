"""Make the file of a URL in a local work folder, and upload it."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from batchify.building.journal import LOCK, Journal
from batchify.building.target import Destination, Target
from batchify.common import durable
from batchify.common.closing import Closing
from batchify.common.paths import base_name, shown_url
from batchify.common.progress import Progress, ProgressCallback
from batchify.common.system import cache_folder
from batchify.common.text import printable
from batchify.errors import (
    BatchifyError,
    OutputExistsError,
    OutputIOError,
    OutputPathError,
    RemoteError,
    ResumeError,
)
from batchify.options import RunOptions
from batchify.storage.remote_store import Store, is_settled
from batchify.storage.transfer import check_writable, download, drop_uploads, upload, version

_LOG = b"remote.journal"


class WorkFolder(Closing):
    """The locked local folder of one URL: the file, its unfinished build, and a log.

    Parameters
    ----------
    parent : path or None
        The cache folder of this user by default.

    Raises
    ------
    OutputLockedError
        If another build on this machine holds it.
    OutputIOError, OutputPathError
        If it cannot be created.
    """

    def __init__(self, url: str, parent: str | os.PathLike[str] | None) -> None:
        top = os.path.join(cache_folder(), "batchify") if parent is None else os.fsdecode(parent)
        # Hash the URL without its password: a new password does not make it another file.
        digest = hashlib.sha256(shown_url(url).encode("utf-8", "surrogateescape")).hexdigest()
        self.folder = os.path.abspath(os.fsencode(os.path.join(top, digest[:32])))
        _make_private(self.folder)
        self.path = os.path.join(self.folder, os.fsencode(base_name(url)))
        self.fetched = self.path + b".fetched"
        self._log = Journal(os.path.join(self.folder, _LOG))

    def note(self, **facts: Any) -> None:
        """Durably write values to the log of the folder."""
        self._log.append(facts)

    def noted(self, name: str) -> Any:
        """Return the last value logged under a name; None if there is none."""
        try:
            records = self._log.records()
        except ResumeError:  # damaged: treat the files in the folder as those of a build
            self._log.empty()
            return None
        return next((record[name] for record in reversed(records) if name in record), None)

    @property
    def is_copy(self) -> bool:
        """Whether the file exists and is the downloaded one."""
        return os.path.exists(self.path) and self.noted("copy") == stamp(self.path)

    @property
    def is_unsent(self) -> bool:
        """Whether the file is complete and was built here, but not uploaded yet."""
        return os.path.exists(self.path) and not self.is_copy

    def take_fetched(self, version: list[str]) -> None:
        """Move the downloaded file into place."""
        self.note(copy=stamp(self.fetched), version=version)
        os.replace(self.fetched, self.path)

    def remove(self, *paths: bytes) -> None:
        """Remove files, if they exist."""
        for path in paths:
            durable.remove(path)

    def close(self) -> None:
        """Release the folder; remove it if nothing useful is left in it."""
        with contextlib.suppress(OSError, OutputIOError):
            if set(os.listdir(self.folder)) <= {_LOG, _LOG + LOCK}:
                self._log.remove()
                os.rmdir(self.folder)
        self._log.close()


def stamp(path: bytes) -> list[int]:
    """Return the identity of a file, which differs for a later file of that name."""
    status = os.stat(path)
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _make_private(folder: bytes) -> None:
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
            f"{printable(folder)} is not a private folder of this user; remove it, or name another "
            "with --work-dir"
        )


_HDF5 = b"\x89HDF\r\n\x1a\n"


@contextlib.contextmanager
def open_remote(url: str, run: RunOptions, report: ProgressCallback) -> Iterator[Destination]:
    """Open the destination of a file for a URL: a local path.

    If the build fails, the work folder is kept and the next call resumes from it.
    """
    shown = shown_url(url)
    if not base_name(url):
        raise OutputPathError(f"target {shown} is a folder; name a file in it")
    store = Store(url)
    if store.is_bucket:
        raise OutputPathError(f"target {shown} is a bucket; name a file in it")
    with WorkFolder(url, run.work_dir) as work:
        if work.noted("uploading"):  # an earlier process was killed at this point
            drop_uploads(store)
            work.note(uploading=False)
        if run.restart:
            work.remove(work.path)
        with target_errors(store):
            there = version(store)
            if there is None:
                if work.is_copy:
                    work.remove(work.path)  # the original is gone
            elif run.restart:
                _check_free(shown, run.overwrite)
            else:
                _fetch(store, work, there, report, overwrite=run.overwrite)
            if there is None or run.overwrite:
                check_writable(store)
        may_replace = run.overwrite or work.is_unsent

        def publish() -> bool:
            return _publish(store, work, report, overwrite=run.overwrite)

        yield Destination(Target(work.path, may_replace, os.fsencode(shown)), publish)


def _check_free(shown: str, overwrite: bool) -> None:
    if not overwrite:
        raise OutputExistsError(f"target {shown} exists; pass --overwrite to replace it")


def _fetch(
    store: Store, work: WorkFolder, there: list[str], report: ProgressCallback, *, overwrite: bool
) -> None:
    """Download the file of a URL into the work folder, unless a newer one is there."""
    if work.is_copy and work.noted("version") == there:
        return
    if work.is_copy:
        work.remove(work.path)
    if not _is_hdf5(store):
        if not overwrite:
            raise OutputExistsError(
                f"target {store.shown} exists and is not an HDF5 file; pass --overwrite to replace "
                "it"
            )
        return
    unsent = work.is_unsent
    if unsent and store.file_size(store.root) != os.path.getsize(work.path):
        if overwrite:
            return
        raise _differs(store, work)
    download(store, work.fetched, lambda *done: report(Progress("download", *done)))
    if unsent and not filecmp.cmp(work.fetched, work.path, shallow=False):
        work.remove(work.fetched)
        if overwrite:
            return
        raise _differs(store, work)
    work.take_fetched(there)


def _differs(store: Store, work: WorkFolder) -> OutputExistsError:
    return OutputExistsError(
        f"target {store.shown} exists and is not the file that was built but not uploaded "
        f"({printable(work.path)}); pass --overwrite to replace it"
    )


def _is_hdf5(store: Store) -> bool:
    size = store.file_size(store.root) or 0
    return size > len(_HDF5) and store.call("cat_file", store.root, start=0, end=8) == _HDF5


def _publish(store: Store, work: WorkFolder, report: ProgressCallback, *, overwrite: bool) -> bool:
    """Upload the file, unless it is the downloaded one; return whether it was uploaded."""
    if work.is_copy:
        work.remove(work.path)
        return False
    try:
        with target_errors(store):
            if version(store) is not None:
                _check_free(store.shown, overwrite)
            work.note(uploading=True)
            upload(store, work.path, lambda *done: report(Progress("upload", *done)))
    except (RemoteError, OutputIOError) as error:
        raise type(error)(
            f"{error}; what is built is kept in {printable(work.folder)}: run the same command "
            "again to upload it"
        ) from error
    work.remove(work.path)
    work.note(uploading=False)
    return True


@contextlib.contextmanager
def target_errors(store: Store) -> Iterator[None]:
    """Report errors of a store as errors of the target (`OutputIOError`)."""
    try:
        yield
    except BatchifyError:
        raise
    except FileNotFoundError as error:
        raise OutputIOError(
            f"target {store.shown}: there is no such bucket or folder ({store.error_text(error)})"
        ) from error
    except Exception as error:
        if not is_settled(error):
            raise
        raise OutputIOError(
            f"target {store.shown} cannot be written: {store.error_text(error)}"
        ) from error
