"""The check job: which rows that an earlier build left are still those of their files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from batchify.errors import BadImageError
from batchify.fill import FillTask, name_file
from batchify.places import Places
from batchify.rows import RowWriter
from batchify.source import read_source
from batchify.worker import Mark


@dataclass(frozen=True, slots=True)
class Checked:
    """How many rows were checked, and those (split, row) that must be made anew."""

    rows: int
    stale: list[tuple[str, int]]


@dataclass(frozen=True)
class CheckJob:
    """What a worker needs to check rows against their checksums and their sources.

    Tasks are those of a fill.
    """

    root: bytes
    max_file_size: int
    path: bytes
    places: Mapping[str, Places]

    @contextlib.contextmanager
    def open(self, mark: Mark) -> Iterator[Callable[[FillTask], Checked]]:
        """Open the work file; the value checks a task."""
        rows = RowWriter(self.path, self.places)
        try:
            yield lambda task: self._stale(task, rows, mark)
        finally:
            rows.close()

    def _stale(self, task: FillTask, rows: RowWriter, mark: Mark) -> Checked:
        hashes = rows.get(task.split, "source_sha256", task.start, task.start + len(task.paths))
        sums = rows.get(task.split, "row_crc32", task.start, task.start + len(task.paths))
        stale = []
        for i, path in enumerate(task.paths):
            mark(i)
            row = task.start + i
            image = rows.get(task.split, "images", row, row + 1)
            whole = zlib.crc32(image) == int.from_bytes(sums[4 * i : 4 * i + 4], "little")
            if not whole or self._digest(path) != hashes[32 * i : 32 * i + 32]:
                stale.append((task.split, row))
        return Checked(len(task.paths), stale)

    def _digest(self, path: bytes) -> bytes | None:
        """Return the SHA-256 of a source; None where it cannot be read, so that the fill tells."""
        try:
            data = read_source(os.path.join(self.root, path), self.max_file_size)
        except BadImageError:
            return None
        return hashlib.sha256(data).digest()

    @property
    def advice(self) -> str:
        """What a user can do about a file that cannot be read to its end."""
        return "look whether it can be read, and run the same command again to continue"

    def name(self, task: FillTask, item: int) -> str:
        """Name the file of an item."""
        return name_file(task, item)

    def without(self, _task: FillTask, _item: int, _reason: str) -> None:
        """Give nothing up: no image is decoded here."""
