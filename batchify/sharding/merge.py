"""Merge the shards of a folder into one file."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify._version import JSON_VERSION
from batchify.building.seal import write_statistics
from batchify.building.staging import open_destination
from batchify.building.target import Target
from batchify.building.workfile import WorkFile
from batchify.common import durable
from batchify.common.paths import is_url, local_path, shown
from batchify.common.progress import Progress, ProgressCallback, reporting
from batchify.common.system import in_order, usable_cpus
from batchify.common.text import plural, printable, rows_text, size_text
from batchify.decoding.channels import ChannelSums, ChannelTotals, channel_sums, stored_sums
from batchify.errors import FileAccessError, FileFormatError, OutputPathError, ResumeError, Skipped
from batchify.format import schema
from batchify.format.checksums import content_digest, record_sums, write_checksums
from batchify.format.config import image_shape, recorded_options
from batchify.format.images import StoredImages, StoredPixels, stored_images
from batchify.format.reader import Reader, open_shards
from batchify.format.rows import RowWriter, put_images
from batchify.format.schema import FileLayout, SplitShape
from batchify.format.shard_index import (
    INDEX_NAME,
    ShardIndex,
    ShardPath,
    is_shard_name,
    read_index,
    shard_paths,
)
from batchify.format.structure import (
    as_bytes,
    chunk_writer,
    compress_chunk,
    create_file,
    read_row_offsets,
)
from batchify.image_options import StoreOptions
from batchify.options import RunOptions


def merged_layout(shards: list[ShardPath], index: ShardIndex) -> FileLayout:
    """Return the layout of the merged file.

    Raises
    ------
    FileFormatError
        If a shard is not from the build of `index`.
    """
    if index.creator != schema.CREATOR:
        raise FileFormatError(
            f"the shards were made by {printable(index.creator)}, this is {schema.CREATOR}: build "
            "them again, or merge them with that version"
        )
    columns: dict[str, tuple[schema.Column, ...]] = {}
    lengths: Counter[tuple[str, str]] = Counter()
    skipped: list[Skipped] = []
    ignored: dict[str, int] = {}
    for shard, reader in open_shards(shards, index):
        split = shard.split
        if (count := reader.rows(split)) != shard.file.rows:
            raise shard.damaged(f"it has {count:,} rows, not {shard.file.rows:,}")
        skipped += reader.skipped()
        ignored = reader.header.ignored  # all shards have those of the dataset
        found = tuple(
            replace(column, shape=(0, *column.shape[1:])) for column in reader.columns[split]
        )
        if columns.setdefault(split, found) != found:
            raise shard.damaged("its columns have other types")
        lengths.update({(split, column.name): column.shape[0] for column in reader.columns[split]})
    return FileLayout(
        classes=index.classes,
        config=index.config,
        decoder=index.decoder,
        store=recorded_options(index.config).store,
        splits=tuple(
            SplitShape(
                split,
                tuple(
                    replace(column, shape=(lengths[split, column.name], *column.shape[1:]))
                    for column in found
                ),
            )
            for split, found in columns.items()
        ),
        skipped=tuple(skipped),
        ignored=ignored,
    )


@dataclass
class _StoredPieces:
    """Reads the stored images of all shards, some MiB at a time, and checks their checksums.

    Parameters
    ----------
    pool : ThreadPoolExecutor
        Threads for reading.
    totals : ChannelTotals
        The sums of all pixels that are read are added to it.
    """

    shards: list[ShardPath]
    store: StoreOptions
    pool: ThreadPoolExecutor
    totals: ChannelTotals
    report: ProgressCallback
    _done: int = 0

    def of(self, split: str) -> Iterator[tuple[int, bytes]]:
        """Yield images of a split: how many, and their bytes, in the order of the merged file.

        Raises
        ------
        FileFormatError
            If an image is damaged.
        """
        total = sum(shard.file.rows for shard in self.shards)
        for shard in self.shards:
            if shard.split != split:
                continue
            with Reader(shard.path) as reader, stored_images(reader, split) as images:
                read = partial(self._read, shard, images, reader.column(split, "row_crc32"))
                for rows, data, sums in in_order(self.pool, read, images.pieces()):
                    self.totals.add(split, sums)
                    self._done += rows
                    self.report(Progress("merge", self._done, total, 0, split))
                    yield rows, data

    def _read(
        self,
        shard: ShardPath,
        images: StoredImages,
        crc32: NDArray[np.uint32],
        piece: tuple[int, int],
    ) -> tuple[int, bytes, ChannelSums]:
        """Return how many images a piece has, their bytes, which are undamaged, and their sums."""
        start, stop = piece
        try:
            data, damaged = images.checked(start, crc32[start:stop].tolist())
        except (OSError, FileFormatError) as error:
            raise shard.damaged(f"rows from {start:,} cannot be read: {error}") from error
        if damaged:
            raise shard.damaged(f"checksum mismatch in the image of row {damaged[0]:,}")
        sums = ChannelSums()
        if isinstance(images, StoredPixels):
            pixels = np.frombuffer(data, images.dtype).reshape(-1, *images.image_shape)
            sums = channel_sums(pixels, self.store.scale, images=stop - start)
        return stop - start, data, sums


@dataclass(frozen=True)
class MergeReport:
    """The result of a merge.

    Parameters
    ----------
    path : str
        The file, as it was named.
    nbytes : int
        Its size.
    rows : dict of str to int
        The rows of each split.
    shards : int
        How many shards were merged.
    seconds : float
        How long it took.
    """

    path: str
    nbytes: int
    rows: dict[str, int]
    shards: int
    seconds: float = field(default=0.0, compare=False)

    def __repr__(self) -> str:
        shards = plural(self.shards, "shard")
        return f"<batchify {printable(self.path)} of {shards}: {rows_text(self.rows)} images>"

    def __str__(self) -> str:
        return (
            f"{printable(self.path)}: {rows_text(self.rows)} images of "
            f"{plural(self.shards, 'shard')}, {size_text(self.nbytes)} in {self.seconds:.1f} s"
        )

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "json_version": JSON_VERSION,
            "path": printable(self.path),
            "bytes": self.nbytes,
            "rows": self.rows,
            "shards": self.shards,
        }


def merge(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    work_dir: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | bool | None = None,
) -> MergeReport:
    """Merge the shards of a folder into the file that `batchify.build` makes, byte for byte.

    The checksums of every row are checked while it is copied; nothing is decoded. The file appears
    only when it is complete and synced.

    Parameters
    ----------
    folder : path
        A folder that `batchify.build_shards` made.
    output : path or URL
        The file to make.
    overwrite : bool
        Replace an existing file, when the new one is complete.
    work_dir : path, optional
        Where a file is made before its upload; by default the cache folder of this user.
    progress : callable or bool
        True shows a bar (tqdm). A function is called with a `Progress` for every stage and task.

    Returns
    -------
    MergeReport

    Raises
    ------
    FileMissingError
        If shards are missing, or the build of the shards is not finished.
    FileFormatError
        If a shard is damaged, or from another build; the message names it.
    OutputExistsError, OutputPathError, OutputLockedError, OutputIOError
    ResumeError
        If an unfinished build of `output` is in the way.

    Notes
    -----
    Memory: some MiB for each thread, and the list of skipped files.
    """
    if is_url(folder):
        raise FileAccessError(
            f"{os.fsdecode(shown(folder))}: shards to merge must be local; download the folder"
        )
    source = os.path.abspath(os.fsencode(local_path(folder)))
    index = read_index(source)
    started = time.monotonic()
    run = RunOptions(overwrite=overwrite, restart=True, work_dir=work_dir)
    with (
        reporting(progress) as report,
        open_destination(output, run, report) as destination,
    ):
        made = _merged(source, destination.target, index, report)
        destination.publish()
    return replace(made, seconds=time.monotonic() - started)


def _merged(
    source: bytes, target: Target, index: ShardIndex, report: ProgressCallback
) -> MergeReport:
    """Merge the shards of a folder into a local file."""
    target.check_writable()
    folder, name = os.path.split(target.path)
    is_own = name.startswith(INDEX_NAME) or is_shard_name(os.fsdecode(name))
    if is_own and os.path.realpath(folder) == os.path.realpath(source):
        raise OutputPathError(
            f"target {target.name} is a shard, or the shard index; name another file"
        )
    shards = shard_paths(source, index)
    with WorkFile(target) as work:
        if work.is_left:
            raise ResumeError(
                f"{printable(work.path)} belongs to an unfinished build; finish it, remove it, "
                "or name another target"
            )
        try:
            target.check_free()
            _write(work.sealing_path, shards, index, report)
            work.publish(work.sealing_path)
        except BaseException:
            durable.remove(work.sealing_path)
            work.journal.remove()  # closing must keep a work file that is not from this merge
            raise
    nbytes = os.path.getsize(target.path)
    return MergeReport(os.fsdecode(target.shown), nbytes, index.rows, len(index.files))


def _write(
    path: bytes, shards: list[ShardPath], index: ShardIndex, report: ProgressCallback
) -> None:
    """Write the merged file."""
    durable.remove(path)
    file_layout = merged_layout(shards, index)
    compressed = file_layout.store.compression != "none"
    if not compressed:
        durable.check_room(path, file_layout.nbytes)
    try:
        create_file(path, file_layout, compressed=compressed)
    except OSError as error:
        raise durable.io_error("making", path, error) from error
    totals = ChannelTotals()
    with RowWriter(path, read_row_offsets(path)) as writer:
        _copy_records(writer, shards, totals)
        with ThreadPoolExecutor(usable_cpus()) as pool:
            pieces = _StoredPieces(shards, file_layout.store, pool, totals, report)
            if compressed:
                _compress(path, file_layout, pieces)
            else:
                _copy(writer, file_layout, pieces)
        shape = image_shape(dict(index.config))
        write_statistics(writer, file_layout.splits, shape, file_layout.store.scale, totals)
        write_checksums(path, writer)
        writer.sync()


def _copy(writer: RowWriter, file_layout: FileLayout, pieces: _StoredPieces) -> None:
    """Copy images as they are stored."""
    for split in file_layout.splits:
        row = 0
        for rows, data in pieces.of(split.name):
            put_images(writer, split.name, row, data)
            row += rows


def _compress(path: bytes, file_layout: FileLayout, pieces: _StoredPieces) -> None:
    """Compress images again: chunks start at other rows in the merged file than in shards."""
    level = file_layout.store.compression_level
    with chunk_writer(path) as write:
        for split in file_layout.splits:
            column = split.columns[0]
            nbytes = column.chunk_rows * column.row_nbytes
            compress = partial(compress_chunk, nbytes=nbytes, itemsize=column.itemsize, level=level)
            chunks = in_order(pieces.pool, compress, _regrouped(pieces.of(split.name), nbytes))
            for number, data in enumerate(chunks):
                write(split.name, number * column.chunk_rows, data)


def _regrouped(pieces: Iterator[tuple[int, bytes]], nbytes: int) -> Iterator[bytes]:
    """Yield the bytes of images, `nbytes` at a time, and the rest."""
    rest = b""
    for _, images in pieces:
        data = rest + images
        whole = len(data) - len(data) % nbytes
        for start in range(0, whole, nbytes):
            yield data[start : start + nbytes]
        rest = data[whole:]
    if rest:
        yield rest


def _copy_records(writer: RowWriter, shards: list[ShardPath], totals: ChannelTotals) -> None:
    """Copy all columns but the images, and check their checksums and those of the shards.

    The channel sums, which files with encoded images have as a column, are added to `totals`.

    Raises
    ------
    FileFormatError
        If a checksum does not match.
    """
    rows: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    for shard in shards:
        split = shard.split
        with Reader(shard.path) as reader:
            for start, records in reader.records(split):
                if (record_sums(records) != records["record_crc32"]).any():
                    raise shard.damaged("record_crc32 mismatch in a row")
                columns = dict(records)
                if "image_extents" in columns:
                    columns["image_extents"] = columns["image_extents"] + [nbytes[split], 0]
                if (sums := columns.get("channel_sums")) is not None:
                    totals.add(split, stored_sums(sums, images=len(sums)))
                row = rows[split] + start
                writer.put(split, row, {name: as_bytes(values) for name, values in columns.items()})
            if content_digest(reader).hex() != shard.file.digest:
                raise shard.damaged("content_sha256 mismatch")
            rows[split] += reader.rows(split)
            if reader.is_encoded:
                nbytes[split] += len(reader.splits[split]["encoded"])
