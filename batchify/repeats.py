"""Images that are stored more than once: rows whose sources are the very same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from batchify.errors import ResumeError, Skipped
from batchify.names import printable
from batchify.units import plural

if TYPE_CHECKING:
    from batchify.plan import BuildPlan
    from batchify.reader import Reader
    from batchify.rows import RowReader

Digests = Mapping[str, NDArray[np.uint8]]
"""For each split, the SHA-256 of each row's source, shape (N, 32)."""
_AT_ONCE = 4096


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
        for start in range(0, len(self), _AT_ONCE):
            piece = slice(start, start + _AT_ONCE)
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
    found = {}
    for split, columns in reader.splits.items():
        digests = np.empty((len(columns["source_sha256"]), 32), np.uint8)
        start = 0
        for piece in reader.pieces(split, "source_sha256"):
            digests[start : start + len(piece)] = piece
            start += len(piece)
        found[split] = digests
    return found


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
        for start in range(1, len(numbers), _AT_ONCE):
            words = self.words(numbers[start - 1 : start + _AT_ONCE])
            found[start : start + _AT_ONCE] = (words[1:] != words[:-1]).any(axis=1)
        return np.flatnonzero(found)


def _words(digests: NDArray[np.uint8], count: int = 0) -> NDArray[np.uint64]:
    """Return the first words of 8 bytes of each digest, or all, shape (n, words)."""
    nbytes = 8 * count or digests.shape[1]
    return np.ascontiguousarray(digests[:, :nbytes]).view(np.uint64)


def must_be_apart(plan: BuildPlan) -> bool:
    """Tell whether no image may be in several splits of a build."""
    return plan.options.split.group_duplicates and plan.dataset.splits is None


def filled_digests(
    rows: RowReader, plan: BuildPlan, bad: Mapping[str, list[tuple[int, Skipped]]]
) -> dict[str, NDArray[np.uint8]]:
    """Return the hashes of all sources of a build whose rows are filled; zeros for the bad ones.

    Parameters
    ----------
    rows : RowReader
    plan : BuildPlan
    bad : Mapping of str to list of (int, Skipped)
        For each split, the rows that are not images.
    """
    digests = {}
    for split in plan.splits:
        data = rows.get(split.name, "source_sha256", 0, len(split))
        found = np.frombuffer(data, np.uint8).reshape(-1, 32).copy()
        found[[row for row, _ in bad.get(split.name, [])]] = 0
        digests[split.name] = found
    return digests


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
