"""Upload and download whole files; make a temporary local copy of a URL."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from batchify.common import durable
from batchify.common.paths import DownloadedPath, base_name, is_url, local_path, shown
from batchify.common.progress import Progress, ProgressCallback
from batchify.errors import (
    BatchifyError,
    FileAccessError,
    FileMissingError,
    OutputPathError,
    RemoteError,
)

if TYPE_CHECKING:
    from batchify.storage.remote_store import Store


@contextlib.contextmanager
def local_copy(
    location: str | os.PathLike[str], report: ProgressCallback = lambda _: None
) -> Iterator[str | os.PathLike[str]]:
    """Yield a local path of a file; a URL is downloaded to the folder for temporary files.

    Parameters
    ----------
    report : callable
        Called with a `Progress` in bytes while the file is copied.

    Raises
    ------
    FileMissingError, FileAccessError
        If there is no file at a URL, or it may not be read.
    OutputIOError
        If there is no space for the copy.
    """
    if isinstance(location, DownloadedPath) or not is_url(location):
        yield location if isinstance(location, DownloadedPath) else local_path(location)
        return

    url = os.fsdecode(location)
    folder = tempfile.mkdtemp(prefix="batchify-")
    try:
        copy = DownloadedPath(os.path.join(folder, base_name(url) or "file"), shown(url))
        fetch_file(url, os.fsencode(copy), lambda *done: report(Progress("download", *done)))
        yield copy
    finally:
        shutil.rmtree(folder, ignore_errors=True)


BLOCK_NBYTES = 8 << 20

MOST_PARTS = 9_000
"""S3 accepts at most 10,000 parts per upload."""

Step = Callable[[int, int], None]
"""Called with the bytes done, and the total."""


def fetch_file(url: str, path: bytes, step: Step = lambda *_: None) -> None:
    """Download the file of a URL to a local path; see `download`.

    Raises
    ------
    FileMissingError, FileAccessError
        If there is no such file, or it may not be read.
    """
    from batchify.storage.remote_store import Store, is_settled  # imports asyncio

    store = Store(url)
    try:
        download(store, path, step)
    except BatchifyError:
        raise
    except FileNotFoundError as error:
        text = f"there is no file {store.shown}; make it with batchify build"
        raise FileMissingError(text) from store.cause(error)
    except Exception as error:
        if not is_settled(error):
            raise
        text = f"{store.shown} cannot be opened: {store.error_text(error)}"
        raise FileAccessError(text) from store.cause(error)


def version(store: Store) -> list[str] | None:
    """Return what distinguishes this version of a URL's file; None if there is no file."""
    from batchify.storage.remote_listing import versions  # imports asyncio

    try:
        info = store.call("info", store.root)
    except FileNotFoundError:
        return None
    if info["type"] != "file":
        return None
    return versions(info)


def download(store: Store, path: bytes, step: Step = lambda *_: None) -> None:
    """Download the file of a URL to a local path.

    Raises
    ------
    OutputIOError
        If there is no space for it.
    """
    store.retry(lambda: _get(store, path, step))


def _get(store: Store, path: bytes, step: Step) -> None:
    if not store.is_s3:  # which would hold ten pieces of 50 MiB at once
        nbytes = store.file_size(store.root) or 0
        durable.check_room(path, nbytes)
        step(0, nbytes)
        store.fs.get_file(store.root, os.fsdecode(path))
        step(nbytes, nbytes)
        return
    with store.fs.open(store.root, "rb", block_size=BLOCK_NBYTES, cache_type="none") as remote:
        nbytes = int(remote.size)
        durable.check_room(path, nbytes)
        done = 0
        with open(path, "wb") as file:
            step(0, nbytes)
            while data := remote.read(BLOCK_NBYTES):
                _write(file.fileno(), data, path)
                done += len(data)
                step(done, nbytes)
    if done != nbytes:
        raise RemoteError(f"{store.shown} changes while it is downloaded")


def _write(fd: int, data: bytes, path: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise durable.io_error("writing", path, error) from error


def upload(store: Store, path: bytes, step: Step = lambda *_: None) -> None:
    """Upload a local file to a URL, where it appears only when it is complete.

    Notes
    -----
    Memory: about three blocks (`BLOCK_NBYTES`), larger ones for files beyond 70 GiB.
    """
    nbytes = os.path.getsize(path)
    store.retry(lambda: _put(store, path, nbytes, step))
    there = store.file_size(store.root)
    if there != nbytes:
        raise RemoteError(f"{store.shown} has {there or 0:,} bytes of {nbytes:,} after the upload")


def _put(store: Store, path: bytes, nbytes: int, step: Step) -> None:
    block = max(BLOCK_NBYTES, -(-nbytes // MOST_PARTS))
    remote = store.fs.open(store.root, "wb", block_size=block, autocommit=False)
    try:
        done = 0
        step(0, nbytes)
        with open(path, "rb") as file:
            while data := file.read(block):
                remote.write(data)
                done += len(data)
                step(done, nbytes)
        remote.close()
        remote.commit()
    except BaseException:
        _discard(remote)
        raise


def _discard(remote: Any) -> None:
    """Discard what was uploaded so far, as far as possible."""
    with contextlib.suppress(Exception):
        remote.discard()
    with contextlib.suppress(AttributeError):  # a file in memory has nothing open
        remote.closed = True  # otherwise it would be uploaded when it is garbage-collected


def check_writable(store: Store) -> None:
    """Check before any work that this user may upload, if the store can report it.

    Raises
    ------
    FileNotFoundError
        If there is no such bucket.
    OSError
        Any other answer of the store.
    OutputPathError
        If the store is read-only.
    """
    if store.is_web:
        raise OutputPathError(
            f"target {store.shown}: files of such URLs can only be read; name another target"
        )
    if not store.is_s3:
        return
    bucket, key, _ = store.fs.split_path(store.root)
    target = {"Bucket": bucket, "Key": key}
    begun = store.call("call_s3", "create_multipart_upload", **target)
    store.call("call_s3", "abort_multipart_upload", **target, UploadId=begun["UploadId"])


def drop_uploads(store: Store) -> None:
    """Discard interrupted uploads to a URL, if the store keeps them."""
    if not store.is_s3:
        return
    bucket, key, _ = store.fs.split_path(store.root)
    # Uploads that cannot be listed or discarded are left to the rules of the bucket.
    with contextlib.suppress(Exception):
        found = store.call("call_s3", "list_multipart_uploads", Bucket=bucket, Prefix=key)
        for each in found.get("Uploads", ()):
            if each["Key"] == key:
                upload = {"Bucket": bucket, "Key": key, "UploadId": each["UploadId"]}
                store.call("call_s3", "abort_multipart_upload", **upload)
