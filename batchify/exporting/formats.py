"""The formats of an export: which files each writes for which rows."""

from __future__ import annotations

import importlib
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from batchify.common import durable
from batchify.exporting.rows import Contents, Sample
from batchify.storage.source import SourceFile


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows of a split that are written together: a shard, or some files of a folder.

    Parameters
    ----------
    number : int
        Counts the pieces of the split.
    names : Mapping of int to str
        Names of files that differ from what their paths give, by row.
    files : tuple of SourceFile
        The image files of the rows, if they are taken from the dataset.
    digests : bytes
        The SHA-256 of each of them, one after the other.
    """

    split: str
    number: int
    start: int
    stop: int
    names: Mapping[int, str]
    files: tuple[SourceFile, ...] = ()
    digests: bytes = b""

    @property
    def stem(self) -> str:
        """The name of its shard, without ending."""
        return f"{self.split}-{self.number:05}"


class WrittenFile(NamedTuple):
    """A file of an export.

    Parameters
    ----------
    name : str
        Relative to the target, "/" separated.
    """

    name: str
    nbytes: int
    crc32: int


class Format(ABC):
    """A format of an export; made for one file that is exported. Picklable.

    Attributes
    ----------
    has_shards : bool
        Each piece becomes a file, of about ``--shard-size``.
    """

    has_shards = True

    @staticmethod  # noqa: B027 - most need none
    def load_library() -> None:
        """Import the library of the format.

        Raises
        ------
        ExtraMissingError
            If it is not installed.
        """

    def __init__(self, contents: Contents) -> None:
        self.contents = contents

    @abstractmethod
    def write(self, folder: bytes, piece: Piece, samples: Iterable[Sample]) -> list[WrittenFile]:
        """Write the files of a piece."""

    def begin(self, folder: bytes, splits: Iterable[str]) -> None:  # noqa: B027 - most need nothing
        """Make what all pieces need, before the first."""

    def finish(  # noqa: B027
        self,
        folder: bytes,
        written: Mapping[str, list[list[WrittenFile]]],
        rows: Mapping[str, list[int]],
    ) -> None:
        """Write what is known at the end only.

        Parameters
        ----------
        written : Mapping
            The files of each piece of each split, in order.
        rows : Mapping
            The rows of each piece of each split.
        """


def write_shard(folder: bytes, name: str, write: Callable[[bytes], None]) -> list[WrittenFile]:
    """Write a file durably by a function that gets its path; its folders are made.

    Raises
    ------
    OutputIOError
        If that fails.
    """
    path = os.path.join(folder, os.fsencode(name))
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write(path)
        with open(path, "rb+") as file:
            durable.sync(file.fileno())
            nbytes, crc32 = 0, 0
            while data := file.read(1 << 20):
                nbytes, crc32 = nbytes + len(data), zlib.crc32(data, crc32)
    except OSError as error:
        raise durable.io_error("writing", path, error) from error
    return [WrittenFile(name, nbytes, crc32)]


def write_text(folder: bytes, name: str, text: str) -> None:
    """Write a small file durably; bytes that are not UTF-8 are written as they were."""
    data = text.encode("utf-8", "surrogateescape")

    def write(path: bytes) -> None:
        with open(path, "wb") as file:
            file.write(data)

    write_shard(folder, name, write)


FORMATS = {
    "imagefolder": "imagefolder.ImageFolder",
    "webdataset": "webdataset.WebDataset",
    "mds": "mds.Mds",
    "parquet": "huggingface.Parquet",
    "tfrecord": "tfrecord.TFRecord",
    "arrow": "huggingface.Arrow",
}
"""Format -> its module and class; ``npz`` is one file, which `write_npz` makes."""

SHARDED = frozenset(FORMATS) - {"imagefolder"}
"""The formats with shards."""


def format_class(name: str) -> type[Format]:
    """Return the class of a format, after importing its library.

    Raises
    ------
    ExtraMissingError
        If its library is not installed.
    """
    module, _, name = FORMATS[name].partition(".")
    found: type[Format] = getattr(importlib.import_module(f"batchify.exporting.{module}"), name)
    found.load_library()
    return found
