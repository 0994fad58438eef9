"""Shards become the one file, byte for byte that of a direct build, by copying rows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import h5py

from batchify import durable
from batchify.blueprint import Blueprint
from batchify.channels import ChannelTotals, stored_sums
from batchify.content import content_digest, record_sums, stamp
from batchify.errors import FileAccessError, OutputPathError, ResumeError
from batchify.header import image_shape
from batchify.imagerows import put_images
from batchify.names import printable
from batchify.placing import placed
from batchify.processes import usable_cpus
from batchify.reader import Reader
from batchify.report import Progress
from batchify.rows import RowWriter
from batchify.seal import compressed_chunk, write_statistics
from batchify.shardcheck import merged_blueprint
from batchify.shardimages import ImagePieces
from batchify.shardindex import (
    NAME,
    ShardIndex,
    ShardPath,
    is_shard_name,
    read_index,
    shard_paths,
)
from batchify.structure import create, failures_told, places, raw, write_chunk
from batchify.target import Target
from batchify.threads import in_order
from batchify.urls import is_url, local_path, shown
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
    work_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> MergeReport:
    """Put the shards of a folder together: the file is that of `batchify.build`, byte for byte.

    Every row is held against its checksums while it is copied; nothing is decoded. The file appears
    under its name whole and synced, or not at all.

    Parameters
    ----------
    folder : path
        That `batchify.build_shards` made.
    output : path or URL
    overwrite : bool
        Replace a file that is there, when the new one is whole.
    work_dir : path, optional
        Where the file of a URL is made; the cache folder of this user by default.
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
    if is_url(folder):
        raise FileAccessError(
            f"{os.fsdecode(shown(folder))}: shards are merged from a disk of this machine; "
            "download the folder"
        )
    source = os.path.abspath(os.fsencode(local_path(folder)))
    index = read_index(source)
    with placed(
        output, overwrite=overwrite, restart=True, work_dir=work_dir, report=report
    ) as place:
        made = _merged(source, place.target, index, report)
        place.publish()
    return made


def _merged(
    source: bytes, target: Target, index: ShardIndex, report: Callable[[Progress], None]
) -> MergeReport:
    """Put the shards of a folder together as a file of this machine."""
    target.check_place()
    folder, name = os.path.split(target.path)
    is_own = name.startswith(NAME) or is_shard_name(os.fsdecode(name))
    if is_own and os.path.realpath(folder) == os.path.realpath(source):
        raise OutputPathError(
            f"target {target.name} is a shard, or the list of them; name another file"
        )
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
    nbytes = os.path.getsize(target.path)
    return MergeReport(os.fsdecode(target.shown), nbytes, index.rows, len(index.files))


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
    try:
        _copy_records(writer, shards, totals)
        with ThreadPoolExecutor(usable_cpus()) as pool:
            pieces = ImagePieces(shards, blueprint.store, pool, totals, report)
            if compressed:
                _compress(path, blueprint, pieces, pool)
            else:
                _copy(writer, blueprint, pieces)
        height, width, channels = image_shape(dict(index.config))
        shape = (height, width, channels)
        write_statistics(writer, blueprint.splits, shape, blueprint.store.scale, totals)
        stamp(path, writer)
        writer.sync()
    finally:
        writer.close()


def _copy(writer: RowWriter, blueprint: Blueprint, pieces: ImagePieces) -> None:
    """Copy images as they are."""
    for split in blueprint.splits:
        row = 0
        for rows, data in pieces.of(split):
            put_images(writer, split.name, row, data)
            row += rows


def _compress(
    path: bytes, blueprint: Blueprint, pieces: ImagePieces, pool: ThreadPoolExecutor
) -> None:
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


def _regrouped(pieces: Iterator[tuple[int, bytes]], nbytes: int) -> Iterator[bytes]:
    """Yield the bytes of images, so many at a time; the last may be fewer."""
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
    """Copy all columns but the images; their checksums, and those of the shards, must hold.

    What they tell of pixels, where images are files' own bytes, is added to `totals`.

    Raises
    ------
    FileFormatError
        If they do not.
    """
    rows: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    for shard in shards:
        split = shard.split
        with Reader(shard.path) as reader:
            for start, records in reader.records(split):
                if (record_sums(records) != records["record_crc32"]).any():
                    raise shard.damaged("a row's record_crc32 is another")
                columns = dict(records)
                if "image_extents" in columns:
                    columns["image_extents"] = columns["image_extents"] + [nbytes[split], 0]
                if (sums := columns.get("channel_sums")) is not None:
                    totals.add(split, stored_sums(sums, images=len(sums)))
                row = rows[split] + start
                writer.put(split, row, {name: raw(values) for name, values in columns.items()})
            if content_digest(reader).hex() != shard.file.digest:
                raise shard.damaged("its content_sha256 is another")
            rows[split] += reader.rows(split)
            if reader.is_encoded:
                nbytes[split] += len(reader.splits[split]["encoded"])
