"""Serves the files' own bytes of a split, by offset: no HDF5 while they are read."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator

import numpy as np

from batchify import durable, schema
from batchify.reader import Reader
from batchify.structure import dataset_places


class EncodedFiles:
    """The files of one split; usable from several threads at once.

    Parameters
    ----------
    reader : Reader
        Open while this is made, and not needed any more after that.
    split : str

    Raises
    ------
    FileFormatError

    Notes
    -----
    Memory: 8 bytes a row.
    """

    chunk_rows = 1

    def __init__(self, reader: Reader, split: str) -> None:
        self.rows = reader.rows(split)
        self._ends = reader.ends(split)
        with reader.refusing():
            self._places = dataset_places(reader.splits[split]["encoded"])
        self._fd = os.dup(reader.fd)
        self._closing = weakref.finalize(self, os.close, self._fd)

    def get(self, start: int, stop: int) -> bytes:
        """Return the bytes of some rows, one after another.

        Raises
        ------
        OSError
            If the file ends before, or cannot be read.
        """
        first, last = self._end(start), self._end(stop)
        return b"".join(
            durable.pread_all(self._fd, to - at, offset)
            for offset, at, to in self._places.extents(first, last)
        )

    def cut(self, data: bytes, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes of each of some rows, out of those that `get` returned of them."""
        view = memoryview(data)
        ends = (self._ends[start:stop] - self._end(start)).tolist()
        for first, last in zip([0, *ends], ends, strict=False):
            yield view[first:last]

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield [start, stop) of all rows, some MiB together, unless one has more."""
        start = 0
        while start < self.rows:
            most = self._end(start) + schema.PIECE_NBYTES
            stop = max(start + 1, int(np.searchsorted(self._ends, most, "right")))
            yield start, stop
            start = stop

    @property
    def piece_nbytes(self) -> int:
        """The most bytes of one of the `pieces`."""
        largest = int(np.diff(self._ends, prepend=0).max(initial=0))
        return max(schema.PIECE_NBYTES, largest)

    def close(self) -> None:
        """Close the file; done by itself when this is not used any more."""
        self._closing()

    def _end(self, rows: int) -> int:
        """Return where the first so many rows end."""
        return int(self._ends[rows - 1]) if rows else 0
