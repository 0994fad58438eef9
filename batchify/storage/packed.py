"""Read the images of a dataset from inside other files: arrays, tables, tar shards."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from batchify.errors import BadImageError
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.storage.archive_file import ArchiveFile, Stamp, reopen
from batchify.storage.source import Extent, Source, SourceFile, patience
from batchify.storage.stamps import UNKNOWN, file_stamp, settled_stamp

_MOST_OPEN = 64
"""Most files that a reader keeps open."""


class Container(Protocol):
    """An open file that holds images, each at a place: an extent without the number of the file."""

    def read(self, place: Extent, max_nbytes: int) -> bytes:
        """Return the image file at a place.

        Raises
        ------
        BadImageError
            If it cannot be read.
        """
        ...

    def size(self, place: Extent) -> int:
        """Return the bytes of the image file at a place."""
        ...

    def close(self) -> None:
        """Close what is open, other than the file itself."""
        ...


@dataclass(frozen=True, slots=True)
class PackedSource:
    """A dataset whose images are inside some files, as these were when they were listed.

    An extent is the number of the file, and the place in it.

    Parameters
    ----------
    root : bytes
        The dataset: the only file, or the folder of the files; absolute.
    container : callable
        Opens a file: a class, or a function of a module.
    files : tuple of (bytes, Stamp)
        The files, by absolute paths.
    timeout_s : float
        See `batchify.storage.source.FolderSource`.
    held_nbytes : int
        What each reader of all images holds in memory.
    """

    root: bytes
    container: Callable[[ArchiveFile], Container]
    files: tuple[tuple[bytes, Stamp], ...]
    timeout_s: float = IMAGE_TIMEOUT_S
    held_nbytes: int = 0

    @property
    def location(self) -> bytes:
        """The path of the dataset."""
        return self.root

    def below(self, _name: bytes) -> PackedSource:
        """Return the same source: images are found by their extents."""
        return self

    def exists(self) -> bool:
        """Return whether the dataset still exists."""
        return os.path.exists(self.root)

    def open_reader(self) -> PackedReader:
        """Return a reader of its images."""
        return PackedReader(self)


def held_nbytes(source: Source) -> int:
    """Return how many bytes each process that reads a dataset holds in memory."""
    return source.held_nbytes if isinstance(source, PackedSource) else 0


class GroupCache:
    """Decoded parts of files that a process keeps: those used last, of all files, at least one.

    Pickled, it is empty.
    """

    def __init__(self, most_nbytes: int) -> None:
        self._most_nbytes = most_nbytes
        self._groups: dict[tuple[Any, ...], tuple[Any, int]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[GroupCache], tuple[int]]:
        return type(self), (self._most_nbytes,)

    def get(self, key: tuple[Any, ...], load: Callable[[], Any]) -> Any:
        """Return a part, loaded if it is not kept."""
        with self._lock:
            found = self._groups.pop(key, None)
            if found is not None:
                self._groups[key] = found
                return found[0]
        group = load()
        with self._lock:
            room = self._most_nbytes - group.nbytes - sum(size for _, size in self._groups.values())
            while room < 0 and self._groups:
                room += self._groups.pop(next(iter(self._groups)))[1]
            self._groups[key] = (group, group.nbytes)
        return group

    def clear(self) -> None:
        """Release all parts."""
        with self._lock:
            self._groups.clear()


class _Open:
    """A file that a reader has open."""

    def __init__(self, source: PackedSource, number: int) -> None:
        path, self.stamp = source.files[number]
        self.opened_ns = time.time_ns()
        self.file = reopen(path, self.stamp, patience(source.timeout_s))
        try:
            self.container = source.container(self.file)
        except BaseException:
            self.file.close()
            raise

    def close(self) -> None:
        self.container.close()
        self.file.close()


class PackedReader:
    """A reader of a packed dataset's images; files are opened when they are first needed.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        While reading, if a file no longer exists, or changed since it was listed.
    """

    def __init__(self, source: PackedSource) -> None:
        self._source = source
        self._open: dict[int, _Open] = {}
        self.stamp = UNKNOWN

    def read_files(
        self, files: Sequence[SourceFile], max_nbytes: int
    ) -> Iterator[bytes | BadImageError]:
        """Yield the content of each image file, or why it cannot be read."""
        for file in files:
            found, place = self._find(file)
            content: bytes | BadImageError
            try:
                content = found.container.read(place, max_nbytes)
            except BadImageError as error:
                content = error
            found.file.check_same(found.stamp)
            self.stamp = settled_stamp(found.file.status, found.opened_ns, *place)
            yield content

    def file_sizes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each image file."""
        for file in files:
            found, place = self._find(file)
            yield found.container.size(place)

    def stamps(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the stamp of each image: that of its file, and where it is in it."""
        for file in files:
            found, place = self._find(file)
            yield file_stamp(found.file.status, *place)

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()

    def _find(self, file: SourceFile) -> tuple[_Open, Extent]:
        """Return the open file that an image is in, and its place there."""
        assert file.extent is not None
        number, *place = file.extent
        found = self._open.pop(number, None)
        if found is None:
            if len(self._open) >= _MOST_OPEN:
                self._open.pop(next(iter(self._open))).file.close()  # its groups stay in the cache
            found = _Open(self._source, number)
        self._open[number] = found  # the one that was used last is at the end
        return found, tuple(place)
