"""What is wrong with the lines of a manifest: all counted, the first ones named."""

from __future__ import annotations

import bisect
import os

from batchify.errors import ManifestError
from batchify.names import printable

NAMED = 10


class Faults:
    """Collects what is wrong, so that a user can mend it all at once.

    Parameters
    ----------
    path : path
        Of the manifest.
    unit : str
        What is counted: ``line`` or ``row``.
    """

    def __init__(self, path: str | os.PathLike[str], unit: str = "line") -> None:
        self.name = printable(os.fspath(path))
        self.unit = unit
        self.count = 0
        self._first: list[tuple[int, str]] = []

    def add(self, line: int, message: str) -> None:
        """Take note of one; lines may come in any order."""
        self.count += 1
        bisect.insort(self._first, (line, message), key=lambda fault: fault[0])
        del self._first[NAMED:]

    def error(self, message: str) -> ManifestError:
        """Return an error that is of no line."""
        return ManifestError(f"manifest {self.name} {message}")

    def check(self, advice: str) -> None:
        """Raise where there are any.

        Raises
        ------
        ManifestError
        """
        if not self.count:
            return
        many = "1 error" if self.count == 1 else f"{self.count:,} errors"
        lines = [f"  - {self.unit} {line}: {message}" for line, message in self._first]
        if self.count > len(self._first):
            lines.append(f"  … and {self.count - len(self._first):,} more")
        raise self.error("\n".join([f"has {many}:", *lines, advice]))
