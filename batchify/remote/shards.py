"""A prefix of a remote store that shards go to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from batchify.errors import OutputIOError
from batchify.remote.faults import is_settled
from batchify.remote.store import Store
from batchify.remote.transfer import check_writable
from batchify.remote.workfolder import WorkFolder
from batchify.shardindex import NAME
from batchify.target import check_outside
from batchify.urls import is_url, shown_url


class RemoteShards:
    """The folder of a URL; each shard is written on a disk of the machine that makes it.

    Parameters
    ----------
    url : str
    work_dir : path or None
        Where the lock of this machine is; see `batchify.remote.workfolder.WorkFolder`.
    """

    def __init__(self, url: str, work_dir: str | os.PathLike[str] | None) -> None:
        self._url = url.rstrip("/")
        self._work_dir = work_dir
        self.shown = os.fsencode(shown_url(self._url))

    def place(self, name: str) -> str:
        """Return the URL of a file in it."""
        return f"{self._url}/{name}"

    def check(self, dataset: str | os.PathLike[str]) -> None:
        """Refuse a place in the dataset, and a store that cannot be written."""
        if is_url(dataset):
            check_outside(self.shown, b"", dataset)
        store = self._store(NAME)
        with self._telling("written", store):
            check_writable(store)

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Hold it for a build of this machine; workers elsewhere see nothing of that."""
        with WorkFolder(self.place(os.fsdecode(NAME)), self._work_dir):
            yield None

    def read(self, name: bytes) -> bytes | None:
        """Return the content of a small file in it; None where there is none."""
        store = self._store(name)
        with self._telling("read", store):
            try:
                data: bytes = store.ask("cat_file", store.root)
            except FileNotFoundError:
                return None
            return data

    def write(self, name: bytes, data: bytes) -> None:
        """Put a small file into it, in one request."""
        store = self._store(name)
        with self._telling("written", store):
            store.ask("pipe_file", store.root, data)

    def remove(self, name: bytes) -> None:
        """Remove a file in it that may be there."""
        store = self._store(name)
        with self._telling("removed", store), contextlib.suppress(FileNotFoundError):
            store.ask("rm_file", store.root)

    def _store(self, name: bytes) -> Store:
        return Store(self.place(os.fsdecode(name)))

    @contextlib.contextmanager
    def _telling(self, what: str, store: Store) -> Iterator[None]:
        """Tell what a store answers as an error of the output.

        Raises
        ------
        OutputIOError
        """
        try:
            yield
        except Exception as error:
            if not is_settled(error):
                raise
            raise OutputIOError(f"{store.shown} cannot be {what}: {store.told(error)}") from error
