"""Images that are stored more than once: rows whose sources are the very same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


@dataclass(frozen=True, slots=True)
class Repeat:
    """Rows of the same image.

    Parameters
    ----------
    rows : tuple of (str, int)
        (split, row), two or more, in the order of the file.
    """

    rows: tuple[tuple[str, int], ...]

    @property
    def firsts(self) -> dict[str, int]:
        """The first row in each of its splits, in the order of the file."""
        found: dict[str, int] = {}
        for split, row in self.rows:
            found.setdefault(split, row)
        return found

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it is in, each once, in the order of the file."""
        return tuple(dict.fromkeys(split for split, _ in self.rows))


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


def find_repeats(digests: Digests) -> list[Repeat]:
    """Return the images that have several rows, in the order of their first one.

    Rows of zeros, of sources that could not be read, are no repeats.

    Notes
    -----
    Memory: 30 bytes a row beside the digests.
    """
    splits = list(digests)
    starts = np.cumsum([0, *(len(digests[split]) for split in splits)])
    # Sorted by their first 8 bytes; whole hashes are compared among those that have them in common.
    keys = np.concatenate([_keys(digests[split]) for split in splits])
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(np.diff(keys[order]) == 0)
    repeats: dict[bytes, list[tuple[str, int]]] = {}
    for number in np.sort(order[np.union1d(same, same + 1)]).tolist():
        index = int(np.searchsorted(starts, number, "right")) - 1
        split, row = splits[index], number - int(starts[index])
        digest = digests[split][row].tobytes()
        if any(digest):
            repeats.setdefault(digest, []).append((split, row))
    return [Repeat(tuple(rows)) for rows in repeats.values() if len(rows) > 1]


def _keys(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64).ravel()


def check_apart(
    rows: RowReader, plan: BuildPlan, bad: Mapping[str, list[tuple[int, Skipped]]]
) -> None:
    """Refuse rows of a build in which an image is in several splits, though it must not be.

    The splits were made by what the files held when they were hashed, before they were decoded:
    files that change in between would be a leak in a file that promises to have none.

    Parameters
    ----------
    rows : RowReader
        Filled.
    plan : BuildPlan
    bad : Mapping of str to list of (int, Skipped)
        For each split, the rows that are not images.

    Raises
    ------
    ResumeError
    """
    if not plan.options.split.group_duplicates or plan.dataset.splits is not None:
        return
    digests = {}
    for split in plan.splits:
        data = rows.get(split.name, "source_sha256", 0, len(split))
        found = np.frombuffer(data, np.uint8).reshape(-1, 32).copy()
        found[[row for row, _ in bad.get(split.name, [])]] = 0
        digests[split.name] = found
    leaks = [repeat for repeat in find_repeats(digests) if len(repeat.splits) > 1]
    if leaks:
        members = {split.name: split.rows for split in plan.splits}
        samples = [members[split][row] for split, row in leaks[0].rows]
        first, second = plan.dataset.samples.paths(np.array(samples[:2]))
        raise ResumeError(
            f"files changed while they were read: {plural(len(leaks), 'image')} would be in "
            f"several splits, {printable(first)} and {printable(second)} among them; run the same "
            "command again with --restart when they change no more"
        )
