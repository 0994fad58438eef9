"""Read the rows of shards for a merge: copy their records, yield their images, check both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from batchify.common.progress import Progress, ProgressCallback
from batchify.common.system import in_order
from batchify.decoding.channels import ChannelSums, ChannelTotals, channel_sums, stored_sums
from batchify.errors import FileFormatError
from batchify.format.checksums import content_digest, record_sums
from batchify.format.images import StoredImages, StoredPixels, stored_images
from batchify.format.reader import Reader
from batchify.format.rows import RowWriter
from batchify.format.shard_index import ShardPath
from batchify.format.structure import as_bytes
from batchify.image_options import StoreOptions


class RecordCopier:
    """Copies all columns but the images, and checks their checksums and those of the shards.

    Parameters
    ----------
    totals : ChannelTotals
        The channel sums, which files with encoded images have as a column, are added to it.
    """

    def __init__(self, writer: RowWriter, totals: ChannelTotals) -> None:
        self._writer = writer
        self._totals = totals
        self._rows: Counter[str] = Counter()
        self._nbytes: Counter[str] = Counter()

    def copy(self, shard: ShardPath, reader: Reader) -> None:
        """Copy those of a shard, after the shards before it.

        Raises
        ------
        FileFormatError
            If a checksum does not match.
        """
        split = shard.split
        for start, records in reader.records(split):
            if (record_sums(records) != records["record_crc32"]).any():
                raise shard.damaged("record_crc32 mismatch in a row")
            columns = dict(records)
            if "image_extents" in columns:
                columns["image_extents"] = columns["image_extents"] + [self._nbytes[split], 0]
            if (sums := columns.get("channel_sums")) is not None:
                self._totals.add(split, stored_sums(sums, images=len(sums)))
            row = self._rows[split] + start
            values = {name: as_bytes(each) for name, each in columns.items()}
            self._writer.put(split, row, values)
        if content_digest(reader).hex() != shard.file.digest:
            raise shard.damaged("content_sha256 mismatch")
        self._rows[split] += reader.rows(split)
        if reader.is_encoded:
            self._nbytes[split] += len(reader.splits[split]["encoded"])


@dataclass
class StoredPieces:
    """Reads the stored images of all shards, some MiB at a time, and checks their checksums.

    Parameters
    ----------
    records : RecordCopier
        They are copied from each shard while it is open.
    pool : ThreadPoolExecutor
        Threads for reading.
    totals : ChannelTotals
        The sums of all pixels that are read are added to it.
    """

    shards: list[ShardPath]
    store: StoreOptions
    records: RecordCopier
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
            with (
                shard.here(images=True) as path,
                Reader(path) as reader,
                stored_images(reader, split) as images,
            ):
                self.records.copy(shard, reader)
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
