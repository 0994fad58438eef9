"""The files of a dataset as one table: tens of bytes a file, not a ``Path`` each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.storage import SourceFile

_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True, eq=False)
class Samples:
    """The image files, compactly: their paths in one run of bytes and two numbers each.

    Parameters
    ----------
    names : bytes or bytearray
        All paths, one after another: relative to the dataset folder, "/" separated.
    ends : ndarray of int64, shape (n,)
        Where each path ends in `names`.
    labels : ndarray of int32, shape (n,)
        Class index of each.
    extents : ndarray of int64, shape (n, k), or None
        Where each lies, for a source that does not find it by its path.
    width : int
        Bytes that a path is given at least, where these are some of more samples.
    sizes : ndarray of int64, shape (n,), or None
        Bytes of each file, where a build has to know.
    """

    names: bytes | bytearray
    ends: NDArray[np.int64]
    labels: NDArray[np.int32]
    extents: NDArray[np.int64] | None = None
    width: int = 1
    sizes: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ends)

    def path(self, index: int) -> bytes:
        """Return the path of one sample, relative to the dataset folder."""
        start = self.ends[index - 1] if index else 0
        return bytes(self.names[start : self.ends[index]])

    def paths(self, indices: NDArray[np.integer[Any]]) -> list[bytes]:
        """Return the paths of some samples, in the order of `indices`."""
        stops = self.ends[indices]
        starts = np.where(indices > 0, self.ends[indices - 1], 0)
        names = memoryview(self.names)
        return [bytes(names[a:b]) for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]

    def files(self, indices: NDArray[np.integer[Any]]) -> tuple[SourceFile, ...]:
        """Return some samples as their source finds them, in the order of `indices`."""
        paths = self.paths(indices)
        if self.extents is None:
            return tuple(map(SourceFile, paths))
        extents = map(tuple, self.extents[indices].tolist())
        return tuple(map(SourceFile, paths, extents))

    def subset(self, indices: NDArray[np.integer[Any]], width: int) -> Samples:
        """Return some samples by themselves, in the order of `indices`.

        Parameters
        ----------
        indices : ndarray of int
        width : int
            `path_nbytes` of all, so that files of some can be put together to one of all.
        """
        paths = self.paths(indices)
        ends = np.fromiter(map(len, paths), np.int64, len(paths)).cumsum(dtype=np.int64)
        extents = None if self.extents is None else self.extents[indices]
        sizes = None if self.sizes is None else self.sizes[indices]
        return Samples(b"".join(paths), ends, self.labels[indices], extents, width, sizes)

    @cached_property
    def path_nbytes(self) -> int:
        """Bytes of the longest path, `width` at least."""
        longest = self.width
        for start in range(0, len(self), _ROWS_AT_ONCE):
            before = self.ends[start - 1] if start else 0
            ends = self.ends[start : start + _ROWS_AT_ONCE]
            longest = max(longest, int(np.diff(ends, prepend=before).max()))
        return longest


def join_samples(
    pieces: Iterable[list[bytes]],
    labels: NDArray[np.int32],
    extents: NDArray[np.int64] | None = None,
) -> Samples:
    """Return the table of some paths, given piece by piece."""
    names = bytearray()
    lengths = [np.empty(0, np.int32)]
    for paths in pieces:
        names += b"".join(paths)
        lengths.append(np.fromiter(map(len, paths), np.int32, len(paths)))
    return Samples(names, np.concatenate(lengths).cumsum(dtype=np.int64), labels, extents)
