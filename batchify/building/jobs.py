"""Cut the rows of a plan into tasks; recheck stored rows; decode files again."""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.text import printable
from batchify.datasets.dataset import PATHS_AT_ONCE
from batchify.datasets.tasks import DecodingJob, FileTask, ReadingJob, StampKeeper
from batchify.decoding.appearance import NOT_MEASURED, Measures
from batchify.decoding.batch import BatchReader
from batchify.decoding.channels import ChannelSums, channel_sums, stored_sums, sums_column
from batchify.decoding.fidelity import SAME
from batchify.decoding.pillow_settings import pillow_for_decoding
from batchify.errors import BadImageError, Skipped
from batchify.format.rows import ImageRows, RowReader
from batchify.format.schema import RowOffsets
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.storage.source import ReadAhead, Source, StampedReader
from batchify.workers.pool import Mark

if TYPE_CHECKING:  # a worker needs no plan
    from batchify.planning.plan import BuildPlan
    from batchify.planning.split_plan import SplitPlan

NO_ROWS: Mapping[str, list[tuple[int, Skipped]]] = {}

RowFlags = dict[str, NDArray[np.bool_]]
"""One truth value per row, for each split."""

RowStamps = dict[str, NDArray[np.uint64]]
"""For each split, the stamp of each row (`FileTask.row_stamps`)."""

FILL = "batchify.building.fill"
"""The module of the fill job: workers that start before the plan is made import it."""


class Stale(NamedTuple):
    """A row that is damaged or whose file changed, and why."""

    split: str
    row: int
    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Rechecked:
    """The stale rows of a task, sums over the images of the others, and the stamps of all rows."""

    stale: list[Stale]
    sums: ChannelSums
    stamps: tuple[int, ...]


class ImageSums(Protocol):
    """A function that returns the channel sums of a row."""

    def sums(self, rows: RowReader, split: str, row: int, image: bytes) -> ChannelSums:
        """Return the sums over the pixels of an undamaged row."""
        ...


class PixelSums(NamedTuple):
    """Sums over stored pixels, given their shape (H, W, C), dtype and scale."""

    shape: tuple[int, int, int]
    dtype: str
    scale: float

    def sums(self, _rows: RowReader, _split: str, _row: int, image: bytes) -> ChannelSums:
        """Sum the pixels."""
        stored = np.frombuffer(image, choices.STORED_DTYPES[self.dtype]).reshape(1, *self.shape)
        return channel_sums(stored, self.scale, images=1)


class EncodedSums(NamedTuple):
    """Reader of the channel sums that are stored with encoded files."""

    channels: int

    def sums(self, rows: RowReader, split: str, row: int, _image: bytes) -> ChannelSums:
        """Return the stored sums, without decoding the image."""
        data = rows.get(split, "channel_sums", row, row + 1)
        return stored_sums(np.frombuffer(data, "<i8").reshape(1, 3, self.channels), images=1)


@dataclass(frozen=True)
class RecheckJob(ReadingJob):
    """Compare rows with their checksums and their files; a file with the stamp of its row is good.

    Parameters
    ----------
    path : bytes
        The file of the rows; uncompressed if `images` are checked.
    images : PixelSums or EncodedSums, or None
        None checks only the files, not the stored images.
    identity : tuple of int, optional
        See `RowReader`.
    """

    source: Source
    max_file_size: int
    path: bytes
    row_offsets: Mapping[str, RowOffsets]
    images: ImageSums | None
    identity: tuple[int, int] | None = None

    @contextlib.contextmanager
    def open_handler(self, mark: Mark) -> Iterator[Callable[[FileTask], Rechecked]]:
        """Open the file; yield a function that checks a task."""
        with contextlib.ExitStack() as lifetime:
            rows = lifetime.enter_context(RowReader(self.path, self.row_offsets, self.identity))
            reader = lifetime.enter_context(contextlib.closing(self.source.open_reader()))
            yield lambda task: self._check(task, rows, reader, mark)

    def _check(
        self, task: FileTask, rows: RowReader, reader: StampedReader, mark: Mark
    ) -> Rechecked:
        stop = task.start + len(task.files)
        same = _same_rows(task, reader, mark)
        files = StampKeeper(reader)
        bad_masks = dict(self._bad_masks(task, same, rows, files, mark))
        hashes = rows.get(task.split, "source_sha256", task.start, stop)
        sums = rows.get(task.split, "row_crc32", task.start, stop) if self.images else b""
        stale = []
        total = ChannelSums()
        images = ImageRows(rows)
        wanted = [file for i, file in enumerate(task.files) if i not in same]
        contents = files.read_files(wanted, self.max_file_size)
        for i, file in enumerate(task.files):
            mark(i)
            row = task.start + i
            reason, image = "", b""
            if self.images:
                image = images.get(task.split, row, row + 1)
                if zlib.crc32(image) != int.from_bytes(sums[4 * i : 4 * i + 4], "little"):
                    reason = "the stored image is damaged"
            if i not in same:
                source = next(contents)
                reason = reason or _difference(source, hashes[32 * i : 32 * i + 32])
                reason = reason or bad_masks.get(i, "")
            if reason:
                stale.append(Stale(task.split, row, file.path, reason))
            elif self.images:
                total += self.images.sums(rows, task.split, row, image)
        stamps = list(task.row_stamps(files.stamps))
        for i in same:
            stamps[i] = task.stamps[i]
        return Rechecked(stale, total, tuple(stamps))

    def _bad_masks(
        self, task: FileTask, same: set[int], rows: RowReader, files: StampKeeper, mark: Mark
    ) -> Iterator[tuple[int, str]]:
        """Yield the position and the reason of each mask whose file changed."""
        wanted = [i for i in range(len(task.masks)) if i not in same]
        if not wanted:
            return
        hashes = rows.get(task.split, "label_sha256", task.start, task.start + len(task.masks))
        masks = [task.masks[i] for i in wanted]
        contents = files.read_files(masks, self.max_file_size)
        for i, mask in zip(wanted, masks, strict=True):
            mark(i)
            if reason := _difference(next(contents), hashes[32 * i : 32 * i + 32]):
                yield i, f"its mask {printable(mask.path)}: {reason}"


def _same_rows(task: FileTask, reader: StampedReader, mark: Mark) -> set[int]:
    """Return the positions of the rows whose files have the stamps that they had."""
    if not any(task.stamps):
        return set()
    found = {}
    for files in (task.files, task.masks):
        stamps = reader.stamps(files)
        for i, file in enumerate(files):
            mark(i)
            found[file] = next(stamps)
    now = zip(task.stamps, task.row_stamps(found), strict=True)
    return {i for i, (then, stamp) in enumerate(now) if then and then == stamp}


def _difference(source: bytes | BadImageError, digest: bytes) -> str:
    """Return why a file does not have a SHA-256; empty if it does."""
    if isinstance(source, BadImageError):
        return str(source)
    return "" if hashlib.sha256(source).digest() == digest else "its content has changed"


class Redecoded(NamedTuple):
    """The result of decoding a file: the columns of its row, or the reason why it failed."""

    source_sha256: bytes
    row_crc32: int
    source_size: tuple[int, int]
    source_flags: int
    reason: str
    channel_sums: bytes = b""
    """As stored with image files that are not changed."""
    mask_crc32: int = 0
    """CRC-32 of the decoded mask, if there is one."""
    damage: str = ""
    """What is damaged in an image that was decoded."""
    psnr: float = SAME
    appearance: Measures = NOT_MEASURED


@dataclass(frozen=True)
class RedecodeJob(DecodingJob):
    """Decode the files of rows again, one at a time."""

    advice = "check the file"

    source: Source
    decode: DecodeOptions
    store: StoreOptions
    find_damage: bool = False

    @contextlib.contextmanager
    def open_handler(self, mark: Mark) -> Iterator[Callable[[FileTask], list[Redecoded]]]:
        """Open the source; yield a function that decodes a task."""
        raw = self.source.open_reader()
        with contextlib.closing(ReadAhead(raw)) as files, pillow_for_decoding():
            reader = BatchReader(
                files,
                self.decode,
                store=self.store,
                mask_source=raw,
                find_damage=self.find_damage,
            )
            yield lambda task: self._decode(task, files, reader, mark)

    def _decode(
        self, task: FileTask, ahead: ReadAhead, reader: BatchReader, mark: Mark
    ) -> list[Redecoded]:
        ahead.begin(task.wanted, self.decode.max_file_size)
        refused = dict(task.refused)
        found = []
        for i, file in enumerate(task.files):
            mark(i)
            reasons = {0: refused[i]} if i in refused else None
            batch = reader.read([file], masks=task.masks[i : i + 1], refused=reasons)
            columns = batch.columns
            height, width = columns["source_size"][0].tolist()
            sums = b""
            if self.store.keeps_files:
                one = channel_sums(columns["images"], self.store.scale, images=1)
                sums = sums_column([one], columns["images"].shape[-1]).tobytes()
            found.append(
                Redecoded(
                    columns["source_sha256"].tobytes(),
                    int(columns["row_crc32"][0]),
                    (height, width),
                    int(columns["source_flags"][0]),
                    batch.bad[0][1] if batch.bad else "",
                    sums,
                    zlib.crc32(columns["labels"].tobytes()) if "labels" in columns else 0,
                    batch.damaged.get(0, ""),
                    float(columns["psnr"][0]) if "psnr" in columns else SAME,
                    tuple(columns[name].item() for name in choices.APPEARANCE if name in columns)
                    or NOT_MEASURED,
                )
            )
        return found


def runs(flags: RowFlags, most: int) -> Iterator[tuple[str, int, int]]:
    """Yield (split, start, stop) of runs of marked rows, none longer than `most`."""
    for split, marked in flags.items():
        edges = np.flatnonzero(np.diff(marked, prepend=False, append=False))
        for first, last in edges.reshape(-1, 2).tolist():
            for start in range(first, last, most):
                yield split, start, min(start + most, last)


TASK_NBYTES = 8 << 20

TASK_ROWS = 512
"""Maximum rows per task: several batches of small images, or a single batch of large ones."""


def task_rows(plan: BuildPlan) -> int:
    """Return the rows per task: full batches (at least one), about 8 MiB, at most a 64th of all.

    The last limit matters for large photos that become small rows.
    """
    rows = min(TASK_ROWS, TASK_NBYTES // plan.row_nbytes, plan.images // 64)
    return plan.options.batch_size * max(1, rows // plan.options.batch_size)


def no_rows(plan: BuildPlan) -> RowFlags:
    """Return flags for the rows of a plan, none of them marked."""
    return {split.name: np.zeros(len(split), np.bool_) for split in plan.splits}


def count_rows(flags: RowFlags) -> int:
    """Return how many rows are marked."""
    return sum(int(marked.sum()) for marked in flags.values())


def count_tasks(plan: BuildPlan, wanted: RowFlags) -> int:
    """Return how many tasks `fill_tasks` yields."""
    return sum(1 for _ in _pieces(plan, wanted))


def fill_tasks(
    plan: BuildPlan, wanted: RowFlags, stamps: RowStamps | None = None
) -> Iterator[FileTask]:
    """Yield the marked rows of a plan as tasks, in the order of the file."""
    for split, start, stop in _pieces(plan, wanted):
        rows = split.rows[start:stop]
        dataset = plan.dataset
        yield FileTask(
            split.name, start, dataset.samples.files(rows), dataset.annotations.mask_files(rows),
            stamps=() if stamps is None else tuple(stamps[split.name][start:stop].tolist()),
        )  # fmt: skip


def _pieces(plan: BuildPlan, wanted: RowFlags) -> Iterator[tuple[SplitPlan, int, int]]:
    """Yield runs of marked rows, none longer than a task."""
    splits = {split.name: split for split in plan.splits}
    for name, start, stop in runs(wanted, task_rows(plan)):
        yield splits[name], start, stop


def filled_digests(
    rows: RowReader, plan: BuildPlan, bad: Mapping[str, list[tuple[int, Skipped]]]
) -> dict[str, NDArray[np.uint8]]:
    """Return the SHA-256 of the file of each filled row; zeros for the rows in `bad`."""
    digests = {}
    for split in plan.splits:
        data = rows.get(split.name, "source_sha256", 0, len(split))
        found = np.frombuffer(data, np.uint8).reshape(-1, 32).copy()
        found[[row for row, _ in bad.get(split.name, [])]] = 0
        digests[split.name] = found
    return digests


def count_sources(
    rows: RowReader, plan: BuildPlan, bad: Mapping[str, list[tuple[int, Skipped]]] = NO_ROWS
) -> dict[int, int]:
    """Return how many rows have each value of ``source_flags``, without failed ones."""
    counts = np.zeros(1 << 16, np.int64)
    for split in plan.splits:
        for start in range(0, len(split), PATHS_AT_ONCE):
            stop = min(start + PATHS_AT_ONCE, len(split))
            flags = np.frombuffer(rows.get(split.name, "source_flags", start, stop), "<u2")
            counts += np.bincount(flags, minlength=len(counts))
    counts[0] -= sum(map(len, bad.values()))  # their rows are zeros
    return {flags: int(counts[flags]) for flags in np.flatnonzero(counts).tolist()}
