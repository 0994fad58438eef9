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

from batchify._version import JSON_VERSION
from batchify.building.seal import write_statistics
from batchify.building.staging import open_destination
from batchify.building.target import Target
from batchify.building.workfile import WorkFile
from batchify.common import durable
from batchify.common.paths import is_url, local_path, shown
from batchify.common.progress import ProgressCallback, reporting
from batchify.common.system import in_order, usable_cpus
from batchify.common.text import plural, printable, rows_text, size_text
from batchify.decoding.channels import ChannelTotals
from batchify.errors import (
    BatchifyWarning,
    FileFormatError,
    OutputPathError,
    ResumeError,
    Skipped,
    issue_warnings,
    warning_lines,
)
from batchify.format import schema
from batchify.format.checksums import write_checksums
from batchify.format.config import image_shape, recorded_options
from batchify.format.reader import open_shards
from batchify.format.rows import RowWriter, put_images
from batchify.format.schema import FileLayout, SplitShape
from batchify.format.shard_index import INDEX_NAME, ShardIndex, ShardPath, is_shard_name
from batchify.format.structure import chunk_writer, compress_chunk, create_file, read_row_offsets
from batchify.loading.shards import open_folder
from batchify.options import RunOptions
from batchify.sharding.stored_rows import RecordCopier, StoredPieces


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
    warnings : tuple of BatchifyWarning
        What the file system lacks, and whose stale lock was taken over.
    """

    path: str
    nbytes: int
    rows: dict[str, int]
    shards: int
    seconds: float = field(default=0.0, compare=False)
    warnings: tuple[BatchifyWarning, ...] = field(default=(), compare=False)

    def __repr__(self) -> str:
        shards = plural(self.shards, "shard")
        return f"<batchify {printable(self.path)} of {shards}: {rows_text(self.rows)} images>"

    def __str__(self) -> str:
        text = (
            f"{printable(self.path)}: {rows_text(self.rows)} images of "
            f"{plural(self.shards, 'shard')}, {size_text(self.nbytes)} in {self.seconds:.1f} s"
        )
        return "\n".join([text, *warning_lines(self.warnings)])

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "json_version": JSON_VERSION,
            "path": printable(self.path),
            "bytes": self.nbytes,
            "rows": self.rows,
            "shards": self.shards,
            "warnings": [warning.as_json() for warning in self.warnings],
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
    folder : path or URL
        A folder that `batchify.build_shards` made. At a URL, one shard at a time is downloaded to
        the folder for temporary files.
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
    FileAccessError, RemoteError
        If a store refuses to hand a shard over, or does not answer.
    OutputExistsError, OutputPathError, OutputLockedError, OutputIOError
    ResumeError
        If an unfinished build of `output` is in the way.

    Notes
    -----
    Memory: some MiB for each thread, and the list of skipped files.
    """
    source = os.fsdecode(folder)
    if not is_url(source):
        source = os.path.abspath(local_path(source))
    started = time.monotonic()
    run = RunOptions(overwrite=overwrite, restart=True, work_dir=work_dir)
    with (
        reporting(progress) as report,
        open_folder(source) as (index, shards),
        open_destination(output, run, report) as destination,
    ):
        destination.target.check_writable()
        _refuse_shard(source, output, destination.target)
        made = _merged(shards, destination.target, index, report)
        destination.publish()
    issue_warnings(made.warnings)
    return replace(made, seconds=time.monotonic() - started)


def _refuse_shard(source: str, output: str | os.PathLike[str], target: Target) -> None:
    """Refuse to replace a shard of the folder, or its index."""
    folder, name = os.path.split(target.path)
    if is_url(output):
        folder = os.path.dirname(shown(output))
        is_same = is_url(source) and folder == shown(source.rstrip("/"))
    else:
        is_same = not is_url(source) and os.path.realpath(folder) == os.path.realpath(
            os.fsencode(source)
        )
    if is_same and (name.startswith(INDEX_NAME) or is_shard_name(os.fsdecode(name))):
        raise OutputPathError(
            f"target {target.name} is a shard, or the shard index; name another file"
        )


def _merged(
    shards: list[ShardPath], target: Target, index: ShardIndex, report: ProgressCallback
) -> MergeReport:
    """Merge shards into a local file."""
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
    return MergeReport(
        os.fsdecode(target.shown),
        os.path.getsize(target.path),
        index.rows,
        len(index.files),
        warnings=work.journal.warnings,
    )


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
        with ThreadPoolExecutor(usable_cpus()) as pool:
            records = RecordCopier(writer, totals)
            pieces = StoredPieces(shards, file_layout.store, records, pool, totals, report)
            if compressed:
                _compress(path, file_layout, pieces)
            else:
                _copy(writer, file_layout, pieces)
        shape = image_shape(dict(index.config))
        write_statistics(writer, file_layout.splits, shape, file_layout.store.scale, totals)
        write_checksums(path, writer)
        writer.sync()


def _copy(writer: RowWriter, file_layout: FileLayout, pieces: StoredPieces) -> None:
    """Copy images as they are stored."""
    for split in file_layout.splits:
        row = 0
        for rows, data in pieces.of(split.name):
            put_images(writer, split.name, row, data)
            row += rows


def _compress(path: bytes, file_layout: FileLayout, pieces: StoredPieces) -> None:
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
