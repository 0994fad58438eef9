"""64-bit hashes that stand for paths, and an index of them."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_KEY = secrets.token_bytes(16)


def path_keys(paths: Iterable[bytes]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each path: 8 bytes a file, however long their names.

    The key of the hash is drawn anew in each process, so nobody can make two names collide; by
    chance, two of a million do in one of 40 million processes.
    """
    digests = [hashlib.blake2b(path, digest_size=8, key=_KEY).digest() for path in paths]
    return np.frombuffer(b"".join(digests), np.uint64)
