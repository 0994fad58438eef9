"""Images stored as encoded files, decoded when they are read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from batchify.decoding.formats import TooLargeError
from batchify.decoding.image import decode_image
from batchify.decoding.pil_image import PilImage, as_pil_image, decode_pil_image
from batchify.decoding.pillow_settings import set_pillow_limits, silence_pillow
from batchify.decoding.pixel_writer import PixelWriter
from batchify.errors import (
    BadImageError,
    BatchifyError,
    FileAccessError,
    FileFormatError,
    OptionError,
)
from batchify.format.config import recorded_options
from batchify.format.images import EncodedFiles, Ranges
from batchify.format.reader import Reader
from batchify.loading.arrays import RowArray
from batchify.loading.origin import AS_RECORDED, DecodeOverrides, Origin

_Image = TypeVar("_Image")

_HIGHER_LIMITS = (
    "the file was built with higher limits; if it is your own, open it with trusted=True "
    "(--trusted)"
)


class EncodedImages:
    """The encoded images of a split, decoded as a build would have stored them.

    Parameters
    ----------
    reader : Reader
        Needs to be open only until this is made.

    Notes
    -----
    Sets Pillow's process-wide limits (`batchify.decoding.pillow_settings.set_pillow_limits`), and
    silences its warnings about odd images.
    """

    def __init__(
        self,
        reader: Reader,
        split: str,
        overrides: DecodeOverrides = AS_RECORDED,
        file: Ranges | None = None,
    ) -> None:
        with reader.refusing():
            recorded = recorded_options(reader.header.config)
            self.files = EncodedFiles(reader, split, file)
            self.dtype = reader.image_dtype
            self._target_size = recorded.decode.target_size
            self._store = recorded.store
            self._recorded = recorded.decode
            if self._store.is_reencoded:
                self._recorded = recorded.decode.for_stored(self._store.max_side)
            self._use(overrides)

    def decoded_with(self, overrides: DecodeOverrides) -> EncodedImages:
        """Return the same images with other decoding options."""
        found = copy.copy(self)
        found._use(overrides)
        return found

    def _use(self, overrides: DecodeOverrides) -> None:
        self._options = overrides.apply(self._recorded)
        allowed = self._recorded.max_pixels, self._recorded.max_dimension
        self._is_capped = allowed != (self._options.max_pixels, self._options.max_dimension)
        if self._store.class_mode == "mask" and self._options.target_size != self._target_size:
            height, width = self._target_size
            raise OptionError(
                f"the masks of the file have {height}×{width} pixels, and images of another size "
                "do not go with them; build a file with another --target-size"
            )
        self._writer = PixelWriter(self._store, self._options)
        set_pillow_limits(self._options)
        silence_pillow()

    @property
    def rows(self) -> int:
        """The number of images."""
        return self.files.rows

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the decoded images."""
        return self._options.image_shape

    def get(self, start: int, stop: int) -> bytes:
        """Return the bytes of some files, concatenated."""
        return self.files.get(start, stop)

    def pixels(self, data: bytes, *, fit: bool = True) -> NDArray[Any]:
        """Return the pixels of an encoded file, shape (H, W, C); `fit` resizes them as asked.

        Raises
        ------
        BadImageError
            If the image cannot be decoded.
        """
        try:
            decoded = decode_image(data, self._options, fit=fit, deep=self._writer.keeps_deep)
        except TooLargeError as error:
            raise self._explained(error) from error
        out = np.empty((*decoded.pixels.shape[:2], self.image_shape[-1]), self.dtype)
        self._writer.put(decoded, out)
        return out

    def pil_image(self, data: bytes) -> PilImage:
        """Return an encoded file as a PIL image, not resized; for pixels of 8 bits.

        Raises
        ------
        BadImageError
            If the image cannot be decoded.
        """
        try:
            found = decode_pil_image(data, self._options)
        except TooLargeError as error:
            raise self._explained(error) from error
        return as_pil_image(self.pixels(data, fit=False)) if found is None else found

    def _explained(self, error: TooLargeError) -> BadImageError:
        return BadImageError(f"{error}; {_HIGHER_LIMITS}") if self._is_capped else error

    def close(self) -> None:
        """Close the file; this also happens when nothing refers to it any more."""
        self.files.close()


class EncodedArray(RowArray):
    """The encoded images of one file, decoded in threads when they are read."""

    def __init__(self, images: EncodedImages, origin: Origin) -> None:
        super().__init__((images.rows, *images.image_shape), images.dtype, origin)
        self._images = images

    def close(self) -> None:
        """Close the file, also for the same images at other sizes."""
        self._images.close()

    def chunk(self, index: int) -> NDArray[Any]:
        """Return one row.

        Raises
        ------
        FileAccessError
            If the file cannot be read.
        FileFormatError
            If the image cannot be decoded.
        """
        return self._decoded(index, self._images.pixels)[np.newaxis]

    def encoded(self, row: int) -> bytes:
        """Return the bytes of a row's image file.

        Raises
        ------
        FileAccessError
            If the file cannot be read.
        """
        try:
            return self._images.get(row, row + 1)
        except FileFormatError as error:
            raise FileFormatError(f"{self.origin.shown}, {self.origin.split}: {error}") from error
        except BatchifyError:
            raise
        except OSError as error:
            raise FileAccessError(f"{self._where(row)}: {error}") from error

    def decode(self, row: int) -> NDArray[Any]:
        """Return a row at the size of its file, shape (h, w, C)."""
        return self._decoded(row, partial(self._images.pixels, fit=False))

    def pil_image(self, row: int) -> PilImage:
        """Return a row as a PIL image, in the size of its file."""
        return self._decoded(row, self._images.pil_image)

    def decoded_with(self, overrides: DecodeOverrides) -> EncodedArray:
        """Return the same images with other decoding options.

        Raises
        ------
        OptionError
            As `DecodeOverrides.apply`.
        """
        origin = replace(self.origin, overrides=overrides)
        return EncodedArray(self._images.decoded_with(overrides), origin)

    def _decoded(self, row: int, decode: Callable[[bytes], _Image]) -> _Image:
        try:
            return decode(self.encoded(row))
        except BadImageError as error:
            raise FileFormatError(f"{self._where(row)} cannot be decoded: {error}") from error

    def _where(self, row: int) -> str:
        return f"{self.origin.shown}, row {row} of {self.origin.split}"
