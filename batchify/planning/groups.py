"""Which samples belong together: groups and duplicates."""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from batchify.common.text import plural, printable
from batchify.datasets.dataset import Samples
from batchify.errors import DatasetError, OptionError, ResumeError
from batchify.options import SplitOptions

if TYPE_CHECKING:
    from batchify.format.reader import Reader


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
        groups = repeat_numbers(name_digests(samples.pieces(), len(samples), options.group_by))
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
    for _ in _named(samples.pieces(), len(samples), pattern):
        pass


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
    keys: Iterator[tuple[int, list[bytes]]] = samples.pieces()
    if named is not None:
        keys = (
            (start, [name.tobytes() for name in named[start : start + _AT_ONCE]])
            for start in range(0, len(samples), _AT_ONCE)
        )
    elif options.group_by:
        keys = _named(keys, len(samples), options.group_by)
    elif options.group_duplicates and digests is not None:
        keys = ((start, _contents(paths, digests[start:])) for start, paths in samples.pieces())
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


Digests = Mapping[str, NDArray[np.uint8]]
"""For each split, the SHA-256 of each row's source, shape (N, 32)."""


_ROWS_AT_ONCE = 4096


class Repeat(Sequence[tuple[str, int]]):
    """The rows of one image, as (split, row): two or more, in the order of the file.

    Parameters
    ----------
    splits : list of str
    places : ndarray of int8, shape (n,)
        The split of each row, by its number.
    rows : ndarray of int64, shape (n,)
    """

    def __init__(
        self, splits: list[str], places: NDArray[np.int8], rows: NDArray[np.int64]
    ) -> None:
        self._splits, self._places, self._rows = splits, places, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> tuple[str, int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, int]]: ...

    def __getitem__(self, index: int | slice) -> tuple[str, int] | list[tuple[str, int]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._splits[self._places[index]], int(self._rows[index])

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for start in range(0, len(self), _ROWS_AT_ONCE):
            piece = slice(start, start + _ROWS_AT_ONCE)
            names = [self._splits[place] for place in self._places[piece].tolist()]
            yield from zip(names, self._rows[piece].tolist(), strict=True)

    @property
    def firsts(self) -> dict[str, int]:
        """The first row in each of its splits, in the order of the file."""
        found: dict[str, int] = {}
        for split, row in self:
            found.setdefault(split, row)
        return found

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it is in, each once, in the order of the file."""
        return tuple(self.firsts)


def stored_digests(reader: Reader) -> dict[str, NDArray[np.uint8]]:
    """Return the hashes of all sources of a file.

    Notes
    -----
    Memory: 32 bytes a row.
    """
    return {split: reader.column(split, "source_sha256") for split in reader.splits}


class Repeated(Sequence[Repeat]):
    """The images that have several rows, each made as it is asked for.

    Parameters
    ----------
    splits : list of str
    places : ndarray of int8, shape (rows,)
        The split of each repeated row, by its number.
    rows : ndarray of int64, shape (rows,)
        Rows of the same image follow each other.
    cuts : ndarray of int64, shape (images + 1,)
        Where the rows of each image begin, and the last end.
    """

    def __init__(
        self,
        splits: list[str],
        places: NDArray[np.int8],
        rows: NDArray[np.int64],
        cuts: NDArray[np.int64],
    ) -> None:
        self._splits, self._places, self._rows, self._cuts = splits, places, rows, cuts

    def __len__(self) -> int:
        return len(self._cuts) - 1

    @overload
    def __getitem__(self, index: int) -> Repeat: ...

    @overload
    def __getitem__(self, index: slice) -> list[Repeat]: ...

    def __getitem__(self, index: int | slice) -> Repeat | list[Repeat]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        own = slice(self._cuts[:-1][index], self._cuts[1:][index])
        return Repeat(self._splits, self._places[own], self._rows[own])


def find_repeats(digests: Digests) -> Repeated:
    """Return the images that have several rows, in the order of their first one.

    Rows of zeros, of sources that could not be read, are no repeats.

    Parameters
    ----------
    digests : dict of str to ndarray of uint8, shape (n, 8 * k)

    Notes
    -----
    Memory: 30 bytes a row beside the digests, and 60 more for each that is repeated.
    """
    splits = list(digests)
    source = _Numbered(digests)
    # Sorted by their first 8 bytes; whole hashes are compared among those that have them in common.
    keys = np.concatenate([_words(each, 1)[:, 0] for each in digests.values()])
    order = np.argsort(keys, kind="stable")  # rows of the same image stay in their order
    keys = keys[order]
    repeated = np.zeros(len(keys), np.bool_)
    repeated[1:] = keys[1:] == keys[:-1]
    repeated[:-1] |= repeated[1:]
    numbers, keys = order[repeated], keys[repeated]
    del order
    edges = source.edges(numbers)
    if len(edges) != np.count_nonzero(keys[1:] != keys[:-1]):  # others begin alike
        numbers.sort()
        numbers = numbers[np.lexsort(source.words(numbers).T)]
        edges = source.edges(numbers)
    heads = np.append(0, edges)[: len(numbers)]
    sizes = np.diff(np.append(heads, len(numbers)))
    kept = sizes > 1
    kept[kept] = source.words(numbers[heads[kept]]).any(axis=1)
    by_first = np.argsort(numbers[heads[kept]])
    heads, sizes = heads[kept][by_first], sizes[kept][by_first]
    cuts = np.append(0, np.cumsum(sizes))
    numbers = numbers[np.repeat(heads - cuts[:-1], sizes) + np.arange(cuts[-1])]
    places, rows = source.places(numbers)
    return Repeated(splits, places, rows, cuts)


class _Numbered:
    """The hashes of all splits, their rows numbered through.

    Parameters
    ----------
    digests : dict of str to ndarray of uint8, shape (n, 8 * k)
    """

    def __init__(self, digests: Digests) -> None:
        self._digests = list(digests.values())
        self._starts = np.cumsum([0, *map(len, self._digests)])

    def places(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        """Return the split of each row, by its number, and its row there."""
        places = (np.searchsorted(self._starts, numbers, "right") - 1).astype(np.int8)
        return places, numbers - self._starts[places]

    def words(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return some hashes as words of 8 bytes, shape (n, words)."""
        places, rows = self.places(numbers)
        words = np.empty((len(numbers), self._digests[0].shape[1] // 8), np.uint64)
        for i, digests in enumerate(self._digests):
            words[places == i] = _words(digests[rows[places == i]])
        return words

    def edges(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where a row has another hash than the one before it."""
        found = np.zeros(len(numbers), np.bool_)
        for start in range(1, len(numbers), _ROWS_AT_ONCE):
            words = self.words(numbers[start - 1 : start + _ROWS_AT_ONCE])
            found[start : start + _ROWS_AT_ONCE] = (words[1:] != words[:-1]).any(axis=1)
        return np.flatnonzero(found)


def _words(digests: NDArray[np.uint8], count: int = 0) -> NDArray[np.uint64]:
    """Return the first words of 8 bytes of each digest, or all, shape (n, words)."""
    nbytes = 8 * count or digests.shape[1]
    return np.ascontiguousarray(digests[:, :nbytes]).view(np.uint64)


def check_apart(digests: Digests, path_of: Callable[[str, int], bytes]) -> None:
    """Refuse rows of which an image is in several splits, though it must not be.

    The splits were made by what the files held when they were hashed, before they were decoded:
    files that change in between would be a leak in a file that promises to have none.

    Parameters
    ----------
    digests : dict of str to ndarray of uint8, shape (n, 32)
    path_of : callable
        Returns the path of a split's row.

    Raises
    ------
    ResumeError
    """
    leaks = [repeat for repeat in find_repeats(digests) if len(repeat.splits) > 1]
    if leaks:
        first, second = [path_of(split, row) for split, row in leaks[0].firsts.items()][:2]
        raise ResumeError(
            f"files changed while they were read: {plural(len(leaks), 'image')} would be in "
            f"several splits, {printable(first)} and {printable(second)} among them; run the same "
            "command again with --restart when they change no more"
        )
