"""Read images when an array of them is indexed.

Uncompressed images in one file are a `numpy.memmap`. All others (compressed, grown by another
program, or in several files) are a `RowArray`: it is indexed in the same way, and reads only the
rows that are asked for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchify.errors import OptionError
from batchify.loading.chunks import gather_chunks
from batchify.loading.indexing import Chain, Rows, Selected, row_numbers, rows_of
from batchify.loading.origin import DecodeOverrides, Origin, closed, reopened

if TYPE_CHECKING:
    from batchify.decoding.pil_image import PilImage

_LARGE_NBYTES = 4 << 10
"""Mapped rows from this size on are copied one by one: that takes less time than to copy twice."""

_FEW_FILES = 8
"""Fetched files that are mapped at once for that: those that the cache drops keep their space."""


class RowArray(ABC):
    """An array-like whose rows are read when they are indexed.

    Parameters
    ----------
    shape : tuple of int
        (N, H, W, C).
    origin : Origin
        How a copy of this in another process opens it again.
    starts : ndarray of intp, or None
        The first row of each chunk that is inflated as a whole; None if single rows are read.
    column : str
        Which column of the split this is.
    """

    files: Rows | None = None
    """The first row of each file, if files are fetched when their rows are read."""

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        origin: Origin,
        starts: Rows | None = None,
        column: str = "images",
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.origin = origin
        self.starts = starts
        self._column = column

    @abstractmethod
    def close(self) -> None:
        """Close the files; reading rows later is an error."""

    @abstractmethod
    def chunk(self, index: int) -> NDArray[Any]:
        """Return the rows of a chunk, or one row if there are no chunks; shape (n, H, W, C)."""

    @abstractmethod
    def pil_image(self, row: int) -> PilImage:
        """Return a row as a PIL image: in the size of its file, or of the stored pixels."""

    def gather(self, rows: Rows, out: NDArray[Any]) -> None:
        """Read some rows, in any order, into `out`; usable from several threads.

        Each chunk is read and inflated once, however many of its rows are wanted.
        """
        gather_chunks(self.chunk, self.starts, rows, out)

    def ahead(self, batches: Iterable[Rows]) -> Iterable[Rows]:
        """Yield the rows of batches that are read next; prepare for those that follow."""
        return batches

    def resolved(self) -> Column:
        """Return the array that the rows are read from."""
        return self

    def locate(self, row: int) -> tuple[RowArray, int]:
        """Return the array of the file that a row is in, and the row's number there."""
        return self, row

    def encoded(self, _row: int) -> bytes:
        """Return the bytes of a row's image file; refused if pixels are stored."""
        raise only_pixels(self.origin)

    def decode(self, _row: int) -> NDArray[Any]:
        """Return a row at the size of its file, shape (h, w, C); refused if pixels are stored."""
        raise only_pixels(self.origin)

    def decoded_with(self, _overrides: DecodeOverrides) -> RowArray:
        """Return the same images with other decoding options; refused if pixels are stored."""
        raise only_pixels(self.origin)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows in memory."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """Return a copy of what `key` selects, by NumPy's rules."""
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) and key else (key, ())
        if first is Ellipsis or first is None or (isinstance(key, tuple) and not key):
            return np.asarray(self)[key]
        rows = row_numbers(first, len(self))
        out = np.empty((rows.size, *self.shape[1:]), self.dtype)
        self.gather(rows.ravel(), out)
        if isinstance(first, slice):
            return out[(slice(None), *rest)]
        # NumPy combines arrays of numbers with those of the other axes.
        return out[(np.arange(rows.size).reshape(rows.shape) if rows.ndim else 0, *rest)]

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """Return all rows in memory."""
        if copy is False:
            raise ValueError("these rows are not in memory; they cannot be had without a copy")
        return np.asarray(self[:], dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return reopened, (self.origin, self._column)

    def __copy__(self) -> RowArray:
        return self  # it never changes

    def __deepcopy__(self, memo: dict[int, Any]) -> RowArray:
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"


Column = NDArray[Any] | RowArray
"""A column of a split: mapped, in memory, or read when it is indexed."""


class ChainedArray(RowArray):
    """The images, or masks, of several files, concatenated.

    Parameters
    ----------
    parts : sequence of ndarray or RowArray
        The array of each file: the same dtype, and the same shape except for the rows.
    """

    def __init__(self, parts: Sequence[Column], origin: Origin, column: str = "images") -> None:
        self._open_parts: tuple[Column, ...] | None = tuple(parts)
        self._chain = Chain(map(len, parts))
        self._chunks = self._chain
        chained = None
        if any(isinstance(part, RowArray) and part.starts is not None for part in parts):
            starts = [_starts(part) for part in parts]
            self._chunks = Chain(map(len, starts))
            chained = self._chain.chained(starts)
        shape = (self._chain.count, *parts[0].shape[1:])
        super().__init__(shape, parts[0].dtype, origin, chained, column)
        files = [part.files if isinstance(part, RowArray) else None for part in parts]
        if any(found is not None for found in files):
            one = np.zeros(1, np.intp)
            self.files = self._chain.chained([one if found is None else found for found in files])

    @property
    def _parts(self) -> tuple[Column, ...]:
        if self._open_parts is None:
            raise closed(self.origin.files)
        return self._open_parts

    def close(self) -> None:
        """Close the files."""
        for part in self._open_parts or ():
            if isinstance(part, RowArray):
                part.close()
        self._open_parts = None

    def ahead(self, batches: Iterable[Rows]) -> Iterable[Rows]:
        """Yield the rows of batches that are read next; prepare for those that follow."""
        return batches if self.files is None else self._each_ahead(list(batches))

    def _each_ahead(self, batches: list[Rows]) -> Iterator[Rows]:
        owners = [self._chain.owners(rows) for rows in batches]
        plans = []
        for number, part in enumerate(self._parts):
            if isinstance(part, RowArray) and part.files is not None:
                first = self._chain.firsts[number]
                mine = [
                    rows[owner == number] - first
                    for rows, owner in zip(batches, owners, strict=True)
                ]
                plans.append(part.ahead(mine))
        for rows, *_ in zip(batches, *plans, strict=True):
            yield rows

    def gather(self, rows: Rows, out: NDArray[Any]) -> None:
        """Read some rows, from each file together."""
        self._gather(rows, self._chain.owners(rows), out)

    def _gather(self, rows: Rows, owners: Rows, out: NDArray[Any]) -> None:
        """Read some rows, given the file that each of them is in."""
        inner, found = rows - self._chain.firsts[owners], different(owners)
        parts: dict[int, Column] = {}
        few = self.files is None or len(found) <= _FEW_FILES
        if len(found) > 1 and few and out[0].nbytes >= _LARGE_NBYTES:
            parts = {owner: self._part(owner) for owner in found}
            # A memmap takes longer to index.
            mapped = {
                owner: part.view(np.ndarray)
                for owner, part in parts.items()
                if isinstance(part, np.ndarray)
            }
            if len(mapped) == len(parts):
                for row_out, owner, row in zip(out, owners.tolist(), inner.tolist(), strict=True):
                    row_out[:] = mapped[owner][row]
                return
        for owner in found:
            wanted = np.flatnonzero(owners == owner)
            part, mine = parts[owner] if parts else self._part(owner), inner[wanted]
            if wanted[-1] - wanted[0] + 1 == len(wanted):  # these need no copy of their own
                gather(part, mine, out[wanted[0] : wanted[-1] + 1])
            else:
                copied = np.empty((len(wanted), *self.shape[1:]), self.dtype)
                gather(part, mine, copied)
                out[wanted] = copied

    def _part(self, owner: int) -> Column:
        """Return the array of a file, which is fetched if it is not here."""
        part = self._parts[owner]
        return part.resolved() if isinstance(part, RowArray) else part

    def chunk(self, index: int) -> NDArray[Any]:
        """Return the rows of a chunk of one of the files, or one row."""
        owner, inner = self._chunks.find(index)
        part = self._parts[owner]
        return part.chunk(inner) if isinstance(part, RowArray) else part[inner : inner + 1]

    def pil_image(self, row: int) -> PilImage:
        """Return a row of one of the files as a PIL image."""
        owner, inner = self._chain.find(row)
        return pil_image(self._parts[owner], inner)

    def decoded_with(self, overrides: DecodeOverrides) -> ChainedArray:
        """Return the same images with other decoding options."""
        parts = [part for part in self._parts if isinstance(part, RowArray)]
        if len(parts) < len(self._parts):
            raise only_pixels(self.origin)
        return ChainedArray(
            [part.decoded_with(overrides) for part in parts],
            replace(self.origin, overrides=overrides),
        )

    def locate(self, row: int) -> tuple[RowArray, int]:
        """Return the array of the file that a row is in, and the row's number there."""
        owner, inner = self._chain.find(row)
        part = self._parts[owner]
        if not isinstance(part, RowArray):
            raise only_pixels(self.origin)
        return part.locate(inner)


class ViewArray(RowArray):
    """Some rows of an array, in any order; reading them reads the rows of that array.

    Parameters
    ----------
    selected : range or ndarray of intp
        The row numbers in `base`.
    """

    def __init__(
        self, base: Column, selected: Selected, origin: Origin, column: str = "images"
    ) -> None:
        super().__init__((len(selected), *base.shape[1:]), base.dtype, origin, column=column)
        self.selected = selected
        self._open_base: Column | None = base

    @property
    def base(self) -> Column:
        """The array that the rows are of.

        Raises
        ------
        FileClosedError
            After `close`.
        """
        if self._open_base is None:
            raise closed(self.origin.files)
        return self._open_base

    def close(self) -> None:
        """Refuse to read rows from now on; the array that the rows are of stays open."""
        self._open_base = None

    def ahead(self, batches: Iterable[Rows]) -> Iterable[Rows]:
        """Yield the rows of batches that are read next; prepare for those that follow."""
        if not isinstance(self.base, RowArray) or self.base.files is None:
            return batches
        batches = list(batches)
        ahead = self.base.ahead([rows_of(self.selected, rows) for rows in batches])
        return (rows for rows, _ in zip(batches, ahead, strict=True))

    def gather(self, rows: Rows, out: NDArray[Any]) -> None:
        """Read some rows, in any order, into `out`; usable from several threads."""
        gather(self.base, rows_of(self.selected, rows), out)

    def chunk(self, index: int) -> NDArray[Any]:
        """Return one row."""
        return np.asarray(self[index : index + 1])

    def pil_image(self, row: int) -> PilImage:
        """Return a row as a PIL image."""
        return pil_image(self.base, int(self.selected[row]))

    def locate(self, row: int) -> tuple[RowArray, int]:
        """Return the array of the file that a row is in, and the row's number there."""
        if not isinstance(self.base, RowArray):
            raise only_pixels(self.origin)
        return self.base.locate(int(self.selected[row]))


def underlying(images: Column) -> tuple[Column, Selected | None]:
    """Return the array that rows are selected of, and which; None if it is `images` itself."""
    return (images.base, images.selected) if isinstance(images, ViewArray) else (images, None)


def _starts(part: Column) -> Rows:
    """Return the first row of each chunk of a file; without chunks, each row is its own."""
    starts = part.starts if isinstance(part, RowArray) else None
    return np.arange(len(part), dtype=np.intp) if starts is None else starts


def only_pixels(origin: Origin) -> OptionError:
    """Return the error for reading encoded images from files of decoded ones."""
    return OptionError(
        f"{origin.split} of {origin.shown} stores decoded images; build it with "
        "--store encoded to read the image files, or images of any size"
    )


def gather(images: Column, rows: Rows, out: NDArray[Any]) -> None:
    """Read some rows, given by their numbers, into `out`, shape (n, H, W, C)."""
    if isinstance(images, RowArray):
        images.gather(rows, out)
    else:  # "clip" writes into `out` directly; "raise" would buffer it
        np.take(images, rows, axis=0, out=out, mode="clip")


def different(owners: Rows) -> list[int]:
    """Return the different values, in order; `numpy.unique` would import `numpy.ma`."""
    found: list[int] = np.bincount(owners).nonzero()[0].tolist()
    return found


def pil_image(images: Column, row: int) -> PilImage:
    """Return a row of 8-bit images as a PIL image, in the size of its file if that is stored."""
    return images.pil_image(row) if isinstance(images, RowArray) else stored_pil_image(images[row])


def stored_pil_image(pixels: NDArray[Any]) -> PilImage:
    """Return the stored pixels of a row as a PIL image."""
    from batchify.decoding.pil_image import as_pil_image  # Pillow, which training rarely needs

    return as_pil_image(pixels)
