"""Write one piece of an export, in this process or in a worker."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from batchify.common.text import printable
from batchify.errors import BadImageError, DatasetError
from batchify.exporting.layout import Format, Piece, WrittenFile
from batchify.exporting.rows import read_samples
from batchify.loading.split import Split
from batchify.storage.source import Source, StampedReader
from batchify.workers.pool import Mark

_MOST_NBYTES = 1 << 31
"""The size of an original: stored files cannot be as large."""


@dataclass(frozen=True)
class ExportJob:
    """Write pieces of splits into the folder of an unfinished target.

    Parameters
    ----------
    splits : Mapping of str to Split
        A worker opens them again.
    source : Source or None
        The dataset, if files are taken from it.
    url : str
        Where files are uploaded to, and removed here; empty to keep them here.
    """

    splits: Mapping[str, Split]
    format: Format
    folder: bytes
    image_format: str
    source: Source | None
    url: str = ""

    @contextlib.contextmanager
    def open_handler(self, mark: Mark) -> Iterator[Callable[[Piece], list[WrittenFile]]]:
        """Open the source; yield a function that writes a piece."""
        with contextlib.ExitStack() as lifetime:
            reader = None
            if self.source is not None:
                reader = lifetime.enter_context(contextlib.closing(self.source.open_reader()))
            yield lambda piece: self._write(piece, reader, mark)

    def _write(self, piece: Piece, reader: StampedReader | None, mark: Mark) -> list[WrittenFile]:
        originals = None if reader is None else self._originals(piece, reader)
        samples = read_samples(
            self.splits[piece.split], piece.start, piece.stop, self.image_format, mark, originals
        )
        files = self.format.write(self.folder, piece, samples)
        if self.url:
            from batchify.exporting.remote_target import send  # imports asyncio

            last = piece.stop - piece.start - 1
            send(self.url, self.folder, files, lambda: mark(last))
        return files

    def _originals(self, piece: Piece, reader: StampedReader) -> Iterator[bytes]:
        """Yield the image files of a piece, after comparing them with the recorded SHA-256."""
        contents = reader.read_files(piece.files, _MOST_NBYTES)
        for i, (file, content) in enumerate(zip(piece.files, contents, strict=True)):
            reason = str(content) if isinstance(content, BadImageError) else ""
            if not isinstance(content, BadImageError):
                digest = piece.digests[32 * i : 32 * i + 32]
                if hashlib.sha256(content).digest() == digest:
                    yield content
                    continue
                reason = "its content has changed since the file was built"
            raise original_error(file.path, reason)

    @property
    def advice(self) -> str:
        """What a user can do about an image whose decoder died."""
        return "check the file with batchify verify"

    def describe(self, task: Piece, item: int) -> str:
        """Name a row."""
        return f"{task.split} row {task.start + max(item, 0)}"

    def without_item(self, _task: Piece, _item: int, _reason: str) -> None:
        """No row may be skipped."""


def original_error(path: bytes, reason: str) -> DatasetError:
    """Return the error for an image of --source that is not the one that was built."""
    return DatasetError(
        f"{printable(path)} of --source: {reason}; build the file again, or export its rows "
        "without --source"
    )
