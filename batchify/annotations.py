"""What a manifest says of the samples beside their class."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from batchify.options import canonical_json
from batchify.samples import Samples
from batchify.storage import SourceFile

_AT_ONCE = 4096
ArrayT = TypeVar("ArrayT", bound=NDArray[Any])


@dataclass(frozen=True, eq=False)
class Annotations:
    """Columns of a manifest, in the order of the samples; None where it has none.

    Parameters
    ----------
    values : ndarray of float32, shape (n, K), or None
        Labels of ``multilabel`` and ``regression``.
    masks : Samples or None
        The mask image of each sample; `Samples.width` is that of the longest path.
    weights : ndarray of float32, shape (n,), or None
    groups : ndarray of uint8, shape (n, 16), or None
        A hash of the name of each sample's group.
    digest : str
        SHA-256, in hex, of all that the manifest says: see `rows_digest`; empty for folders.
    is_split : bool
        The manifest says which split each is in.
    """

    values: NDArray[np.float32] | None = None
    masks: Samples | None = None
    weights: NDArray[np.float32] | None = None
    groups: NDArray[np.uint8] | None = None
    digest: str = ""
    is_split: bool = False

    @property
    def recorded(self) -> dict[str, Any]:
        """What the config of a file records of it."""
        found: dict[str, Any] = {"manifest_sha256": self.digest} if self.digest else {}
        return {**found, "weights": True} if self.weights is not None else found

    def mask_files(self, indices: NDArray[np.integer[Any]]) -> tuple[SourceFile, ...]:
        """Return the masks of some samples as their source finds them; empty for none."""
        return () if self.masks is None else self.masks.files(indices)

    def subset(self, indices: NDArray[np.integer[Any]]) -> Annotations:
        """Return what is said of some samples, in the order of `indices`."""

        def some(array: ArrayT | None) -> ArrayT | None:
            return None if array is None else array[indices]

        return Annotations(
            some(self.values),
            None if self.masks is None else self.masks.subset(indices, self.masks.width),
            some(self.weights),
            some(self.groups),
            self.digest,
            self.is_split,
        )

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        arrays = (self.values, self.weights, self.groups)
        masks = 0 if self.masks is None else len(self.masks.names) + self.masks.ends.nbytes
        return masks + sum(array.nbytes for array in arrays if array is not None)


def rows_digest(
    samples: Samples, splits: NDArray[np.uint8] | None, annotations: Annotations
) -> str:
    """Return the SHA-256, in hex, of the rows of a manifest, however they were written down.

    Paths, classes and all other columns that are understood count, in the order of the samples;
    neither the name of the manifest, nor its format, nor columns that are ignored.

    Parameters
    ----------
    samples : Samples
    splits : ndarray of uint8, shape (n,), or None
    annotations : Annotations
    """
    arrays = {
        "labels": samples.labels,
        "splits": splits,
        "values": annotations.values,
        "weights": annotations.weights,
        "groups": annotations.groups,
    }
    found = {name: _sha256(_bytes(array)) for name, array in arrays.items() if array is not None}
    found["paths"] = _sha256(_paths(samples))
    if annotations.masks is not None:
        found["masks"] = _sha256(_paths(annotations.masks))
    return hashlib.sha256(canonical_json(found).encode()).hexdigest()


def _sha256(pieces: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _bytes(array: NDArray[Any]) -> Iterator[bytes]:
    little = array.dtype.newbyteorder("<")
    for start in range(0, len(array), _AT_ONCE):
        yield array[start : start + _AT_ONCE].astype(little, copy=False).tobytes()


def _paths(samples: Samples) -> Iterator[bytes]:
    for start in range(0, len(samples), _AT_ONCE):
        numbers = np.arange(start, min(start + _AT_ONCE, len(samples)))
        yield b"".join(path + b"\0" for path in samples.paths(numbers))
