"""Convert decoded pixels to the dtype of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.choices import parse_rescale
from batchify.decoding.image import FLOAT_ADVICE, Decoded, scaled_to_bytes
from batchify.decoding.losses import LEAST_BYTE_RESCALE
from batchify.decoding.source_flags import CUT
from batchify.errors import BadImageError, OptionError
from batchify.image_options import DecodeOptions, StoreOptions

_RGBA = 4
_MAX_DEEP = 65535
_HIGH_BYTE = np.uint16(257)
"""65535 / 255."""

Transform = Callable[[NDArray[np.float32]], NDArray[Any]]
"""A function that takes an image, an array of shape (H, W, C), and returns one of that shape."""


class PixelWriter:
    """Converts decoded pixels to the dtype of rows.

    Integers are stored as they are, or scaled with ``depth="scale"``; a pixel that does not fit is
    its image's error. float32 rows hold ``float32(pixel) * float32(scale)``, where the scale may be
    that of the image's depth (`StoreOptions.scales_by_depth`).

    Parameters
    ----------
    transform : callable, optional
        For float32 rows: called with the pixels of each image, before they are scaled.

    Attributes
    ----------
    keeps_deep : bool
        Rows have 16 bits, by their dtype or scale: decode images with ``deep``.
    """

    def __init__(
        self, store: StoreOptions, decode: DecodeOptions, transform: Transform | None = None
    ) -> None:
        self._transform = transform
        self._copies = store.dtype == "uint8" and transform is None
        self._scales = decode.depth == "scale"
        self._factor = store.scale
        self._factors = {}
        if store.scales_by_depth:
            deep = parse_rescale(choices.AUTO_RESCALES["uint16"])
            self._factors = {np.dtype(np.uint8): self._factor, np.dtype(np.uint16): deep}
            self._factor = 1.0
        is_small = abs(store.scale) < LEAST_BYTE_RESCALE
        self.keeps_deep = store.dtype == "uint16" or (store.dtype == "float32" and is_small)

    def put(self, decoded: Decoded, out: NDArray[Any]) -> None:
        """Store the pixels of an image in `out`; a single channel goes to each of its channels.

        Raises
        ------
        BadImageError
            If a pixel does not fit, or if rows have 16 bits and only 8 of them were decoded.
        """
        pixels = decoded.pixels
        if self._copies and pixels.dtype == out.dtype and pixels.shape == out.shape:
            out[...] = pixels
            return
        if self.keeps_deep and decoded.flags & CUT:
            raise BadImageError(
                "only the high 8 bits of its channels are decoded, and --dtype or --rescale is for "
                "16; build with --dtype uint8, or convert it"
            )
        factor = self._factors.get(pixels.dtype, self._factor)
        if self._transform is None:
            self._put_bands(pixels, out, factor)
            return
        unscaled = np.empty(out.shape, np.float32)
        self._put_bands(pixels, unscaled, 1.0)
        found = _transformed(unscaled, self._transform)
        out[...] = found * found.dtype.type(factor)

    def _put_bands(self, pixels: NDArray[Any], out: NDArray[Any], factor: float) -> None:
        self._put(pixels, out, factor)
        if pixels.shape[-1] < out.shape[-1] == _RGBA:
            self._put(np.full((1, 1, 1), _MAX_DEEP, np.uint16), out[..., -1:], factor)

    def _put(self, pixels: NDArray[Any], out: NDArray[Any], factor: float) -> None:
        if self._scales and self.keeps_deep and pixels.dtype == np.uint8:
            pixels = pixels * _HIGH_BYTE
        if out.dtype.kind == "f":
            np.multiply(pixels, np.float32(factor), out=out, dtype=np.float32, casting="same_kind")
            return
        if pixels.dtype.kind == "f":
            raise BadImageError(FLOAT_ADVICE)
        if self._scales and pixels.dtype == np.uint16 and out.dtype == np.uint8:
            pixels = scaled_to_bytes(pixels)
        if pixels.dtype.itemsize > out.dtype.itemsize:
            low, high = int(pixels.min()), int(pixels.max())
            limit = int(np.iinfo(out.dtype).max)
            if low < 0 or high > limit:
                advice = (
                    "--dtype uint16 or --depth scale"
                    if pixels.dtype == np.uint16
                    else "--dtype float32"
                )
                raise BadImageError(
                    f"values from {low} to {high} do not fit {out.dtype.name}, which ends at "
                    f"{limit} (see {advice})"
                )
        out[...] = pixels


def _transformed(image: NDArray[np.float32], transform: Transform) -> NDArray[Any]:
    """Return the result of a user's function for an image, as floats.

    Raises
    ------
    OptionError
        If it is not an array of numbers with the image's shape.
    """
    shape = image.shape
    found = np.asarray(transform(image))
    if found.shape != shape or found.dtype.kind not in "biuf":
        raise OptionError(
            f"transform must return an array of numbers of shape {shape}, like its input, "
            f"not {found.dtype} of shape {found.shape}"
        )
    return found if found.dtype.kind == "f" else found.astype(np.float32)
