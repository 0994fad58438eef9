"""Publish a filled work file: drop failed rows, compress, rename."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchify.building.planned_columns import write_planned_columns
from batchify.building.workfile import WorkFile
from batchify.common import durable
from batchify.datasets.dataset import PATHS_AT_ONCE
from batchify.decoding.channels import ChannelTotals
from batchify.errors import Skipped
from batchify.format import schema
from batchify.format.checksums import write_checksums
from batchify.format.rows import ImageRows, RowWriter, put_images
from batchify.format.schema import RowOffsets, SplitShape
from batchify.format.structure import chunk_writer, compress_chunk, create_file, read_row_offsets
from batchify.planning.plan import BuildPlan
from batchify.planning.split_plan import SplitPlan
from batchify.workers.engine import Workers
from batchify.workers.pool import NOTHING, Mark

Bad = Mapping[str, list[tuple[int, Skipped]]]


def seal(
    work: WorkFile,
    plan: BuildPlan,
    bad: Bad,
    totals: ChannelTotals,
    workers: Workers,
    *,
    step: Callable[[int], None] = lambda _: None,
) -> BuildPlan:
    """Publish a filled work file; return the plan of the published rows.

    On an error the work file is kept: nothing decoded is lost.

    Parameters
    ----------
    bad : Mapping of str to list of (row, Skipped)
        For each split, the rows to drop.
    totals : ChannelTotals
        Sums over the other rows.
    step : callable
        Called with the number of images written so far.
    """
    store = plan.options.store
    if store.compression == "none" and not store.is_reencoded and not any(bad.values()):
        work.commit()
        work.check_not_replaced()
        _write_plan_statistics(work.rows, plan, totals)
        write_checksums(work.path, work.rows)
        work.rows.sync()
        work.publish(work.path)
        return plan
    dropped = {split.name: np.zeros(len(split), np.bool_) for split in plan.splits}
    skipped = []
    for name, rows in bad.items():
        dropped[name][[row for row, _ in rows]] = True
        skipped += [entry for _, entry in rows]
    published = plan.without(dropped, skipped)
    if store.is_reencoded:
        ends = {name: _image_ends(work.rows, name, ~gone) for name, gone in dropped.items()}
        published = published.encoded({name: int(each[-1:].sum()) for name, each in ends.items()})
    path = work.sealing_path
    work.commit()
    try:
        _write_published(work, path, published, dropped, totals, workers, step)
        work.publish(path)
    finally:
        durable.remove(path)  # does not exist if it was published
    return published


def _write_published(
    work: WorkFile,
    path: bytes,
    published: BuildPlan,
    dropped: Mapping[str, NDArray[np.bool_]],
    totals: ChannelTotals,
    workers: Workers,
    step: Callable[[int], None],
) -> None:
    """Write a new file with the rows that are not dropped."""
    compressed = published.options.store.compression != "none"
    durable.remove(path)
    if not compressed:
        durable.check_room(path, published.nbytes)
    try:
        create_file(path, published.file_layout, compressed=compressed)
    except OSError as error:
        raise durable.io_error("making", path, error) from error
    rows_of = {name: np.flatnonzero(~gone) for name, gone in dropped.items()}
    if compressed:
        _compress(work, path, published, rows_of, workers, step)
    with RowWriter(path, read_row_offsets(path)) as target:
        write_planned_columns(target, published)
        if published.options.store.is_reencoded:
            for name, gone in dropped.items():
                _write_extents(target, name, _image_ends(work.rows, name, ~gone))
        written = 0
        for split in published.splits:
            if not compressed:
                for rows in _copy_images(work.rows, target, split, rows_of[split.name]):
                    step(written := written + rows)
            for column in split.decoded_columns:
                if column.name == "image_extents":  # those of the work file have gaps
                    continue
                _copy(work.rows, target, split, column, rows_of[split.name])
        _write_plan_statistics(target, published, totals)
        write_checksums(path, target)
        target.sync()


def _write_plan_statistics(writer: RowWriter, plan: BuildPlan, totals: ChannelTotals) -> None:
    shape, scale = plan.options.decode.image_shape, plan.options.store.scale
    write_statistics(writer, plan.splits, shape, scale, totals)


def write_statistics(
    writer: RowWriter,
    splits: Iterable[SplitShape],
    shape: tuple[int, int, int],
    scale: float,
    totals: ChannelTotals,
) -> None:
    """Write the mean and standard deviation of the channels of each split.

    `shape` is (H, W, C) of the images.
    """
    for split in splits:
        mean_and_std = totals.mean_and_std(split.name, shape, scale)
        for column, values in zip(split.statistics, mean_and_std, strict=True):
            writer.put(schema.STATISTICS, 0, {column.name: values})


def _image_ends(source: RowWriter, split: str, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return where the encoded image of each wanted row ends, without gaps, shape (n,)."""
    images = ImageRows(source)
    sizes = [np.zeros(0, np.int64)]
    for start in range(0, len(wanted), PATHS_AT_ONCE):
        some = wanted[start : start + PATHS_AT_ONCE]
        sizes.append(images.nbytes(split, start, start + len(some))[some])
    return np.concatenate(sizes).cumsum()


def _write_extents(target: RowWriter, split: str, ends: NDArray[np.int64]) -> None:
    """Write the extents of encoded images, some thousand at a time."""
    starts = np.concatenate([[0], ends[:-1]])
    for first in range(0, len(ends), PATHS_AT_ONCE):
        some = slice(first, first + PATHS_AT_ONCE)
        extents = np.stack([starts[some], ends[some] - starts[some]], axis=1).astype("<i8")
        target.put(split, first, {"image_extents": extents})


def _copy_images(
    source: RowWriter, target: RowWriter, split: SplitPlan, rows: NDArray[np.int64]
) -> Iterator[int]:
    """Copy the images of some rows in pieces of some MiB; yield the size of each piece."""
    images = ImageRows(source)
    written = 0
    for start, stop in images.pieces(split.name, rows):
        put_images(target, split.name, written, images.get(split.name, start, stop))
        written += stop - start
        yield stop - start


def _copy(
    source: RowWriter,
    target: RowWriter,
    split: SplitPlan,
    column: schema.Column,
    rows: NDArray[np.int64],
) -> None:
    """Copy some rows of a column in pieces of some MiB, adjacent rows in one read."""
    name = column.name
    size = max(1, schema.PIECE_NBYTES // column.row_nbytes)
    for start in range(0, len(rows), size):
        piece = rows[start : start + size]
        data = b"".join(
            source.get(split.name, name, int(run[0]), int(run[-1]) + 1)
            for run in np.split(piece, np.flatnonzero(np.diff(piece) != 1) + 1)
        )
        columns = np.frombuffer(data, column.dtype).reshape(len(piece), *column.shape[1:])
        target.put(split.name, start, {name: columns})


@dataclass(frozen=True, slots=True)
class CompressTask:
    """A chunk to write: its first row in the new file, and the rows of the work file in it."""

    split: str
    first_row: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class CompressJob:
    """Compress chunks of images."""

    path: bytes
    row_offsets: Mapping[str, RowOffsets]
    chunk_nbytes: Mapping[str, int]
    itemsize: int
    level: int

    @contextlib.contextmanager
    def open_handler(self, mark: Mark) -> Iterator[Callable[[CompressTask], bytes]]:
        """Open the work file; yield a function that compresses a chunk."""
        with RowWriter(self.path, self.row_offsets) as source:
            yield lambda task: self._compress(task, source, mark)

    def _compress(self, task: CompressTask, source: RowWriter, mark: Mark) -> bytes:
        mark(NOTHING)
        data = b"".join(source.get(task.split, "images", row, row + 1) for row in task.rows)
        return compress_chunk(data, self.chunk_nbytes[task.split], self.itemsize, self.level)

    @property
    def advice(self) -> str:
        """What a user can do when a worker died."""
        return "run the same command again to continue"

    def describe(self, task: CompressTask, _item: int) -> str:
        """Name the rows of a task."""
        return f"rows {task.rows[0]} to {task.rows[-1]} of {task.split}"

    def without_item(self, _task: CompressTask, _item: int, _reason: str) -> None:
        """Return None: every chunk is needed."""


def _compress(
    work: WorkFile,
    path: bytes,
    published: BuildPlan,
    rows_of: Mapping[str, NDArray[np.int64]],
    workers: Workers,
    step: Callable[[int], None],
) -> None:
    """Compress the images that are not dropped, chunk by chunk, in the order of the file."""
    columns = {split.name: split.columns[0] for split in published.splits}
    job = CompressJob(
        work.path,
        work.rows.row_offsets,
        {name: column.chunk_rows * column.row_nbytes for name, column in columns.items()},
        columns[published.splits[0].name].itemsize,
        published.options.store.compression_level,
    )

    def tasks() -> Iterator[CompressTask]:
        for name, column in columns.items():
            rows = rows_of[name]
            for start in range(0, len(rows), column.chunk_rows):
                chunk = rows[start : start + column.chunk_rows].tolist()
                yield CompressTask(name, start, tuple(chunk))

    total = sum(column.chunks for column in columns.values())
    written = 0
    with chunk_writer(path) as write:
        for task, chunk in workers.run(job, tasks(), total=total):
            write(task.split, task.first_row, chunk)
            step(written := written + len(task.rows))
