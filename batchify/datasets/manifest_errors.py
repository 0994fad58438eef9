"""Collect the errors of a manifest, each with its line."""

from __future__ import annotations

import bisect
import os

from batchify.common.text import printable
from batchify.errors import ManifestError

SHOWN_ERRORS = 10


class ManifestErrors:
    """Collects the errors of a manifest, so that a user can fix them together.

    Parameters
    ----------
    path : path
        The manifest.
    unit : str
        What is numbered: ``line`` or ``row``.
    folder : path
        The dataset: a manifest that does not exist may be meant to be there.
    kind : str
        What has the errors: ``manifest``, or ``dataset`` if it has a table of its own.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str],
        unit: str = "line",
        folder: str | bytes = "",
        kind: str = "manifest",
    ) -> None:
        self.kind = kind
        self.name = f"{kind} {printable(os.fspath(path))}"
        self._inside = os.path.join(os.fsdecode(folder), os.fsdecode(path)) if folder else ""
        self.unit = unit
        self.count = 0
        self._first: list[tuple[int, str]] = []

    def add(self, line: int, message: str) -> None:
        """Add an error, in any order of lines."""
        self.count += 1
        bisect.insort(self._first, (line, message), key=lambda error: error[0])
        del self._first[SHOWN_ERRORS:]

    def error(self, message: str) -> ManifestError:
        """Return an error that concerns no single line."""
        return ManifestError(f"{self.name} {message}")

    def missing(self) -> ManifestError:
        """Return the error of a manifest that does not exist, with the one that may be meant."""
        hint = f"; {printable(self._inside)} does" if os.path.isfile(self._inside) else ""
        return self.error(f"does not exist{hint}")

    def raise_if_any(self, advice: str) -> None:
        """Raise a `ManifestError` with the first errors, if there are any."""
        if not self.count:
            return
        many = "1 error" if self.count == 1 else f"{self.count:,} errors"
        lines = [f"  - {self.unit} {line}: {message}" for line, message in self._first]
        if self.count > len(self._first):
            lines.append(f"  … and {self.count - len(self._first):,} more")
        raise self.error("\n".join([f"has {many}:", *lines, advice]))
