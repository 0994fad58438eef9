"""Compute the digest of a manifest's rows, which does not depend on its format."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.choices import canonical_json
from batchify.datasets.dataset import Annotations, KeptColumn, Samples

_AT_ONCE = 4096


def rows_digest(
    samples: Samples, splits: NDArray[np.uint8] | None, annotations: Annotations
) -> str:
    """Return the SHA-256, in hex, of the rows of a manifest, in any format.

    It depends on paths, classes and all other columns that are read, in the order of the samples;
    not on the name of the manifest, its format, or columns that are ignored.

    Parameters
    ----------
    splits : ndarray of uint8, shape (n,), or None
    """
    arrays = {
        "labels": samples.labels,
        "splits": splits,
        "values": annotations.values,
        "weights": annotations.weights,
        "groups": annotations.groups,
    }
    found: dict[str, Any] = {
        name: _sha256(_bytes(array)) for name, array in arrays.items() if array is not None
    }
    found["paths"] = _sha256(_paths(samples))
    if annotations.masks is not None:
        found["masks"] = _sha256(_paths(annotations.masks))
    if annotations.kept:
        found["kept"] = [[c.name, c.dtype, _sha256(_values(c))] for c in annotations.kept]
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


def _values(column: KeptColumn) -> Iterator[bytes]:
    values = column.values
    return _paths(values) if isinstance(values, Samples) else _bytes(values)


def _paths(samples: Samples) -> Iterator[bytes]:
    for _, paths in samples.pieces():
        yield b"".join(path + b"\0" for path in paths)
