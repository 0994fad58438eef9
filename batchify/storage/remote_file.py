"""Read a file of a URL by ranges, or a small one whole; several requests at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent import futures

from batchify.common import durable
from batchify.common.paths import shown_url
from batchify.errors import (
    BatchifyError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
    RemoteError,
)
from batchify.storage.direct import DirectCopy, Extent
from batchify.storage.remote_store import Store, is_settled

PART_NBYTES = 8 << 20
"""The size of a request, for larger ranges."""

IN_FLIGHT = 10
"""Concurrent requests for a file: as many as botocore has connections."""

_SHORT_ANSWERS = 3
"""Incomplete answers after which a file is taken to be shorter than expected."""

DIRECT_NBYTES = 1 << 20
"""From this size on, plain connections are tried first."""


class RemoteFile:
    """A file of a URL. It works in threads and forked processes, and can be pickled.

    Each process connects by itself. A store that does not answer, or answers that it is
    overloaded, is asked again, as `Store.retry_async` does.

    Parameters
    ----------
    nbytes : int, optional
        Its size, if it is known; otherwise the store is asked.

    Raises
    ------
    FileMissingError
        From all methods: there is no such file.
    FileAccessError
        The store refuses to hand it over.
    FileFormatError
        It is shorter than expected.
    RemoteError
        The store does not answer.
    """

    def __init__(self, url: str, nbytes: int | None = None) -> None:
        self.url = url
        self.shown = shown_url(url)
        self._nbytes = nbytes
        self._open: tuple[int, Store] | None = None

    def __reduce__(self) -> tuple[type[RemoteFile], tuple[str, int | None]]:
        return type(self), (self.url, self._nbytes)

    @property
    def _store(self) -> Store:
        """The store, connected by this process."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), Store(self.url)
        return self._open[1]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        if self._nbytes is None:
            store = self._store

            async def ask() -> int:
                info = await store.call_async("info", store.root)
                if info["type"] != "file":
                    raise FileNotFoundError(store.root)
                return int(info["size"])

            with self._answers():
                self._nbytes = store.run_in_loop(store.retry_async(ask))
        return self._nbytes

    def read_whole(self, most: int = 1 << 30) -> bytes:
        """Return the content of a small file, or its first bytes, in one request."""
        store = self._store

        async def ask() -> bytes:
            # Without a range, s3fs asks for the size first.
            data: bytes = await store.call_async("cat_file", store.root, start=0, end=most)
            return data[:most]

        with self._answers():
            return store.run_in_loop(store.retry_async(ask))

    def read(self, extents: Sequence[Extent]) -> list[bytes]:
        """Return the bytes of some ranges, several requests at a time."""
        found = [b""] * len(extents)

        async def keep(number: int, data: bytes) -> None:
            found[number] = data

        self._read(list(extents), keep)
        return found

    def copy(self, extents: Sequence[Extent], path: bytes) -> None:
        """Write some ranges of it to the same offsets of a local file, which exists.

        Raises
        ------
        OutputIOError
            If they cannot be written.
        """
        parts = [part for extent in extents for part in _parts(*extent)]
        try:
            fd = os.open(path, os.O_RDWR | durable.O_BINARY)
        except OSError as error:
            raise durable.io_error("opening", path, error) from error

        async def keep(number: int, data: bytes) -> None:
            try:
                await asyncio.to_thread(durable.pwrite_all, fd, data, parts[number][0])
            except OSError as error:
                raise durable.io_error("writing", path, error) from error

        try:
            if sum(nbytes for _, nbytes in parts) >= DIRECT_NBYTES:
                direct = DirectCopy(self._store, fd, parts, _is_ending.is_set)
                try:
                    parts = direct.run()
                except OSError as error:
                    raise durable.io_error("writing", path, error) from error
            self._read(parts, keep)
        finally:
            os.close(fd)

    def _read(
        self, extents: Sequence[Extent], keep: Callable[[int, bytes], Awaitable[None]]
    ) -> None:
        store = self._store

        async def every() -> None:
            free = asyncio.Semaphore(IN_FLIGHT)

            async def one(number: int, offset: int, nbytes: int) -> None:
                async with free:
                    data = await self._range(store, offset, nbytes)
                    await keep(number, data)

            async with asyncio.TaskGroup() as group:
                for number, (offset, nbytes) in enumerate(extents):
                    if nbytes:
                        group.create_task(one(number, offset, nbytes))

        with self._answers():
            if _is_ending.is_set():
                raise RemoteError(f"{self.shown} is not read: the process ends")
            future = store.start_in_loop(every())
            _reads.add(future)
            try:
                while not futures.wait([future], _POLL_S).done:
                    pass  # on Windows, a wait without timeout would not notice Ctrl-C
                future.result()
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None
            except futures.CancelledError:
                raise RemoteError(f"{self.shown} is not read: the process ends") from None
            finally:
                future.cancel()

    async def _range(self, store: Store, offset: int, nbytes: int) -> bytes:
        """Return a range; if it is incomplete, ask again."""
        short = 0

        async def ask() -> bytes:
            nonlocal short
            data: bytes = await store.call_async(
                "cat_file", store.root, start=offset, end=offset + nbytes
            )
            if len(data) > nbytes:  # a web server may not support ranges
                data = data[offset : offset + nbytes]
            if len(data) < nbytes:
                short += 1
                raise self._ends_early() if short == _SHORT_ANSWERS else _ShortError
            return data

        return await store.retry_async(ask)

    def _ends_early(self) -> FileFormatError:
        return FileFormatError(
            f"{self.shown} ends early: it was replaced, or its upload was not complete"
        )

    @contextlib.contextmanager
    def _answers(self) -> Iterator[None]:
        """Turn what the store answers into errors that name the file."""
        try:
            yield
        except BatchifyError:
            raise
        except FileNotFoundError as error:
            cause = self._store.cause(error)
            raise FileMissingError(f"there is no file {self.shown}") from cause
        except Exception as error:
            if not is_settled(error):
                raise
            text = self._store.error_text(error)
            cause = self._store.cause(error)
            raise FileAccessError(f"{self.shown} cannot be read: {text}") from cause


_POLL_S = 1.0
_reads: weakref.WeakSet[futures.Future[None]] = weakref.WeakSet()
_is_ending = threading.Event()


def cancel_reads() -> None:
    """Cancel all reads of this process, which ends."""
    _is_ending.set()
    for future in list(_reads):
        future.cancel()


class _ShortError(Exception):
    """Fewer bytes came than were asked for: the connection broke off, or the file is shorter."""

    def __str__(self) -> str:
        return "the answer is incomplete"


def _parts(offset: int, nbytes: int) -> Iterator[Extent]:
    """Cut a range into requests."""
    for start in range(offset, offset + nbytes, PART_NBYTES):
        yield start, min(PART_NBYTES, offset + nbytes - start)


def url_below(url: str, name: str) -> str:
    """Return the URL of a file in the folder of a URL."""
    return f"{url.rstrip('/')}/{name}"


def names_in(url: str) -> list[str]:
    """Return the names of the files directly in the folder of a URL, sorted.

    Raises
    ------
    FileMissingError, FileAccessError, RemoteError
        As for `RemoteFile`.
    """
    store = Store(url)
    try:
        entries = store.call("ls", store.root or "/", detail=True)
    except FileNotFoundError as error:
        raise FileMissingError(f"there is no {store.shown}") from store.cause(error)
    except BatchifyError:
        raise
    except Exception as error:
        if not is_settled(error):
            raise
        raise FileAccessError(
            f"{store.shown} cannot be listed: {store.error_text(error)}"
        ) from store.cause(error)
    return sorted(entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "file")
