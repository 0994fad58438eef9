"""Where shards go: a folder or a remote prefix."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from batchify.building.journal import Journal
from batchify.building.staging import WorkFolder
from batchify.building.target import check_folder, check_outside
from batchify.common import durable
from batchify.common.durable import write_whole
from batchify.common.paths import is_url, local_path, shown_url
from batchify.common.text import printable
from batchify.errors import FileAccessError, FileFormatError, OutputIOError
from batchify.format.index import NAME, ShardIndex, parse_index
from batchify.storage.remote_store import Store, is_settled
from batchify.storage.transfer import check_writable


class RemoteShards:
    """The folder of a URL; each shard is written on a disk of the machine that makes it.

    Parameters
    ----------
    url : str
    work_dir : path or None
        Where the lock of this machine is; see `batchify.building.staging.WorkFolder`.
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


LOCK = NAME + b".partial"


OLD = NAME + b".old"


@dataclass(frozen=True)
class Ticket:
    """What a worker looks at now and then: a file with a token, there while the build is wanted.

    Parameters
    ----------
    path : bytes
    token : str
    """

    path: bytes
    token: str

    @property
    def is_valid(self) -> bool:
        """Whether the file is there, with the token."""
        try:
            with open(self.path, "rb") as file:
                return self.token.encode() in file.read(4096)
        except OSError:
            return False


class ShardFolder(Protocol):
    """Where shards go."""

    @property
    def shown(self) -> bytes:
        """What it is called, for people."""
        ...

    def place(self, name: str) -> str:
        """Return the path or the URL of a file in it."""
        ...

    def check(self, dataset: str | os.PathLike[str]) -> None:
        """Refuse a folder that shards cannot be put into, before any work.

        Raises
        ------
        OutputPathError, OutputIOError, RemoteError
        """
        ...

    def claim(self) -> contextlib.AbstractContextManager[Ticket | None]:
        """Hold it for a build; the value is what workers look at, where they can.

        Raises
        ------
        OutputLockedError
            If another build holds it.
        """
        ...

    def read(self, name: bytes) -> bytes | None:
        """Return the content of a small file in it; None where there is none."""
        ...

    def write(self, name: bytes, data: bytes) -> None:
        """Put a small file into it, in place of what is there, whole or not at all."""
        ...

    def remove(self, name: bytes) -> None:
        """Remove a file in it that may be there."""
        ...


def shard_folder(
    output: str | os.PathLike[str], work_dir: str | os.PathLike[str] | None = None
) -> ShardFolder:
    """Return the folder of a path or a URL.

    Raises
    ------
    OptionError, ExtraMissingError
        If it is a URL that cannot be meant, or whose store is not installed.
    """
    if is_url(output):
        return RemoteShards(os.fsdecode(output), work_dir)
    return LocalShards(os.path.abspath(os.fsencode(local_path(output))))


class LocalShards:
    """A folder of this machine.

    Parameters
    ----------
    path : bytes
        Absolute.
    """

    def __init__(self, path: bytes) -> None:
        self.shown = path

    def place(self, name: str) -> str:
        """Return the path of a file in it."""
        return os.fsdecode(self._path(os.fsencode(name)))

    def check(self, dataset: str | os.PathLike[str]) -> None:
        """Refuse a folder that shards cannot be put into."""
        check_folder(self.shown, dataset)

    @contextlib.contextmanager
    def claim(self) -> Iterator[Ticket | None]:
        """Hold it for a build; where nothing comes of that, the folder goes again.

        The file of the lock goes in any case, and tells workers to stop.
        """
        fresh = not os.path.lexists(self.shown)
        try:
            if fresh:
                os.mkdir(self.shown)
                durable.sync_folder(self.shown)
        except OSError as error:
            raise durable.io_error("making", self.shown, error) from error
        try:
            journal = Journal(self._path(LOCK))
            try:
                ticket = Ticket(self._path(LOCK), secrets.token_hex(16))
                journal.begin({"format": "batchify-shards-lock", "token": ticket.token})
                yield ticket
            finally:
                journal.remove()
        finally:
            if fresh:
                with contextlib.suppress(OSError):  # something is in it
                    os.rmdir(self.shown)

    def read(self, name: bytes) -> bytes | None:
        """Return the content of a small file in it; None where there is none."""
        path = self._path(name)
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FileAccessError(f"{printable(path)} cannot be read: {error.strerror}") from error

    def write(self, name: bytes, data: bytes) -> None:
        """Put a small file into it, whole or not at all."""
        write_whole(self._path(name), data)

    def remove(self, name: bytes) -> None:
        """Remove a file in it that may be there."""
        durable.remove(self._path(name))
        durable.sync_folder(self._path(name))

    def _path(self, name: bytes) -> bytes:
        return os.path.join(self.shown, name)


def listed(folder: ShardFolder) -> ShardIndex | None:
    """Return what its manifest lists; None where there is none.

    Raises
    ------
    FileFormatError
    """
    data = folder.read(NAME)
    try:
        return None if data is None else parse_index(data, os.path.join(folder.shown, NAME))
    except FileFormatError as error:
        raise FileFormatError(
            f"{error}; name another folder, or remove that file: shards that stand, whole and up "
            "to date, are kept"
        ) from error


def known_names(folder: ShardFolder) -> frozenset[str]:
    """Return the names of the shards that its manifest lists, or listed before it was withdrawn."""
    names: set[str] = set()
    for name in (NAME, OLD):
        data = folder.read(name)
        with contextlib.suppress(FileFormatError):  # that of the manifest is told by `listed`
            if data is not None:
                names.update(file.name for file in parse_index(data, name).files)
    return frozenset(names)


def withdraw(folder: ShardFolder) -> None:
    """Take the manifest away: while shards are replaced, they must not look like a whole.

    It is kept beside, for it tells which shards go when the new ones are done.
    """
    data = folder.read(NAME)
    if data is not None:
        folder.write(OLD, data)
        folder.remove(NAME)


def publish(folder: ShardFolder, index: ShardIndex) -> None:
    """Write the manifest, then remove the shards of the build before that it does not list."""
    if folder.read(NAME) != index.text():
        folder.write(NAME, index.text())
    old = folder.read(OLD)
    if old is None:
        return
    kept = {shard.name for shard in index.files}
    with contextlib.suppress(FileFormatError):
        for shard in parse_index(old, OLD).files:
            if shard.name not in kept:
                folder.remove(os.fsencode(shard.name))
    folder.remove(OLD)
