"""Open what batchify built, here or at a URL: a file without its images, or shards one by one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from batchify.common import durable
from batchify.common.paths import DownloadedPath, base_name, is_url, local_path, shown
from batchify.common.system import open_regular
from batchify.errors import FileMissingError
from batchify.format.shard_index import INDEX_NAME, ShardIndex, ShardPath, read_index, shard_paths

Path = str | os.PathLike[str]

Part = Literal["facts", "whole", "copy", "records"]
"""What is fetched of a file at a URL: see ``fetch_facts`` and so on in `loading.remote.files`."""


def _fetch(part: Part, url: str, path: bytes, digest: str = "") -> None:
    from batchify.loading.remote.files import FETCHES  # imports asyncio
    from batchify.storage.remote_file import RemoteFile

    try:
        FETCHES[part](RemoteFile(url), path, digest)
    except BaseException:
        durable.remove(path)
        raise


@dataclass(frozen=True, slots=True)
class RemoteShard(ShardPath):
    """A shard at a URL, which is on this machine while it is open; `path` is its URL.

    Parameters
    ----------
    url : str
        With the secrets in it, if any.
    folder : bytes
        Where its copy is.
    keeps : bool
        Keep the copy, until the folder is removed.
    """

    url: str
    folder: bytes
    part: Part
    keeps: bool

    @property
    def name(self) -> str:
        """Its URL."""
        return os.fsdecode(self.path)

    @contextlib.contextmanager
    def here(self, *, images: bool = False) -> Iterator[DownloadedPath]:
        """Yield the path of a copy.

        Parameters
        ----------
        images : bool
            The copy is complete and intact, whatever `part` is.

        Raises
        ------
        FileMissingError, FileAccessError, FileFormatError, RemoteError, OutputIOError
            As for `batchify.loading.remote.files.fetch_whole`.
        """
        copy = os.path.join(self.folder, os.fsencode(self.file.name))
        if not os.path.exists(copy):
            try:
                part = "whole" if images else self.part
                _fetch(part, self.url, copy, self.file.digest)
            except FileNotFoundError as error:
                raise self.missing() from error
        try:
            yield DownloadedPath(os.fsdecode(copy), self.path)
        finally:
            if not self.keeps:
                durable.remove(copy)


@contextlib.contextmanager
def open_folder(
    location: Path, part: Part = "facts", *, keeps: bool = False, is_partial: bool = False
) -> Iterator[tuple[ShardIndex, list[ShardPath]]]:
    """Yield the index and the shards of a folder, local or at a URL.

    Parameters
    ----------
    part : str
        What is fetched of a shard at a URL, when it is opened.
    keeps : bool
        Keep the copies of shards while the folder is open; otherwise there is one at a time.
    is_partial : bool
        Shards may be missing.

    Raises
    ------
    FileMissingError
        If there is no index, or a shard is missing; at a URL, when it is opened.
    FileFormatError
        If the index is not valid.
    FileAccessError, RemoteError
        If a store refuses to hand it over, or does not answer.
    """
    if not is_url(location):
        folder = os.fsencode(local_path(location))
        index = read_index(folder)
        yield index, shard_paths(folder, index, is_partial=is_partial)
        return
    from batchify.loading.remote.files import read_remote_index  # imports asyncio

    url = os.fsdecode(location).rstrip("/")
    index = read_remote_index(url)
    with _temporary_folder() as copies:
        yield (
            index,
            [
                RemoteShard(
                    shown(f"{url}/{file.name}"), split, file,
                    f"{url}/{file.name}", copies, part, keeps,
                )
                for split, files in index.splits.items()
                for file in files
            ],
        )  # fmt: skip


def read_index_bytes(location: Path) -> bytes:
    """Return the content of the shard index in a folder, local or at a URL."""
    if not is_url(location):
        with open_regular(os.path.join(os.fsencode(local_path(location)), INDEX_NAME)) as file:
            return file.read()
    from batchify.storage.remote_file import RemoteFile, url_below  # imports asyncio

    return RemoteFile(url_below(os.fsdecode(location), os.fsdecode(INDEX_NAME))).read_whole()


@contextlib.contextmanager
def open_copy(location: Path, part: Part = "facts") -> Iterator[Path]:
    """Yield a local path of a file; of a file at a URL, all but its images is fetched by default.

    Raises
    ------
    FileMissingError, FileAccessError, FileFormatError, RemoteError, OutputIOError
        As for `batchify.loading.remote.files.fetch_whole`.
    """
    if isinstance(location, DownloadedPath) or not is_url(location):
        yield location if isinstance(location, DownloadedPath) else local_path(location)
        return
    url = os.fsdecode(location)
    with _temporary_folder() as folder:
        name = os.fsdecode(os.path.join(folder, os.fsencode(base_name(url) or "file")))
        copy = DownloadedPath(name, shown(url))
        try:
            _fetch(part, url, os.fsencode(name))
        except FileNotFoundError as error:
            raise FileMissingError(
                f"there is no file {os.fsdecode(copy.shown)}, and no folder with a shard index; "
                "make it with batchify build"
            ) from error
        yield copy


@contextlib.contextmanager
def _temporary_folder() -> Iterator[bytes]:
    folder = tempfile.mkdtemp(prefix="batchify-")
    try:
        yield os.fsencode(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
