"""A file that was built, as a path of this machine; one of a URL is copied while it is read."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator

from batchify.errors import FileAccessError, FileMissingError
from batchify.report import Progress
from batchify.urls import Copy, base_name, is_url, local_path, shown


@contextlib.contextmanager
def local_copy(
    location: str | os.PathLike[str], report: Callable[[Progress], None] = lambda _: None
) -> Iterator[str | os.PathLike[str]]:
    """Give a path of this machine to a file; that of a URL is in the folder for temporary files.

    Parameters
    ----------
    location : path or URL
    report : callable
        Called with a `Progress` in bytes while the file is copied.

    Raises
    ------
    FileMissingError, FileAccessError
        If there is no file at a URL, or it may not be read.
    OutputIOError
        If there is no room for the copy.
    RemoteError
    """
    if isinstance(location, Copy) or not is_url(location):
        yield location if isinstance(location, Copy) else local_path(location)
        return
    from batchify.remote.transfer import fetch_file  # imports fsspec

    url = os.fsdecode(location)
    folder = tempfile.mkdtemp(prefix="batchify-")
    try:
        copy = Copy(os.path.join(folder, base_name(url) or "file"), shown(url))
        try:
            fetch_file(url, os.fsencode(copy), lambda *done: report(Progress("download", *done)))
        except FileNotFoundError as error:
            name = os.fsdecode(copy.shown)
            raise FileMissingError(
                f"there is no file {name}; make it with batchify build (a folder of shards is "
                "read from a disk of this machine alone: download it)"
            ) from error
        except PermissionError as error:
            raise FileAccessError(f"{os.fsdecode(copy.shown)} cannot be opened: {error}") from error
        yield copy
    finally:
        shutil.rmtree(folder, ignore_errors=True)
