"""Which samples belong together: of one patient, video or plant, or the very same image. Pure."""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchify.errors import DatasetError, OptionError
from batchify.names import printable
from batchify.options import SplitOptions
from batchify.samples import Samples

_AT_ONCE = 4096
_NAMED = 5


@dataclass(frozen=True, eq=False)
class Units:
    """What a split policy puts into a split as a whole.

    Parameters
    ----------
    groups : ndarray of int32, shape (n,), or None
        Samples of the same number stay together; None where each is for itself.
    points : ndarray of uint64, shape (n,), or None
        For ``hash``: where each sample is between 0 and 2**64, by the name of what it belongs to.
    """

    groups: NDArray[np.int32] | None = None
    points: NDArray[np.uint64] | None = None


def make_units(
    samples: Samples,
    options: SplitOptions,
    digests: NDArray[np.uint8] | None = None,
    named: NDArray[np.uint8] | None = None,
) -> Units:
    """Return what the policy of `options` puts into a split as a whole.

    Parameters
    ----------
    samples : Samples
    options : SplitOptions
    digests : ndarray of uint8, shape (n, 32), or None
        SHA-256 of each sample's content, zeros where it cannot be read; for `group_duplicates`.
    named : ndarray of uint8, shape (n, 16), or None
        A hash of the name of each sample's group, where a manifest has them.

    Raises
    ------
    DatasetError
        If files have no group.
    OptionError
        If `named` are given with options that do not go with them.
    """
    if named is not None:
        _check_named(options)
    if options.policy == "hash":
        return Units(points=_points(samples, options, digests, named))
    if not options.is_grouped and named is None:
        return Units()
    groups = None if named is None else repeat_numbers(named)
    if options.group_by:
        groups = repeat_numbers(name_digests(_paths(samples), len(samples), options.group_by))
    if options.group_duplicates and digests is not None:
        repeats = repeat_numbers(digests)
        groups = repeats if groups is None else _joined(groups, repeats)
    return Units(groups=groups)


def _check_named(options: SplitOptions) -> None:
    """Refuse what does not go with the groups of a manifest."""
    if options.policy == "keras":
        raise OptionError(
            "split keras takes the first files of each class, whatever belongs together; the group "
            "column of the manifest needs --split stratified or hash"
        )
    if options.group_by:
        raise OptionError("the manifest has a group column; leave --group-by out, or the column")
    if options.policy == "hash" and options.group_duplicates:
        raise OptionError(
            "split hash goes by the group or by the content; the manifest has a group column, so "
            "leave --group-duplicates out (--split stratified takes both)"
        )


def repeat_numbers(digests: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return a number for each row, the same for the same hash; zeros, of no hash, are all apart.

    Parameters
    ----------
    digests : ndarray of uint8, shape (n, 16) or (n, 32)

    Notes
    -----
    Memory: 29 bytes a row; np.unique of the same would take 73 to 121.
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


def name_digests(
    paths: Iterable[tuple[int, list[bytes]]], count: int, pattern: str
) -> NDArray[np.uint8]:
    """Return a hash of the group of each path, shape (count, 16): 16 bytes, however long its name.

    Parameters
    ----------
    paths : iterable of (int, list of bytes)
        The number of the first, and some paths, one piece after another.
    count : int
        Of all paths.
    pattern : str

    Raises
    ------
    DatasetError
        With the files that have no group.
    """
    digests = np.zeros((count, 16), np.uint8)
    for start, names in _named(paths, count, pattern):
        data = b"".join(hashlib.blake2b(name, digest_size=16).digest() for name in names)
        digests[start : start + len(names)] = np.frombuffer(data, np.uint8).reshape(-1, 16)
    return digests


def _named(
    paths: Iterable[tuple[int, list[bytes]]], count: int, pattern: str
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (first path, group names), piece by piece.

    Raises
    ------
    DatasetError
        At the end, with the files that have none.
    """
    bare: list[bytes] = []
    without = 0
    for start, piece in paths:
        names = group_names(piece, pattern)
        found = [path for path, name in zip(piece, names, strict=True) if not name]
        bare += found[: _NAMED - len(bare)]
        without += len(found)
        yield start, list(map(os.fsencode, names))
    if bare:
        some = ", ".join(map(printable, bare)) + (", …" if without > len(bare) else "")
        raise DatasetError(
            f"--group-by finds no group in the paths of {without:,} of {count:,} files: {some}; "
            "every file needs one"
        )


def group_names(paths: Iterable[bytes], pattern: str) -> list[str]:
    """Return the group of each path: the first group of the match of `pattern`; "" for none."""
    search = re.compile(pattern).search
    found = map(search, map(os.fsdecode, paths))
    return [(match[1] or "") if match else "" for match in found]


def check_groups(samples: Samples, pattern: str) -> None:
    """Refuse a pattern that finds no group in the path of a file.

    Raises
    ------
    DatasetError
    """
    for _ in _named(_paths(samples), len(samples), pattern):
        pass


def _paths(samples: Samples) -> Iterator[tuple[int, list[bytes]]]:
    for start in range(0, len(samples), _AT_ONCE):
        yield start, samples.paths(np.arange(start, min(start + _AT_ONCE, len(samples))))


def _joined(groups: NDArray[np.int32], repeats: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return groups in which those that have an image in common are one."""
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


def _points(
    samples: Samples,
    options: SplitOptions,
    digests: NDArray[np.uint8] | None,
    named: NDArray[np.uint8] | None,
) -> NDArray[np.uint64]:
    """Return the first 8 bytes of a SHA-256 of the seed and a name: path, group or content."""
    points = np.empty(len(samples), np.uint64)
    seed = b"%d\0" % options.seed
    keys: Iterator[tuple[int, list[bytes]]] = _paths(samples)
    if named is not None:
        keys = (
            (start, [name.tobytes() for name in named[start : start + _AT_ONCE]])
            for start in range(0, len(samples), _AT_ONCE)
        )
    elif options.group_by:
        keys = _named(keys, len(samples), options.group_by)
    elif options.group_duplicates and digests is not None:
        keys = ((start, _contents(paths, digests[start:])) for start, paths in _paths(samples))
    for start, names in keys:
        data = b"".join(hashlib.sha256(seed + name).digest()[:8] for name in names)
        points[start : start + len(names)] = np.frombuffer(data, ">u8")
    return points


def _contents(paths: list[bytes], digests: NDArray[np.uint8]) -> list[bytes]:
    """Return the hash of each file; the path of one that cannot be read."""
    return [
        digest.tobytes() if digest.any() else path
        for path, digest in zip(paths, digests, strict=False)
    ]
