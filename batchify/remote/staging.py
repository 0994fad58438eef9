"""A file for a URL: written on a disk of this machine, then uploaded whole."""

from __future__ import annotations

import contextlib
import filecmp
import os
from collections.abc import Callable, Iterator

from batchify.errors import (
    BatchifyError,
    OutputExistsError,
    OutputIOError,
    OutputPathError,
    RemoteError,
)
from batchify.names import printable
from batchify.placing import Place
from batchify.remote.faults import is_settled
from batchify.remote.store import Store
from batchify.remote.transfer import check_writable, download, drop_uploads, upload, version
from batchify.remote.workfolder import WorkFolder
from batchify.report import Progress
from batchify.target import Target
from batchify.urls import base_name, shown_url

Report = Callable[[Progress], None]
_HDF5 = b"\x89HDF\r\n\x1a\n"


@contextlib.contextmanager
def staged(
    url: str,
    work_dir: str | os.PathLike[str] | None,
    report: Report,
    *,
    overwrite: bool,
    restart: bool,
) -> Iterator[Place]:
    """Give a place on this machine for the file of a URL; see `batchify.placing.placed`.

    Whatever ends it, what is built stays in the work folder, and the next call goes on with it.
    """
    shown = shown_url(url)
    if not base_name(url):
        raise OutputPathError(f"target {shown} is a folder; name a file in it")
    store = Store(url)
    if store.is_bucket:
        raise OutputPathError(f"target {shown} is a bucket; name a file in it")
    with WorkFolder(url, work_dir) as work:
        if work.noted("uploading"):  # by a process that was killed
            drop_uploads(store)
            work.note(uploading=False)
        if restart:
            work.remove(work.path)
        with _target_errors(store):
            there = version(store)
            if there is None:
                if work.is_copy:
                    work.remove(work.path)  # of what is gone
            elif restart:
                _check_free(shown, overwrite)
            else:
                _fetch(store, work, there, report, overwrite=overwrite)
            if there is None or overwrite:
                check_writable(store)
        may_replace = overwrite or work.is_unsent

        def publish() -> bool:
            return _publish(store, work, report, overwrite=overwrite)

        yield Place(Target(work.path, may_replace, os.fsencode(shown)), publish)


def _check_free(shown: str, overwrite: bool) -> None:
    if not overwrite:
        raise OutputExistsError(f"target {shown} exists; pass --overwrite to replace it")


def _fetch(
    store: Store, work: WorkFolder, there: list[str], report: Report, *, overwrite: bool
) -> None:
    """Bring what is at the URL into the work folder, unless that has something newer."""
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
    if unsent and store.size(store.root) != os.path.getsize(work.path):
        if overwrite:
            return
        raise _other(store, work)
    download(store, work.fetched, lambda *done: report(Progress("download", *done)))
    if unsent and not filecmp.cmp(work.fetched, work.path, shallow=False):
        work.remove(work.fetched)
        if overwrite:
            return
        raise _other(store, work)
    work.take_fetched(there)


def _other(store: Store, work: WorkFolder) -> OutputExistsError:
    return OutputExistsError(
        f"target {store.shown} exists and is not the file that was built but not uploaded "
        f"({printable(work.path)}); pass --overwrite to replace it"
    )


def _is_hdf5(store: Store) -> bool:
    size = store.size(store.root) or 0
    return size > len(_HDF5) and store.ask("cat_file", store.root, start=0, end=8) == _HDF5


def _publish(store: Store, work: WorkFolder, report: Report, *, overwrite: bool) -> bool:
    """Upload the file, if it is not what is at the URL; return whether it was uploaded."""
    if work.is_copy:
        work.remove(work.path)
        return False
    try:
        with _target_errors(store):
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
def _target_errors(store: Store) -> Iterator[None]:
    """Tell what a store answers about a target as an error of the target.

    Raises
    ------
    OutputPathError
        If there is no such bucket.
    OutputIOError
    """
    try:
        yield
    except BatchifyError:
        raise
    except FileNotFoundError as error:
        raise OutputIOError(
            f"target {store.shown}: there is no such bucket or folder ({store.told(error)})"
        ) from error
    except Exception as error:
        if not is_settled(error):
            raise
        raise OutputIOError(
            f"target {store.shown} cannot be written: {store.told(error)}"
        ) from error
