"""Columns of remote files, whose rows are fetched when they are indexed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from batchify.loading.arrays import (
    ChainedArray,
    Column,
    RowArray,
    different,
    gather,
    only_pixels,
    pil_image,
)
from batchify.loading.dataset_file import DatasetFile
from batchify.loading.indexing import Rows
from batchify.loading.origin import DecodeOverrides, Origin
from batchify.loading.remote.fetching import AHEAD, ShardFiles

if TYPE_CHECKING:
    from batchify.decoding.pil_image import PilImage


class FileImages(RowArray):
    """The images, or masks, of one file.

    Parameters
    ----------
    number : int
        Which file of `files` it is.
    like : ndarray or RowArray
        Those of another file of the same build.
    """

    def __init__(
        self,
        files: ShardFiles,
        number: int,
        rows: int,
        like: Column,
        origin: Origin,
        column: str = "images",
    ) -> None:
        starts = None
        if isinstance(like, RowArray) and like.starts is not None:
            chunk = int(np.diff(like.starts, append=len(like)).max(initial=1))
            starts = np.arange(0, rows, chunk, dtype=np.intp)
        super().__init__((rows, *like.shape[1:]), like.dtype, origin, starts, column)
        self._files = files
        self._number = number
        self._like = like

    def close(self) -> None:
        """Release all files."""
        self._files.close()

    def resolved(self) -> Column:
        """Return the images of the file, which is fetched."""
        found: Column = getattr(self._files.whole(self._number)[self.origin.split], self._column)
        if isinstance(found, RowArray) and found.origin.overrides != self.origin.overrides:
            return found.decoded_with(self.origin.overrides)
        return found

    def gather(self, rows: Rows, out: NDArray[Any]) -> None:
        """Read some rows."""
        gather(self.resolved(), rows, out)

    def chunk(self, index: int) -> NDArray[Any]:
        """Return the rows of a chunk, or one row."""
        start, stop = index, index + 1
        if self.starts is not None:
            start = int(self.starts[index])
            stop = int(self.starts[index + 1]) if index + 1 < len(self.starts) else len(self)
        found: NDArray[Any] = self.resolved()[start:stop]
        return found

    def encoded(self, row: int) -> bytes:
        """Return the bytes of a row's image file; refused if pixels are stored."""
        found = self.resolved()
        return found.encoded(row) if isinstance(found, RowArray) else super().encoded(row)

    def decode(self, row: int) -> NDArray[Any]:
        """Return a row at the size of its file; refused if pixels are stored."""
        found = self.resolved()
        return found.decode(row) if isinstance(found, RowArray) else super().decode(row)

    def pil_image(self, row: int) -> PilImage:
        """Return a row as a PIL image."""
        return pil_image(self.resolved(), row)

    def decoded_with(self, overrides: DecodeOverrides) -> FileImages:
        """Return the same images with other decoding options; refused if pixels are stored."""
        if not isinstance(self._like, RowArray):
            super().decoded_with(overrides)
            raise AssertionError
        like = self._like.decoded_with(overrides)
        origin = replace(self.origin, overrides=overrides)
        return FileImages(self._files, self._number, len(self), like, origin, self._column)


class RemoteImages(ChainedArray):
    """The images, or masks, of the files of a URL."""

    def __init__(
        self,
        parts: Sequence[FileImages],
        origin: Origin,
        column: str,
        files: ShardFiles,
        numbers: Sequence[int],
    ) -> None:
        super().__init__(parts, origin, column)
        self._files = files
        self._numbers = list(numbers)
        self._images = parts
        if files.provider.is_local:
            self.files = self._chain.firsts

    def ahead(self, batches: Iterable[Rows]) -> Iterable[Rows]:
        """Yield the rows of batches that are read next; fetch files before they are needed."""
        return self._files.ahead(batches, self._chain, self._numbers)

    def gather(self, rows: Rows, out: NDArray[Any]) -> None:
        """Read some rows, from each file together; several files are fetched at the same time."""
        owners = self._chain.owners(rows)
        numbers = [self._numbers[owner] for owner in different(owners)]
        if len(numbers) == 1 or self._files.has_open(numbers):
            self._gather(rows, owners, out)
            return
        with self._files.started(numbers[:AHEAD]):
            self._gather(rows, owners, out)

    def decoded_with(self, overrides: DecodeOverrides) -> RemoteImages:
        """Return the same images with other decoding options; refused if pixels are stored."""
        return RemoteImages(
            [part.decoded_with(overrides) for part in self._images],
            replace(self.origin, overrides=overrides),
            self._column,
            self._files,
            self._numbers,
        )


class SmallColumn(RowArray):
    """A small column of one file: labels, paths, weights, or one that was kept.

    Parameters
    ----------
    name : str
        Of the split and the column.
    get : callable
        Returns the column of an open file.
    """

    def __init__(
        self,
        files: ShardFiles,
        number: int,
        name: str,
        get: Callable[[DatasetFile], NDArray[Any]],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        origin: Origin,
    ) -> None:
        super().__init__(shape, dtype, origin)
        self._files = files
        self.number = number
        self._name = name
        self._get = get

    def close(self) -> None:
        """Release all files."""
        self._files.close()

    def array(self) -> NDArray[Any]:
        """Return all rows."""
        return self._files.column(self.number, self._name, self._get)

    def gather(self, rows: Rows, out: NDArray[Any]) -> None:
        """Read some rows."""
        out[:] = self.array()[rows]

    def chunk(self, index: int) -> NDArray[Any]:
        """Return one row."""
        return self.array()[index : index + 1]

    def pil_image(self, row: int) -> PilImage:  # noqa: ARG002
        """Refuse: these are no images."""
        raise only_pixels(self.origin)

    def __getitem__(self, key: Any) -> Any:
        """Return what `key` selects; texts are as long as those of this file."""
        return self.array()[key]


class RemoteColumn(ChainedArray, NDArrayOperatorsMixin):
    """A small column of the files of a URL; operators and functions of NumPy fetch all of it."""

    def __init__(
        self, parts: Sequence[SmallColumn], origin: Origin, column: str, files: ShardFiles
    ) -> None:
        super().__init__(parts, origin, column)
        self._files = files
        self._columns = parts

    def gather(self, rows: Rows, out: NDArray[Any]) -> None:
        """Read some rows, from each file together."""
        owners = self._chain.owners(rows)
        inner, columns = rows - self._chain.firsts[owners], self._columns
        found = {columns[owner].number: owner for owner in different(owners)}
        self._files.fetch_columns(found, lambda number: columns[found[number]].array())
        for owner in found.values():
            mine = owners == owner
            out[mine] = columns[owner].array()[inner[mine]]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        arrays = [np.asarray(each) if isinstance(each, RemoteColumn) else each for each in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)
