"""Where a file is written, and how it gets to where it was asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from batchify.report import Progress
from batchify.target import Target
from batchify.urls import is_url, local_path


@dataclass(frozen=True)
class Place:
    """Where a build writes.

    Parameters
    ----------
    target : Target
        On a disk of this machine.
    publish : callable
        To be called when the target is whole: brings it to where it was asked for, and returns
        whether that had to be done.
    """

    target: Target
    publish: Callable[[], bool] = lambda: False


@contextlib.contextmanager
def placed(
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    restart: bool = False,
    work_dir: str | os.PathLike[str] | None = None,
    report: Callable[[Progress], None] = lambda _: None,
) -> Iterator[Place]:
    """Give a place to write a file that is asked for by a path or a URL.

    Parameters
    ----------
    output : path or URL
    overwrite, restart : bool
        As for `batchify.build`.
    work_dir : path, optional
        Where what goes to a URL is written before; the cache folder of this user by default.
    report : callable
        Called with a `Progress` in bytes while the file is transferred.

    Raises
    ------
    OutputExistsError, OutputPathError, OutputLockedError, OutputIOError, RemoteError
    """
    if not is_url(output):
        path = os.path.abspath(os.fsencode(local_path(output)))
        yield Place(Target(path, overwrite))
        return
    from batchify.remote.staging import staged  # imports fsspec

    url = os.fsdecode(output)
    options = {"overwrite": overwrite, "restart": restart}
    with staged(url, work_dir, report, **options) as place:
        yield place
