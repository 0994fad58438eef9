"""Reads the stored images of shards, each held to its checksum, in the order of the one file."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from batchify.blueprint import SplitShape
from batchify.channels import ChannelSums, ChannelTotals, channel_sums
from batchify.encoded import EncodedFiles
from batchify.errors import FileFormatError
from batchify.options import StoreOptions
from batchify.reader import Reader
from batchify.report import Progress
from batchify.shardindex import ShardPath
from batchify.stored import StoredImages
from batchify.threads import in_order


class ImagePieces:
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

    def of(self, split: SplitShape) -> Iterator[tuple[int, bytes]]:
        """Yield some images of a split: how many, and their bytes, in the order of the one file.

        Raises
        ------
        FileFormatError
            If an image is damaged.
        """
        for shard in self._shards:
            if shard.split != split.name:
                continue
            with Reader(shard.path) as reader:
                encoded = reader.is_encoded
                images = (EncodedFiles if encoded else StoredImages)(reader, split.name)
                crc32 = np.concatenate(
                    [np.empty(0, "<u4"), *reader.pieces(split.name, "row_crc32")]
                )

            def read(
                piece: tuple[int, int], shard: ShardPath = shard,
                images: StoredImages | EncodedFiles = images, crc32: NDArray[np.uint32] = crc32,
            ) -> tuple[int, bytes, ChannelSums]:  # fmt: skip
                start, stop = piece
                data = _whole(shard, images, start, crc32[start:stop].tolist())
                sums = ChannelSums()
                if isinstance(images, StoredImages):
                    shape = (stop - start, *images.image_shape)
                    pixels = np.frombuffer(data, images.dtype).reshape(shape)
                    sums = channel_sums(pixels, self._store.scale, images=stop - start)
                return stop - start, data, sums

            try:
                for rows, data, sums in in_order(self._pool, read, images.pieces()):
                    self._totals.add(split.name, sums)
                    self._done += rows
                    self._report(Progress("merge", self._done, self._rows, 0, split.name))
                    yield rows, data
            finally:
                images.close()


def _whole(
    shard: ShardPath, images: StoredImages | EncodedFiles, start: int, crc32: list[int]
) -> bytes:
    """Return the bytes of the images of some rows, which must be what was written."""
    try:
        data = images.get(start, start + len(crc32))
    except (OSError, FileFormatError) as error:
        raise shard.damaged(f"rows from {start:,} cannot be read: {error}") from error
    rows = images.cut(data, start, start + len(crc32))
    for i, (row, expected) in enumerate(zip(rows, crc32, strict=True)):
        if zlib.crc32(row) != expected:
            raise shard.damaged(f"the image of row {start + i:,} is another")
    return data
