"""Open the destination of a build: a path, or a URL by way of a local work folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from batchify.building.target import Destination, Target
from batchify.common.paths import is_url, local_path
from batchify.common.progress import ProgressCallback
from batchify.common.text import printable
from batchify.errors import OutputPathError
from batchify.options import RunOptions


@contextlib.contextmanager
def open_destination(
    output: str | os.PathLike[str],
    run: RunOptions,
    report: ProgressCallback = lambda _: None,
) -> Iterator[Destination]:
    """Open the destination of a file for a path or a URL.

    `report` is called with a `Progress` in bytes while the file is transferred.

    Raises
    ------
    OutputPathError
        If the name is that of a folder.
    """
    if not is_url(output):
        name = os.fsencode(local_path(output))
        if name and not os.path.basename(name):
            raise OutputPathError(f"target {printable(name)} is a folder; name a file in it")
        yield Destination(Target(os.path.abspath(name), run.overwrite))
        return
    from batchify.building.remote_staging import open_remote  # imports asyncio

    with open_remote(os.fsdecode(output), run, report) as destination:
        yield destination
