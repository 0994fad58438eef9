"""Read and write rows by their byte offsets, without HDF5.

Consecutive rows are contiguous bytes, for pixels and for encoded files, so code that checks or
copies images handles both the same way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.common import durable
from batchify.common.closing import Closing
from batchify.common.text import printable
from batchify.errors import FileAccessError, FileFormatError
from batchify.format import schema
from batchify.format.schema import RowOffsets


def row_ends(
    pieces: Iterable[NDArray[Any]], split: str, rows: int, nbytes: int, *, gaps: bool = False
) -> NDArray[np.int64]:
    """Return where the bytes of each row end, shape (N,); each row begins where the last ended.

    Parameters
    ----------
    pieces : iterable of ndarray of int64, shape (n, 2)
        ``image_extents``, some rows at a time: the start and the size of each row.
    rows, nbytes : int
        The totals.
    gaps : bool
        Rows may begin anywhere, as in an unfinished file: see `put_in_slots`.

    Raises
    ------
    FileFormatError
        If rows overlap, leave gaps, are in another order, or have negative sizes.

    Notes
    -----
    Memory: 8 bytes per row.
    """
    ends = np.zeros(rows, np.int64)
    row = end = 0
    for piece in pieces:
        starts, sizes = piece[:, 0], piece[:, 1]
        # Within these bounds no sum of two numbers overflows.
        wrong = (starts < 0) | (starts > nbytes) | (sizes < 0) | (sizes > nbytes)
        if gaps:
            wrong |= starts + sizes > nbytes
        else:
            wrong[1:] |= starts[1:] != starts[:-1] + sizes[:-1]
            wrong[0] |= starts[0] != end
        if wrong.any():
            number = row + int(np.flatnonzero(wrong)[0])
            raise FileFormatError(
                f"{split}/image_extents of row {number} does not start where the row "
                f"before ends, or is not within the {nbytes:,} bytes of {split}/encoded"
            )
        ends[row : row + len(piece)] = starts + sizes
        row += len(piece)
        end = int(ends[row - 1])
    if end != nbytes and not gaps:
        raise FileFormatError(f"{split}/encoded has {nbytes:,} bytes, but its rows end at {end:,}")
    return ends


class RowReader(Closing):
    """Reader of rows by offset, without HDF5; usable from several threads at once.

    Parameters
    ----------
    row_offsets : Mapping of str to RowOffsets
        Keys are ``split/column``.
    identity : tuple of int, optional
        Device and inode of the file that the offsets belong to.

    Raises
    ------
    FileAccessError
        If another file took the name.
    """

    _flags = os.O_RDONLY

    def __init__(
        self,
        path: bytes,
        row_offsets: Mapping[str, RowOffsets],
        identity: tuple[int, int] | None = None,
    ) -> None:
        self._path = path
        self.row_offsets = row_offsets
        try:
            self._fd = os.open(path, self._flags | durable.O_BINARY)
        except OSError as error:
            raise durable.io_error("opening", path, error) from error
        status = os.fstat(self._fd)
        if identity not in (None, (status.st_dev, status.st_ino)):
            self.close()
            raise FileAccessError(f"{printable(path)} was replaced meanwhile; run it again")

    def get(self, split: str, column: str, start: int, stop: int) -> bytes:
        """Return the bytes of some rows of a column, concatenated."""
        ranges = self.row_offsets[f"{split}/{column}"].ranges(start, stop)
        try:
            runs = [durable.pread_all(self._fd, nbytes, offset) for offset, nbytes in ranges]
        except OSError as error:
            raise durable.io_error("reading", self._path, error) from error
        return runs[0] if len(runs) == 1 else b"".join(runs)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class RowWriter(RowReader):
    """Writer of finished rows by offset, from any process; it can also read them."""

    _flags = os.O_RDWR

    def put(self, split: str, start: int, columns: Mapping[str, NDArray[Any]]) -> None:
        """Write some rows of some columns.

        Parameters
        ----------
        start : int
            The first row.
        columns : Mapping of str to ndarray
            C-contiguous, of the dtypes of the file.
        """
        try:
            for name, rows in columns.items():
                where = self.row_offsets[f"{split}/{name}"]
                for offset, first, last in where.extents(start, start + len(rows)):
                    durable.pwrite_all(self._fd, rows[first - start : last - start].data, offset)
        except OSError as error:
            raise durable.io_error("writing", self._path, error) from error

    def reserve(self) -> bool:
        """Reserve the blocks of the whole file; return whether the file system can."""
        return durable.reserve(self._fd, self._path, os.fstat(self._fd).st_size)

    def sync(self) -> None:
        """Make all rows durable, including those that other processes wrote.

        Raises
        ------
        OutputIOError
            A failed fsync is never retried: the kernel may have dropped the data already.
        """
        try:
            durable.sync(self._fd)
        except OSError as error:
            raise durable.io_error("syncing", self._path, error) from error

    @property
    def is_named(self) -> bool:
        """Whether the open file is still the one with its name."""
        return durable.is_named(self._fd, self._path)


class ImageRows:
    """The stored images of a file, read by offset.

    Parameters
    ----------
    rows : RowReader
        With the offsets of ``images``, or of ``encoded`` and ``image_extents``.
    """

    def __init__(self, rows: RowReader) -> None:
        self._rows = rows

    def nbytes(self, split: str, start: int, stop: int) -> NDArray[np.int64]:
        """Return the size of each of some images, shape (n,)."""
        where = self._rows.row_offsets.get(f"{split}/images")
        if where is not None:
            return np.full(stop - start, where.row_nbytes, np.int64)
        return self._extents(split, start, stop)[:, 1]

    def get(self, split: str, start: int, stop: int) -> bytes:
        """Return the images of some rows, concatenated."""
        if f"{split}/images" in self._rows.row_offsets:
            return self._rows.get(split, "images", start, stop)
        extents = self._extents(split, start, stop)
        if not len(extents):
            return b""
        if (extents[1:, 0] == extents[:-1].sum(axis=1)).all():
            return self._rows.get(split, "encoded", int(extents[0, 0]), int(extents[-1].sum()))
        return b"".join(  # an unfinished file has gaps
            self._rows.get(split, "encoded", first, first + nbytes)
            for first, nbytes in extents.tolist()
        )

    def pieces(self, split: str, rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Yield [start, stop) of runs of ascending rows, of some MiB unless a row is larger."""
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


def put_in_slots(
    writer: RowWriter, split: str, start: int, images: Sequence[bytes], slot_nbytes: int
) -> None:
    """Write encoded images of some rows, and their extents: each at the start of its slot.

    The slots of an unfinished file have room for the largest image that an encoder makes.
    """
    first = np.arange(start, start + len(images)) * slot_nbytes
    extents = np.stack([first, [len(image) for image in images]], axis=1).astype("<i8")
    for (where, _), image in zip(extents.tolist(), images, strict=True):
        writer.put(split, where, {"encoded": np.frombuffer(image, np.uint8).reshape(-1, 1)})
    writer.put(split, start, {"image_extents": extents})


def put_images(writer: RowWriter, split: str, start: int, data: bytes) -> None:
    """Write the images of some rows, concatenated as `ImageRows.get` returns them.

    Parameters
    ----------
    writer : RowWriter
        If encoded files are stored, their ``image_extents`` must be written already.
    start : int
        The first row.
    """
    column, first = "images", start
    if f"{split}/images" not in writer.row_offsets:
        column = "encoded"
        first = int.from_bytes(writer.get(split, "image_extents", start, start + 1)[:8], "little")
    row_nbytes = writer.row_offsets[f"{split}/{column}"].row_nbytes
    writer.put(split, first, {column: np.frombuffer(data, np.uint8).reshape(-1, row_nbytes)})
