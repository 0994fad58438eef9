"""Store many texts compactly; recognize texts that mean a missing value."""

from __future__ import annotations

from array import array

import numpy as np

from batchify.datasets.dataset import Samples

_MISSING = frozenset({"", "nan"})


def is_missing(text: str) -> bool:
    """Return whether a text means a missing value, as pandas and JSON write it."""
    return text.strip().lower() in _MISSING


class TextColumn:
    """Paths or other texts, in the order of their rows, as contiguous bytes."""

    def __init__(self) -> None:
        self._names = bytearray()
        self._ends = array("q")

    def add(self, text: bytes) -> int:
        """Add one; return its number."""
        self._names += text
        self._ends.append(len(self._names))
        return len(self._ends) - 1

    def path(self, number: int) -> bytes:
        """Return one."""
        return bytes(self._names[self._ends[number - 1] if number else 0 : self._ends[number]])

    def samples(self) -> Samples:
        """Return the texts as samples of class 0; no more can be added."""
        ends = np.frombuffer(self._ends, np.int64)
        return Samples(self._names, ends, np.zeros(len(ends), np.int32))
