"""Find rows of a file that hold the same image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from batchify.common.keys import first_bytes
from batchify.common.text import plural, printable
from batchify.errors import ResumeError
from batchify.planning.groups import long_runs

if TYPE_CHECKING:
    from batchify.format.reader import Reader

Digests = Mapping[str, NDArray[np.uint8]]
"""For each split, the SHA-256 of each row's source, shape (N, 32)."""

_ROWS_AT_ONCE = 4096
ItemT = TypeVar("ItemT", covariant=True)


class _LazySequence(Sequence[ItemT]):
    """A sequence that makes each item when it is indexed."""

    @abstractmethod
    def _item(self, index: int) -> ItemT:
        """Make an item."""

    @overload
    def __getitem__(self, index: int) -> ItemT: ...

    @overload
    def __getitem__(self, index: slice) -> list[ItemT]: ...

    def __getitem__(self, index: int | slice) -> ItemT | list[ItemT]:
        if isinstance(index, slice):
            return [self._item(i) for i in range(*index.indices(len(self)))]
        return self._item(index)


class Repeat(_LazySequence[tuple[str, int]]):
    """The rows of one image, as (split, row): two or more, in file order.

    Parameters
    ----------
    split_numbers : ndarray of int8, shape (n,)
        The split of each row, by its number.
    rows : ndarray of int64, shape (n,)
    """

    def __init__(
        self, splits: list[str], split_numbers: NDArray[np.int8], rows: NDArray[np.int64]
    ) -> None:
        self._splits, self._split_numbers, self._rows = splits, split_numbers, rows

    def __len__(self) -> int:
        return len(self._rows)

    def _item(self, index: int) -> tuple[str, int]:
        return self._splits[self._split_numbers[index]], int(self._rows[index])

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for start in range(0, len(self), _ROWS_AT_ONCE):
            piece = slice(start, start + _ROWS_AT_ONCE)
            names = [self._splits[number] for number in self._split_numbers[piece].tolist()]
            yield from zip(names, self._rows[piece].tolist(), strict=True)

    @property
    def firsts(self) -> dict[str, int]:
        """The first row in each of its splits, in file order."""
        found: dict[str, int] = {}
        for split, row in self:
            found.setdefault(split, row)
        return found

    @property
    def rows_of(self) -> dict[str, NDArray[np.int64]]:
        """Its rows in each of its splits, in file order."""
        numbers = np.unique(self._split_numbers).tolist()
        return {self._splits[i]: self._rows[self._split_numbers == i] for i in numbers}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it is in, each once, in file order."""
        return tuple(self.firsts)


def stored_digests(reader: Reader) -> dict[str, NDArray[np.uint8]]:
    """Return the SHA-256 of each source of a file.

    Notes
    -----
    Memory: 32 bytes per row.
    """
    return {split: reader.column(split, "source_sha256") for split in reader.splits}


class Repeated(_LazySequence[Repeat]):
    """The images that have several rows.

    Parameters
    ----------
    split_numbers : ndarray of int8, shape (rows,)
        The split of each repeated row, by its number.
    rows : ndarray of int64, shape (rows,)
        Rows of the same image follow each other.
    cuts : ndarray of int64, shape (images + 1,)
        Where the rows of each image begin, and the last end.
    """

    def __init__(
        self,
        splits: list[str],
        split_numbers: NDArray[np.int8],
        rows: NDArray[np.int64],
        cuts: NDArray[np.int64],
    ) -> None:
        self._splits, self._split_numbers = splits, split_numbers
        self._rows, self._cuts = rows, cuts

    def __len__(self) -> int:
        return len(self._cuts) - 1

    def _item(self, index: int) -> Repeat:
        own = slice(self._cuts[:-1][index], self._cuts[1:][index])
        return Repeat(self._splits, self._split_numbers[own], self._rows[own])


def find_repeats(digests: Digests) -> Repeated:
    """Return the images that have several rows, in the order of their first row.

    Hashes of zeros, of sources that could not be read, are ignored.

    Parameters
    ----------
    digests : dict of str to ndarray of uint8, shape (n, 8 * k)

    Notes
    -----
    Memory: 30 bytes per row in addition to the digests, and 60 more for each that is repeated.
    """
    splits = list(digests)
    all_rows = _AllRows(digests)
    # Sorted by their first 8 bytes; whole hashes are compared among those that have them in common.
    keys = np.concatenate(list(map(first_bytes, digests.values())))
    order = np.argsort(keys, kind="stable")  # rows of the same image stay in their order
    keys = keys[order]
    repeated = np.zeros(len(keys), np.bool_)
    repeated[1:] = keys[1:] == keys[:-1]
    repeated[:-1] |= repeated[1:]
    numbers, keys = order[repeated], keys[repeated]
    del order
    changes = all_rows.changes(numbers)
    if len(changes) != np.count_nonzero(keys[1:] != keys[:-1]):  # others begin the same
        numbers.sort()
        numbers = numbers[np.lexsort(all_rows.words(numbers).T)]
        changes = all_rows.changes(numbers)
    heads = np.append(0, changes)[: len(numbers)]
    sizes = np.diff(np.append(heads, len(numbers)))
    is_repeat = sizes > 1
    is_repeat[is_repeat] = all_rows.words(numbers[heads[is_repeat]]).any(axis=1)
    return all_rows.repeated(splits, numbers, heads[is_repeat], sizes[is_repeat])


def grouped_rows(
    digests: Digests, numbers: NDArray[np.int64], groups: NDArray[np.int32]
) -> Repeated:
    """Return the groups of several rows, in the order of their first row.

    Parameters
    ----------
    digests : dict of str to ndarray, shape (n, 8 * k)
        Those of all rows of each split.
    numbers : ndarray of int64, shape (m,)
        Some rows, ascending, counted from the first split on.
    groups : ndarray of int32, shape (m,)
        A number for each of them, the same for those of a group.
    """
    order = np.argsort(groups, kind="stable")
    starts, stops = long_runs(groups[order])
    all_rows = _AllRows(digests)
    return all_rows.repeated(list(digests), numbers[order], starts, stops - starts)


class _AllRows:
    """The hashes of all splits, their rows numbered from the first split on.

    Parameters
    ----------
    digests : dict of str to ndarray of uint8, shape (n, 8 * k)
    """

    def __init__(self, digests: Digests) -> None:
        self._digests = list(digests.values())
        self._starts = np.cumsum([0, *map(len, self._digests)])

    def locate(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        """Return the split of each row, by its number, and its row there."""
        split_numbers = (np.searchsorted(self._starts, numbers, "right") - 1).astype(np.int8)
        return split_numbers, numbers - self._starts[split_numbers]

    def repeated(
        self,
        splits: list[str],
        numbers: NDArray[np.int64],
        heads: NDArray[np.int64],
        sizes: NDArray[np.int64],
    ) -> Repeated:
        """Return images, given where the rows of each begin among `numbers`, and how many."""
        by_first = np.argsort(numbers[heads])
        heads, sizes = heads[by_first], sizes[by_first]
        cuts = np.append(0, np.cumsum(sizes))
        numbers = numbers[np.repeat(heads - cuts[:-1], sizes) + np.arange(cuts[-1])]
        return Repeated(splits, *self.locate(numbers), cuts)

    def words(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return some hashes as words of 8 bytes, shape (n, words)."""
        split_numbers, rows = self.locate(numbers)
        words = np.empty((len(numbers), self._digests[0].shape[1] // 8), np.uint64)
        for i, digests in enumerate(self._digests):
            mine = split_numbers == i
            words[mine] = np.ascontiguousarray(digests[rows[mine]]).view(np.uint64)
        return words

    def changes(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions whose hash differs from the one before."""
        found = np.zeros(len(numbers), np.bool_)
        for start in range(1, len(numbers), _ROWS_AT_ONCE):
            words = self.words(numbers[start - 1 : start + _ROWS_AT_ONCE])
            found[start : start + _ROWS_AT_ONCE] = (words[1:] != words[:-1]).any(axis=1)
        return np.flatnonzero(found)


def check_apart(digests: Digests, path_of: Callable[[str, int], bytes]) -> None:
    """Refuse an image whose rows are in several splits.

    The files were hashed for the splits before they were decoded: files that change in between
    would be a leak in a file that promises to have none.

    Parameters
    ----------
    digests : dict of str to ndarray of uint8, shape (n, 32)
    path_of : callable
        Returns the path of a split's row.

    Raises
    ------
    ResumeError
        With two of the files.
    """
    leaks = [repeat for repeat in find_repeats(digests) if len(repeat.splits) > 1]
    if leaks:
        first, second = [path_of(split, row) for split, row in leaks[0].firsts.items()][:2]
        raise ResumeError(
            f"files changed while they were read: {plural(len(leaks), 'image')} would be in "
            f"several splits, {printable(first)} and {printable(second)} among them; run the same "
            "command again with --restart once they no longer change"
        )
