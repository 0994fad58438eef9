"""Find samples that must stay in one split: same group name or same content."""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchify.common.text import printable
from batchify.dataset_options import SplitOptions
from batchify.datasets.dataset import Samples
from batchify.errors import DatasetError

Digests = NDArray[np.uint8]
_AT_ONCE = 4096
_SHOWN_PATHS = 5


@dataclass(frozen=True, eq=False)
class GroupedSamples:
    """Samples, and what decides which of them must stay together.

    Parameters
    ----------
    samples : Samples
        Sorted by class.
    digests : ndarray of uint8, shape (n, 32), or None
        SHA-256 of each sample's content, the same for images that look alike if they stay together,
        zeros if it cannot be read; for `groups_content`.
    named : ndarray of uint8, shape (n, 16), or None
        A hash of the name of each sample's group, if a manifest has them.

    Raises
    ------
    DatasetError
        From both methods: if files have no group.
    """

    samples: Samples
    digests: Digests | None = None
    named: Digests | None = None

    def numbers(self, options: SplitOptions) -> NDArray[np.int32] | None:
        """Return a number for each sample, shape (n,), the same for those that must stay together.

        None if each sample is its own group.
        """
        groups = None if self.named is None else repeat_numbers(self.named)
        if options.group_by:
            pieces = self.samples.pieces()
            groups = repeat_numbers(name_digests(pieces, len(self.samples), options.group_by))
        if options.groups_content and self.digests is not None:
            repeats = repeat_numbers(self.digests)
            groups = repeats if groups is None else _merge_groups(groups, repeats)
        return groups

    def points(self, options: SplitOptions, *, use: bytes = b"") -> NDArray[np.uint64]:
        """Return a hash for each sample, shape (n,), the same for those that must stay together.

        The first 8 bytes of a SHA-256 of the seed and a name: the group, the content or the path.

        Parameters
        ----------
        use : bytes
            Name of the use: numbers for different uses are independent.
        """
        count, digests, named = len(self.samples), self.digests, self.named
        points = np.empty(count, np.uint64)
        seed = use + b"%d\0" % options.seed
        keys: Iterator[tuple[int, list[bytes]]] = self.samples.pieces()
        if named is not None:
            keys = (
                (start, [name.tobytes() for name in named[start : start + _AT_ONCE]])
                for start in range(0, count, _AT_ONCE)
            )
        elif options.group_by:
            keys = _group_names_in_pieces(keys, count, options.group_by)
        elif options.groups_content and digests is not None:
            keys = ((start, _hashes_or_paths(paths, digests[start:])) for start, paths in keys)
        for start, names in keys:
            data = b"".join(hashlib.sha256(seed + name).digest()[:8] for name in names)
            points[start : start + len(names)] = np.frombuffer(data, ">u8")
        return points


def repeat_numbers(digests: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return a number for each row, the same for equal hashes; hashes of zeros are never equal.

    Parameters
    ----------
    digests : ndarray of uint8, shape (n, 16) or (n, 32)

    Notes
    -----
    Memory: 29 bytes per row; np.unique of the same would take 73 to 121.
    """
    words = np.ascontiguousarray(digests).view(">u8").T  # sorted as the bytes would be
    order = np.lexsort(words[::-1])
    is_other = np.zeros(len(order), np.bool_)
    for word in words:
        ordered = word[order]
        is_other[1:] |= ordered[1:] != ordered[:-1]
    found = np.empty(len(order), np.int32)
    found[order] = np.cumsum(is_other, dtype=np.int32)
    unread = np.flatnonzero(~digests.any(axis=1))
    found[unread] = len(digests) + np.arange(len(unread), dtype=np.int32)
    return found


def long_runs(ordered: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the start and the stop of each run of several equal numbers."""
    stops = np.append(np.flatnonzero(np.diff(ordered)) + 1, len(ordered))
    starts = np.roll(stops, 1)
    starts[0] = 0
    several = stops - starts > 1
    return starts[several], stops[several]


def name_digests(
    paths: Iterable[tuple[int, list[bytes]]], count: int, pattern: str
) -> NDArray[np.uint8]:
    """Return a hash of the name of each path's group, shape (count, 16).

    Parameters
    ----------
    paths : iterable of (int, list of bytes)
        The index of the first path, and some paths, one piece after another.
    count : int
        How many paths there are.
    pattern : str
        See `group_names`.

    Raises
    ------
    DatasetError
        With the files that have no group.
    """
    digests = np.zeros((count, 16), np.uint8)
    for start, names in _group_names_in_pieces(paths, count, pattern):
        data = b"".join(hashlib.blake2b(name, digest_size=16).digest() for name in names)
        digests[start : start + len(names)] = np.frombuffer(data, np.uint8).reshape(-1, 16)
    return digests


def _group_names_in_pieces(
    paths: Iterable[tuple[int, list[bytes]]], count: int, pattern: str
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (index of the first path, group names) in pieces; raise at the end if one is empty."""
    bare: list[bytes] = []
    without = 0
    for start, piece in paths:
        names = group_names(piece, pattern)
        found = [path for path, name in zip(piece, names, strict=True) if not name]
        bare += found[: _SHOWN_PATHS - len(bare)]
        without += len(found)
        yield start, list(map(os.fsencode, names))
    if bare:
        some = ", ".join(map(printable, bare)) + (", …" if without > len(bare) else "")
        raise DatasetError(
            f"--group-by finds no group in the paths of {without:,} of {count:,} files: {some}; "
            "every file needs one"
        )


def group_names(paths: Iterable[bytes], pattern: str) -> list[str]:
    """Return the name of each path's group: group 1 of the match of `pattern`; "" for no match."""
    search = re.compile(pattern).search
    found = map(search, map(os.fsdecode, paths))
    return [(match[1] or "") if match else "" for match in found]


def check_groups(samples: Samples, pattern: str) -> None:
    """Raise a DatasetError if a pattern finds no group in the path of a file."""
    for _ in _group_names_in_pieces(samples.pieces(), len(samples), pattern):
        pass


def _merge_groups(groups: NDArray[np.int32], repeats: NDArray[np.int32]) -> NDArray[np.int32]:
    """Merge the groups that have an image in common."""
    count = int(groups.max(initial=-1)) + 1
    parents = array("i", range(count))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    order = np.argsort(repeats, kind="stable")
    same = np.flatnonzero(np.diff(repeats[order]) == 0)
    for a, b in zip(groups[order[same]].tolist(), groups[order[same + 1]].tolist(), strict=True):
        first, second = sorted((root(a), root(b)))
        parents[second] = first
    roots = np.fromiter(map(root, range(count)), np.int32, count)
    return roots[groups]


def _hashes_or_paths(paths: list[bytes], digests: NDArray[np.uint8]) -> list[bytes]:
    """Return the hash of each file, or the path of a file that cannot be read."""
    return [
        digest.tobytes() if digest.any() else path
        for path, digest in zip(paths, digests, strict=False)
    ]
