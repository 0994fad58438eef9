"""Where rows are in a file: arithmetic on offsets, no HDF5, so that workers need not import it."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Places:
    """Where the rows of one column are in the file.

    Parameters
    ----------
    row_nbytes : int
    first_rows, offsets : tuple of int
        Runs of rows that lie side by side: the first row of each, and its byte offset.
    """

    row_nbytes: int
    first_rows: tuple[int, ...]
    offsets: tuple[int, ...]

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (byte offset, first row, last row + 1) of each run of bytes of some rows."""
        run = bisect.bisect_right(self.first_rows, start) - 1
        while start < stop:
            end = self.first_rows[run + 1] if run + 1 < len(self.first_rows) else stop
            end = min(end, stop)
            offset = self.offsets[run] + (start - self.first_rows[run]) * self.row_nbytes
            yield offset, start, end
            start, run = end, run + 1
