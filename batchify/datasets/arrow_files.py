"""Read columns and images of Parquet and Arrow files, with pyarrow.

https://arrow.apache.org/docs/python/parquet.html, https://arrow.apache.org/docs/python/ipc.html
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from batchify.datasets.tables import first_line, load_pyarrow
from batchify.errors import BadImageError, BatchifyError
from batchify.storage.archive_file import ArchiveFile
from batchify.storage.source import Extent, check_size

NEEDS = "a dataset in Parquet or Arrow files needs pyarrow, which"

_CACHED_NBYTES = 64 << 20
"""Images of row groups that a reader keeps, at least one group."""

ResultT = TypeVar("ResultT")


class TableFile(ABC):
    """An open file of rows in groups, some columns of which are images.

    The place of an image is the number of the column, of the group, and of the row in it.

    Parameters
    ----------
    images : sequence of str
        The columns of images, for places.

    Attributes
    ----------
    schema : pyarrow.Schema
    groups : list of int
        The number of rows of each group.

    Raises
    ------
    DatasetError
        If the file is damaged.
    """

    schema: Any
    groups: list[int]

    def __init__(self, file: ArchiveFile, images: Sequence[str] = ()) -> None:
        self._file = file
        self._images = images
        self._cached: dict[tuple[int, int], Any] = {}
        self._lengths: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._arrow, _ = load_pyarrow(NEEDS)

    def read(self, place: Extent, max_nbytes: int) -> bytes:
        """Return the image file at a place."""
        column, group, row = place
        try:
            value = self._group(column, group)[row].as_py()
        except BatchifyError:  # its drive fails, not the image
            raise
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise BadImageError(f"cannot be read: {first_line(error)}") from error
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None:
            raise BadImageError("the dataset has no image, only its path; save it with the images")
        check_size(len(data), max_nbytes)
        found: bytes = data
        return found

    def size(self, place: Extent) -> int:
        """Return the bytes of the image file at a place; 0 if they are not known."""
        column, group, row = place
        key = (column, group)
        if key not in self._lengths:
            try:
                values = self._group(column, group).to_pylist()
            except BatchifyError:
                raise
            except (self._arrow.ArrowException, OSError, ValueError):
                return 0  # the reason is reported when it is read
            found = (v.get("bytes") if isinstance(v, dict) else v for v in values)
            self._lengths[key] = np.fromiter((len(v or b"") for v in found), np.int64, len(values))
        return int(self._lengths[key][row])

    def _group(self, column: int, group: int) -> Any:
        """Return the images of a group; those of some groups are kept."""
        key = (column, group)
        found = self._cached.pop(key, None)
        if found is None:
            found = self._load(self._images[column], group)
            while self._cached and found.nbytes + self._nbytes() > _CACHED_NBYTES:
                del self._cached[next(iter(self._cached))]
        self._cached[key] = found
        return found

    def _nbytes(self) -> int:
        return sum(int(each.nbytes) for each in self._cached.values())

    def close(self) -> None:
        """Release what is kept."""
        self._cached.clear()

    def guarded(self, read: Callable[[], ResultT]) -> ResultT:
        """Return a result; what pyarrow raises is the error of a damaged file."""
        try:
            return read()
        except BatchifyError:
            raise
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise self._file.damaged(first_line(error)) from error

    @abstractmethod
    def column(self, name: str, field: str = "") -> list[Any]:
        """Return the values of a column, or of a field of a column of structs."""

    @abstractmethod
    def absent(self, name: str) -> int:
        """Return how many rows of a column of images are known to have only a path."""

    @abstractmethod
    def _load(self, name: str, group: int) -> Any:
        """Return the images of a group, as an array of bytes or structs."""


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
    """An open Parquet file; a group is a row group, which is read for any of its images."""

    def __init__(self, file: ArchiveFile, images: Sequence[str] = ()) -> None:
        super().__init__(file, images)
        _, parquet = load_pyarrow(NEEDS)
        self._rows = self.guarded(lambda: parquet.ParquetFile(_Input(file)))
        self.schema = self._rows.schema_arrow
        about = self._rows.metadata
        self.groups = [about.row_group(i).num_rows for i in range(about.num_row_groups)]

    def column(self, name: str, field: str = "") -> list[Any]:
        """Return the values of a column, or of a field of a column of structs."""
        leaf = f"{name}.{field}" if field else name
        table = self._rows.read([leaf], use_threads=False)
        return _values(table.column(0).to_pylist(), field)

    def absent(self, name: str) -> int:
        """Return the number of nulls, by the statistics of row groups that have some."""
        total = 0
        for group in range(len(self.groups)):
            about = self._rows.metadata.row_group(group)
            for i in range(about.num_columns):
                column = about.column(i)
                if column.path_in_schema in (name, f"{name}.bytes") and column.is_stats_set:
                    total += column.statistics.null_count or 0
        return total

    def _load(self, name: str, group: int) -> Any:
        leaf = (
            f"{name}.bytes" if self._arrow.types.is_struct(self.schema.field(name).type) else name
        )
        table = self._rows.read_row_group(group, [leaf], use_threads=False)
        return table.column(0).combine_chunks()


class ArrowRows(TableFile):
    """An open Arrow file, a stream or with an index at its end; it is mapped, not read."""

    def __init__(self, file: ArchiveFile, images: Sequence[str] = ()) -> None:
        super().__init__(file, images)
        self._batches: list[Any] = self.guarded(self._open)
        self.groups = [batch.num_rows for batch in self._batches]

    def _open(self) -> list[Any]:
        ipc = self._arrow.ipc
        mapped = self._arrow.memory_map(os.fsdecode(self._file.path))
        if self._file.read(0, min(6, self._file.nbytes)) == b"ARROW1":
            reader = ipc.open_file(mapped)
            self.schema = reader.schema
            return [reader.get_batch(i) for i in range(reader.num_record_batches)]
        reader = ipc.open_stream(mapped)
        self.schema = reader.schema
        return list(reader)

    def column(self, name: str, field: str = "") -> list[Any]:
        """Return the values of a column, or of a field of a column of structs."""
        arrays = [self._load(name, group) for group in range(len(self.groups))]
        if field:
            arrays = [array.field(field) for array in arrays]
        return [value for array in arrays for value in array.to_pylist()]

    def absent(self, name: str) -> int:
        """Return the number of nulls."""
        arrays = [self._load(name, group) for group in range(len(self.groups))]
        is_struct = self._arrow.types.is_struct(self.schema.field(name).type)
        return sum((each.field("bytes") if is_struct else each).null_count for each in arrays)

    def _load(self, name: str, group: int) -> Any:
        batch = self._batches[group]
        found = batch.column(batch.schema.get_field_index(name))
        found.validate(full=True)  # wrong offsets would end the process
        return found


def _values(values: list[Any], field: str) -> list[Any]:
    return [None if v is None else v[field] for v in values] if field else values


def open_rows(file: ArchiveFile, images: Sequence[str] = ()) -> TableFile:
    """Open a Parquet or an Arrow file, by its first bytes."""
    magic = file.read(0, min(4, file.nbytes))
    return (ParquetRows if magic == b"PAR1" else ArrowRows)(file, images)


def column_kind(kind: Any) -> str:
    """Return what a column can be: ``image``, ``bytes``, ``list``, ``plain`` or empty."""
    arrow, _ = load_pyarrow(NEEDS)
    types = arrow.types
    if types.is_struct(kind):
        names = {kind.field(i).name for i in range(kind.num_fields)}
        return "image" if {"bytes", "path"} <= names else ""
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "list"
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    checks = (
        types.is_integer, types.is_floating, types.is_boolean, types.is_string,
        types.is_large_string, types.is_string_view, types.is_null,
    )  # fmt: skip
    return "plain" if any(check(kind) for check in checks) else ""
