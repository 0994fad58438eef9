"""Open the destination of a build: a path, or a URL by way of a local work folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from batchify.building.target import Destination, Target
from batchify.common.paths import is_url, local_path
from batchify.common.progress import ProgressCallback
from batchify.common.text import printable
from batchify.errors import OutputPathError
from batchify.options import BuildOptions, RunOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from batchify.planning.near_groups import KnownLooks


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


def known_looks(path: bytes, options: BuildOptions) -> KnownLooks | None:
    """Return a function that reads from a file what its images look like, if a plan asks for it.

    `--group-near-duplicates` then decodes only images that the file does not have.
    """
    is_asked = options.split.group_near_duplicates is not None and options.store.appearance
    if not (is_asked and os.path.isfile(path)):
        return None

    def read() -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        from batchify.building.set_aside import read_looks  # HDF5, after workers have started

        return read_looks(path, options)

    return read
