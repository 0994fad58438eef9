"""What a split offers where its file keeps the files' own bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

from batchify import schema
from batchify.images import RowArray, only_pixels
from batchify.indexing import row_numbers
from batchify.paths import Origin

if TYPE_CHECKING:
    from batchify.splits import Images

SplitT = TypeVar("SplitT", bound="EncodedAccess")


class EncodedAccess:
    """The files' own bytes, and other sizes to decode them at: a part of `batchify.splits.Split`.

    Each raises `OptionError` where the file stores decoded images.
    """

    images: Images
    origin: Origin

    def encoded(self, row: int) -> bytes:
        """Return the file that a row was made of, byte by byte as it was.

        Raises
        ------
        OptionError, IndexError
        FileAccessError
            If it cannot be read.
        """
        images, number = self._at(row)
        return images.encoded(number)

    def decode(self, row: int) -> NDArray[Any]:
        """Return a row at the size of its source, shape (h, w, C), not resized.

        Colour mode, EXIF and dtype are those of the split.

        Raises
        ------
        OptionError, IndexError
        FileAccessError, FileFormatError
            If it cannot be read or decoded.
        """
        images, number = self._at(row)
        return images.decode(number)

    def resized(
        self: SplitT,
        target_size: tuple[int, int],
        *,
        interpolation: schema.Interpolation | None = None,
        fit: schema.Fit | None = None,
        scaled_decode: bool | None = None,
    ) -> SplitT:
        """Return this split with images of another size; nothing is decoded yet.

        Parameters
        ----------
        target_size : tuple of int
            (height, width).
        interpolation, fit, scaled_decode
            As for `build`; by default as the file was built.

        Raises
        ------
        OptionError
        """
        serving = replace(
            self.origin.serving,
            target_size=target_size,
            interpolation=interpolation,
            fit=fit,
            scaled_decode=scaled_decode,
        )
        origin = replace(self.origin, serving=serving)
        found = object.__new__(type(self))  # all else of it is the same
        vars(found).update(vars(self))
        found.images, found.origin = self._row_array().served(serving, origin), origin
        return found

    def _at(self, row: int) -> tuple[RowArray, int]:
        number = row_numbers(row, len(self.images))
        if number.ndim:
            raise IndexError(f"one row at a time, not {row!r}")
        return self._row_array(), int(number)

    def _row_array(self) -> RowArray:
        if not isinstance(self.images, RowArray):
            raise only_pixels(self.origin)
        return self.images
