"""Fill the rows of a work file: decode images, or copy them from an older file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from batchify.datasets.tasks import DecodingJob, FileTask, StampKeeper
from batchify.decoding.batch import BatchReader, ImageRecord
from batchify.decoding.channels import ChannelSums, channel_sums, stored_sums
from batchify.decoding.losses import NOTHING_LOST, Lost
from batchify.decoding.pillow_settings import pillow_for_decoding
from batchify.errors import FileAccessError, FileFormatError, FileMissingError, Skipped
from batchify.format.rows import ImageRows, RowWriter, put_images, put_in_slots
from batchify.format.schema import RowOffsets
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.storage.source import ReadAhead, Source
from batchify.workers.pool import NOTHING, Mark

if TYPE_CHECKING:
    from batchify.building.old_rows import OldRows


@dataclass(frozen=True, slots=True)
class FilledRows:
    """Consecutive rows of a split that were written.

    Parameters
    ----------
    bad : tuple of (int, Skipped)
        Rows whose file failed.
    continued, copied : int
        How many images were copied from unfinished builds, and from a finished file.
    sums : ChannelSums
        Sums over the images that did not fail, including copied ones.
    lost : Lost
        What the decoded images lost, without copied ones.
    stamps : tuple of int
        See `FileTask.row_stamps`; empty if they are not known.
    """

    split: str
    start: int
    stop: int
    bad: tuple[tuple[int, Skipped], ...]
    continued: int = 0
    copied: int = 0
    sums: ChannelSums = field(default_factory=ChannelSums)
    lost: Lost = NOTHING_LOST
    stamps: tuple[int, ...] = ()


@dataclass(frozen=True)
class FillJob(DecodingJob):
    """Decode files into rows of the work file; its size does not depend on the dataset."""

    advice = (
        "what is decoded is kept: run the same command again to continue; if the same file ends it "
        "again, remove the file or pass --on-error skip to skip it"
    )

    source: Source
    decode: DecodeOptions
    store: StoreOptions
    batch_size: int
    path: bytes
    row_offsets: Mapping[str, RowOffsets]
    skip: bool
    old: bytes | None = None
    """A finished file whose images are reused."""
    kept: tuple[bytes, ...] = ()
    """Files with rows of unfinished builds, which are reused, too."""

    @contextlib.contextmanager
    def open_handler(self, mark: Mark) -> Iterator[Callable[[FileTask], FilledRows]]:
        """Open the work file; yield a function that fills the rows of a task."""
        with contextlib.ExitStack() as lifetime:
            writer = lifetime.enter_context(RowWriter(self.path, self.row_offsets))
            cache = _Cache(self.kept, self.old, lifetime)
            raw = StampKeeper(self.source.open_reader())
            files = lifetime.enter_context(contextlib.closing(ReadAhead(raw)))
            reader = BatchReader(
                files,
                self.decode,
                store=self.store,
                keep_files=self.store.is_encoded,
                cached=cache.take,
                mask_source=raw,  # without the files that are read ahead
            )
            lifetime.enter_context(pillow_for_decoding())
            yield lambda task: self._fill(task, raw, files, reader, writer, cache, mark)

    def _fill(
        self,
        task: FileTask,
        raw: StampKeeper,
        ahead: ReadAhead,
        reader: BatchReader,
        writer: RowWriter,
        cache: _Cache,
        mark: Mark,
    ) -> FilledRows:
        continued, copied = cache.continued, cache.copied
        sums, lost = ChannelSums(), NOTHING_LOST
        bad: list[tuple[int, Skipped]] = []
        stored = ImageRows(writer)
        slot_nbytes = self.store.slot_nbytes(self.decode)
        raw.stamps.clear()
        ahead.begin(task.wanted, self.decode.max_file_size)
        for first in range(0, len(task.files), self.batch_size):
            files = task.files[first : first + self.batch_size]
            start = task.start + first
            sizes = None
            if self.store.keeps_files:
                sizes = stored.nbytes(task.split, start, start + len(files)).tolist()
            batch = reader.read(
                files,
                masks=task.masks[first : first + self.batch_size],
                sizes=sizes,
                mark=_from(first, mark),
                refused={i - first: reason for i, reason in task.refused},
            )
            mark(NOTHING)
            writer.put(task.split, start, batch.columns)
            if self.store.is_reencoded:
                images = [batch.files.get(i, b"") for i in range(len(files))]
                put_in_slots(writer, task.split, start, images, slot_nbytes)
            else:
                for i, content in batch.files.items():
                    put_images(writer, task.split, start + i, content)
            good = len(files) - len(batch.bad)
            if self.store.is_encoded:
                sums += stored_sums(batch.columns["channel_sums"], images=good)
            else:
                sums += channel_sums(batch.columns["images"], self.store.scale, images=good)
            lost += batch.lost
            bad += [(start + i, Skipped(files[i].path, reason)) for i, reason in batch.bad]
        stop = task.start + len(task.files)
        stamps = task.row_stamps(raw.stamps)
        return FilledRows(
            task.split,
            task.start,
            stop,
            tuple(bad),
            continued=cache.continued - continued,
            copied=cache.copied - copied,
            sums=sums,
            lost=lost,
            stamps=stamps if any(stamps) else (),
        )

    def without_item(self, task: FileTask, item: int, reason: str) -> FileTask | None:
        """Return the task without a file; None if files must not be skipped."""
        return super().without_item(task, item, reason) if self.skip else None


class _Cache:
    """Finds images in older files, and counts them.

    Parameters
    ----------
    kept : tuple of bytes
        Files with rows of unfinished builds.
    old : bytes or None
        A finished file.
    lifetime : ExitStack
        Closes the files.
    """

    def __init__(
        self, kept: tuple[bytes, ...], old: bytes | None, lifetime: contextlib.ExitStack
    ) -> None:
        self.continued = self.copied = 0
        self._kept = [rows.take for path in kept for rows in _open_rows(path, lifetime)]
        self._old = [rows.take for path in (old,) if path for rows in _open_rows(path, lifetime)]

    def take(self, digest: bytes, out: NDArray[Any]) -> ImageRecord | None:
        """Look up an image: see `batchify.decoding.batch.FindCached`."""
        for take in self._kept:
            if (record := take(digest, out)) is not None:
                self.continued += 1
                return record
        for take in self._old:
            if (record := take(digest, out)) is not None:
                self.copied += 1
                return record
        return None


def _open_rows(path: bytes, lifetime: contextlib.ExitStack) -> Iterator[OldRows]:
    """Yield the rows of a file; nothing if it is damaged or was removed."""
    from batchify.building.old_rows import OldRows  # load HDF5 only if needed

    with contextlib.suppress(FileFormatError, FileMissingError, FileAccessError):
        rows = OldRows(path)
        lifetime.callback(rows.close)
        yield rows


def _from(first: int, mark: Mark) -> Mark:
    return lambda i: mark(first + i)
