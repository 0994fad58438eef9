"""Local and remote folders of shards, and their index."""

from __future__ import annotations

import contextlib
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchify.building.journal import Journal
from batchify.building.target import check_folder, check_outside
from batchify.common import durable
from batchify.common.durable import write_atomically
from batchify.common.paths import is_url, local_path, shown_url
from batchify.common.text import printable
from batchify.errors import BatchifyWarning, FileAccessError, FileFormatError, OutputIOError
from batchify.format.shard_index import INDEX_NAME, ShardIndex, parse_index
from batchify.storage.transfer import check_writable

if TYPE_CHECKING:
    from batchify.storage.remote_store import Store

LOCK = INDEX_NAME + b".partial"
OLD = INDEX_NAME + b".old"


@dataclass(frozen=True)
class Ticket:
    """A file with a token that exists while the build runs; workers check it."""

    path: bytes
    token: str

    @property
    def is_valid(self) -> bool:
        """Whether the file exists, with the token."""
        try:
            with open(self.path, "rb") as file:
                return self.token.encode() in file.read(4096)
        except OSError:
            return False


class ShardFolder(ABC):
    """A folder of shards and their index.

    Parameters
    ----------
    shown : bytes
        Its name, for messages.
    """

    def __init__(self, shown: bytes) -> None:
        self.shown = shown

    @abstractmethod
    def locate(self, name: str) -> str:
        """Return the path or the URL of a file in it."""

    @abstractmethod
    def check(self, dataset: str | os.PathLike[str]) -> None:
        """Refuse a folder that shards cannot be put into, before any work.

        Raises
        ------
        OutputPathError, OutputIOError, RemoteError
            For a folder in the dataset, and for one that cannot be written.
        """

    @property
    def is_read_only(self) -> bool:
        """Whether it has an index and cannot be written, on a read-only mount say."""
        return False

    @property
    def warnings(self) -> tuple[BatchifyWarning, ...]:
        """What its file system lacks, once it was claimed."""
        return ()

    @abstractmethod
    def claim(self) -> contextlib.AbstractContextManager[Ticket | None]:
        """Lock it for a build; the value is a ticket for workers elsewhere, if they can see one.

        Raises
        ------
        OutputLockedError
            If another build holds it.
        """

    @abstractmethod
    def read(self, name: bytes) -> bytes | None:
        """Return the content of a small file in it; None if there is none."""

    @abstractmethod
    def write(self, name: bytes, data: bytes) -> None:
        """Replace a small file in it, atomically."""

    @abstractmethod
    def remove(self, name: bytes) -> None:
        """Remove a file in it, if it exists."""

    def read_index(self) -> ShardIndex | None:
        """Return its shard index; None if there is none.

        Raises
        ------
        FileFormatError
            If a file of that name is not a shard index.
        """
        data = self.read(INDEX_NAME)
        try:
            return None if data is None else parse_index(data, os.path.join(self.shown, INDEX_NAME))
        except FileFormatError as error:
            raise FileFormatError(
                f"{error}; name another folder, or remove that file: shards that are "
                "intact and up to date are kept"
            ) from error

    def listed_names(self) -> frozenset[str]:
        """Return the names of the shards in its index, and in the one that was withdrawn."""
        names: set[str] = set()
        for name in (INDEX_NAME, OLD):
            data = self.read(name)
            with contextlib.suppress(FileFormatError):  # `read_index` reports it
                if data is not None:
                    names.update(file.name for file in parse_index(data, name).files)
        return frozenset(names)

    def withdraw_index(self) -> None:
        """Move the index aside: while shards are replaced, they must not look complete.

        The old index lists the shards to remove when the new ones are done.
        """
        data = self.read(INDEX_NAME)
        if data is not None:
            self.write(OLD, data)
            self.remove(INDEX_NAME)

    def publish_index(self, index: ShardIndex) -> None:
        """Write the index, then remove shards of the previous build that are not in it."""
        if self.read(INDEX_NAME) != index.text():
            self.write(INDEX_NAME, index.text())
        old = self.read(OLD)
        if old is None:
            return
        listed = {shard.name for shard in index.files}
        with contextlib.suppress(FileFormatError):
            for shard in parse_index(old, OLD).files:
                if shard.name not in listed:
                    self.remove(os.fsencode(shard.name))
        self.remove(OLD)


class LocalShards(ShardFolder):
    """A local folder; `shown` is its absolute path."""

    _warnings: tuple[BatchifyWarning, ...] = ()

    @property
    def is_read_only(self) -> bool:
        """Whether it has an index and cannot be written."""
        return os.path.isfile(self._path(INDEX_NAME)) and not os.access(self.shown, os.W_OK)

    @property
    def warnings(self) -> tuple[BatchifyWarning, ...]:
        """What its file system lacks."""
        return self._warnings

    def locate(self, name: str) -> str:
        """Return the path of a file in it."""
        return os.fsdecode(self._path(os.fsencode(name)))

    def check(self, dataset: str | os.PathLike[str]) -> None:
        """Refuse a folder that shards cannot be put into."""
        check_folder(self.shown, dataset)

    @contextlib.contextmanager
    def claim(self) -> Iterator[Ticket | None]:
        """Lock it for a build; remove it at the end if it was created here and is empty.

        The lock file is always removed, which makes workers stop.
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
                self._warnings = journal.warnings
                yield ticket
            finally:
                journal.remove()
        finally:
            if fresh:
                with contextlib.suppress(OSError):  # it is not empty
                    os.rmdir(self.shown)

    def read(self, name: bytes) -> bytes | None:
        """Return the content of a small file in it; None if there is none."""
        path = self._path(name)
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FileAccessError(f"{printable(path)} cannot be read: {error.strerror}") from error

    def write(self, name: bytes, data: bytes) -> None:
        """Replace a small file in it, atomically."""
        write_atomically(self._path(name), data)

    def remove(self, name: bytes) -> None:
        """Remove a file in it, if it exists."""
        durable.remove(self._path(name))
        durable.sync_folder(self._path(name))

    def _path(self, name: bytes) -> bytes:
        return os.path.join(self.shown, name)


class RemoteShards(ShardFolder):
    """A folder below a URL; each shard is first written to a local disk of its worker.

    Parameters
    ----------
    work_dir : path or None
        Where the local lock is; see `batchify.building.remote_staging.WorkFolder`.
    """

    def __init__(self, url: str, work_dir: str | os.PathLike[str] | None) -> None:
        self._url = url.rstrip("/")
        self._work_dir = work_dir
        super().__init__(os.fsencode(shown_url(self._url)))

    def locate(self, name: str) -> str:
        """Return the URL of a file in it."""
        return f"{self._url}/{name}"

    def check(self, dataset: str | os.PathLike[str]) -> None:
        """Refuse a folder in the dataset, and a store that cannot be written."""
        if is_url(dataset):
            check_outside(self.shown, b"", dataset)
        with self._file(INDEX_NAME, "written") as store:
            check_writable(store)

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Lock it for a build on this machine; other machines do not see the lock."""
        from batchify.building.remote_staging import WorkFolder  # imports asyncio

        with WorkFolder(self.locate(os.fsdecode(INDEX_NAME)), self._work_dir):
            yield None

    def read(self, name: bytes) -> bytes | None:
        """Return the content of a small file in it; None if there is none."""
        with self._file(name, "read") as store:
            try:
                data: bytes = store.call("cat_file", store.root)
            except FileNotFoundError:
                return None
            return data

    def write(self, name: bytes, data: bytes) -> None:
        """Replace a small file in it, in one request."""
        with self._file(name, "written") as store:
            store.call("pipe_file", store.root, data)

    def remove(self, name: bytes) -> None:
        """Remove a file in it, if it exists."""
        with self._file(name, "removed") as store, contextlib.suppress(FileNotFoundError):
            store.call("rm_file", store.root)

    @contextlib.contextmanager
    def _file(self, name: bytes, what: str) -> Iterator[Store]:
        """Connect to the store of a file in it; raise errors of the store as errors of the output.

        Raises
        ------
        OutputIOError
            If the file cannot be `what`.
        """
        from batchify.storage.remote_store import Store, is_settled  # imports asyncio

        store = Store(self.locate(os.fsdecode(name)))
        try:
            yield store
        except Exception as error:
            if not is_settled(error):
                raise
            text = store.error_text(error)
            raise OutputIOError(f"{store.shown} cannot be {what}: {text}") from error


def shard_folder(
    output: str | os.PathLike[str], work_dir: str | os.PathLike[str] | None = None
) -> ShardFolder:
    """Return the folder of a path or a URL.

    Raises
    ------
    OptionError, ExtraMissingError
        If it is a URL that is not valid, or the library for its store is not installed.
    """
    if is_url(output):
        return RemoteShards(os.fsdecode(output), work_dir)
    return LocalShards(os.path.abspath(os.fsencode(local_path(output))))
