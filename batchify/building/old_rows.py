"""Look up rows of an existing file by their source's SHA-256, to copy instead of decode."""

from __future__ import annotations

import contextlib
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.common.keys import KeyIndex
from batchify.decoding.batch import ImageRecord
from batchify.decoding.channels import stored_sums
from batchify.errors import FileFormatError
from batchify.format import schema
from batchify.format.images import StoredPixels
from batchify.format.reader import Reader
from batchify.format.rows import RowReader


class OldRows:
    """The rows of an older file, by the SHA-256 of their source.

    Parameters
    ----------
    path : bytes
        A file that was built with the same pixel options by the same decoder.

    Notes
    -----
    Memory: 16 bytes a row.
    """

    def __init__(self, path: bytes) -> None:
        keys = []
        with contextlib.ExitStack() as undo, Reader(path) as reader:
            self._rows_of = {name: reader.rows(name) for name in reader.splits}
            self._images: dict[str, StoredPixels] = {}
            for name in reader.splits:
                if not reader.is_encoded:
                    self._images[name] = StoredPixels(reader, name)
                    undo.callback(self._images[name].close)
                keys += [_keys(piece) for piece in reader.pieces(name, "source_sha256")]
            self._records = [
                name
                for name in reader.splits[name]
                if name not in (*schema.IMAGE_COLUMNS, "record_crc32")
            ]
            self._rows = RowReader(path, reader.row_offsets(), reader.identity)
            undo.pop_all()
        self._index = KeyIndex(np.concatenate(keys) if keys else np.zeros(0, np.uint64))

    def take(self, digest: bytes, out: NDArray[Any]) -> ImageRecord | None:
        """Copy the image of a source into `out` and return its metadata; None if it is not there.

        Encoded files are not copied: there is only their metadata. A damaged row is not there.

        Parameters
        ----------
        digest : bytes
            SHA-256 of the source.
        out : ndarray, shape (H, W, C)
        """
        key = _keys(np.frombuffer(digest, np.uint8).reshape(1, -1))[0]
        for number in self._index.positions(key):
            split, row = self._split_and_row(number)
            if self._rows.get(split, "source_sha256", row, row + 1) == digest:
                return self._copy(split, row, out)
        return None

    def _split_and_row(self, number: int) -> tuple[str, int]:
        """Return the split and the row of a row that is counted over all splits."""
        for split, rows in self._rows_of.items():
            if number < rows:
                return split, number
            number -= rows
        raise IndexError(number)

    def _copy(self, split: str, row: int, out: NDArray[Any]) -> ImageRecord | None:
        record = b"".join(self._rows.get(split, name, row, row + 1) for name in self._records)
        record_crc32 = self._rows.get(split, "record_crc32", row, row + 1)
        if zlib.crc32(record) != int.from_bytes(record_crc32, "little"):
            return None
        crc32 = int.from_bytes(self._rows.get(split, "row_crc32", row, row + 1), "little")
        height, width = np.frombuffer(self._rows.get(split, "source_size", row, row + 1), "<i4")
        flags = int.from_bytes(self._rows.get(split, "source_flags", row, row + 1), "little")
        found = ImageRecord(crc32, (int(height), int(width)), flags)
        if not self._images:
            sums = np.frombuffer(self._rows.get(split, "channel_sums", row, row + 1), "<i8")
            return found._replace(sums=stored_sums(sums.reshape(1, 3, -1), images=1))
        try:
            image = self._images[split].get(row, row + 1)
        except (OSError, FileFormatError):
            return None
        if zlib.crc32(image) != crc32:
            return None
        out[...] = np.frombuffer(image, out.dtype).reshape(out.shape)
        return found

    def close(self) -> None:
        """Close the file."""
        self._rows.close()
        for images in self._images.values():
            images.close()


def _keys(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the first 8 bytes of each digest, shape (n,)."""
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64).ravel()
