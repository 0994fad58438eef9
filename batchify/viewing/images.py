"""Read rows of a catalog: their pictures, labels and columns."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from batchify import choices
from batchify.common.closing import Closing
from batchify.common.system import usable_cpus
from batchify.common.text import printable
from batchify.errors import FileFormatError
from batchify.format.images import Ranges
from batchify.format.reader import Reader
from batchify.loading.origin import DecodeOverrides
from batchify.reporting.pictures import Pictures, picture_file
from batchify.viewing.catalog import Catalog, StoredFile

THUMBNAIL_SIDE = 160
"""The longer side of a thumbnail, in pixels."""

_OPEN_FILES = 16
_EXACT_PIXELS = 1 << 20
"""Pictures up to this size are sent without loss."""

_LONGEST_JPEG = 65_500
_LOSSY: dict[str, Any] = {"quality": 92, "subsampling": 0}


class OpenFile(Closing):
    """A file with the pictures of its splits, opened when it is needed first.

    Attributes
    ----------
    users : int
        How many threads use it.
    """

    def __init__(self, file: StoredFile, overrides: DecodeOverrides) -> None:
        self.users = 0
        self._file, self._overrides = file, overrides
        self._lock = threading.Lock()
        self._lifetime: contextlib.ExitStack | None = None

    def open(self) -> None:
        """Open the file, unless it is open; other threads wait, those of other files do not.

        Raises
        ------
        FileMissingError, FileAccessError, FileFormatError, RemoteError
            If it cannot be opened, or is of another build.
        """
        with self._lock:
            if self._lifetime is None:
                with contextlib.ExitStack() as lifetime:
                    self._open(lifetime)
                    self._lifetime = lifetime.pop_all()

    def _open(self, lifetime: contextlib.ExitStack) -> None:
        file = self._file
        path = lifetime.enter_context(file.open_path())
        self.reader = lifetime.enter_context(Reader(path))
        if self.reader.digest != file.digest:
            raise FileFormatError(
                f"{printable(self.reader.shown)} was rebuilt after the page was opened; start "
                "batchify view again"
            )
        self.pictures = {
            split: lifetime.enter_context(
                Pictures(self.reader, split, _remote(file.url), self._overrides)
            )
            for split in self.reader.splits
        }

    def close(self) -> None:
        """Close the file."""
        if self._lifetime is not None:
            self._lifetime.close()


def _remote(url: str) -> Ranges | None:
    if not url:
        return None
    from batchify.storage.remote_file import RemoteFile  # imports asyncio

    return RemoteFile(url)


class Images(Closing):
    """The images of a catalog; usable from several threads, which wait only for what they need.

    Parameters
    ----------
    trusted : bool
        As for `batchify.open`.

    Notes
    -----
    Memory: one image per CPU, and the stored bytes of one per thread. At most 16 files are open, or
    as many as threads read at once.
    """

    def __init__(self, catalog: Catalog, *, trusted: bool = False) -> None:
        self._catalog = catalog
        self._overrides = DecodeOverrides(trusted=trusted)
        self._lock = threading.Lock()
        self._open: OrderedDict[int, OpenFile] = OrderedDict()
        self._turns = threading.BoundedSemaphore(usable_cpus())  # to decode: not to wait for a disk

    @contextlib.contextmanager
    def _row(self, number: int) -> Iterator[tuple[OpenFile, str, int]]:
        """Yield the file of a row, its split, and its number there; the file stays open."""
        part, row = self._catalog.find_part(number)
        with self._lock:
            file = self._open.get(part.file)
            if file is None:
                stored = self._catalog.files[part.file]
                file = self._open[part.file] = OpenFile(stored, self._overrides)
            self._open.move_to_end(part.file)
            file.users += 1
            unused = [key for key, other in self._open.items() if not other.users]
            most = max(0, len(self._open) - _OPEN_FILES)
            closing = [self._open.pop(key) for key in unused[:most]]
        try:
            for other in closing:
                other.close()
            file.open()
            yield file, part.split, row
        finally:
            with self._lock:
                file.users -= 1

    def thumbnail(self, number: int) -> tuple[bytes, str]:
        """Return a small picture of a row, and its media type; a crossed tile if it is damaged."""
        with self._row(number) as (file, split, row):
            pictures = file.pictures[split]
            data = None
            with contextlib.suppress(FileFormatError):  # thumbnail() finds it again, and crosses it
                data = pictures.read(row)
            with self._turns:
                return _encoded(pictures.thumbnail(row, THUMBNAIL_SIDE, data))

    def picture(self, number: int, *, fit: bool = False) -> tuple[bytes, str]:
        """Return a row at the size of its stored image, and its media type.

        Parameters
        ----------
        fit : bool
            As it is read for training, if the file stores image files.

        Raises
        ------
        FileFormatError
            If it is damaged.
        RemoteError, FileMissingError, FileAccessError
            If a store does not hand it over.
        """
        with self._row(number) as (file, split, row):
            data = file.pictures[split].read(row)
            with self._turns:
                return _encoded(file.pictures[split].draw(row, data, fit=fit))

    def mask(self, number: int) -> tuple[bytes, str]:
        """Return the mask of a row as a picture, and its media type."""
        with self._row(number) as (file, split, row):
            return _encoded(file.pictures[split].mask(row))

    def values(self, number: int) -> dict[str, Any]:
        """Return the values of a row's columns: numbers, texts, or lists of numbers.

        Those are ``labels`` if they are numbers, ``weights``, ``label_paths`` and the columns of
        --keep-columns.
        """
        with self._row(number) as (file, split, row):
            reader = file.reader
            columns = reader.splits[split]
            names = [name for name in ("weights", "label_paths", *reader.kept) if name in columns]
            if "labels" in columns and self._catalog.class_mode in ("multilabel", "regression"):
                names.insert(0, "labels")
            with reader.refusing():
                return {name: plain(columns[name][row]) for name in names}

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()


def plain(value: Any) -> Any:
    """Return a value of a column as a plain value; numbers as float, int or bool, texts as str."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def flag_names(flags: int) -> list[str]:
    """Return the names of the flags of an image."""
    return [name for name in choices.FLAGS if flags & choices.flag_bit(name)]


def _encoded(picture: Any) -> tuple[bytes, str]:
    """Return a picture as an image file: without loss if it is not large, or too long for JPEG."""
    width, height = picture.size
    if width * height <= _EXACT_PIXELS or max(width, height) > _LONGEST_JPEG:
        return picture_file(picture, "png", compress_level=1), "image/png"
    return picture_file(picture, "jpeg", **_LOSSY), "image/jpeg"
