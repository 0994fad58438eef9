"""Read columns and images of Parquet and Arrow files, with pyarrow.

https://arrow.apache.org/docs/python/parquet.html, https://arrow.apache.org/docs/python/ipc.html
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from batchify.common.text import printable
from batchify.datasets.tables import first_line, load_pyarrow
from batchify.errors import BadImageError, BatchifyError
from batchify.storage.archive_file import ArchiveFile
from batchify.storage.packed import GroupCache
from batchify.storage.source import Extent, check_size

NEEDS = "a dataset in Parquet or Arrow files needs pyarrow, which"

_LAZY_NBYTES = 1 << 18
"""Batches of Arrow files of at least this size are only read in part."""

_WIDTHS = {"binary": "<i4", "large_binary": "<i8"}
"""Type of a column of images -> the dtype of its offsets."""

_COMPRESSED = (
    "its batches are compressed; write it without compression: "
    "pyarrow.ipc.IpcWriteOptions(compression=None)"
)

ResultT = TypeVar("ResultT")


class TableFile(ABC):
    """An open file of rows, some columns of which are images.

    The place of an image is the number of its column, and two numbers of the format.

    Parameters
    ----------
    images : sequence of str
        The columns of images, for places.

    Raises
    ------
    DatasetError
        If the file is damaged.
    """

    def __init__(self, file: ArchiveFile, images: Sequence[str] = ()) -> None:
        self._file = file
        self._images = images

    @cached_property
    def _arrow(self) -> Any:
        return load_pyarrow(NEEDS)[0]

    @property
    @abstractmethod
    def schema(self) -> Any:
        """The schema of pyarrow."""

    @abstractmethod
    def column(self, name: str, field: str = "") -> list[Any]:
        """Return the values of a column, or of a field of a column of structs."""

    @abstractmethod
    def places(self, name: str) -> tuple[NDArray[np.int64], int]:
        """Return where images are, shape (n, 2), and how many are known to have only a path."""

    def group_nbytes(self, name: str) -> list[int]:  # noqa: ARG002
        """Return the bytes of what is read together for an image; none if it is the image alone."""
        return []

    @abstractmethod
    def read(self, place: Extent, max_nbytes: int) -> bytes:
        """Return the image file at a place."""

    @abstractmethod
    def size(self, place: Extent) -> int:
        """Return the bytes of the image file at a place; 0 if they are not known."""

    @abstractmethod
    def close(self) -> None:
        """Release what is kept."""

    def guarded(self, read: Callable[[], ResultT]) -> ResultT:
        """Return a result; what pyarrow raises is the error of a damaged file."""
        try:
            return read()
        except BatchifyError:
            raise
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise self._file.damaged(first_line(error)) from error

    def _is_struct(self, name: str) -> bool:
        return bool(self._arrow.types.is_struct(self.schema.field(name).type))

    def _width(self, name: str, kind: Any) -> str:
        """Return the dtype of the offsets of a column of images; refuse one that has no bytes."""
        if (width := _WIDTHS.get(str(kind))) is None:
            raise self._file.refused(f"column {printable(name)} has {kind}, not bytes")
        return width


def _content(data: bytes | None, max_nbytes: int) -> bytes:
    """Return the content of an image file if it is there, and not too large."""
    if data is None:
        raise BadImageError(_ONLY_PATH)
    check_size(len(data), max_nbytes)
    return data


_ONLY_PATH = "the dataset has no image, only its path; save it with the images"


class _Input(io.RawIOBase):
    """A file as Python's file objects, which pyarrow reads."""

    def __init__(self, file: ArchiveFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.nbytes}[whence]
        self._at = base + offset
        return self._at

    def read(self, nbytes: int | None = -1) -> bytes:
        left = max(self._file.nbytes - self._at, 0)
        data = self._file.read(
            self._at, left if nbytes is None or nbytes < 0 else min(nbytes, left)
        )
        self._at += len(data)
        return data


class ParquetRows(TableFile):
    """An open Parquet file; a place is a row group, which is read for any of its images, and a row.

    Parameters
    ----------
    cache : GroupCache, optional
        What keeps the groups of all files.
    """

    def __init__(
        self, file: ArchiveFile, images: Sequence[str] = (), cache: GroupCache | None = None
    ) -> None:
        super().__init__(file, images)
        self._cache = cache or GroupCache(0)
        _, parquet = load_pyarrow(NEEDS)
        # With pre_buffer, each open file keeps the bytes of the last row group.
        self._rows = self.guarded(lambda: parquet.ParquetFile(_Input(file), pre_buffer=False))
        self._lengths: dict[tuple[int, int], NDArray[np.int64]] = {}

    @property
    def schema(self) -> Any:
        """The schema of pyarrow."""
        return self._rows.schema_arrow

    def column(self, name: str, field: str = "") -> list[Any]:
        """Return the values of a column, or of a field of a column of structs."""
        leaf = f"{name}.{field}" if field else name
        values = self._rows.read([leaf], use_threads=False).column(0).to_pylist()
        return [None if v is None else v[field] for v in values] if field else values

    def _groups(self, name: str) -> Iterator[tuple[int, list[Any]]]:
        """Yield the rows of each row group, and what the file says of its images."""
        leaves = (name, f"{name}.bytes")
        for group in map(self._rows.metadata.row_group, range(self._rows.num_row_groups)):
            chunks = map(group.column, range(group.num_columns))
            yield group.num_rows, [each for each in chunks if each.path_in_schema in leaves]

    def group_nbytes(self, name: str) -> list[int]:
        """Return the bytes of the images in each row group."""
        groups = self._groups(name)
        return [sum(int(each.total_uncompressed_size) for each in chunks) for _, chunks in groups]

    def places(self, name: str) -> tuple[NDArray[np.int64], int]:
        """Return row groups and rows, and the nulls by the statistics of groups that have some."""
        pieces, absent = [np.zeros((0, 2), np.int64)], 0
        for number, (count, chunks) in enumerate(self._groups(name)):
            rows = np.arange(count)
            pieces.append(np.stack((np.full_like(rows, number), rows), 1))
            known = (each.statistics for each in chunks if each.is_stats_set)
            absent += sum(each.null_count or 0 for each in known)
        places = np.concatenate(pieces)
        if absent < len(places):
            kind = self.schema.field(name).type
            kind = kind.field("bytes").type if self._is_struct(name) else kind
            is_dictionary = self._arrow.types.is_dictionary(kind)
            self._width(name, kind.value_type if is_dictionary else kind)
        return places, absent

    def read(self, place: Extent, max_nbytes: int) -> bytes:
        """Return the image file at a place."""
        column, group, row = place
        try:
            value = self._group(column, group)[row].as_py()
        except BatchifyError:  # its drive fails, not the image
            raise
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise BadImageError(f"cannot be read: {first_line(error)}") from error
        return _content(value.get("bytes") if isinstance(value, dict) else value, max_nbytes)

    def size(self, place: Extent) -> int:
        """Return the bytes of the image file at a place; 0 if they are not known."""
        column, group, row = place
        key = (column, group)
        if key not in self._lengths:
            from pyarrow import compute

            try:
                values = self._group(column, group)
            except BatchifyError:
                raise
            except (self._arrow.ArrowException, OSError, ValueError):
                return 0  # the reason is reported when it is read
            values = values.field("bytes") if self._is_struct(self._images[column]) else values
            if self._arrow.types.is_dictionary(values.type):
                values = values.dictionary_decode()
            found = compute.binary_length(values).fill_null(0)
            self._lengths[key] = found.to_numpy(zero_copy_only=False).astype(np.int64)
        return int(self._lengths[key][row])

    def _group(self, column: int, group: int) -> Any:
        key = (self._file.path, self._file.stamp, column, group)
        return self._cache.get(key, lambda: self._load(self._images[column], group))

    def _load(self, name: str, group: int) -> Any:
        leaf = f"{name}.bytes" if self._is_struct(name) else name
        table = self._rows.read_row_group(group, [leaf], use_threads=False)
        count = self._rows.metadata.row_group(group).num_rows
        if len(table) != count:
            raise ValueError(f"a row group has {len(table):,} rows, not {count:,}")
        return table.column(0).combine_chunks()

    def close(self) -> None:
        """Release what is kept."""
        self._cache.clear()


class _Bodies(_Input):
    """A stream of Arrow batches, of which only what is asked for is read.

    pyarrow reads a batch with all of its images at once. It gets zeros instead, and `load` puts
    the bytes of some buffers in their place. The file is not mapped: a drive that fails would end
    the process.
    """

    def __init__(self, file: ArchiveFile, start: int) -> None:
        super().__init__(file)
        self.seek(start)
        self.is_lazy = False
        self._start, self._body = 0, np.zeros(0, np.uint8)

    def read(self, nbytes: int | None = -1) -> Any:
        """Return some bytes, or zeros for those of a large batch."""
        start, left = self.tell(), max(self._file.nbytes - self.tell(), 0)
        is_body = self._body.size != 4  # metadata follow the 4 bytes that tell their length
        if self.is_lazy and is_body and nbytes is not None and nbytes >= _LAZY_NBYTES:
            data = np.zeros(min(nbytes, left), np.uint8)
            self.seek(start + data.size)
        else:
            data = np.frombuffer(super().read(nbytes), np.uint8)
        self._start, self._body = start, data
        return data

    def offset(self, buffer: Any) -> int:
        """Return where the bytes of a buffer of the last batch are in the file."""
        at = int(buffer.address - self._body.ctypes.data)
        if not 0 <= at <= at + buffer.size <= self._body.size:
            raise self._file.refused(_COMPRESSED)
        return self._start + at

    def load(self, buffers: Iterable[Any]) -> None:
        """Read the bytes of some buffers of the last batch."""
        for buffer in buffers:
            if buffer is not None and buffer.size and self._body.flags.writeable:
                offset = self.offset(buffer)
                data = np.frombuffer(self._file.read(offset, buffer.size), np.uint8)
                self._body[offset - self._start :][: buffer.size] = data

    @property
    def is_ended(self) -> bool:
        """Whether what was read last is the mark at the end of a stream."""
        return self._body.tobytes() == bytes(4)


class ArrowRows(TableFile):
    """An open Arrow file, a stream or with an index at its end.

    A place is the offset of an image file and its length, which is negative if there is none.
    """

    @cached_property
    def schema(self) -> Any:
        """The schema of pyarrow."""
        return self.guarded(lambda: self._open()[1].schema)

    def _open(self) -> tuple[_Bodies, Any]:
        """Return the stream, and a reader of pyarrow. A file with an index contains a stream."""
        size, magic = self._file.nbytes, b"ARROW1"
        has_index = self._file.read(0, min(6, size)) == magic
        if has_index and self._file.read(max(size - 6, 0), min(6, size)) != magic:
            raise self._file.damaged("it has no index at its end")
        bodies = _Bodies(self._file, 8 if has_index else 0)
        return bodies, self._arrow.ipc.open_stream(bodies)

    def _arrays(self, name: str) -> Iterator[tuple[Any, _Bodies]]:
        """Yield the array of a column of each batch, and the stream, which has not read it."""
        bodies, reader = self._open()
        # The bytes of a dictionary are in a batch of its own, whatever is nested around it.
        bodies.is_lazy = not any("dictionary<" in str(each.type) for each in reader.schema)
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                break
            except (self._arrow.ArrowException, OSError) as error:
                if bodies.is_lazy and "ompress" in str(error):
                    raise self._file.refused(_COMPRESSED) from error
                raise
            if batch.num_rows:
                array = batch.column(batch.schema.get_field_index(name))
                array.validate()  # its length, and those of its buffers, are only told
                yield array, bodies
        if not bodies.is_ended:
            raise self._file.damaged("it has no mark at its end, so rows may be missing")

    def column(self, name: str, field: str = "") -> list[Any]:
        """Return the values of a column, or of a field of a column of structs."""
        values: list[Any] = []
        for array, bodies in self._arrays(name):
            found = array.field(field) if field else array
            bodies.load(found.buffers())
            found.validate(full=True)
            values += found.to_pylist()
        return values

    def places(self, name: str) -> tuple[NDArray[np.int64], int]:
        """Return offsets and lengths of images, and how many have only a path."""
        places = [np.zeros((0, 2), np.int64)]
        for array, bodies in self._arrays(name):
            is_there = np.ones(len(array), np.bool_)
            found = array
            if self._is_struct(name):
                bodies.load(array.buffers()[:1])
                is_there = array.is_valid().to_numpy(zero_copy_only=False)
                found = array.field("bytes")
            width = self._width(name, found.type)
            validity, starts, data = found.buffers()
            bodies.load((validity, starts))
            found.validate(full=True)  # the offsets are in order, and in the data
            is_there &= found.is_valid().to_numpy(zero_copy_only=False)
            offsets = np.frombuffer(starts, width)[: len(found) + 1].astype(np.int64)
            first = bodies.offset(data) if data is not None and data.size else 0
            lengths = np.where(is_there, np.diff(offsets), -1)
            places.append(np.stack((first + offsets[:-1], lengths), 1))
        joined = np.concatenate(places)
        return joined, int((joined[:, 1] < 0).sum())

    def read(self, place: Extent, max_nbytes: int) -> bytes:
        """Return the image file at a place."""
        _, offset, nbytes = place
        check_size(max(nbytes, 1), max_nbytes)
        return _content(None if nbytes < 0 else self._file.read(offset, nbytes), max_nbytes)

    def size(self, place: Extent) -> int:
        """Return the bytes of the image file at a place."""
        return max(place[2], 0)

    def close(self) -> None:
        """Nothing is kept."""


def open_rows(
    file: ArchiveFile, images: Sequence[str] = (), cache: GroupCache | None = None
) -> TableFile:
    """Open a Parquet or an Arrow file, by its first bytes."""
    if file.read(0, min(4, file.nbytes)) == b"PAR1":
        return ParquetRows(file, images, cache)
    return ArrowRows(file, images)
