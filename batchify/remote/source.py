"""A dataset in a remote store, and who reads its files: ahead, in parallel, in bounded memory."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from batchify.errors import BadImageError, OptionError
from batchify.options import IMAGE_TIMEOUT_S
from batchify.remote.faults import is_denied, is_settled, reason
from batchify.remote.pages import UNKNOWN, has_some
from batchify.remote.store import PATIENCE_S, Store
from batchify.storage import SourceFile
from batchify.urls import scheme_of, shown_url

IN_FLIGHT = 10
"""Requests of a process at once: as many as botocore has connections."""
HELD_NBYTES = 32 << 20
"""Bytes asked for and not handed over yet; one file may have more."""
_Content = bytes | BadImageError


class _ChangedError(OSError):
    """The file is not of the size that was told just before."""


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """A dataset below a URL. Nothing is open in it: each process connects by itself.

    Parameters
    ----------
    url : str
    timeout_s : float
        The image timeout: a store that does not answer is to be found out before a worker is
        taken for hung.
    pid : int
        The process that names it.
    """

    url: str
    timeout_s: float = IMAGE_TIMEOUT_S
    pid: int = field(default_factory=os.getpid)

    @property
    def name(self) -> bytes:
        """The URL, without what is secret in it."""
        return os.fsencode(shown_url(self.url))

    def is_there(self) -> bool:
        """Tell whether there is still something.

        Raises
        ------
        RemoteError
        """
        store = Store(self.url)
        try:
            return bool(store.wait(store.persist(lambda: has_some(store))))
        except FileNotFoundError:
            return False

    def open(self) -> RemoteReader:
        """Return who reads its files."""
        if scheme_of(self.url) == "memory" and self.pid != os.getpid():
            raise OptionError(
                f"{shown_url(self.url)} is in the memory of one process; pass workers=1"
            )
        return RemoteReader(self.url, min(PATIENCE_S, self.timeout_s / 2))


class RemoteReader:
    """Reads the files below a URL; in threads, and in a process that was forked, too.

    Parameters
    ----------
    url : str
    patience_s : float
        How long a file may take, all tries together.

    Notes
    -----
    Memory: `HELD_NBYTES`, or one file that is larger.
    """

    def __init__(self, url: str, patience_s: float) -> None:
        self._url = url
        self._patience_s = patience_s
        self._open: tuple[int, Store] | None = None

    @property
    def _store(self) -> Store:
        """The store, connected by this process."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), Store(self._url)
        return self._open[1]

    def fetch(self, files: Sequence[SourceFile], max_nbytes: int) -> Iterator[_Content]:
        """Yield the content of each file, in order, or why it cannot be had.

        Raises
        ------
        RemoteError
            If the store does not answer, or does not let this user in any more.
        """
        store = self._store
        waiting = deque(files)
        in_flight: deque[tuple[Future[_Content], int]] = deque()
        held = 0
        try:
            for _ in files:
                while waiting and len(in_flight) < IN_FLIGHT:
                    size = min(_size(waiting[0]), max_nbytes)
                    if in_flight and (size < 0 or held + size > HELD_NBYTES):
                        break
                    size = max_nbytes if size < 0 else size
                    work = self._read(store, waiting.popleft(), max_nbytes)
                    in_flight.append((store.start(work), size))
                    held += size
                future, size = in_flight.popleft()
                held -= size
                yield future.result()
        finally:
            for future, _ in in_flight:
                future.cancel()

    def nbytes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each file, as it was listed; asked for where that is not known."""
        for file in files:
            size = _size(file)
            if size < 0:
                size = self._store.size(self._store.path(file.path)) or 0
            yield size

    def close(self) -> None:
        """Let go of the store."""
        self._open = None

    async def _read(self, store: Store, file: SourceFile, max_nbytes: int) -> _Content:
        """Return the content of a file; one that is refused or changes is tried once more."""
        path = store.path(file.path)
        try:
            async with asyncio.timeout(self._patience_s):
                try:
                    return await _read_once(store, path, _size(file), max_nbytes)
                except OSError as error:
                    if not is_settled(error) and not isinstance(error, _ChangedError):
                        raise
                try:
                    size = await store.persist(lambda: _current_size(store, path))
                    return await _read_once(store, path, size, max_nbytes)
                except OSError as error:
                    return await _bad(store, error)
        except BadImageError as error:
            return error
        except TimeoutError as error:
            raise store.outage(error) from error


def _size(file: SourceFile) -> int:
    return file.extent[0] if file.extent else UNKNOWN


async def _current_size(store: Store, path: str) -> int:
    size = (await store.call("info", path)).get("size")
    return UNKNOWN if size is None else int(size)


async def _read_once(store: Store, path: str, size: int, max_nbytes: int) -> bytes:
    """Return the content of a file of a size: one request, which gives one version of it."""
    if size > max_nbytes:
        raise BadImageError(f"file of {size:,} bytes is larger than {max_nbytes:,}")
    if size == 0:
        raise BadImageError("empty file (0 bytes)")
    # One byte more than there is tells whether it grew; however much it did, no more comes.
    end = (max_nbytes if size < 0 else size) + 1
    data: bytes = await store.persist(lambda: store.call("cat_file", path, start=0, end=end))
    if size < 0 and len(data) > max_nbytes:
        raise BadImageError(f"file is larger than {max_nbytes:,} bytes")
    if not data:
        raise BadImageError("empty file (0 bytes)")
    if size > 0 and len(data) != size:
        raise _ChangedError("it changes while it is read")
    return data


async def _bad(store: Store, error: OSError) -> BadImageError:
    """Return the error of a file that the store refuses, if it still lets this user in.

    Raises
    ------
    RemoteError
        A key that expired in the middle is no fault of any image.
    """
    if isinstance(error, _ChangedError):
        return BadImageError(f"cannot be read: {error}")
    if not is_settled(error):
        raise error
    try:
        await store.persist(lambda: has_some(store))
    except FileNotFoundError:
        pass  # all of it vanished, which whoever counts bad images looks for
    except OSError as refused:
        if is_denied(refused):
            raise store.outage(refused) from refused
        raise
    return BadImageError(f"cannot be read: {reason(error)}")
