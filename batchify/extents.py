"""Where the bytes of each row are, in a file of own bytes: strictly one after another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.errors import FileFormatError


def row_ends(
    pieces: Iterable[NDArray[Any]], split: str, rows: int, nbytes: int
) -> NDArray[np.int64]:
    """Return where the bytes of each row end, shape (N,): it begins where the one before ends.

    Parameters
    ----------
    pieces : iterable of ndarray of int64, shape (n, 2)
        ``image_extents``, some rows at a time: where each begins, and its bytes.
    split : str
    rows, nbytes : int
        That there are in all.

    Raises
    ------
    FileFormatError
        If rows overlap, leave bytes out, are in another order, or have less than no bytes.

    Notes
    -----
    Memory: 8 bytes a row.
    """
    ends = np.zeros(rows, np.int64)
    row = end = 0
    for piece in pieces:
        starts, sizes = piece[:, 0], piece[:, 1]
        # No sum of two such numbers wraps.
        wrong = (starts < 0) | (starts > nbytes) | (sizes < 0) | (sizes > nbytes)
        wrong[1:] |= starts[1:] != starts[:-1] + sizes[:-1]
        wrong[0] |= starts[0] != end
        if wrong.any():
            number = row + int(np.flatnonzero(wrong)[0])
            raise FileFormatError(
                f"{split}/image_extents of row {number} is not where the row before ends, or not "
                f"within the {nbytes:,} bytes of {split}/encoded"
            )
        ends[row : row + len(piece)] = starts + sizes
        row += len(piece)
        end = int(ends[row - 1])
    if end != nbytes:
        raise FileFormatError(f"{split}/encoded has {nbytes:,} bytes, but its rows end at {end:,}")
    return ends
