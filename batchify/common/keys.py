"""64-bit hashes of paths, and an index that finds 64-bit keys."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

_KEY = secrets.token_bytes(16)


def path_keys(paths: Iterable[bytes]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each path: 8 bytes per file, however long the names are.

    Each process draws its own key for the hash, so that no one can craft names that collide. By
    chance, two of a million names collide in one of 40 million processes.
    """
    digests = [hashlib.blake2b(path, digest_size=8, key=_KEY).digest() for path in paths]
    return np.frombuffer(b"".join(digests), np.uint64)


def join_path_keys(pieces: Iterable[Iterable[bytes]], count: int) -> NDArray[np.uint64]:
    """Return the `path_keys` of `count` paths that come piece by piece."""
    keys = np.empty(count, np.uint64)
    start = 0
    for paths in pieces:
        found = path_keys(paths)
        keys[start : start + len(found)] = found
        start += len(found)
    return keys


def first_bytes(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the first 8 bytes of each SHA-256, shape (n,)."""
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64).ravel()


class KeyIndex:
    """An index that finds 64-bit keys by binary search.

    Parameters
    ----------
    positions : bool
        Remember the position of each key, which all methods but `has` need; otherwise sort `keys`
        in place.

    Notes
    -----
    Memory: 16 bytes per key; only `keys` themselves without positions.
    """

    def __init__(self, keys: NDArray[np.uint64], *, positions: bool = True) -> None:
        self._order = np.argsort(keys, kind="stable") if positions else np.empty(0, np.intp)
        if positions:
            keys = keys[self._order]
        else:
            keys.sort()
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def has(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which keys are in the index; np.isin would sort it again, 40 bytes per key."""
        if not len(self):
            return np.zeros(len(keys), np.bool_)
        nearest = np.minimum(np.searchsorted(self._keys, keys), len(self) - 1)
        return np.asarray(self._keys[nearest] == keys)

    def last(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the last position of each key, -1 if it is not in the index."""
        if not len(self):
            return np.full(len(keys), -1)
        nearest = np.maximum(np.searchsorted(self._keys, keys, "right") - 1, 0)
        return np.where(self._keys[nearest] == keys, self._order[nearest], -1)

    def positions(self, key: np.uint64) -> Iterator[int]:
        """Yield all positions of a key, in order."""
        i = int(np.searchsorted(self._keys, key))
        while i < len(self) and self._keys[i] == key:
            yield int(self._order[i])
            i += 1

    def repeats(self) -> Iterator[tuple[int, int]]:
        """Yield the first position and a later one, for each key that came before."""
        is_repeat = np.append(False, self._keys[1:] == self._keys[:-1])[: len(self)]
        firsts = np.maximum.accumulate(np.where(is_repeat, 0, np.arange(len(self))))
        for i in np.flatnonzero(is_repeat).tolist():
            yield int(self._order[firsts[i]]), int(self._order[i])
