"""A folder of files fetched from URLs, shared by the processes of a machine.

A file is fetched under a temporary name by the process that holds its lock, and renamed when it is
complete: others wait for it, and a process that was killed blocks no one. A process that uses a
file holds a shared lock of it; only other files are evicted, the least recently used first.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
import weakref
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from batchify.common import durable
from batchify.common.text import printable
from batchify.errors import BatchifyError, OutputIOError
from batchify.loading.remote.cache_options import CacheOptions

POLL_S = 0.02
"""How often a process looks whether another one has fetched a file."""

_SOON_POLLS = 10
"""Polls after which a file that is needed soon looks for room again, which lists the folder."""

_LOCK, _PARTIAL, HEAD, WHOLE = b".lock", b".partial", b".head", b".h5"
_ROOM = b"room" + _LOCK
_OLD_S = 86_400.0
"""After that long, a temporary file on a file system without locks is no longer written."""


class Need(Enum):
    """How much a file is needed."""

    SOON = 1
    NOW = 2
    NO_MORE = 3


class NoNeedError(Exception):
    """A file is needed no more, and was not fetched."""


class Held:
    """A file of the cache that is in use, until this is released or garbage-collected."""

    def __init__(self, path: bytes, fd: int, used: set[object]) -> None:
        self.path = path
        used.add(token := object())
        self.release = weakref.finalize(self, _close, fd, used, token)


def _close(fd: int, used: set[object], token: object) -> None:
    os.close(fd)
    used.discard(token)


class _Entry(NamedTuple):
    used: float
    path: bytes
    nbytes: int


class Cache:
    """The files of a cache folder, by name.

    Attributes
    ----------
    on_pressure : callable
        Called when a file is needed now and there is no room for it: releases files that this
        process can do without.

    Raises
    ------
    OutputIOError
        From all methods: if the folder cannot be written, or its disk is full.
    """

    def __init__(self, options: CacheOptions) -> None:
        self.limit = options.limit
        self.on_pressure: Callable[[], object] = lambda: None
        self._folder = os.path.abspath(os.fsencode(options.folder))
        self._is_clean = False
        self._used: set[object] = set()
        self._fetching: set[tuple[int, bytes]] = set()
        """Process and path of files that are fetched with this object, which forks copy."""

    def find(self, name: bytes) -> Held | None:
        """Return a file, which is then not evicted; None if it is not there."""
        path = self._path(name)
        try:
            fd = os.open(path, os.O_RDONLY | durable.O_BINARY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise durable.io_error("opening", path, error) from error
        held = Held(path, fd, self._used)
        if durable.try_lock(fd, shared=True) is False or not durable.is_named(fd, path):
            held.release()  # it is being evicted
            return None
        with contextlib.suppress(OSError):  # in a folder that is read-only, nothing is evicted
            os.utime(path)
        return held

    def hold(
        self, name: bytes, nbytes: int, fetch: Callable[[bytes], object], need: Callable[[], Need]
    ) -> Held:
        """Return a file; if it is not there, fetch it, or wait for the process that does.

        Parameters
        ----------
        nbytes : int
            Its size.
        fetch : callable
            Creates a complete and intact file, given its path.
        need : callable
            A file that is needed soon waits until there is room for it. One that is needed now
            exceeds the limit if all other files are in use.

        Raises
        ------
        NoNeedError
            If it is needed no more.
        """
        while True:
            found, lock = self.find(name), None
            if found is None and (lock := self._try_lock(name)) is not None:
                with lock:
                    found = self.find(name)
                    if found is None:
                        self._fetch(name, nbytes, fetch, need)
                        found = self.find(name)
            if found is not None:
                return found
            if need() is Need.NO_MORE:
                raise NoNeedError
            time.sleep(POLL_S)
            for _ in range(_SOON_POLLS if lock is not None else 0):
                if need() is not Need.SOON:
                    break
                time.sleep(POLL_S)

    def add(self, fetch: Callable[[bytes], bytes]) -> Held:
        """Fetch a file whose name is known only then: `fetch` returns it."""
        own = b"new-" + secrets.token_hex(8).encode()
        while (lock := self._try_lock(own)) is None:
            time.sleep(POLL_S)
        with lock:
            partial = self._new_partial(own)
            try:
                name = fetch(partial)
                os.replace(partial, self._path(name))
            finally:
                with contextlib.suppress(OSError):  # after success, it does not exist
                    os.unlink(partial)
        return self.find(name) or self.add(fetch)

    def _path(self, name: bytes) -> bytes:
        return os.path.join(self._folder, name)

    def _new_partial(self, name: bytes) -> bytes:
        """Return a new path for a file that is being fetched."""
        self._make_folder()
        return self._path(name + b"." + secrets.token_hex(4).encode() + _PARTIAL)

    def _make_folder(self) -> None:
        """Create the folder, also if it was removed, and remove what killed processes left."""
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        if self._is_clean:
            return
        self._is_clean = True
        for entry in self._names():
            if entry.endswith(_PARTIAL):
                self._remove_stale(entry)

    def _names(self) -> list[bytes]:
        return os.listdir(self._folder)

    def _remove_partials(self, name: bytes) -> None:
        """Remove the temporary files of a name, whose lock is held."""
        for entry in self._names():
            if entry.startswith(name + b".") and entry.endswith(_PARTIAL):
                durable.remove(self._path(entry))

    def _remove_stale(self, entry: bytes) -> None:
        """Remove a temporary file that no process writes."""
        path = self._path(entry)
        lock = self._try_lock(entry.removesuffix(_PARTIAL).rpartition(b".")[0])
        if lock is None:
            return
        with lock, contextlib.suppress(OSError):
            if lock.is_real or time.time() - os.stat(path).st_mtime > _OLD_S:
                os.unlink(path)

    def _try_lock(self, name: bytes) -> _Lock | None:
        """Return the lock of a file; None if another process holds it."""
        path = self._path(name + _LOCK)
        try:
            self._make_folder()
            fd = os.open(path, os.O_RDWR | os.O_CREAT | durable.O_BINARY, 0o666)
        except OSError as error:
            raise self._unwritable(error) from error
        taken = durable.try_lock(fd)
        if taken is False or not durable.is_named(fd, path):
            os.close(fd)
            return None
        return _Lock(path, fd, is_real=taken is not None)

    def _unwritable(self, error: OSError) -> OutputIOError:
        return OutputIOError(
            f"the cache {printable(self._folder)} cannot be written: "
            f"{error.strerror or error}; name another folder (cache=…), or none (cache=None)"
        )

    def _fetch(
        self, name: bytes, nbytes: int, fetch: Callable[[bytes], object], need: Callable[[], Need]
    ) -> None:
        """Fetch a file, whose lock is held, and give it its name, if there is room for it."""
        self._remove_partials(name)
        partial = self._new_partial(name)
        try:
            if not self._has_room(partial, nbytes, need):
                return
            try:
                fetch(partial)
            except OutputIOError:
                if need() is Need.NOW:
                    self.on_pressure()
                if not self._drop(nbytes):
                    raise
                fetch(partial)  # a full disk is a limit, too
            with open(partial, "rb+") as file:
                durable.sync(file.fileno())
            os.replace(partial, self._path(name))
        except OutputIOError as error:
            cause = error.__cause__
            number = cause.errno if isinstance(cause, OSError) else None
            reason = os.strerror(number) if number else error
            raise OutputIOError(
                f"the cache {printable(self._folder)} cannot keep a file of {nbytes:,} bytes: "
                f"{reason}; free some space, set cache_limit, or name another folder (cache=…), or "
                "none (cache=None)"
            ) from error
        except BatchifyError:
            raise
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            self._fetching.discard((os.getpid(), partial))
            with contextlib.suppress(OSError):  # after success, it does not exist
                os.unlink(partial)

    def _has_room(self, partial: bytes, nbytes: int, need: Callable[[], Need]) -> bool:
        """Make room for a file, and reserve it; return whether the file may be fetched."""
        if self.limit is None or self._drop(nbytes, self.limit, partial):
            return True
        if need() is not Need.NOW:
            return False
        self.on_pressure()
        return self._drop(nbytes, self.limit, partial, now=True)

    def _drop(
        self, nbytes: int, limit: int | None = None, partial: bytes = b"", *, now: bool = False
    ) -> bool:
        """Remove files that are not in use, the least recently used first; return if enough.

        Parameters
        ----------
        limit : int, optional
            Until `nbytes` more are below it. Without a limit, until that many are removed.
        partial : bytes
            A file that then takes that many bytes at once, so that other processes count them.
        now : bool
            Whether any room is enough if this process has no file that it can release later.
        """
        with self._turn():
            here = os.getpid()  # before it looks: what is released meanwhile is room the next time
            is_enough = now and not self._used and here not in dict(list(self._fetching))
            entries = sorted(self._entries())
            left = nbytes
            if limit is not None:
                left += sum(entry.nbytes for entry in entries) - limit
            for entry in entries:
                if left <= 0:
                    break
                if not entry.path.endswith(_PARTIAL) and _remove_unused(entry.path):
                    left -= entry.nbytes
            if partial and left <= 0:
                reserve(partial, nbytes)
            if partial and (left <= 0 or is_enough):
                self._fetching.add((here, partial))
            return left <= 0 or is_enough

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other process looks for files to remove."""
        while (lock := self._try_lock(_ROOM.removesuffix(_LOCK))) is None:
            time.sleep(POLL_S)
        with lock:
            yield

    def _entries(self) -> Iterator[_Entry]:
        for name in self._names():
            path = self._path(name)
            with contextlib.suppress(OSError):  # it is removed meanwhile
                if name.endswith((WHOLE, HEAD, _PARTIAL)):
                    status = os.stat(path)
                    nbytes = min(status.st_size, 512 * getattr(status, "st_blocks", 1 << 60))
                    yield _Entry(status.st_mtime, path, nbytes)


class _Lock:
    """A lock that is held until the end of a ``with`` block; its file is then removed."""

    def __init__(self, path: bytes, fd: int, *, is_real: bool) -> None:
        self._path = path
        self._fd = fd
        self.is_real = is_real
        """Whether the file system has locks."""
        _locks.add(self)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        if os.name != "nt":
            with contextlib.suppress(OSError):
                os.unlink(
                    self._path
                )  # now: a process that opened it before sees that it has no name
        self.close()

    def close(self) -> None:
        """Release it; its file stays."""
        _locks.discard(self)
        os.close(self._fd)


_locks: set[_Lock] = set()


def _forget_locks() -> None:
    """Close the locks of the parent: a fork would hold them after its parent was killed."""
    for lock in list(_locks):
        lock.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def reserve(path: bytes, nbytes: int) -> None:
    """Create a file, or cut one that exists, and reserve space for that many bytes.

    Raises
    ------
    OutputIOError
        If there is no space.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | durable.O_BINARY, 0o666)
    except OSError as error:
        raise durable.io_error("making", path, error) from error
    try:
        if os.fstat(fd).st_size > nbytes:
            os.ftruncate(fd, nbytes)
        durable.reserve(fd, path, nbytes)
    finally:
        os.close(fd)


def _remove_unused(path: bytes) -> bool:
    """Remove a file unless a process uses it; return whether it was removed."""
    try:
        fd = os.open(path, os.O_RDWR | durable.O_BINARY)
    except OSError:
        return False
    try:
        if durable.try_lock(fd) is False:
            return False
        if os.name == "nt":  # which refuses to remove a file that is open
            os.close(fd)
            fd = -1
        os.unlink(path)
    except OSError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True
