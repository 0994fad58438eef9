"""The check job: which stored rows are still whole, and those of their sources."""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from batchify import schema
from batchify.channels import ChannelSums, channel_sums, stored_sums
from batchify.errors import BadImageError
from batchify.fill import FillTask, name_file
from batchify.imagerows import ImageRows
from batchify.names import printable
from batchify.places import Places
from batchify.rows import RowReader
from batchify.storage import FileReader, Source
from batchify.worker import Mark


class Stale(NamedTuple):
    """A row that is not what it should be, and why."""

    split: str
    row: int
    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Checked:
    """Of a split: how many rows were checked, the stale ones, and sums over the others' images."""

    split: str
    rows: int
    stale: list[Stale]
    sums: ChannelSums


class Summed(Protocol):
    """How the sums over a row's image are found."""

    def sums(self, rows: RowReader, split: str, row: int, image: bytes) -> ChannelSums:
        """Return the sums over the pixels of a row that is whole."""
        ...


class PixelRows(NamedTuple):
    """How the images of a file are stored: shape (H, W, C), dtype and what they are scaled by."""

    shape: tuple[int, int, int]
    dtype: str
    scale: float

    def sums(self, _rows: RowReader, _split: str, _row: int, image: bytes) -> ChannelSums:
        """Sum the pixels."""
        stored = np.frombuffer(image, schema.STORED_DTYPES[self.dtype]).reshape(1, *self.shape)
        return channel_sums(stored, self.scale, images=1)


class OriginalRows(NamedTuple):
    """That a file stores the files' own bytes, of so many channels when they are decoded."""

    channels: int

    def sums(self, rows: RowReader, split: str, row: int, _image: bytes) -> ChannelSums:
        """Return what was summed when the image was decoded: it is not decoded again."""
        data = rows.get(split, "channel_sums", row, row + 1)
        return stored_sums(np.frombuffer(data, "<i8").reshape(1, 3, self.channels), images=1)


class ReadingJob:
    """What jobs have in common that read files and decode none."""

    @property
    def advice(self) -> str:
        """What a user can do about a file that cannot be read to its end."""
        return "look whether it can be read, and run the same command again"

    def name(self, task: FillTask, item: int) -> str:
        """Name the file of an item."""
        return name_file(task, item)

    def without(self, _task: FillTask, _item: int, _reason: str) -> None:
        """Give nothing up: no image is decoded here."""


@dataclass(frozen=True)
class CheckJob(ReadingJob):
    """What a worker needs to hold rows against their checksums and their sources.

    Parameters
    ----------
    source : Source
    max_file_size : int
    path : bytes
        The file of the rows, uncompressed where `images` are to be checked.
    places : Mapping of str to Places
    images : PixelRows or OriginalRows, or None
        Of the stored images; None checks the sources alone.
    identity : tuple of int, optional
        See `RowReader`.

    Notes
    -----
    Tasks are those of a fill.
    """

    source: Source
    max_file_size: int
    path: bytes
    places: Mapping[str, Places]
    images: Summed | None
    identity: tuple[int, int] | None = None

    @contextlib.contextmanager
    def open(self, mark: Mark) -> Iterator[Callable[[FillTask], Checked]]:
        """Open the file; the value checks a task."""
        with contextlib.ExitStack() as lifetime:
            rows = RowReader(self.path, self.places, self.identity)
            lifetime.callback(rows.close)
            reader = lifetime.enter_context(contextlib.closing(self.source.open()))
            yield lambda task: self._check(task, rows, reader, mark)

    def _check(self, task: FillTask, rows: RowReader, reader: FileReader, mark: Mark) -> Checked:
        stop = task.start + len(task.files)
        bad_masks = dict(self._bad_masks(task, rows, reader, mark))
        hashes = rows.get(task.split, "source_sha256", task.start, stop)
        sums = rows.get(task.split, "row_crc32", task.start, stop) if self.images else b""
        stale = []
        total = ChannelSums()
        images = ImageRows(rows)
        contents = reader.fetch(task.files, self.max_file_size)
        for i, file in enumerate(task.files):
            mark(i)
            row = task.start + i
            reason, image = "", b""
            if self.images:
                image = images.get(task.split, row, row + 1)
                if zlib.crc32(image) != int.from_bytes(sums[4 * i : 4 * i + 4], "little"):
                    reason = "the stored image is damaged"
            source = next(contents)
            reason = reason or _difference(source, hashes[32 * i : 32 * i + 32])
            reason = reason or bad_masks.get(i, "")
            if reason:
                stale.append(Stale(task.split, row, file.path, reason))
            elif self.images:
                total += self.images.sums(rows, task.split, row, image)
        return Checked(task.split, len(task.files), stale, total)

    def _bad_masks(
        self, task: FillTask, rows: RowReader, reader: FileReader, mark: Mark
    ) -> Iterator[tuple[int, str]]:
        """Yield the position and the reason of each mask that is not the stored one's source."""
        if not task.masks:
            return
        hashes = rows.get(task.split, "label_sha256", task.start, task.start + len(task.masks))
        contents = reader.fetch(task.masks, self.max_file_size)
        for i, mask in enumerate(task.masks):
            mark(i)
            if reason := _difference(next(contents), hashes[32 * i : 32 * i + 32]):
                yield i, f"its mask {printable(mask.path)}: {reason}"


def _difference(source: bytes | BadImageError, digest: bytes) -> str:
    """Return why a source is not the one of a SHA-256; empty where it is."""
    if isinstance(source, BadImageError):
        return str(source)
    return "" if hashlib.sha256(source).digest() == digest else "its content is another"
