"""Read the stored images of a split by offset.

Uncompressed rows are read in place. Compressed chunks are read raw and decompressed here, never
beyond the size of a chunk.
"""

from __future__ import annotations

import itertools
import os
import weakref
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from h5py import h5d
from numpy.typing import NDArray

from batchify.common import durable
from batchify.common.closing import Closing
from batchify.common.text import printable
from batchify.errors import FileClosedError, FileFormatError
from batchify.format import schema
from batchify.format.reader import Reader
from batchify.format.structure import filters


class Ranges(Protocol):
    """A file that is read by ranges, each an offset and a number of bytes."""

    def read(self, extents: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of some ranges."""
        ...


class _OpenFile:
    """A file descriptor of its own, closed when nothing refers to it any more: not amid a read."""

    def __init__(self, fd: int) -> None:
        self._fd = os.dup(fd)
        weakref.finalize(self, os.close, self._fd)

    def read(self, extents: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of some ranges."""
        return [durable.pread_all(self._fd, nbytes, offset) for offset, nbytes in extents]


class StoredImages(Closing):
    """The stored images of one split; usable from several threads at once.

    Parameters
    ----------
    reader : Reader
        Needs to be open only until this is made.
    file : Ranges, optional
        Where to read rows, if that is not the file of `reader`: they are compared with their
        CRC-32, since another file may have taken its place.
    """

    chunk_rows = 1
    _sums: NDArray[np.uint32] | None = None

    def __init__(self, reader: Reader, split: str, file: Ranges | None = None) -> None:
        self.rows = reader.rows(split)
        self._path = reader.path
        self._open: Ranges | None = _OpenFile(reader.fd) if file is None else file
        if file is not None:
            self._sums = reader.column(split, "row_crc32")

    def read_from(self, file: Ranges) -> None:
        """Read rows from another copy of the file from now on."""
        self._open = file

    @property
    def _file(self) -> Ranges:
        if self._open is None:
            raise FileClosedError(f"{printable(self._path)} is closed")
        return self._open

    @abstractmethod
    def get(self, start: int, stop: int) -> bytes:
        """Return the bytes of some rows, concatenated.

        Raises
        ------
        OSError
            If the file is too short, or cannot be read.
        FileFormatError
            If a compressed chunk is damaged.
        FileClosedError
            After `close`.
        """

    @abstractmethod
    def sizes(self, start: int, stop: int) -> list[int]:
        """Return the size of each of some rows."""

    @abstractmethod
    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield [start, stop) of all rows: whole chunks of some MiB, or one larger chunk."""

    @property
    @abstractmethod
    def piece_nbytes(self) -> int:
        """The size in bytes of the largest of the `pieces`."""

    def checked(self, start: int, crc32: list[int]) -> tuple[bytes, list[int]]:
        """Return the bytes of some rows, and which of them do not match their CRC-32."""
        stop = start + len(crc32)
        data = self.get(start, stop)
        return data, self._mismatches(data, start, crc32)

    def _mismatches(self, data: bytes, start: int, crc32: list[int]) -> list[int]:
        """Return which rows do not match their CRC-32, given the bytes of those from `start`."""
        rows, end = memoryview(data), 0
        damaged = []
        sizes = self.sizes(start, start + len(crc32))
        for row, (nbytes, expected) in enumerate(zip(sizes, crc32, strict=True), start):
            if zlib.crc32(rows[end : end + nbytes]) != expected:
                damaged.append(row)
            end += nbytes
        return damaged

    def _compared(self, data: bytes, start: int, stop: int) -> bytes:
        """Return the bytes of some rows, if they match the CRC-32 of a remote file.

        Raises
        ------
        FileFormatError
            If they do not.
        """
        if self._sums is not None:
            damaged = self._mismatches(data, start, self._sums[start:stop].tolist())
            if damaged:
                raise FileFormatError(
                    f"row {damaged[0]:,} does not match its checksum: the file was replaced after "
                    "it was opened, or is damaged"
                )
        return data

    def close(self) -> None:
        """Close the file; this happens by itself when the object is no longer used."""
        self._open = None


class EncodedFiles(StoredImages):
    """The encoded files of one split.

    Notes
    -----
    Memory: 8 bytes a row.
    """

    def __init__(self, reader: Reader, split: str, file: Ranges | None = None) -> None:
        self._ends = reader.ends(split)
        with reader.refusing():
            self._offsets = reader.offsets(split, "encoded")
        super().__init__(reader, split, file)

    def get(self, start: int, stop: int) -> bytes:
        """Return the bytes of some files, concatenated."""
        found = self._file.read(self._offsets.ranges(self._end(start), self._end(stop)))
        return self._compared(b"".join(found), start, stop)

    def sizes(self, start: int, stop: int) -> list[int]:
        """Return the size of each of some files."""
        sizes: list[int] = np.diff(self._ends[start:stop], prepend=self._end(start)).tolist()
        return sizes

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield [start, stop) of all rows: some MiB, or one larger file."""
        start = 0
        while start < self.rows:
            most = self._end(start) + schema.PIECE_NBYTES
            stop = max(start + 1, int(np.searchsorted(self._ends, most, "right")))
            yield start, stop
            start = stop

    @property
    def piece_nbytes(self) -> int:
        """The size in bytes of the largest of the `pieces`."""
        largest = int(np.diff(self._ends, prepend=0).max(initial=0))
        return max(schema.PIECE_NBYTES, largest)

    def _end(self, rows: int) -> int:
        """Return where the bytes of the first `rows` rows end."""
        return int(self._ends[rows - 1]) if rows else 0


class StoredPixels(StoredImages):
    """The decoded images of one split, or its masks.

    Notes
    -----
    Memory: 16 bytes per chunk if the images are compressed, otherwise constant.
    """

    def __init__(
        self, reader: Reader, split: str, column: str = "images", file: Ranges | None = None
    ) -> None:
        dataset = reader.splits[split][column]
        self.dtype: np.dtype[np.generic] = dataset.dtype
        self.image_shape: tuple[int, ...] = dataset.shape[1:]
        self.row_nbytes: int = self.dtype.itemsize * int(np.prod(self.image_shape, dtype=np.int64))
        self.chunk_rows: int = dataset.chunks[0]
        used = filters(dataset)
        self.compressed = bool(used)
        self._shuffled = len(used) == 2
        self._offsets = None
        self.is_remote = file is not None
        super().__init__(reader, split, file)
        if column != "images":  # those of masks are part of their records
            self._sums = None
        with reader.refusing():
            if used:
                self._chunk_offsets, self._chunk_sizes = self._chunk_table(
                    dataset.id, reader.nbytes
                )
            else:
                self._offsets = reader.offsets(split, column)

    def get(self, start: int, stop: int) -> bytes:
        """Return the bytes of some rows, concatenated."""
        if self._offsets is not None:
            (found,) = self.get_runs([(start, stop)])
            return found
        if start == stop:
            return b""
        first, last = start // self.chunk_rows, (stop - 1) // self.chunk_rows
        data = b"".join(self._chunk(index) for index in range(first, last + 1))
        skipped = (start - first * self.chunk_rows) * self.row_nbytes
        return self._compared(
            data[skipped : skipped + (stop - start) * self.row_nbytes], start, stop
        )

    def get_runs(self, runs: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of several runs [start, stop) of rows, which are read together."""
        if self._offsets is None:
            return [self.get(*run) for run in runs]
        extents = [self._offsets.ranges(*run) for run in runs]
        found = iter(self._file.read([extent for run in extents for extent in run]))
        parts = [list(itertools.islice(found, len(run))) for run in extents]
        joined = [part[0] if len(part) == 1 else b"".join(part) for part in parts]
        return [self._compared(data, *run) for data, run in zip(joined, runs, strict=True)]

    def sizes(self, start: int, stop: int) -> list[int]:
        """Return the size of each of some rows."""
        return [self.row_nbytes] * (stop - start)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield [start, stop) of all rows: whole chunks of some MiB, or one larger chunk."""
        for start in range(0, self.rows, self._piece_rows):
            yield start, min(start + self._piece_rows, self.rows)

    @property
    def piece_nbytes(self) -> int:
        """The size in bytes of the largest of the `pieces`."""
        return self._piece_rows * self.row_nbytes

    @property
    def _piece_rows(self) -> int:
        rows = max(1, schema.PIECE_NBYTES // self.row_nbytes)
        return rows + -rows % self.chunk_rows

    def pixels(self, data: bytes) -> NDArray[Any]:
        """Return the bytes of a row as an array, shape (H, W, C)."""
        return np.frombuffer(data, self.dtype).reshape(self.image_shape)

    def _chunk_table(
        self, dataset: h5d.DatasetID, nbytes: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the byte offset and the stored size of each chunk."""
        count = -(-self.rows // self.chunk_rows)
        offsets, sizes = np.zeros(count, np.int64), np.zeros(count, np.int64)
        limit = self.chunk_rows * self.row_nbytes + 65536  # deflate never adds more than that

        def add(info: h5d.StoreInfo) -> None:
            index, within = divmod(info.chunk_offset[0], self.chunk_rows)
            if within or any(info.chunk_offset[1:]):
                raise FileFormatError("a chunk has an impossible offset")
            if index >= count:
                return  # past the rows
            if sizes[index]:
                raise FileFormatError(f"chunk {index} of the images is stored twice")
            if info.filter_mask or info.size > limit:
                raise FileFormatError(
                    f"chunk {index} of the images is not compressed with the expected filters"
                )
            offsets[index], sizes[index] = min(info.byte_offset, nbytes), info.size

        dataset.chunk_iter(add)
        if not sizes.all():
            raise FileFormatError("some images are not stored")
        if (offsets > nbytes - sizes).any():
            raise FileFormatError("some images are past the end of the file")
        return offsets, sizes

    def _chunk(self, index: int) -> bytes:
        extent = int(self._chunk_offsets[index]), int(self._chunk_sizes[index])
        (stored,) = self._file.read([extent])
        nbytes = self.chunk_rows * self.row_nbytes
        inflate = zlib.decompressobj()
        try:
            data = inflate.decompress(stored, nbytes)
            more = not inflate.eof and inflate.decompress(inflate.unconsumed_tail, 1)
        except zlib.error as error:
            raise FileFormatError(f"a compressed chunk is damaged: {error}") from error
        if len(data) != nbytes or more:
            raise FileFormatError("a compressed chunk has the wrong size")
        if self._shuffled:  # HDF5's shuffle: all first bytes, then all second bytes …
            planes = np.frombuffer(data, np.uint8).reshape(self.dtype.itemsize, -1)
            data = planes.T.tobytes()
        return data


def stored_images(reader: Reader, split: str) -> StoredImages:
    """Open the images of a split: pixels or encoded files."""
    return EncodedFiles(reader, split) if reader.is_encoded else StoredPixels(reader, split)
