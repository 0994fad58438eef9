"""Rows in their places: written and read by byte offset, from any process, with HDF5 closed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

from batchify import durable
from batchify.channels import ChannelSums
from batchify.errors import FileAccessError, Skipped
from batchify.names import printable
from batchify.places import Places


@dataclass(frozen=True, slots=True)
class Rows:
    """Some consecutive rows of a split that are done.

    Parameters
    ----------
    split : str
    start, stop : int
    bad : tuple of (int, Skipped)
        Rows whose file could not be used.
    copied : int
        How many images were taken from an older file.
    sums : ChannelSums
        Over the images that are good.
    """

    split: str
    start: int
    stop: int
    bad: tuple[tuple[int, Skipped], ...]
    copied: int = 0
    sums: ChannelSums = field(default_factory=ChannelSums)


class OldRow(NamedTuple):
    """What a row keeps beside its image: checksum, (height, width) of the source, its flags.

    And sums over its pixels, where those are not stored.
    """

    row_crc32: int
    source_size: tuple[int, int]
    source_flags: int
    sums: ChannelSums | None = None


class RowReader:
    """Reads rows in their places, with HDF5 closed; usable from several threads at once.

    Parameters
    ----------
    path : bytes
    column_places : Mapping of str to Places
        Keys are ``split/column``.
    identity : tuple of int, optional
        Device and number of the file that the places are of.

    Raises
    ------
    OutputIOError
    FileAccessError
        If another file took the name.
    """

    _flags = os.O_RDONLY

    def __init__(
        self,
        path: bytes,
        column_places: Mapping[str, Places],
        identity: tuple[int, int] | None = None,
    ) -> None:
        self._path = path
        self.places = column_places
        try:
            self._fd = os.open(path, self._flags | durable.O_BINARY)
        except OSError as error:
            raise durable.io_error("opening", path, error) from error
        status = os.fstat(self._fd)
        if identity not in (None, (status.st_dev, status.st_ino)):
            self.close()
            raise FileAccessError(f"{printable(path)} was replaced meanwhile; run it again")

    def get(self, split: str, column: str, start: int, stop: int) -> bytes:
        """Return the bytes of some rows of a column.

        Raises
        ------
        OutputIOError
        """
        where = self.places[f"{split}/{column}"]
        try:
            return b"".join(
                durable.pread_all(self._fd, (last - first) * where.row_nbytes, offset)
                for offset, first, last in where.extents(start, stop)
            )
        except OSError as error:
            raise durable.io_error("reading", self._path, error) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class RowWriter(RowReader):
    """Puts finished rows in their places too, from any process."""

    _flags = os.O_RDWR

    def put(self, split: str, start: int, columns: Mapping[str, NDArray[Any]]) -> None:
        """Write some rows of some columns.

        Parameters
        ----------
        split : str
        start : int
            Row of the first.
        columns : Mapping of str to ndarray
            C-contiguous, of the dtypes of the file.

        Raises
        ------
        OutputIOError
        """
        try:
            for name, rows in columns.items():
                where = self.places[f"{split}/{name}"]
                for offset, first, last in where.extents(start, start + len(rows)):
                    durable.pwrite_all(self._fd, rows[first - start : last - start].data, offset)
        except OSError as error:
            raise durable.io_error("writing", self._path, error) from error

    def sync(self) -> None:
        """Make all rows durable, whichever process wrote them.

        Raises
        ------
        OutputIOError
            A failed fsync is never retried: the kernel may have dropped what it could not write.
        """
        try:
            durable.sync(self._fd)
        except OSError as error:
            raise durable.io_error("syncing", self._path, error) from error

    @property
    def is_named(self) -> bool:
        """Whether the file that is written is still the one of its name."""
        return durable.is_named(self._fd, self._path)
