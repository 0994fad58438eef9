"""List a dataset below a URL, and read its files."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from batchify.common.paths import scheme_of, shown_url
from batchify.dataset_options import DiscoverOptions
from batchify.errors import (
    BadImageError,
    DatasetError,
    DatasetNotFoundError,
    OptionError,
    RemoteError,
    Skipped,
)
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.storage.listed_tree import ListedTree
from batchify.storage.remote_listing import UNKNOWN, has_anything, list_files
from batchify.storage.remote_store import (
    PATIENCE_S,
    Store,
    is_denied,
    is_settled,
    local_reason,
)
from batchify.storage.source import ChangedError, SourceFile, check_size
from batchify.storage.stamps import UNKNOWN as NO_STAMP

IN_FLIGHT = 10
"""Concurrent requests of a process: as many as botocore has connections."""

HELD_NBYTES = 32 << 20
"""Limit for bytes that are requested but not yet used; a single file may be larger."""

_Content = bytes | BadImageError


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """A dataset below a URL. It holds no connection: each process opens its own.

    Parameters
    ----------
    timeout_s : float
        The image timeout: a store that does not answer must be detected before the worker counts
        as hung.
    pid : int
        The process that created it.
    """

    url: str
    timeout_s: float = IMAGE_TIMEOUT_S
    pid: int = field(default_factory=os.getpid)

    @property
    def location(self) -> bytes:
        """The URL, without the secrets in it."""
        return os.fsencode(shown_url(self.url))

    def below(self, name: bytes) -> RemoteSource:
        """Return the source of a folder below the URL."""
        return replace(
            self, url=f"{self.url.rstrip('/')}/{name.decode('utf-8', 'surrogateescape')}"
        )

    def exists(self) -> bool:
        """Return whether there is still anything below the URL."""
        store = Store(self.url)
        try:
            return bool(store.run_in_loop(store.retry_async(lambda: has_anything(store))))
        except FileNotFoundError:
            return False

    def open_reader(self) -> RemoteReader:
        """Return a reader of its files."""
        if scheme_of(self.url) == "memory" and self.pid != os.getpid():
            raise OptionError(
                f"{shown_url(self.url)} is in the memory of a single process; pass workers=1"
            )
        return RemoteReader(self.url, min(PATIENCE_S, self.timeout_s / 2))


class RemoteReader:
    """A reader of the files below a URL, which works in threads and in forked processes.

    Parameters
    ----------
    patience_s : float
        How long a file may take, including retries.

    Notes
    -----
    Memory: `HELD_NBYTES`, or one file that is larger.
    """

    stamp = NO_STAMP  # no listing tells more than sizes

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

    def read_files(self, files: Sequence[SourceFile], max_nbytes: int) -> Iterator[_Content]:
        """Yield the content of each file, in order, or why it cannot be read.

        Raises
        ------
        RemoteError
            If the store does not answer, or this user has lost access.
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
                    in_flight.append((store.start_in_loop(work), size))
                    held += size
                future, size = in_flight.popleft()
                held -= size
                yield future.result()
        finally:
            for future, _ in in_flight:
                future.cancel()

    def file_sizes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each file from the listing; ask the store if it was not listed."""
        for file in files:
            size = _size(file)
            if size < 0:
                size = self._store.file_size(self._store.path_of(file.path)) or 0
            yield size

    def stamps(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield no stamps: files are read to see whether they changed."""
        return (NO_STAMP for _ in files)

    def close(self) -> None:
        """Release the store."""
        self._open = None

    async def _read(self, store: Store, file: SourceFile, max_nbytes: int) -> _Content:
        """Return the content of a file; if it is refused or changes, retry once."""
        path = store.path_of(file.path)
        try:
            async with asyncio.timeout(self._patience_s):
                try:
                    return await self._once(store, path, _size(file), max_nbytes)
                except OSError as error:
                    if not is_settled(error) and not isinstance(error, ChangedError):
                        raise
                try:
                    size = await store.retry_async(lambda: _current_size(store, path))
                    return await self._once(store, path, size, max_nbytes)
                except OSError as error:
                    return await _bad(store, error)
        except BadImageError as error:
            return error
        except TimeoutError as error:
            raise store.unreachable(error) from store.cause(error)

    async def _once(self, store: Store, path: str, size: int, max_nbytes: int) -> bytes:
        """Return a file of known size, with one request: never a mix of two versions."""
        check_size(size, max_nbytes)
        # Asking for one byte more shows whether the file grew, without reading all of it.
        end = (max_nbytes if size < 0 else size) + 1
        data: bytes = await store.retry_async(
            lambda: store.call_async("cat_file", path, start=0, end=end), self._patience_s
        )
        if size < 0 and len(data) > max_nbytes:
            raise BadImageError(f"file is larger than {max_nbytes:,} bytes")
        if not data:
            raise BadImageError("empty file (0 bytes)")
        if size > 0 and len(data) != size:
            raise ChangedError("it changes while it is read")
        return data


def _size(file: SourceFile) -> int:
    return file.extent[0] if file.extent else UNKNOWN


async def _current_size(store: Store, path: str) -> int:
    size = (await store.call_async("info", path)).get("size")
    return UNKNOWN if size is None else int(size)


async def _bad(store: Store, error: OSError) -> BadImageError:
    """Return the error of a file that the store refuses, if this user still has access.

    Raises
    ------
    RemoteError
        If access was lost: an expired key is not the fault of an image.
    """
    if isinstance(error, ChangedError):
        return BadImageError(f"cannot be read: {error}")
    if not is_settled(error):
        raise error
    try:
        await store.retry_async(lambda: has_anything(store))
    except FileNotFoundError:
        pass  # all files vanished, which the build looks for when it counts bad images
    except OSError as refused:
        if is_denied(refused):
            raise store.unreachable(refused) from refused
        raise
    return BadImageError(f"cannot be read: {local_reason(error)}")


ODD = "a file cannot have such a name"
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


def list_remote(url: str, options: DiscoverOptions, timeout_s: float) -> ListedTree:
    """List what is below a URL.

    Parameters
    ----------
    timeout_s : float
        See `RemoteSource`.

    Raises
    ------
    DatasetNotFoundError
        If nothing is there.
    DatasetError
        If listing it is not allowed, or it is a file.
    OptionError
        If such a URL cannot be listed.
    RemoteError
        If the store does not answer.

    Notes
    -----
    Memory: the bytes of all names, 8 more per file, and a page of the listing.
    """
    store = Store(url)
    if store.is_web and "?" in store.root:
        raise OptionError(f"dataset {store.shown}: a URL with a query cannot be listed")
    tree = ListedTree(RemoteSource(url, timeout_s))
    empty = True
    try:
        for path, size, _ in list_files(store):
            _add(tree, path.encode("utf-8", "surrogateescape"), size, options)
            empty = False
    except FileNotFoundError as error:
        raise DatasetNotFoundError(
            f"dataset {store.shown} does not exist ({store.error_text(error)}); name a bucket "
            "and a folder in it that has one subfolder per class"
        ) from store.cause(error)
    except RemoteError:
        raise
    except Exception as error:
        if not is_settled(error):
            raise
        raise DatasetError(_refusal(store, error)) from store.cause(error)
    if empty:
        raise _nothing(store)
    return tree


def is_remote_folder(url: str) -> bool:
    """Return whether a URL may be a folder: it does not name a file."""
    store = Store(url)
    try:
        return store.file_size(store.root) is None
    except RemoteError:
        raise
    except Exception as error:
        if not is_settled(error):
            raise
        return True  # otherwise, listing it reports why


def _add(tree: ListedTree, path: bytes, size: int | None, options: DiscoverOptions) -> None:
    if b"\0" in path or any(name in (b"", b".", b"..") for name in path.split(b"/")):
        if size is not None and options.name_test(path):
            tree.refused.append(Skipped(path, ODD))
    elif size is None:
        tree.add_folder(path)
    else:
        tree.add_file(path, (size,))


def _refusal(store: Store, error: Exception) -> str:
    if is_denied(error):
        return (
            f"dataset {store.shown} may not be listed ({store.error_text(error)}); credentials are "
            "those that the environment and the configuration of the store's tools give"
        )
    return f"dataset {store.shown} cannot be listed: {store.error_text(error)}"


def _nothing(store: Store) -> DatasetError | DatasetNotFoundError:
    """Return the error of a URL with nothing below it: it names a file, or does not exist."""
    if store.file_size(store.root) is None:
        return DatasetNotFoundError(
            f"dataset {store.shown} does not exist: nothing is below it; name a folder that "
            "has one subfolder per class"
        )
    if store.shown.lower().endswith(_ARCHIVES):
        return DatasetError(
            f"dataset {store.shown} is an archive; archives must be local files: download it"
        )
    return DatasetError(
        f"dataset {store.shown} is a file; name a folder that has one subfolder per class"
    )
