"""Shards become the one file, byte for byte that of a direct build, by copying rows."""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from batchify import durable, schema
from batchify.blueprint import Blueprint, SplitShape
from batchify.channels import ChannelSums, ChannelTotals, channel_sums
from batchify.content import Records, content_digest, record_sums, stamp
from batchify.errors import FileFormatError, OutputPathError, ResumeError
from batchify.names import printable
from batchify.options import StoreOptions
from batchify.processes import usable_cpus
from batchify.reader import Reader
from batchify.report import Progress
from batchify.rows import RowWriter
from batchify.seal import compressed_chunk, write_statistics
from batchify.shardcheck import merged_blueprint
from batchify.shardindex import ShardIndex, ShardPath, is_shard_name, read_index, shard_paths
from batchify.stored import StoredImages
from batchify.structure import create, failures_told, places, raw, write_chunk
from batchify.target import Target
from batchify.threads import in_order
from batchify.workfile import WorkFile


@dataclass(frozen=True)
class MergeReport:
    """What a merge made.

    Parameters
    ----------
    path : str
    nbytes : int
    rows : dict of str to int
        Of each split.
    shards : int
        That were put together.
    """

    path: str
    nbytes: int
    rows: dict[str, int]
    shards: int

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
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
    progress: Callable[[Progress], None] | None = None,
) -> MergeReport:
    """Put the shards of a folder together: the file is that of `batchify.build`, byte for byte.

    Every row is held against its checksums while it is copied; nothing is decoded. The file appears
    under its name whole and synced, or not at all.

    Parameters
    ----------
    folder : path
        That `batchify.build_shards` made.
    output : path
    overwrite : bool
        Replace a file that is there, when the new one is whole.
    progress : callable, optional
        Called with a `Progress` now and then.

    Returns
    -------
    MergeReport

    Raises
    ------
    FileMissingError
        If shards are missing, or not all of them are built.
    FileFormatError
        If a shard is damaged, or not of the same build; it is named.
    OutputExistsError, OutputPathError, OutputLockedError, OutputIOError
    ResumeError
        If an unfinished build of `output` is in the way.

    Notes
    -----
    Memory: some MiB for each thread, and the files that were left out.
    """
    report = progress or (lambda _: None)
    source = os.path.abspath(os.fsencode(folder))
    target = Target(os.path.abspath(os.fsencode(output)), overwrite)
    index = read_index(source)
    target.check_place()
    if os.path.dirname(target.path) == source and is_shard_name(
        os.path.basename(os.fsdecode(target.path))
    ):
        raise OutputPathError(f"target {printable(target.path)} is a shard; name another file")
    shards = shard_paths(source, index)
    with WorkFile(target) as work:
        if work.is_left:
            raise ResumeError(
                f"{printable(work.path)} is of a build that is not finished; finish it, or remove "
                "it, or name another target"
            )
        try:
            target.check_free()
            _write(work.sealing_path, shards, index, report)
            work.publish(work.sealing_path)
        except BaseException:
            durable.remove(work.sealing_path)
            work.journal.remove()
            raise
    path = os.fsdecode(target.path)
    return MergeReport(path, os.path.getsize(path), index.rows, len(index.files))


def _write(
    path: bytes, shards: list[ShardPath], index: ShardIndex, report: Callable[[Progress], None]
) -> None:
    """Write the one file of some shards."""
    durable.remove(path)
    blueprint = merged_blueprint(shards, index)
    compressed = blueprint.store.compression != "none"
    if not compressed:
        durable.check_room(path, blueprint.nbytes)
    try:
        create(path, blueprint, compressed=compressed)
    except OSError as error:
        raise durable.io_error("making", path, error) from error
    writer = RowWriter(path, places(path))
    totals = ChannelTotals()
    height, width, channels = blueprint.splits[0].columns[0].shape[1:]
    try:
        with ThreadPoolExecutor(usable_cpus()) as pool:
            pieces = _Pieces(shards, blueprint.store, pool, totals, report)
            if compressed:
                _compress(path, blueprint, pieces, pool)
            else:
                _copy(writer, blueprint, pieces)
        _copy_records(writer, shards)
        shape = (height, width, channels)
        write_statistics(writer, blueprint.splits, shape, blueprint.store.scale, totals)
        stamp(path, writer)
        writer.sync()
    finally:
        writer.close()


class _Pieces:
    """Reads the stored images of all shards, some MiB at a time, and holds them to their checksums.

    Parameters
    ----------
    shards : list of ShardPath
    store : StoreOptions
    pool : ThreadPoolExecutor
        Who reads.
    totals : ChannelTotals
        Where the pixels that are read are added.
    report : callable
    """

    def __init__(
        self,
        shards: list[ShardPath],
        store: StoreOptions,
        pool: ThreadPoolExecutor,
        totals: ChannelTotals,
        report: Callable[[Progress], None],
    ) -> None:
        self._shards = shards
        self._store = store
        self._pool = pool
        self._totals = totals
        self._report = report
        self._rows = sum(shard.file.rows for shard in shards)
        self._done = 0

    def of(self, split: SplitShape) -> Iterator[NDArray[Any]]:
        """Yield the images of a split, shape (n, H, W, C), in the order of the one file.

        Raises
        ------
        FileFormatError
            If an image is damaged.
        """
        for shard in self._shards:
            if shard.split != split.name:
                continue
            with Reader(shard.path) as reader:
                images = StoredImages(reader, split.name)
                crc32 = np.concatenate(
                    [np.empty(0, "<u4"), *reader.pieces(split.name, "row_crc32")]
                )
            size = max(1, schema.PIECE_NBYTES // images.row_nbytes)
            size = -(-size // images.chunk_rows) * images.chunk_rows

            def read(
                start: int, shard: ShardPath = shard, images: StoredImages = images,
                crc32: NDArray[np.uint32] = crc32, size: int = size,
            ) -> tuple[NDArray[Any], ChannelSums]:  # fmt: skip
                return self._read(shard, images, start, crc32[start : start + size].tolist())

            try:
                for rows, sums in in_order(self._pool, read, range(0, images.rows, size)):
                    self._totals.add(split.name, sums)
                    self._done += len(rows)
                    self._report(Progress("merge", self._done, self._rows, 0, split.name))
                    yield rows
            finally:
                images.close()

    def _read(
        self, shard: ShardPath, images: StoredImages, start: int, crc32: list[int]
    ) -> tuple[NDArray[Any], ChannelSums]:
        try:
            data = memoryview(images.get(start, start + len(crc32)))
        except (OSError, FileFormatError) as error:
            raise shard.damaged(f"rows from {start:,} cannot be read: {error}") from error
        nbytes = images.row_nbytes
        for i, expected in enumerate(crc32):
            if zlib.crc32(data[i * nbytes : (i + 1) * nbytes]) != expected:
                raise shard.damaged(f"the image of row {start + i:,} is another")
        rows = np.frombuffer(data, images.dtype).reshape(len(crc32), *images.image_shape)
        return rows, channel_sums(rows, self._store.scale, images=len(rows))


def _copy(writer: RowWriter, blueprint: Blueprint, pieces: _Pieces) -> None:
    """Copy images as they are."""
    for split in blueprint.splits:
        row = 0
        for images in pieces.of(split):
            writer.put(split.name, row, {"images": images})
            row += len(images)


def _compress(path: bytes, blueprint: Blueprint, pieces: _Pieces, pool: ThreadPoolExecutor) -> None:
    """Compress images anew: the chunks of shards end elsewhere than those of the one file.

    Raises
    ------
    OutputIOError
    """
    level = blueprint.store.compression_level
    try:
        with (
            failures_told(),
            h5py.File(path, "r+", libver=("v110", "v110"), locking=False) as file,
        ):
            for split in blueprint.splits:
                column = split.columns[0]
                nbytes = column.chunk_rows * column.row_nbytes

                def compress(
                    data: bytes, nbytes: int = nbytes, itemsize: int = column.itemsize
                ) -> bytes:
                    return compressed_chunk(data.ljust(nbytes, b"\0"), itemsize, level)

                chunks = in_order(pool, compress, _regrouped(pieces.of(split), nbytes))
                for number, data in enumerate(chunks):
                    write_chunk(file[split.name]["images"], number * column.chunk_rows, data)
    except OSError as error:
        raise durable.io_error("compressing into", path, error) from error


def _regrouped(pieces: Iterator[NDArray[Any]], nbytes: int) -> Iterator[bytes]:
    """Yield the bytes of images, so many at a time; the last may be fewer."""
    rest = b""
    for images in pieces:
        data = rest + images.tobytes()
        whole = len(data) - len(data) % nbytes
        for start in range(0, whole, nbytes):
            yield data[start : start + nbytes]
        rest = data[whole:]
    if rest:
        yield rest


def _copy_records(writer: RowWriter, shards: list[ShardPath]) -> None:
    """Copy all columns but the images; their checksums, and those of the shards, must hold.

    Raises
    ------
    FileFormatError
        If they do not.
    """
    before: Counter[str] = Counter()
    for shard in shards:

        def look(split: str, start: int, records: Records, shard: ShardPath = shard) -> None:
            if (record_sums(records) != records["record_crc32"]).any():
                raise shard.damaged("a row's record_crc32 is another")
            columns = {name: raw(values) for name, values in records.items()}
            writer.put(split, before[split] + start, columns)

        with Reader(shard.path) as reader:
            digest = content_digest(reader, look)
        if digest.hex() != shard.file.digest:
            raise shard.damaged("its content_sha256 is another")
        before[shard.split] += shard.file.rows
