"""Files to a batch of their own bytes: decoded to be judged and counted, kept as they are."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.batches import BatchReader
from batchify.channels import ChannelSums, channel_sums, sums_column
from batchify.errors import BadImageError
from batchify.options import DecodeOptions, StoreOptions
from batchify.rows import OldRow
from batchify.storage import FileReader, SourceFile


@dataclass(frozen=True, eq=False)
class OriginalBatch:
    """The rows made of some files, in their order.

    Parameters
    ----------
    columns : dict of str to ndarray
        As `batchify.batches.Batch` has them, with ``channel_sums`` in place of ``images``;
        ``row_crc32`` is that of the file's bytes.
    contents : list of bytes
        Each file; empty where it could not be used.
    bad : list of (int, str)
    copied : int
        How many images were known, and not decoded.
    """

    columns: dict[str, NDArray[Any]]
    contents: list[bytes]
    bad: list[tuple[int, str]]
    copied: int


class OriginalReader:
    """Reads, hashes and decodes files, and keeps their bytes.

    Parameters
    ----------
    source : FileReader
    decode : DecodeOptions
    store : StoreOptions
    known : callable
        Given the SHA-256 of a file, what its row is, if it need not be decoded.

    Notes
    -----
    Memory: one batch, decoded, and the files that it is made of.
    """

    def __init__(
        self,
        source: FileReader,
        decode: DecodeOptions,
        store: StoreOptions,
        known: Callable[[bytes, NDArray[Any]], OldRow | None],
    ) -> None:
        self._kept = _Kept(source, known)
        self._store = store
        self._decoder = BatchReader(
            self._kept, decode, dtype=store.dtype, scale=store.scale, known=self._kept.known
        )

    def read(
        self,
        files: Sequence[SourceFile],
        sizes: Sequence[int],
        *,
        mark: Callable[[int], None] = lambda _: None,
        refused: Mapping[int, str] | None = None,
    ) -> OriginalBatch:
        """Return the batch of some files.

        Parameters
        ----------
        files, mark, refused
            As for `BatchReader.read`.
        sizes : sequence of int
            Bytes that there is room for: a file of another size changed, and is bad.
        """
        kept = self._kept
        kept.begin([size for i, size in enumerate(sizes) if i not in (refused or {})])
        batch = self._decoder.read(files, mark=mark, refused=refused)
        images = batch.columns.pop("images")
        bad = {i for i, _ in batch.bad}
        contents, sums = [], []
        fetched = iter(zip(kept.contents, kept.sums, strict=True))
        for i in range(len(files)):
            content, known = (b"", None) if i in (refused or {}) else next(fetched)
            if i in bad:
                content, known = b"", ChannelSums()
            contents.append(content)
            sums.append(known or channel_sums(images[i : i + 1], self._store.scale, images=1))
        batch.columns["row_crc32"] = np.array([zlib.crc32(each) for each in contents], "<u4")
        batch.columns["channel_sums"] = sums_column(sums, images.shape[-1])
        return OriginalBatch(batch.columns, contents, batch.bad, batch.copied)


class _Kept:
    """A source of files that keeps what passes through it, and holds sizes against a plan."""

    def __init__(
        self, source: FileReader, known: Callable[[bytes, NDArray[Any]], OldRow | None]
    ) -> None:
        self._source = source
        self._known = known
        self.begin([])

    def begin(self, sizes: Sequence[int]) -> None:
        """Begin a batch, given the size of each file that will be fetched."""
        self._sizes = sizes
        self.contents: list[bytes] = []
        self.sums: list[ChannelSums | None] = []

    def fetch(
        self, files: Sequence[SourceFile], max_nbytes: int
    ) -> Iterator[bytes | BadImageError]:
        """Yield the content of each file, or why it cannot be had."""
        for size, data in zip(self._sizes, self._source.fetch(files, max_nbytes), strict=True):
            if not isinstance(data, BadImageError) and len(data) != size:
                data = BadImageError("its size changed since the folder was scanned")
            self.contents.append(b"" if isinstance(data, BadImageError) else data)
            self.sums.append(None)
            yield data

    def known(self, digest: bytes, room: NDArray[Any]) -> OldRow | None:
        """Return what is known of the file that was fetched last."""
        old = self._known(digest, room)
        if old is not None:
            self.sums[-1] = old.sums
        return old

    def nbytes(self, files: Sequence[SourceFile]) -> Iterator[int]:
        """Yield the size of each file."""
        return self._source.nbytes(files)

    def close(self) -> None:
        """Leave the source open: whoever gave it closes it."""
