"""Upload the files of a local folder to a folder of a URL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable

from batchify.common.text import printable
from batchify.errors import OutputPathError
from batchify.storage.remote_store import Store
from batchify.storage.transfer import upload

_SMALL_NBYTES = 1 << 20
_AT_ONCE = 8
"""Small files that are uploaded at the same time; each is in memory."""


def upload_files(
    store: Store, folder: bytes, names: Iterable[bytes], step: Callable[[], None] = lambda: None
) -> None:
    """Upload files of a folder, small ones several at a time.

    Parameters
    ----------
    names : iterable of bytes
        Relative to the folder, "/" separated.
    step : callable
        Called after each request.

    Raises
    ------
    OutputPathError
        If a name is not UTF-8.
    OSError, RemoteError
        As `batchify.storage.transfer.upload`.
    """
    small: list[bytes] = []
    known: set[bytes] = set()
    for name in names:
        try:
            name.decode()
        except UnicodeDecodeError as error:
            raise OutputPathError(
                f"{printable(name)}: names in {store.shown} are UTF-8, and this one is not; "
                "rename it, or export to a folder"
            ) from error
        above = os.path.dirname(name)
        if not store.fs.async_impl and above not in known:  # object stores have no folders
            store.call("makedirs", store.below(above).root, exist_ok=True)
            known.add(above)
        path = os.path.join(folder, name)
        if os.path.getsize(path) > _SMALL_NBYTES:
            upload(store.below(name), path, lambda *_: step())
            step()
        else:
            small.append(name)
    for start in range(0, len(small), _AT_ONCE):
        store.run_in_loop(_put(store, folder, small[start : start + _AT_ONCE]))
        step()


async def _put(store: Store, folder: bytes, names: list[bytes]) -> None:
    async def put(name: bytes) -> None:
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read()
        await store.retry_async(lambda: store.call_async("pipe_file", store.path_of(name), data))

    await asyncio.gather(*map(put, names))
