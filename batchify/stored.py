"""Serves the stored images of a split, by offset: no HDF5 while they are read, so no lock of its.

Uncompressed rows are read where they lie. Compressed chunks are read raw and inflated here, never
beyond the size that a chunk has.
"""

from __future__ import annotations

import os
import weakref
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from h5py import h5d
from numpy.typing import NDArray

from batchify import durable, schema
from batchify.errors import FileFormatError
from batchify.reader import Reader
from batchify.structure import dataset_places, filters


class StoredImages:
    """The images of one split; usable from several threads at once.

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
    Memory: 16 bytes a chunk where the images are compressed, else nothing that grows.
    """

    def __init__(self, reader: Reader, split: str) -> None:
        dataset = reader.splits[split]["images"]
        self.rows: int = dataset.shape[0]
        self.dtype: np.dtype[np.generic] = dataset.dtype
        self.image_shape: tuple[int, ...] = dataset.shape[1:]
        self.row_nbytes: int = self.dtype.itemsize * int(np.prod(self.image_shape, dtype=np.int64))
        self.chunk_rows: int = dataset.chunks[0]
        used = filters(dataset)
        self.compressed = bool(used)
        self._shuffled = len(used) == 2
        self._places = None
        with reader.refusing():
            if used:
                self._offsets, self._sizes = self._chunk_table(dataset.id, reader.nbytes)
            else:
                self._places = dataset_places(dataset)
        self._fd = os.dup(reader.fd)
        self._closing = weakref.finalize(self, os.close, self._fd)

    def get(self, start: int, stop: int) -> bytes:
        """Return the bytes of some rows.

        Raises
        ------
        OSError
            If the file ends before, or cannot be read.
        FileFormatError
            If a compressed chunk is damaged.
        """
        if self._places is not None:
            return b"".join(
                durable.pread_all(self._fd, (last - first) * self.row_nbytes, offset)
                for offset, first, last in self._places.extents(start, stop)
            )
        if start == stop:
            return b""
        first, last = start // self.chunk_rows, (stop - 1) // self.chunk_rows
        data = b"".join(self._chunk(index) for index in range(first, last + 1))
        skipped = (start - first * self.chunk_rows) * self.row_nbytes
        return data[skipped : skipped + (stop - start) * self.row_nbytes]

    def cut(self, data: bytes, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes of each of some rows, out of those that `get` returned of them."""
        view = memoryview(data)
        for first in range(0, (stop - start) * self.row_nbytes, self.row_nbytes):
            yield view[first : first + self.row_nbytes]

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield [start, stop) of all rows, whole chunks, some MiB together unless one has more."""
        for start in range(0, self.rows, self._piece_rows):
            yield start, min(start + self._piece_rows, self.rows)

    @property
    def piece_nbytes(self) -> int:
        """The most bytes of one of the `pieces`."""
        return self._piece_rows * self.row_nbytes

    @property
    def _piece_rows(self) -> int:
        rows = max(1, schema.PIECE_NBYTES // self.row_nbytes)
        return rows + -rows % self.chunk_rows

    def pixels(self, data: bytes) -> NDArray[Any]:
        """Return the bytes of a row as an array, shape (H, W, C)."""
        return np.frombuffer(data, self.dtype).reshape(self.image_shape)

    def close(self) -> None:
        """Close the file; done by itself when this is not used any more."""
        self._closing()

    def _chunk_table(
        self, dataset: h5d.DatasetID, nbytes: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the byte offset and the stored size of each chunk."""
        count = -(-self.rows // self.chunk_rows)
        offsets, sizes = np.zeros(count, np.int64), np.zeros(count, np.int64)
        limit = self.chunk_rows * self.row_nbytes + 65536  # deflate never grows more than that

        def add(info: h5d.StoreInfo) -> None:
            index, within = divmod(info.chunk_offset[0], self.chunk_rows)
            if within or any(info.chunk_offset[1:]):
                raise FileFormatError("there are chunks that begin where none can")
            if index >= count:
                return  # past the rows
            if sizes[index]:
                raise FileFormatError(f"chunk {index} of the images has several places")
            if info.filter_mask or info.size > limit:
                raise FileFormatError(f"chunk {index} of the images is not compressed as it should")
            offsets[index], sizes[index] = min(info.byte_offset, nbytes), info.size

        dataset.chunk_iter(add)
        if not sizes.all():
            raise FileFormatError("there are images that are not stored")
        if (offsets > nbytes - sizes).any():
            raise FileFormatError("there are images past the end of the file")
        return offsets, sizes

    def _chunk(self, index: int) -> bytes:
        stored = durable.pread_all(self._fd, int(self._sizes[index]), int(self._offsets[index]))
        nbytes = self.chunk_rows * self.row_nbytes
        inflate = zlib.decompressobj()
        try:
            data = inflate.decompress(stored, nbytes)
            more = not inflate.eof and inflate.decompress(inflate.unconsumed_tail, 1)
        except zlib.error as error:
            raise FileFormatError(f"a compressed chunk is damaged: {error}") from error
        if len(data) != nbytes or more:
            raise FileFormatError("a compressed chunk is of another size")
        if self._shuffled:  # HDF5's shuffle: all first bytes, then all second bytes …
            planes = np.frombuffer(data, np.uint8).reshape(self.dtype.itemsize, -1)
            data = planes.T.tobytes()
        return data
