"""Records of committed rows: made for the journal, and read back from it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.building.fill import FilledRows
from batchify.building.jobs import RowFlags, RowStamps
from batchify.errors import ResumeError
from batchify.format import schema
from batchify.format.rows import RowReader
from batchify.format.schema import SplitShape


class Commits:
    """Makes and reads the records of the committed rows of a file.

    Parameters
    ----------
    counts : Mapping of str to int
        The rows of each split.

    Attributes
    ----------
    stamps : dict of str to ndarray of uint64, shape (N,)
        For each split, the stamps of the rows that are filled.
    """

    def __init__(
        self, rows: RowReader, splits: Iterable[SplitShape], counts: Mapping[str, int]
    ) -> None:
        self._rows = rows
        self._counts = counts
        self._decoded = {
            split.name: tuple(column.name for column in split.decoded_columns) for split in splits
        }
        self.stamps: RowStamps = {name: np.zeros(rows, np.uint64) for name, rows in counts.items()}

    def record(self, runs: Iterable[tuple[str, int, int]]) -> dict[str, Any]:
        """Return the record of some runs of rows, which are durable."""
        rows, stamps = [], []
        for split, start, stop in runs:
            rows.append([split, start, stop, self._crc32(split, start, stop)])
            stamps.append(_encode(self.stamps[split][start:stop]))
        return {"rows": rows, "stamps": stamps} if any(stamps) else {"rows": rows}

    def read(self, records: Iterable[dict[str, Any]]) -> RowFlags:
        """Return the rows that records list and whose decoded columns are undamaged.

        Raises
        ------
        ResumeError
            If they are of another file.
        """
        committed = {split: np.zeros(rows, np.bool_) for split, rows in self._counts.items()}
        for record in records:
            if record.get("reset"):
                for marked in committed.values():
                    marked[:] = False
            rows = record.get("rows", ())
            stamps = record.get("stamps", [""] * len(rows))
            for (split, start, stop, crc32), text in zip(rows, stamps, strict=True):
                if stop > self._counts.get(split, 0):
                    raise ResumeError("its journal belongs to another file")
                if self._crc32(split, start, stop) == crc32:
                    committed[split][start:stop] = True
                    self.stamps[split][start:stop] = _decode(text, stop - start)
            for split, row in record.get("bad", ()):
                committed[split][row] = False
        return committed

    def _crc32(self, split: str, start: int, stop: int) -> int:
        """Return the CRC-32 of some rows' decoded columns, which have no other checksum yet."""
        crc32 = 0
        for name in self._decoded[split]:
            for piece in self._pieces(split, name, start, stop):
                crc32 = zlib.crc32(piece, crc32)
        return crc32

    def _pieces(self, split: str, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of some rows of a column in small pieces: there may be a million."""
        row_nbytes = self._rows.row_offsets[f"{split}/{name}"].row_nbytes
        at_once = max(1, schema.RECORDS_NBYTES // row_nbytes)
        for first in range(start, stop, at_once):
            yield self._rows.get(split, name, first, min(first + at_once, stop))


def join_runs(filled: Iterable[FilledRows]) -> list[tuple[str, int, int]]:
    """Return (split, start, stop) of runs of rows, adjacent ones joined."""
    joined: list[tuple[str, int, int]] = []
    for rows in filled:
        if joined and joined[-1][0] == rows.split and joined[-1][2] == rows.start:
            joined[-1] = (rows.split, joined[-1][1], rows.stop)
        else:
            joined.append((rows.split, rows.start, rows.stop))
    return joined


def _encode(stamps: NDArray[np.uint64]) -> str:
    """Return stamps as text, 11 characters each; empty if none is known."""
    return base64.b64encode(stamps.astype("<u8").tobytes()).decode() if stamps.any() else ""


def _decode(text: str, count: int) -> NDArray[np.uint64]:
    """Return the stamps of a text; zeros if none is known."""
    return np.frombuffer(base64.b64decode(text) or bytes(8 * count), "<u8")
