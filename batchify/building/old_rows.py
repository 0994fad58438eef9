"""Look up rows of an existing file by their source's SHA-256, to copy instead of decode."""

from __future__ import annotations

import contextlib
import zlib
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.keys import KeyIndex, first_bytes
from batchify.decoding.appearance import APPEARANCE
from batchify.decoding.batch import ImageRecord
from batchify.decoding.channels import stored_sums
from batchify.errors import FileFormatError
from batchify.format import schema
from batchify.format.images import StoredPixels
from batchify.format.reader import Reader
from batchify.format.rows import ImageRows, RowReader

_TRIES = 16
"""How many rows with the same content are tried: some may be damaged or incomplete."""


class OldRows:
    """The rows of an older file, by the SHA-256 of their source.

    Parameters
    ----------
    path : bytes
        A file that was built with the same pixel options by the same decoder, or one that
        `batchify.building.set_aside` made from an unfinished build.

    Notes
    -----
    Memory: 16 bytes per row.
    """

    def __init__(self, path: bytes) -> None:
        keys = [np.zeros(0, np.uint64)]
        with contextlib.ExitStack() as undo, Reader(path) as reader:
            self._rows_of = {name: reader.rows(name) for name in reader.splits}
            self._has_appearance = reader.has_appearance
            self._is_reencoded = reader.store in choices.REENCODED_STORES
            self._images: dict[str, StoredPixels] = {}
            self._records: dict[str, list[str]] = {}
            for name in reader.splits:
                if not reader.is_encoded:
                    self._images[name] = StoredPixels(reader, name)
                    undo.callback(self._images[name].close)
                keys += [first_bytes(piece) for piece in reader.pieces(name, "source_sha256")]
                self._records[name] = [
                    column
                    for column in reader.splits[name]
                    if column not in (*schema.IMAGE_COLUMNS, "record_crc32")
                ]
            self._rows = RowReader(path, reader.row_offsets(), reader.identity)
            undo.pop_all()
        self._index = KeyIndex(np.concatenate(keys))

    def take(self, digest: bytes, out: NDArray[Any]) -> ImageRecord | None:
        """Copy the image of a source into `out` and return its metadata; None if it is missing.

        Files that are stored unchanged are not copied; only their metadata is returned. Damaged
        rows are missing.

        Parameters
        ----------
        digest : bytes
            SHA-256 of the source.
        out : ndarray, shape (H, W, C)
        """
        key = first_bytes(np.frombuffer(digest, np.uint8).reshape(1, -1))[0]
        for number in islice(self._index.positions(key), _TRIES):
            split, row = self._split_and_row(number)
            if self._rows.get(split, "source_sha256", row, row + 1) == digest:
                record = self._copy(split, row, out)
                if record is not None:
                    return record
        return None

    def _split_and_row(self, number: int) -> tuple[str, int]:
        """Return the split and the row in it, given a row number over all splits."""
        for split, rows in self._rows_of.items():
            if number < rows:
                return split, number
            number -= rows
        raise IndexError(number)

    def _copy(self, split: str, row: int, out: NDArray[Any]) -> ImageRecord | None:
        record = b"".join(
            self._rows.get(split, name, row, row + 1) for name in self._records[split]
        )
        record_crc32 = self._rows.get(split, "record_crc32", row, row + 1)
        if zlib.crc32(record) != int.from_bytes(record_crc32, "little"):
            return None
        crc32 = int.from_bytes(self._rows.get(split, "row_crc32", row, row + 1), "little")
        height, width = np.frombuffer(self._rows.get(split, "source_size", row, row + 1), "<i4")
        flags = int.from_bytes(self._rows.get(split, "source_flags", row, row + 1), "little")
        found = ImageRecord(crc32, (int(height), int(width)), flags)
        if self._has_appearance:
            measured = b"".join(
                self._rows.get(split, name, row, row + 1) for name in choices.APPEARANCE
            )
            found = found._replace(appearance=np.frombuffer(measured, APPEARANCE)[0].item())
        if not self._images:
            sums = np.frombuffer(self._rows.get(split, "channel_sums", row, row + 1), "<i8")
            found = found._replace(sums=stored_sums(sums.reshape(1, 3, -1), images=1))
            return self._with_content(split, row, found) if self._is_reencoded else found
        try:
            image = self._images[split].get(row, row + 1)
        except (OSError, FileFormatError):
            return None
        if zlib.crc32(image) != crc32:
            return None
        out[...] = np.frombuffer(image, out.dtype).reshape(out.shape)
        return found

    def _with_content(self, split: str, row: int, found: ImageRecord) -> ImageRecord | None:
        """Return the record with an image that was encoded again; None if it is damaged."""
        content = ImageRows(self._rows).get(split, row, row + 1)
        if zlib.crc32(content) != found.row_crc32:
            return None
        if "psnr" in self._records[split]:
            psnr = np.frombuffer(self._rows.get(split, "psnr", row, row + 1), "<f4")
            found = found._replace(psnr=float(psnr[0]))
        return found._replace(content=content)

    def close(self) -> None:
        """Close the file."""
        self._rows.close()
        for images in self._images.values():
            images.close()
