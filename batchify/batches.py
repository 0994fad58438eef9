"""Files to a batch: read, hashed, decoded, in the order and the dtypes of the file."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify import schema
from batchify.conversion import put_pixels
from batchify.decode import decode, guard
from batchify.errors import BadImageError
from batchify.options import DecodeOptions
from batchify.rows import OldRow
from batchify.storage import FileReader, SourceFile


@dataclass(frozen=True, eq=False)
class Batch:
    """The rows made of some files, in their order; the row of a bad file is zeros.

    Parameters
    ----------
    columns : dict of str to ndarray
        ``images`` (n, H, W, C), ``source_sha256`` (n, 32) uint8, ``row_crc32`` (n,) uint32,
        ``source_size`` (n, 2) int32 and ``source_flags`` (n,) uint16, as the file stores them.
    bad : list of (int, str)
        Position and reason of each file that could not be used.
    copied : int
        How many images were known, and not decoded.
    """

    columns: dict[str, NDArray[Any]]
    bad: list[tuple[int, str]]
    copied: int = 0


class BatchReader:
    """Reads, hashes and decodes files into batches.

    Parameters
    ----------
    source : FileReader
        Who reads the files.
    options : DecodeOptions
    dtype : str
        A key of `schema.STORED_DTYPES`. Integers store pixels as they are; a pixel that does not
        fit is its image's error. float32 stores ``float32(pixel) * float32(scale)``.
    scale : float
        Used for float32 alone.
    known : callable
        Given the SHA-256 of a file and its row, puts the image there if it has it, which is then
        not decoded.

    Notes
    -----
    Memory: one batch and one decoded image. Sets Pillow's process-wide guards
    (`batchify.decode.guard`).
    """

    def __init__(
        self,
        source: FileReader,
        options: DecodeOptions,
        *,
        dtype: str,
        scale: float,
        known: Callable[[bytes, NDArray[Any]], OldRow | None] = lambda *_: None,
    ) -> None:
        guard(options)
        self._source = source
        self._options = options
        self._dtype = np.dtype(schema.STORED_DTYPES[dtype])
        self._scale = np.float32(scale)
        self._known = known

    def read(
        self,
        files: Sequence[SourceFile],
        *,
        mark: Callable[[int], None] = lambda _: None,
        refused: Mapping[int, str] | None = None,
    ) -> Batch:
        """Return the batch of some files.

        Parameters
        ----------
        files : sequence of SourceFile
        mark : callable
            Called with the position of each file before it is read.
        refused : Mapping of int to str, optional
            Position and reason of files that are not to be touched: they are bad.
        """
        refused = refused or {}
        count = len(files)
        images = np.zeros((count, *self._options.image_shape), self._dtype)
        hashes = bytearray(32 * count)
        crc32, sizes, flags = [0] * count, [(0, 0)] * count, [0] * count
        bad = []
        copied = 0
        wanted = [file for i, file in enumerate(files) if i not in refused]
        contents = self._source.fetch(wanted, self._options.max_file_size)
        for i in range(count):
            mark(i)
            try:
                data = BadImageError(refused[i]) if i in refused else next(contents)
                if isinstance(data, BadImageError):
                    raise data
                digest = hashlib.sha256(data).digest()
                if old := self._known(digest, images[i]):
                    crc32[i], sizes[i], flags[i] = old[:3]
                    copied += 1
                else:
                    decoded = decode(data, self._options)
                    put_pixels(decoded.pixels, self._scale, images[i])
                    crc32[i] = zlib.crc32(images[i])
                    sizes[i], flags[i] = decoded.size, decoded.flags
            except BadImageError as error:
                bad.append((i, str(error)))
                continue
            hashes[32 * i : 32 * i + 32] = digest
        columns: dict[str, NDArray[Any]] = {
            "images": images,
            "source_sha256": np.frombuffer(hashes, np.uint8).reshape(count, 32),
            "row_crc32": np.array(crc32, "<u4"),
            "source_size": np.array(sizes, "<i4").reshape(count, 2),
            "source_flags": np.array(flags, "<u2"),
        }
        return Batch(columns, bad, copied)
