"""Read the arrays of a .npz file, and the rows of one as image files.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
import math
import os
import tokenize
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from batchify.common.text import printable
from batchify.errors import BadImageError
from batchify.storage import zip_reader
from batchify.storage.archive_file import ArchiveFile
from batchify.storage.pixel_files import image_file
from batchify.storage.source import Extent, check_size

_HEADER_NBYTES = 1 << 16

MOST_INFLATED = 1 << 30
"""Largest compressed array: each process that reads it holds it in memory."""


@dataclass(frozen=True, slots=True)
class Array:
    """An array of the file, by its header.

    Parameters
    ----------
    start : int
        Where its data begins in the unpacked member.
    extent : tuple of int
        The member of the ZIP file; see `batchify.storage.zip_reader.list_members`.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool
    start: int
    extent: Extent

    @property
    def text(self) -> str:
        """Name, shape and dtype, for messages."""
        return f"{printable(self.name)} {self.shape} {self.dtype}"

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class NpzFile:
    """An open .npz file: its arrays, and the rows of some as image files.

    Raises
    ------
    DatasetError
        If it is damaged.

    Notes
    -----
    Memory: compressed arrays that are read, up to `MOST_INFLATED` each.
    """

    def __init__(self, file: ArchiveFile) -> None:
        self._file = file
        self._inflated: dict[Extent, bytes] = {}
        self.arrays = [
            self._array(member.name, member.extent)
            for member in zip_reader.list_members(file)
            if member.extent is not None and member.name.endswith(b".npy")
        ]

    def _array(self, name: bytes, extent: Extent) -> Array:
        try:
            head = io.BytesIO(zip_reader.read_head(self._file, extent, _HEADER_NBYTES))
            version = npy.read_magic(head)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, is_fortran, dtype = read(head)
        except (ValueError, EOFError, tokenize.TokenError) as error:  # a BadImageError is one, too
            reason = str(error.args[0]).partition("\n")[0]
            if isinstance(error, ValueError) and "<ast." in reason:  # no literal
                reason = "its header is not valid"
            raise self._file.damaged(f"{printable(name)}: {printable(reason)}") from error
        found = Array(
            os.fsdecode(name.removesuffix(b".npy")), dtype, shape, is_fortran, head.tell(), extent
        )
        nbytes = zip_reader.unpacked_nbytes(extent) - found.start
        if not dtype.hasobject and nbytes != math.prod(shape) * dtype.itemsize:
            raise self._file.damaged(f"{found.text} has {nbytes:,} bytes")
        return found

    def read(self, place: Extent, max_nbytes: int) -> bytes:
        """Return a row as an image file; a place is the number of the array and of the row."""
        data = self._image(place)
        check_size(len(data), max_nbytes)
        return data

    def size(self, place: Extent) -> int:
        """Return the bytes of a row as an image file."""
        return len(self._image(place))

    def _image(self, place: Extent) -> bytes:
        number, row = place
        array = self.arrays[number]
        pixels = np.frombuffer(self._bytes(array, row, row + 1), array.dtype)
        height, width, *channels = array.shape[1:]
        return image_file(pixels.reshape(height, width, channels[0] if channels else 1))

    def _bytes(self, array: Array, start: int, stop: int) -> bytes:
        """Return the bytes of some rows."""
        first = array.start + start * array.row_nbytes
        last = array.start + stop * array.row_nbytes
        if zip_reader.is_stored(array.extent):
            begin = zip_reader.data_start(self._file, array.extent)
            return self._file.read(begin + first, last - first)
        if array.extent not in self._inflated:
            self._inflated[array.extent] = zip_reader.read_member(
                self._file, array.extent, MOST_INFLATED
            )
        return self._inflated[array.extent][first:last]

    def load(self, array: Array) -> NDArray[Any]:
        """Return a whole array."""
        order: Any = "F" if array.is_fortran else "C"
        try:
            data = zip_reader.read_member(self._file, array.extent, MOST_INFLATED)
        except BadImageError as error:
            raise self._file.damaged(f"{printable(array.name)}: {error}") from error
        return np.frombuffer(data[array.start :], array.dtype).reshape(array.shape, order=order)

    def held_nbytes(self, array: Array) -> int:
        """Return the bytes that are held to read rows of an array: all, if it is compressed."""
        is_stored = zip_reader.is_stored(array.extent)
        return 0 if is_stored else zip_reader.unpacked_nbytes(array.extent)

    def check(self, array: Array) -> None:
        """Refuse an array whose bytes are damaged, or that is too large to be decompressed.

        Raises
        ------
        DatasetError
            With what to do.
        """
        if not zip_reader.is_stored(array.extent):
            nbytes = zip_reader.unpacked_nbytes(array.extent)
            if nbytes > MOST_INFLATED:
                raise self._file.refused(
                    f"{array.text} takes {nbytes:,} bytes, and is compressed; save it with "
                    "numpy.savez, which does not compress"
                )
            return  # its CRC-32 is checked when it is decompressed
        try:
            zip_reader.check_crc32(self._file, array.extent)
        except BadImageError as error:
            raise self._file.damaged(f"{printable(array.name)}: {error}") from error

    def close(self) -> None:
        """Release what was decompressed."""
        self._inflated.clear()
