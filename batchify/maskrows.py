"""The masks of a batch: read, hashed and decoded beside its images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify import schema
from batchify.batches import Batch
from batchify.errors import BadImageError
from batchify.masks import decode_mask, orientation
from batchify.names import printable
from batchify.options import DecodeOptions
from batchify.storage import FileReader, SourceFile

_EXIF = schema.flag_bit("exif_rotated")


class MaskReader:
    """Adds the masks of images to their batches.

    Parameters
    ----------
    source : FileReader
    options : DecodeOptions

    Notes
    -----
    Memory: the masks of a batch, and a decoded one.
    """

    def __init__(self, source: FileReader, options: DecodeOptions) -> None:
        self._source = source
        self._options = options

    def complete(
        self,
        batch: Batch,
        files: Sequence[SourceFile],
        masks: Sequence[SourceFile],
        mark: Callable[[int], None] = lambda _: None,
    ) -> Batch:
        """Return a batch with the columns of its masks; an image whose mask is bad is bad, too.

        Parameters
        ----------
        batch : Batch
            Its rows of images that are bad now become zeros.
        files, masks : sequence of SourceFile
            Of the images, and of the masks; of none, the batch is returned as it is.
        mark : callable
            Called with the position of each mask before it is read.
        """
        if not masks:
            return batch
        count, (height, width) = len(files), self._options.target_size
        labels = np.zeros((count, height, width), np.uint8)
        hashes = np.zeros((count, 32), np.uint8)
        bad = dict(batch.bad)
        good = [i for i in range(count) if i not in bad]
        contents = self._source.fetch([masks[i] for i in good], self._options.max_file_size)
        for i in good:
            mark(i)
            try:
                data = next(contents)
                if isinstance(data, BadImageError):
                    raise data
                size = tuple(batch.columns["source_size"][i].tolist())
                turn = self._turn(files[i], int(batch.columns["source_flags"][i]))
                labels[i] = decode_mask(data, self._options, size, turn)
            except BadImageError as error:
                bad[i] = f"its mask {printable(masks[i].path)}: {error}"
                batch.columns["images"][i] = 0
                continue
            hashes[i] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
        columns: dict[str, NDArray[Any]] = {
            **batch.columns,
            "labels": labels,
            "label_sha256": hashes,
        }
        return Batch(columns, sorted(bad.items()), batch.copied)

    def _turn(self, file: SourceFile, flags: int) -> int:
        """Return how an image was turned; of those that were, which are few, it is read again."""
        if self._options.exif != "apply" or not flags & _EXIF:
            return 1
        (data,) = self._source.fetch([file], self._options.max_file_size)
        if isinstance(data, BadImageError):
            raise data
        return orientation(data, self._options)
