"""The decode job: what sources become when they are decoded again, without writing it."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from batchify.batches import BatchReader
from batchify.channels import channel_sums, sums_column
from batchify.decode import own_pillow
from batchify.fill import FillTask, name_file
from batchify.maskrows import MaskReader
from batchify.options import DecodeOptions, StoreOptions
from batchify.storage import ReadAhead, Source
from batchify.worker import Mark


class Redecoded(NamedTuple):
    """What a source became: what its row keeps beside the image, or the reason why it is bad."""

    source_sha256: bytes
    row_crc32: int
    source_size: tuple[int, int]
    source_flags: int
    reason: str
    channel_sums: bytes = b""
    """As a file of encoded images stores them."""
    mask_crc32: int = 0
    """Of the decoded mask, where there is one."""


@dataclass(frozen=True)
class DecodeJob:
    """What a worker needs to decode the sources of rows, one image at a time.

    Tasks are those of a fill.
    """

    source: Source
    decode: DecodeOptions
    store: StoreOptions

    @contextlib.contextmanager
    def open(self, mark: Mark) -> Iterator[Callable[[FillTask], list[Redecoded]]]:
        """Get ready to decode; the value decodes a task."""
        raw = self.source.open()
        with contextlib.closing(ReadAhead(raw)) as files, own_pillow():
            dtype, scale = self.store.dtype, self.store.scale
            reader = BatchReader(files, self.decode, dtype=dtype, scale=scale)
            masks = MaskReader(raw, self.decode)
            yield lambda task: self._decode(task, files, reader, masks, mark)

    def _decode(
        self,
        task: FillTask,
        ahead: ReadAhead,
        reader: BatchReader,
        masks: MaskReader,
        mark: Mark,
    ) -> list[Redecoded]:
        ahead.begin(task.wanted, self.decode.max_file_size)
        given_up = dict(task.given_up)
        found = []
        for i, file in enumerate(task.files):
            mark(i)
            batch = reader.read([file], refused={0: given_up[i]} if i in given_up else None)
            batch = masks.complete(batch, [file], task.masks[i : i + 1])
            columns = batch.columns
            height, width = columns["source_size"][0].tolist()
            sums = b""
            if self.store.is_encoded:
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
                )
            )
        return found

    @property
    def advice(self) -> str:
        """What a user can do about an image whose decoder died."""
        return "look at the file"

    def name(self, task: FillTask, item: int) -> str:
        """Name the file of an item."""
        return name_file(task, item)

    def without(self, task: FillTask, item: int, reason: str) -> FillTask | None:
        """Leave a file out: its reason is what is found."""
        return replace(task, given_up=(*task.given_up, (item, reason)))
