"""Decoded pixels to what is stored, or served: their dtype, multiplied where they are floats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.errors import BadImageError


def put_pixels(pixels: NDArray[Any], scale: np.float32, out: NDArray[Any]) -> None:
    """Put decoded pixels into a row, in the row's dtype, or refuse them.

    Parameters
    ----------
    pixels : ndarray of uint8, uint16 or int32, shape (H, W, C)
    scale : numpy.float32
        What a row of floats is multiplied by.
    out : ndarray, shape (H, W, C)

    Raises
    ------
    BadImageError
        If a pixel does not fit.
    """
    if out.dtype.kind == "f":
        np.multiply(pixels, scale, out=out, dtype=np.float32, casting="same_kind")
        return
    if pixels.dtype.itemsize > out.dtype.itemsize:
        low, high = int(pixels.min()), int(pixels.max())
        limit = int(np.iinfo(out.dtype).max)
        if low < 0 or high > limit:
            raise BadImageError(
                f"values from {low} to {high} do not fit {out.dtype.name}, which ends at "
                f"{limit} (see --dtype)"
            )
    out[...] = pixels
