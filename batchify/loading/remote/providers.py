"""Open the files of a URL: copies in the cache, or by range requests."""

from __future__ import annotations

import contextlib
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from batchify.common import durable
from batchify.format.reader import Reader
from batchify.loading.arrays import RowArray
from batchify.loading.dataset_file import DatasetFile
from batchify.loading.remote.cache import HEAD, WHOLE, Cache, Held, Need
from batchify.loading.remote.files import HEAD_NBYTES, open_head, open_whole
from batchify.storage.remote_file import RemoteFile

_SMALL_NBYTES = 4 * HEAD_NBYTES
"""A file of this size is fetched as a whole when its labels are asked for."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of a URL, and what the shard index says of it, if there is one.

    Parameters
    ----------
    digest : str
        Empty if it is not known without reading the file.
    rows : dict of str to int
        The number of rows of its splits; empty until the file is read.
    """

    file: RemoteFile
    digest: str = ""
    rows: dict[str, int] = field(default_factory=dict)


class Opened(NamedTuple):
    """A file that is open, and its entry in the cache."""

    file: DatasetFile
    held: Held | None = None


OpenShard = Callable[[int, bytes, bool, Reader | None], DatasetFile]
"""Opens a file, given the number of the shard, its path, whether its columns are needed in memory,
and a reader of it, if it is open already; raises FileFormatError if it is not as expected."""


class Provider(ABC):
    """Opens the files of a URL, each by a thread that needs it."""

    is_local = False
    """Whether all of a file is fetched before its rows are read."""

    is_limited = False
    """Whether files that are open are in the way of others."""

    @abstractmethod
    def whole(self, number: int, need: Callable[[], Need]) -> Opened:
        """Open a file with its images."""

    @abstractmethod
    def head(self, number: int) -> Opened:
        """Open a file for everything but its images."""


class CachedFiles(Provider):
    """Files that are kept in the cache.

    Parameters
    ----------
    open_file : OpenShard
        Opens a file of the cache.
    """

    is_local = True

    def __init__(self, shards: Sequence[Shard], cache: Cache, open_file: OpenShard) -> None:
        self._shards = list(shards)
        self._cache = cache
        self.is_limited = cache.limit is not None
        self._open_file = open_file

    def whole(self, number: int, need: Callable[[], Need]) -> Opened:
        """Open a file, which is fetched if the cache does not have it."""
        shard = self._shards[number]
        if not shard.digest:
            self.head(number)
            shard = self._shards[number]
        with _Download(shard) as download:
            held = self._hold(shard, need, download)
            try:
                reader = download.reader_at(held.path)
                return Opened(self._open_file(number, held.path, False, reader), held)
            except BaseException:
                held.release()
                raise

    def head(self, number: int) -> Opened:
        """Open a file that is in the cache, or fetch all of it but its images."""
        shard = self._shards[number]
        with _Download(shard) as download:
            if not shard.digest:
                held = self._cache.add(lambda path: self._first(number, path, download))
            else:
                held = self._head(shard, download)
            try:
                reader = download.reader_at(held.path)
                return _columns_only(self._open_file(number, held.path, True, reader))
            finally:
                held.release()

    def _head(self, shard: Shard, download: _Download) -> Held:
        """Return a file that is in the cache, or all of it but its images."""
        name = os.fsencode(shard.digest)
        if shard.file.nbytes <= _SMALL_NBYTES:
            return self._hold(shard, lambda: Need.NOW, download)
        return self._cache.find(name + WHOLE) or self._cache.hold(
            name + HEAD, 0, partial(download.fetch, open_head), lambda: Need.NOW
        )

    def _hold(self, shard: Shard, need: Callable[[], Need], download: _Download) -> Held:
        return self._cache.hold(
            os.fsencode(shard.digest) + WHOLE,
            shard.file.nbytes,
            partial(download.fetch, open_whole),
            need,
        )

    def _first(self, number: int, path: bytes, download: _Download) -> bytes:
        """Fetch the head of a file whose digest is not known; return its name in the cache."""
        digest = download.fetch(open_head, path)
        self._shards[number] = replace(self._shards[number], digest=digest)
        return os.fsencode(digest) + HEAD


class _Download(contextlib.AbstractContextManager["_Download"]):
    """A file that is fetched if the cache does not have it, and then stays open until it is used.

    To open it once more would take as long as to check a hundred rows.
    """

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._reader: Reader | None = None

    def __exit__(self, *exception: object) -> None:
        self._close()

    def fetch(self, open_copy: Callable[[RemoteFile, bytes, str], Reader], path: bytes) -> str:
        """Fetch and check it with a function that returns it open; return its digest."""
        self._close()
        self._reader = open_copy(self._shard.file, path, self._shard.digest)
        digest = self._reader.digest.hex()
        if os.name == "nt":  # which refuses to rename a file that is open
            self._close()
        return digest

    def reader_at(self, path: bytes) -> Reader | None:
        """Return a reader of the file at a path, if that is the one that was fetched."""
        reader = self._reader
        if reader is None or not durable.is_named(reader.fd, path):
            return None
        reader.note_path(path)
        self._reader = None  # it is closed by the one that opens the file
        return reader

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _columns_only(file: DatasetFile) -> Opened:
    """Return a file whose columns are in memory, without the descriptors for its images."""
    for split in file.values():
        if isinstance(split.images, RowArray):
            split.images.close()
    return Opened(file)


class RangedFiles(Provider):
    """Files whose images are read by range requests; the rest is fetched when they are opened.

    Parameters
    ----------
    open_file : OpenShard
        Opens a file, given the path of its head.
    """

    def __init__(self, shards: Sequence[Shard], open_file: OpenShard) -> None:
        self._shards = shards
        self._open_file = open_file

    def whole(self, number: int, need: Callable[[], Need]) -> Opened:  # noqa: ARG002
        """Open a file."""
        return self.head(number)

    def head(self, number: int) -> Opened:
        """Open a file."""
        with tempfile.TemporaryDirectory(
            prefix="batchify-", ignore_cleanup_errors=True
        ) as folder:  # an open file is removed by its name only
            path = os.path.join(os.fsencode(folder), b"head.h5")
            shard = self._shards[number]
            reader = open_head(shard.file, path, shard.digest)
            reader.note_path(path)
            return Opened(self._open_file(number, path, True, reader))
