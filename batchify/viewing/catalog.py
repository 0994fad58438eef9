"""List the rows of a file, or of a folder of shards, by split, class, finding and path."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.checking.facts import Facts, SplitFacts, shard_facts, stored_facts
from batchify.common.closing import Closing
from batchify.common.paths import base_name, is_url, shown_path
from batchify.datasets.discovery import holds_shards
from batchify.errors import OptionError
from batchify.format.reader import Reader
from batchify.loading.shards import Path, RemoteShard, open_copy, open_folder
from batchify.planning.near_duplicates import bit_counts, has_detail
from batchify.viewing.found import FoundRows, find_rows
from batchify.viewing.paths import PathTable

Numbers = NDArray[np.int64]
"""Rows of a catalog: numbered from 0 across all splits, in the order of `Catalog.splits`."""

LocalPath = str | bytes | os.PathLike[str]

_KEPT_QUERIES = 8
_MOST_BITS, _MOST_ALIKE = 10, 12


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows to list; an empty text, or None, stands for all.

    Parameters
    ----------
    label : int or None
        The index of a class.
    finding : str
        A code of `batchify.checking.findings.CHECK_CODES`.
    text : str
        A part of the path.
    """

    split: str = ""
    label: int | None = None
    finding: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One of the files that the rows are in.

    Parameters
    ----------
    open_path : callable
        A context in which a local path of the file is valid.
    digest : bytes
        Its ``content_sha256``.
    url : str
        Where its images are, if they are not in the local file.
    """

    open_path: Callable[[], contextlib.AbstractContextManager[LocalPath]]
    digest: bytes
    url: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a split that are in one file.

    Parameters
    ----------
    first : int
        The first of these rows in the whole split.
    """

    file: int
    split: str
    first: int
    rows: int


class Catalog(Closing):
    """All rows of a file, or of a folder of shards; usable from several threads.

    Parameters
    ----------
    location : path or URL
        A file, or a folder with a shard index.

    Attributes
    ----------
    name : bytes
        The name of the file or folder.
    splits : dict of str to range
        The numbers of the rows of each split.
    classes : tuple of bytes
        The classes, or the label columns.
    class_mode : str
    identity : str
        SHA-256, in hex, of the content.

    Raises
    ------
    FileMissingError, FileAccessError, FileFormatError
        As `batchify.format.reader.Reader`.
    RemoteError
        If a store does not answer.

    Notes
    -----
    Memory: 100 bytes per row, and its path. Files at a URL are fetched without their images.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self._lifetime = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._finding = threading.Lock()
        self._found: tuple[FoundRows, ...] | None = None
        self._queries: OrderedDict[Query, Numbers] = OrderedDict()
        shown = base_name(os.fsdecode(location)) if is_url(location) else ""
        self.name = os.fsencode(shown) or os.path.basename(os.path.abspath(shown_path(location)))
        try:
            facts = self._open(location)
        except BaseException:
            self.close()
            raise
        self.splits: dict[str, range] = {}
        end = 0
        for name, split in facts.splits.items():
            self.splits[name] = range(end, end + len(split.flags))
            end += len(split.flags)
        splits = {name: self._with_paths(name, split) for name, split in facts.splits.items()}
        self.facts = replace(facts, splits=splits)

    def __len__(self) -> int:
        return len(self.paths)

    def _open(self, location: Path) -> Facts:
        """Open the file or files, and return what they record."""
        digest = hashlib.sha256()
        self.parts: list[Part] = []
        if holds_shards(location):
            index, shards = self._lifetime.enter_context(open_folder(location, keeps=True))
            facts = shard_facts(index, shards)
            self.paths = _path_table(facts)
            self.files = [
                StoredFile(
                    each.here,
                    bytes.fromhex(each.file.digest),
                    each.url if isinstance(each, RemoteShard) else "",
                )
                for each in shards
            ]
            ends = dict.fromkeys(facts.splits, 0)
            for number, each in enumerate(shards):
                digest.update(self.files[number].digest)
                self.parts.append(Part(number, each.split, ends[each.split], each.file.rows))
                ends[each.split] += each.file.rows
        else:
            copy = self._lifetime.enter_context(open_copy(location))
            url = os.fsdecode(location) if is_url(location) else ""
            with Reader(copy).finished() as reader:
                whole = StoredFile(lambda: contextlib.nullcontext(copy), reader.digest, url)
                self.files = [whole]
                facts = stored_facts(reader)
                self.paths = _path_table(facts)
                digest.update(reader.digest)
                self.parts = [Part(0, split, 0, reader.rows(split)) for split in reader.splits]
        with self.files[0].open_path() as path, Reader(path) as reader:
            self.classes = reader.header.classes
            self.config = reader.header.config
            self.class_mode = str(self.config.get("class_mode"))
            self.is_encoded = reader.is_encoded
            self.dtype = reader.image_dtype.name
        self.identity = digest.hexdigest()
        return facts

    def _with_paths(self, name: str, split: SplitFacts) -> SplitFacts:
        """Return the facts of a split with its paths from memory."""
        first = self.splits[name].start

        def paths(start: int, stop: int) -> Iterator[tuple[int, list[bytes]]]:
            for row, names in self.paths.slices(first + start, first + stop):
                yield row - first, names

        return replace(split, paths=paths)

    @property
    def has_classes(self) -> bool:
        """Whether labels are classes."""
        return self.class_mode in choices.INDEXED_MODES

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """The class of each row; -1 if it has none."""
        labels = [
            np.full(len(split.flags), -1, np.int32) if split.labels is None else split.labels
            for split in self.facts.splits.values()
        ]
        return np.concatenate(labels) if labels else np.zeros(0, np.int32)

    @property
    def findings(self) -> tuple[FoundRows, ...]:
        """What `batchify check` finds about rows; for a million, this takes seconds once."""
        with self._finding:
            if self._found is None:
                firsts = {name: numbers.start for name, numbers in self.splits.items()}
                self._found = tuple(find_rows(self.facts, firsts))
            return self._found

    @property
    def known_findings(self) -> tuple[FoundRows, ...] | None:
        """The same; None if they have not been looked for yet."""
        return self._found

    def locate(self, number: int) -> tuple[str, int]:
        """Return the split and the row of a number.

        Raises
        ------
        OptionError
            If there is no such row.
        """
        for name, numbers in self.splits.items():
            if number in numbers:
                return name, number - numbers.start
        raise OptionError(f"there is no row {number}, only {len(self)}")

    def find_part(self, number: int) -> tuple[Part, int]:
        """Return the part that a row is in, and its number there."""
        split, row = self.locate(number)
        for part in self.parts:
            if part.split == split and part.first <= row < part.first + part.rows:
                return part, row - part.first
        raise OptionError(f"there is no row {number}, only {len(self)}")

    def find(self, query: Query) -> Numbers:
        """Return the rows that match a query, ascending; the last few results are kept.

        Raises
        ------
        OptionError
            If there is no such split, class or finding.
        """
        with self._lock:
            if query in self._queries:
                self._queries.move_to_end(query)
                return self._queries[query]
        found = self._search(query)
        with self._lock:
            self._queries[query] = found
            while len(self._queries) > _KEPT_QUERIES:
                self._queries.popitem(last=False)
        return found

    def _search(self, query: Query) -> Numbers:
        found: Numbers = np.arange(len(self))
        if query.finding:
            rows = [each.numbers for each in self.findings if each.problem.code == query.finding]
            if not rows:
                raise OptionError(f"there is no finding {query.finding!r}")
            found = np.unique(np.concatenate(rows))
        if query.split:
            if query.split not in self.splits:
                raise OptionError(f"there is no split {query.split!r}")
            of_split = self.splits[query.split]
            found = found[(found >= of_split.start) & (found < of_split.stop)]
        if query.label is not None:
            if not self.has_classes or not 0 <= query.label < len(self.classes):
                raise OptionError(f"there is no class {query.label}")
            found = found[self.labels[found] == query.label]
        if query.text:
            found = np.intersect1d(found, self.paths.search(query.text), assume_unique=True)
        return found

    def same_image(self, number: int) -> Numbers:
        """Return the other rows whose image file has the same bytes."""
        split, row = self.locate(number)
        digest = self.facts.splits[split].digests[row]
        key = digest[:8].view(np.uint64)
        found = []
        for name, each in self.facts.splits.items():
            rows = np.flatnonzero(each.digests[:, :8].view(np.uint64)[:, 0] == key)
            rows = rows[(each.digests[rows] == digest).all(axis=1)]
            found.append(rows + self.splits[name].start)
        others: Numbers = np.concatenate(found)
        return np.setdiff1d(others, number, assume_unique=True)

    def find_alike(self, number: int) -> list[tuple[int, int]]:
        """Return the rows whose image looks most like that of a row, by their perceptual hashes.

        Returns
        -------
        list of (int, int)
            Rows with other bytes, and how many of 64 bits differ: at most 10 bits, the fewest
            first, at most 12 rows. None if the file has no hashes, or that of the row is one of a
            solid color, which are all alike.
        """
        split, row = self.locate(number)
        hashes = {
            name: each.appearance["phash"]
            for name, each in self.facts.splits.items()
            if "phash" in each.appearance
        }
        if split not in hashes or not has_detail(hashes[split][row : row + 1]).all():
            return []
        digest = self.facts.splits[split].digests[row]
        found: list[tuple[int, int]] = []
        for name, known in hashes.items():
            bits = bit_counts(known ^ hashes[split][row])
            rows = np.flatnonzero((bits <= _MOST_BITS) & has_detail(known))
            rows = rows[(self.facts.splits[name].digests[rows] != digest).any(axis=1)]
            rows = rows[np.argsort(bits[rows], kind="stable")[:_MOST_ALIKE]]
            first = self.splits[name].start
            found += [(first + each, int(bits[each])) for each in rows.tolist()]
        return sorted(found, key=lambda each: (each[1], each[0]))[:_MOST_ALIKE]

    def close(self) -> None:
        """Close the files."""
        self._lifetime.close()


def _path_table(facts: Facts) -> PathTable:
    return PathTable(
        names for split in facts.splits.values() for _, names in split.paths(0, len(split.flags))
    )
