"""Where rows are from: the file of a split, and the image of each row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from batchify.indexing import owners, row_numbers
from batchify.serving import AS_RECORDED, Serving


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a split is from, for whoever opens it again.

    Parameters
    ----------
    files : tuple of bytes
        Absolute paths.
    split : str
    digests : tuple of bytes
        What identifies the content of each file.
    rows : int
    serving : Serving
        How its images are decoded, where they are when they are read.
    """

    files: tuple[bytes, ...]
    split: str
    digests: tuple[bytes, ...]
    rows: int
    serving: Serving = AS_RECORDED


class Paths(Sequence[str]):
    """The paths of the rows, decoded when they are asked for.

    Parameters
    ----------
    stored : sequence of ndarray of bytes
        Of each file, one after another.
    """

    def __init__(self, stored: Sequence[NDArray[np.bytes_]]) -> None:
        self.stored = tuple(stored)
        ends = np.cumsum([len(part) for part in stored])
        self._count = int(ends[-1])
        self._firsts = np.concatenate([[0], ends[:-1]])

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> list[str]: ...
    def __getitem__(self, key: int | slice) -> str | list[str]:
        """Return a path, relative to the dataset folder, or a list of them."""
        rows = row_numbers(key, len(self))
        return self._path(int(rows)) if rows.ndim == 0 else list(map(self._path, rows.tolist()))

    def _path(self, row: int) -> str:
        part = int(owners(self._firsts, np.asarray(row)))
        return os.fsdecode(bytes(self.stored[part][row - self._firsts[part]]))
