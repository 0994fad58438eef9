"""The stored image of each row, as bytes, whatever its form: pixels, or the file's own bytes.

Rows that follow each other are one run of bytes in either form, so that whoever checks or copies
images need not know which it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batchify import schema
from batchify.rows import RowReader, RowWriter


class ImageRows:
    """The stored images of a file whose rows have their places.

    Parameters
    ----------
    rows : RowReader
        With the places of ``images``, or of ``encoded`` and ``image_extents``.
    """

    def __init__(self, rows: RowReader) -> None:
        self._rows = rows

    def nbytes(self, split: str, start: int, stop: int) -> NDArray[np.int64]:
        """Return the bytes of each of some rows, shape (n,)."""
        where = self._rows.places.get(f"{split}/images")
        if where is not None:
            return np.full(stop - start, where.row_nbytes, np.int64)
        return self._extents(split, start, stop)[:, 1]

    def get(self, split: str, start: int, stop: int) -> bytes:
        """Return the images of some rows, one after another.

        Raises
        ------
        OutputIOError
        """
        if f"{split}/images" in self._rows.places:
            return self._rows.get(split, "images", start, stop)
        extents = self._extents(split, start, stop)
        if not len(extents):
            return b""
        return self._rows.get(split, "encoded", int(extents[0, 0]), int(extents[-1].sum()))

    def pieces(self, split: str, rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Yield [start, stop) of runs of some ascending rows, of some MiB unless a row has more."""
        for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
            start, end = int(run[0]) if len(run) else 0, int(run[-1]) + 1 if len(run) else 0
            while start < end:
                ends = self.nbytes(split, start, min(end, start + _PIECE_ROWS)).cumsum()
                count = max(1, int(np.searchsorted(ends, schema.PIECE_NBYTES, "right")))
                yield start, start + count
                start += count

    def _extents(self, split: str, start: int, stop: int) -> NDArray[np.int64]:
        data = self._rows.get(split, "image_extents", start, stop)
        return np.frombuffer(data, "<i8").reshape(-1, 2)


_PIECE_ROWS = 4096


def put_images(writer: RowWriter, split: str, start: int, data: bytes) -> None:
    """Write the images of some rows, one after another, as `ImageRows.get` returns them.

    Parameters
    ----------
    writer : RowWriter
        Of a file that has its ``image_extents`` already, where the files' own bytes are stored.
    split : str
    start : int
        Row of the first.
    data : bytes
    """
    column, first = "images", start
    if f"{split}/images" not in writer.places:
        column = "encoded"
        first = int.from_bytes(writer.get(split, "image_extents", start, start + 1)[:8], "little")
    row_nbytes = writer.places[f"{split}/{column}"].row_nbytes
    writer.put(split, first, {column: np.frombuffer(data, np.uint8).reshape(-1, row_nbytes)})
