"""Encode images again as JPEG, WebP or PNG, in the size to store."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from batchify.common.text import size_text
from batchify.decoding.fidelity import SAME, psnr
from batchify.decoding.image import MODES, Decoded, decode_image, read_image
from batchify.decoding.losses import NOTHING_LOST
from batchify.decoding.source_flags import ALPHA, GREY, SIXTEEN_BIT
from batchify.errors import BadImageError
from batchify.image_options import DecodeOptions, StoreOptions


class Encoded(NamedTuple):
    """An image to store.

    Parameters
    ----------
    content : bytes
        The encoded image.
    psnr : float
        Peak signal-to-noise ratio between the pixels before and after, in dB.
    """

    content: bytes
    psnr: float


class Encoder:
    """Encodes images as the options say; the same pixels give the same bytes.

    Parameters
    ----------
    put : callable
        Stores decoded pixels in an array, as `batchify.decoding.pixel_writer.PixelWriter.put` does.
    deep : bool
        See `batchify.decoding.image.decode_image`.
    """

    def __init__(
        self,
        store: StoreOptions,
        decode: DecodeOptions,
        put: Callable[[Decoded, NDArray[Any]], None],
        *,
        deep: bool,
    ) -> None:
        self._store = store
        self._reading = decode.for_stored(store.max_side)
        self._put = put
        self._deep = deep
        self._format = store.store.upper()
        self._most = store.slot_nbytes(decode)

    def encode(self, data: bytes, decoded: Decoded, row: NDArray[Any]) -> Encoded:
        """Encode an image again, and put what readers get into its row.

        Parameters
        ----------
        data : bytes
            The image file; kept unchanged if it fits, and the options say so.
        decoded : Decoded
            What it was decoded to, in the size to store.
        row : ndarray, shape (H, W, C)

        Raises
        ------
        BadImageError
            If a pixel does not fit, or the encoded image is larger than its pixels.
        """
        before = after = self._pixels(decoded, row)
        content, is_kept = data, self._store.keep_fitting and self._fits(data, decoded)
        if not is_kept:
            content = self._content(before)
        if self._store.is_lossy and not is_kept:
            after = self._pixels(self._decoded(content, fit=False), row)
        if self._store.max_side is None:
            row[...] = after
        else:
            self._put(self._decoded(content), row)
        return Encoded(content, SAME if after is before else psnr(before, after))

    def _decoded(self, content: bytes, *, fit: bool = True) -> Decoded:
        return decode_image(content, self._reading, fit=fit, deep=self._deep)

    def _pixels(self, decoded: Decoded, row: NDArray[Any]) -> NDArray[Any]:
        """Return pixels in the dtype and with the channels of a row, shape (h, w, C)."""
        pixels = np.empty((*decoded.pixels.shape[:2], row.shape[-1]), row.dtype)
        self._put(decoded, pixels)
        return pixels

    def _content(self, pixels: NDArray[Any]) -> bytes:
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        settings: dict[str, Any] = {}
        if self._store.is_lossy:
            settings["quality"] = self._store.quality
        if self._store.store == "webp":
            settings["exact"] = True  # keep the colors of transparent pixels
        content = io.BytesIO()
        image.save(content, self._format, **settings)
        if len(content.getvalue()) > self._most:
            raise BadImageError(
                f"it takes {size_text(len(content.getvalue()))} as {self._format}, more than its "
                "pixels; build with --store png or decoded"
            )
        return content.getvalue()

    def _fits(self, data: bytes, decoded: Decoded) -> bool:
        """Return whether readers get the same pixels from an image file, with nothing odd in it."""
        plain = GREY
        if self._store.dtype == "uint16":
            plain |= SIXTEEN_BIT
        if self._reading.color_mode == "rgba":
            plain |= ALPHA
        is_plain = not decoded.flags & ~plain and decoded.lost == NOTHING_LOST
        if decoded.size != decoded.pixels.shape[:2] or not is_plain or len(data) > self._most:
            return False
        kind = read_image(data, self._reading, lambda image: (image.format, image.mode))
        if kind[0] != self._format or kind[1] not in MODES[self._reading.color_mode]:
            return False
        return np.array_equal(self._decoded(data, fit=False).pixels, decoded.pixels)
