"""Where the files of a dataset are, and how whoever works on them gets their bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from batchify.errors import BadImageError
from batchify.source import read_source

Extent = tuple[int, ...]
"""Where a file lies, in numbers that its source understands."""


class SourceFile(NamedTuple):
    """A file of a dataset.

    Parameters
    ----------
    path : bytes
        Relative to the dataset, "/" separated.
    extent : tuple of int, or None
        Where it lies, for a source that does not find it by its path alone.
    """

    path: bytes
    extent: Extent | None = None


class FileReader(Protocol):
    """Reads the files of a source, in the process that has it open."""

    def fetch(
        self, files: Sequence[SourceFile], max_nbytes: int
    ) -> Iterator[bytes | BadImageError]:
        """Yield the content of each file, in order, or why it cannot be had.

        Parameters
        ----------
        files : sequence of SourceFile
        max_nbytes : int
            A file that is larger is not read.

        Raises
        ------
        OSError
            What is no fault of a file.
        """
        ...

    def nbytes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each file, in order, without reading it; 0 where it cannot be had."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class Source(Protocol):
    """Where a dataset is. Picklable; nothing in it grows with the dataset."""

    @property
    def name(self) -> bytes:
        """What it is called: the path of a folder."""
        ...

    def is_there(self) -> bool:
        """Tell whether it is still there."""
        ...

    def open(self) -> FileReader:
        """Return who reads its files, for the process that calls."""
        ...


class ReadAhead:
    """Hands over the files of a task in several portions, from one run of reading them.

    A reader that reads ahead would otherwise stop and start at every portion.

    Parameters
    ----------
    reader : FileReader
    """

    def __init__(self, reader: FileReader) -> None:
        self._reader = reader
        self._contents: Iterator[bytes | BadImageError] = iter(())

    def begin(self, files: Sequence[SourceFile], max_nbytes: int) -> None:
        """Begin a run; what comes next is asked for in this order."""
        self._contents = self._reader.fetch(files, max_nbytes)

    def fetch(
        self,
        files: Sequence[SourceFile],
        max_nbytes: int,  # noqa: ARG002 - that of the run
    ) -> Iterator[bytes | BadImageError]:
        """Yield the content of the next files of the run, or why it cannot be had."""
        for _ in files:
            yield next(self._contents)

    def nbytes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each file."""
        return self._reader.nbytes(files)

    def close(self) -> None:
        """Let go of what is open."""
        self._contents = iter(())
        self._reader.close()


@dataclass(frozen=True, slots=True)
class Folder:
    """A dataset folder.

    Parameters
    ----------
    root : bytes
        Absolute.
    """

    root: bytes

    @property
    def name(self) -> bytes:
        """Its path."""
        return self.root

    def is_there(self) -> bool:
        """Tell whether it is still there."""
        return os.path.isdir(self.root)

    def open(self) -> FolderReader:
        """Return who reads its files."""
        return FolderReader(self.root)


class FolderReader:
    """Reads the files of a folder, each when it is asked for."""

    def __init__(self, root: bytes) -> None:
        self._root = os.path.join(root, b"")

    def fetch(
        self, files: Sequence[SourceFile], max_nbytes: int
    ) -> Iterator[bytes | BadImageError]:
        """Yield the content of each file, or why it cannot be had."""
        for file in files:
            try:
                yield read_source(self._root + file.path, max_nbytes)
            except BadImageError as error:
                yield error

    def nbytes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each file, as the file system has it."""
        for file in files:
            try:
                yield os.stat(self._root + file.path).st_size
            except OSError:
                yield 0  # why it cannot be had is told when it is read

    def close(self) -> None:
        """Nothing is open."""
