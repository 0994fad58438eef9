"""Open the files of a URL as one: their splits, whose rows are fetched when they are read."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.paths import shown_url
from batchify.errors import FileFormatError, OptionError
from batchify.format.reader import Reader
from batchify.format.shard_index import ShardIndex
from batchify.loading.columns import KeptColumns, Paths
from batchify.loading.dataset_file import DatasetFile
from batchify.loading.joining import mismatch
from batchify.loading.origin import DecodeOverrides, Origin
from batchify.loading.remote.arrays import FileImages, RemoteColumn, RemoteImages, SmallColumn
from batchify.loading.remote.cache import Cache
from batchify.loading.remote.cache_options import CacheOptions
from batchify.loading.remote.fetching import ShardFiles
from batchify.loading.remote.files import find_files
from batchify.loading.remote.providers import CachedFiles, RangedFiles, Shard
from batchify.loading.split import Split
from batchify.loading.split_data import Statistics
from batchify.loading.statistics import joined_statistics
from batchify.storage.remote_file import RemoteFile

OpenFile = Callable[[bytes, DecodeOverrides, RemoteFile | None, bool, Reader | None], DatasetFile]
"""Opens a local file; its images are read from the remote one, if that is given, its columns may be
needed in memory, and it may be open already."""

_AT_ONCE = 8


def open_remote(
    urls: Sequence[str], overrides: DecodeOverrides, cache: CacheOptions | None, open_file: OpenFile
) -> DatasetFile:
    """Open the files of URLs; see `batchify.open`.

    Parameters
    ----------
    cache : CacheOptions or None
        None reads images by range requests.
    """
    return _RemoteDataset(urls, overrides, cache, open_file).open()


class _Opener:
    """Opens local copies of the files of URLs, and compares them with each other.

    Attributes
    ----------
    samples : dict of str to Split
        Each split of one of the files; empty until it is known.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        overrides: DecodeOverrides,
        open_file: OpenFile,
        *,
        is_ranged: bool,
    ) -> None:
        self._shards = shards
        self._overrides = overrides
        self._open_file = open_file
        self._is_ranged = is_ranged
        self.samples: dict[str, Split] = {}

    def open(self, number: int, path: bytes, in_memory: bool, reader: Reader | None) -> DatasetFile:
        """Open a file.

        Raises
        ------
        FileFormatError
            If it is of another kind.
        """
        file = self._shards[number].file
        remote = file if self._is_ranged else None
        found = self._open_file(path, self._overrides, remote, in_memory, reader)
        if self.samples:
            self.check(number, found)
        return found

    def check(self, number: int, found: DatasetFile) -> None:
        """Compare a file with the others."""
        file = self._shards[number].file.shown
        for name, rows in self._shards[number].rows.items():
            if name not in found or len(found[name]) != rows:
                raise FileFormatError(f"{file} does not have the rows that are listed")
            names = (f"{name} of {file}", f"{name} of the other files")
            if reason := mismatch(found[name], self.samples[name], names):
                raise FileFormatError(reason)


class _RemoteDataset:
    """What is known of the files of some URLs."""

    def __init__(
        self,
        urls: Sequence[str],
        overrides: DecodeOverrides,
        cache: CacheOptions | None,
        open_file: OpenFile,
    ) -> None:
        self._urls = tuple(urls)
        self._overrides = overrides
        self._cache = cache
        self._open_file = open_file
        self._index: ShardIndex | None = None
        self._shards = self._find()
        self._digest_of: dict[tuple[int, str], bytes] = {}
        self._opener = _Opener(self._shards, overrides, open_file, is_ranged=cache is None)
        shown = tuple(os.fsencode(shown_url(url)) for url in urls)
        if cache is None:
            self.files = ShardFiles(RangedFiles(self._shards, self._opener.open), shown)
        else:
            folder = Cache(cache)
            self.files = ShardFiles(CachedFiles(self._shards, folder, self._opener.open), shown)
            release = weakref.WeakMethod(self.files.release_idle)  # which refer to the cache
            folder.on_pressure = lambda: (found := release()) and found()

    def open(self) -> DatasetFile:
        """Return the splits; of the shards in an index, only the first of each split is read."""
        firsts: dict[str, int] = {}
        for number, each in enumerate(self._shards):
            for split in each.rows:
                firsts.setdefault(split, number)
        numbers = list(dict.fromkeys(firsts.values()))
        if self._index is None:
            numbers = list(range(len(self._shards)))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            heads = dict(zip(numbers, pool.map(self.files.head, numbers), strict=True))
        if self._index is None:
            for number, head in heads.items():
                self._shards[number].rows.update({name: len(split) for name, split in head.items()})
                for name in head:
                    firsts.setdefault(name, number)
                    self._digest_of[number, name] = head[name].origin.digests[0]
        first = heads[numbers[0]]
        for name, number in firsts.items():
            self._opener.samples[name] = heads[number][name]
        for number, head in heads.items():
            self._opener.check(number, head)
        names = [name for name in choices.SPLITS if name in firsts]
        splits = {name: self._split(name, heads[firsts[name]][name]) for name in names}
        shown = tuple(each.file.shown for each in self._shards)
        return DatasetFile(splits, first.classes, shown)

    def _find(self) -> list[Shard]:
        if len(self._urls) > 1:
            return [Shard(RemoteFile(url)) for url in self._urls]
        self._index, files = find_files(self._urls[0])
        if self._index is None:
            return [Shard(file) for file in files]
        entries = [(split, file) for split, shards in self._index.splits.items() for file in shards]
        found = [
            Shard(file, entry.digest, {split: entry.rows})
            for file, (split, entry) in zip(files, entries, strict=True)
        ]
        limit = None if self._cache is None else self._cache.limit
        largest = max(entry.nbytes for _, entry in entries)
        if limit is not None and limit < largest:
            raise OptionError(
                f"cache_limit is {limit:,} bytes, but a shard of {shown_url(self._urls[0])} has "
                f"{largest:,}; allow at least some shards"
            )
        return found

    def _split(self, name: str, sample: Split) -> Split:
        """Return a split of all files, given that of one of them."""
        numbers = [number for number, each in enumerate(self._shards) if name in each.rows]
        rows = [self._shards[number].rows[name] for number in numbers]
        origin = Origin(
            tuple(map(os.fsencode, self._urls)),
            name,
            self._digests(numbers, name),
            sum(rows),
            self._overrides,
            partial(_reopened, cache=self._cache, open_file=self._open_file),
        )

        def small(column: str, get: Callable[[Split], NDArray[Any]]) -> list[SmallColumn]:
            like = get(sample)
            return [
                SmallColumn(
                    self.files, number, f"{name}/{column}", lambda file: get(file[name]),
                    (count, *like.shape[1:]), like.dtype, origin,
                )
                for number, count in zip(numbers, rows, strict=True)
            ]  # fmt: skip

        def large(column: str) -> RemoteImages:
            like = getattr(sample, column)
            parts = [
                FileImages(self.files, number, count, like, origin, column)
                for number, count in zip(numbers, rows, strict=True)
            ]
            return RemoteImages(parts, origin, column, self.files, numbers)

        def numeric(column: str) -> Any:
            like = getattr(sample, column)
            if like is None or len(like.shape) > 2:
                return None if like is None else large(column)
            parts = small(column, lambda split: np.asarray(getattr(split, column)))
            return RemoteColumn(parts, origin, column, self.files)

        def statistics() -> Statistics | None:
            found = [self.files.head(number)[name]._statistics for number in numbers]
            known = [each for each in found if each is not None]
            return joined_statistics(rows, known) if len(known) == len(found) else None

        return Split(
            name,
            large("images"),
            numeric("labels"),
            # Small columns are like arrays.
            Paths(small("paths", lambda split: split.paths.stored[0])),  # type: ignore[arg-type]
            sample.classes,
            sample.scale_factor,
            origin,
            weights=numeric("weights"),
            class_mode=sample.class_mode,
            columns=KeptColumns(
                {each: small(each, partial(_kept, each)) for each in sample.columns}  # type: ignore[misc]
            ),
            sizes=small("size", lambda split: split._sizes[0]),  # type: ignore[arg-type]
            statistics=statistics,
        )

    def _digests(self, numbers: Sequence[int], name: str) -> tuple[bytes, ...]:
        if self._index is not None:
            return tuple(bytes.fromhex(self._shards[number].digest) for number in numbers)
        return tuple(self._digest_of[number, name] for number in numbers)


def _reopened(origin: Origin, cache: CacheOptions | None, open_file: OpenFile) -> Split:
    """Open a split again, in another process.

    Raises
    ------
    FileFormatError
        If its files are not those that they were.
    """
    file = open_remote(list(map(os.fsdecode, origin.files)), origin.overrides, cache, open_file)
    if origin.split not in file or file[origin.split].origin != origin:
        raise FileFormatError(f"{origin.shown} was rebuilt after it was opened; open it again")
    return file[origin.split]


def _kept(name: str, split: Split) -> NDArray[Any]:
    return split.columns.stored[name][0]
