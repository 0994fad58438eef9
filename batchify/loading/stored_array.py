"""Images of one file that are read by their offsets: it cannot be mapped, or is in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchify.errors import FileAccessError, FileFormatError, RemoteError
from batchify.format.images import StoredPixels
from batchify.format.schema import PIECE_NBYTES
from batchify.loading.arrays import RowArray, stored_pil_image
from batchify.loading.indexing import Rows
from batchify.loading.origin import Origin

if TYPE_CHECKING:
    from batchify.decoding.pil_image import PilImage

_GAP_NBYTES = 128 << 10
"""Rows of a store with fewer bytes between them are read together: a request takes longer."""


class StoredArray(RowArray):
    """The images, or masks, of one file that cannot be mapped.

    They are compressed, not in one run, or on a file system without `mmap`.
    """

    def __init__(self, stored: StoredPixels, origin: Origin, column: str = "images") -> None:
        rows = stored.rows
        starts = None
        if stored.compressed and stored.chunk_rows > 1:
            starts = np.arange(0, rows, stored.chunk_rows, dtype=np.intp)
        super().__init__((rows, *stored.image_shape), stored.dtype, origin, starts, column)
        self._stored = stored

    def close(self) -> None:
        """Close the file."""
        self._stored.close()

    def gather(self, rows: Rows, out: NDArray[Any]) -> None:
        """Read some rows; those of a store in few requests, several at a time."""
        if not self._stored.is_remote or self._stored.compressed or not len(rows):
            super().gather(rows, out)
            return
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        near = max(1, _GAP_NBYTES // max(1, self._stored.row_nbytes))
        breaks = np.flatnonzero(np.diff(wanted) > near) + 1
        runs = [(int(run[0]), int(run[-1]) + 1) for run in np.split(wanted, breaks)]
        runs = [
            (start, min(start + self._piece_rows, last))
            for first, last in runs
            for start in range(first, last, self._piece_rows)
        ]
        try:
            parts = self._stored.get_runs(runs)
        except FileFormatError as error:
            raise FileFormatError(f"{self.origin.shown}, {self.origin.split}: {error}") from error
        position = 0
        for (start, stop), data in zip(runs, parts, strict=True):
            found = np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])
            end = int(np.searchsorted(wanted, stop))
            out[order[position:end]] = found[wanted[position:end] - start]
            position = end

    @property
    def _piece_rows(self) -> int:
        return max(1, PIECE_NBYTES // max(1, self._stored.row_nbytes))

    def chunk(self, index: int) -> NDArray[Any]:
        """Return the rows of a chunk, or one row.

        Raises
        ------
        FileAccessError
            If the file cannot be read.
        FileFormatError
            If the chunk is damaged.
        """
        size = 1 if self.starts is None else self._stored.chunk_rows
        start = index * size
        stop = min(start + size, len(self))
        where = f"{self.origin.shown}, rows {start} to {stop - 1}"
        try:
            data = self._stored.get(start, stop)
        except RemoteError:
            raise
        except FileFormatError as error:
            raise FileFormatError(f"{where} of {self.origin.split}: {error}") from error
        except OSError as error:
            raise FileAccessError(f"{where} of {self.origin.split}: {error}") from error
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    def pil_image(self, row: int) -> PilImage:
        """Return the stored pixels of a row as a PIL image."""
        return stored_pil_image(self[row])
