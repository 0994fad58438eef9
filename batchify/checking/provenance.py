"""Compare the rows of a file with the current image files."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from batchify.building.jobs import RedecodeJob, RowFlags, count_rows
from batchify.building.row_sources import (
    SampleIndex,
    changed_rows,
    count_stored_tasks,
    new_samples,
    present_rows,
    stored_keys,
    stored_tasks,
)
from batchify.checking.findings import Finding
from batchify.checking.verification import Findings
from batchify.common.excluded import PathList, is_recorded_list
from batchify.common.paths import is_relative
from batchify.common.progress import Progress, ProgressCallback
from batchify.common.text import printable
from batchify.dataset_options import DiscoverOptions
from batchify.datasets.dataset import Annotations, Dataset, join_samples
from batchify.datasets.discovery import discover, open_tree
from batchify.decoding.pillow_settings import decoder_text
from batchify.errors import DatasetError, OptionError
from batchify.format.reader import Reader
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.options import BuildOptions
from batchify.planning.listed_rows import listed_rows
from batchify.planning.planner import drawn_dataset, plan_found
from batchify.storage.packed import held_nbytes
from batchify.storage.tree import Tree
from batchify.workers import engine


def mask_crc32(reader: Reader, split: str, row: int) -> int:
    """Return the CRC-32 of a stored mask; 0 if the file has no masks."""
    if "label_sha256" not in reader.splits[split]:
        return 0
    with reader.refusing():
        return zlib.crc32(reader.splits[split]["labels"][row].tobytes())


def without_lists(options: DiscoverOptions) -> DiscoverOptions:
    """Return recorded options without lists of paths, of which a file has the SHA-256 alone."""
    return replace(options, exclude=tuple(p for p in options.exclude if not is_recorded_list(p)))


_AT_ONCE = 4096


class _Found:
    """The files of a column that exist."""

    def __init__(self) -> None:
        self.paths: list[list[bytes]] = []
        self.extents: list[NDArray[np.int64]] = []


def relisted(
    reader: Reader,
    source: str | os.PathLike[str],
    options: DiscoverOptions,
    *,
    timeout_s: float = IMAGE_TIMEOUT_S,
) -> Dataset:
    """Return the rows of a file whose images and masks exist in a dataset.

    Parameters
    ----------
    source : path
        The dataset; paths of rows that lead out of it are ignored.
    timeout_s : float
        Seconds that one file may take; see `batchify.datasets.discovery.open_tree`.
    """
    tree = open_tree(source, without_lists(options), timeout_s=timeout_s)
    found = {name: _Found() for name in ("paths", "label_paths")}
    for split in reader.splits:
        _look_up(tree, reader, split, found)
    images, masks = (
        join_samples(
            each.paths,
            np.zeros(sum(map(len, each.paths)), np.int32),
            np.concatenate(each.extents) if each.extents else None,
        )
        for each in found.values()
    )
    has_masks = any("label_paths" in columns for columns in reader.splits.values())
    return Dataset(
        source=tree.source,
        layout="manifest",
        classes=reader.header.classes,
        samples=images,
        splits=None,
        skipped=(),
        hidden=0,
        loose=0,
        other={},
        annotations=Annotations(masks=masks if has_masks else None),
    )


def _look_up(tree: Tree, reader: Reader, split: str, found: dict[str, _Found]) -> None:
    """Add the rows of a split whose files exist."""
    columns = reader.splits[split]
    names = [name for name in found if name in columns]
    for start in range(0, len(columns["paths"]), _AT_ONCE):
        with reader.refusing():
            pieces = {name: columns[name][start : start + _AT_ONCE].tolist() for name in names}
        absent: set[int] = set()
        extents = {}
        for name, paths in pieces.items():
            reasons, extents[name] = tree.find_files([p if is_relative(p) else b"" for p in paths])
            absent.update(reasons)
        kept = [i for i in range(len(pieces["paths"])) if i not in absent]
        for name, paths in pieces.items():
            found[name].paths.append([paths[i] for i in kept])
            if (numbers := extents[name]) is not None:
                found[name].extents.append(numbers[kept])


class SourceCheck:
    """Compares the rows of a file, or of several shards, with the current dataset.

    Parameters
    ----------
    path : path
        The dataset.
    timeout_s : float
        Seconds that a file may take while a remote dataset is listed.
    found : Findings
        Receives the differences.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        timeout_s: float,
        workers: engine.Workers,
        found: Findings,
        report: ProgressCallback,
    ) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._workers = workers
        self._found = found
        self._report = report
        self._index: SampleIndex | None = None
        self._options = BuildOptions()

    def check(
        self,
        reader: Reader,
        options: BuildOptions,
        redecode: int | str | None,
        *,
        has_all_rows: bool,
    ) -> tuple[int, int]:
        """Compare the rows of a file with the dataset.

        Parameters
        ----------
        options : BuildOptions
            The options that the file records.
        redecode : int, str or None
            How many sources to decode again, or ``"all"``.
        has_all_rows : bool
            The file has all rows, so that everything else in the dataset is new.

        Returns
        -------
        hashed, decoded : int
            Sources.
        """
        index = self._index
        if index is None:
            index = SampleIndex(self._listed(reader, options))
            if held := held_nbytes(index.dataset.source):
                self._workers.fit(held)
            if options.manifest is None:  # the same for all shards
                self._index = index
        self._options = options
        if has_all_rows:
            skipped = frozenset(entry.path for entry in reader.skipped())
            self._add_new(stored_keys(reader), index, skipped)
        present, hashed = self._hash_sources(reader, index, options)
        if redecode is None:
            return hashed, 0
        return hashed, self._decode_sources(reader, index, options, _drawn(present, redecode))

    def check_new(self, keys: NDArray[np.uint64]) -> None:
        """Find the files of the dataset that no row has, given the keys of all rows."""
        if self._index is not None:
            self._add_new(keys, self._index)

    def _add_new(
        self,
        keys: NDArray[np.uint64],
        index: SampleIndex,
        skipped: frozenset[bytes] | None = None,
    ) -> None:
        drawn = drawn_dataset(index.dataset, self._options, self._workers, self._report)
        message = "it is not in the file"
        options = self._options
        new: Iterable[bytes] = new_samples(keys, drawn)
        if options.split.exclude_rows or any(map(is_recorded_list, options.discover.exclude)):
            new = list(new)
            if self._is_list(new, index.dataset, skipped):
                return
            message += ", which was built with a list of what to exclude"
        for path in new:
            self._found.add(Finding("new", message, path=path))

    def _is_list(
        self, new: list[bytes], dataset: Dataset, skipped: frozenset[bytes] | None
    ) -> bool:
        """Return whether the new files are exactly those of the only list that a file records.

        It records the SHA-256 of the list alone.

        Parameters
        ----------
        skipped : frozenset of bytes or None
            The files that the build skipped; None if that is not known.
        """
        options = self._options
        lists = [*filter(is_recorded_list, options.discover.exclude), *options.split.exclude_rows]
        if len(lists) != 1:
            return False
        if not options.split.exclude_rows:
            return PathList(new, "") == lists[0]
        if skipped is None:
            return False
        plain = replace(options, split=replace(options.split, exclude_rows=()))
        try:
            plan, _ = plan_found(dataset, plain, self._workers, self._report)
        except (DatasetError, OptionError):  # of a dataset that has changed
            return False
        return listed_rows(plan, frozenset(new), skipped) == lists[0]

    def _listed(self, reader: Reader, options: BuildOptions) -> Dataset:
        """Return the current dataset: its folders, or the files of a manifest's rows."""
        if options.manifest is None:
            split, known = options.split, without_lists(options.discover)
            is_drawn = split.limit is not None or split.max_per_class is not None
            needs_labels = is_drawn and options.store.class_mode != "none"  # the draw needs them
            return discover(self._path, known, needs_labels=needs_labels, timeout_s=self._timeout_s)
        return relisted(reader, self._path, options.discover, timeout_s=self._timeout_s)

    def _hash_sources(
        self, reader: Reader, index: SampleIndex, options: BuildOptions
    ) -> tuple[RowFlags, int]:
        """Hash the sources; return which rows still have theirs, and how many were hashed."""
        found, present = self._found, present_rows(reader, index)
        message = "it is not in the dataset any more"
        if index.dataset.annotations.masks is not None:
            message = "it, or its mask, is not in the dataset any more"
        for split, mask in present.items():
            for row in np.flatnonzero(~mask).tolist():
                path = bytes(reader.splits[split]["paths"][row])
                found.add(Finding("missing", message, split, row, path))
        total = count_rows(present)

        def step(done: int) -> None:
            self._report(Progress("hash", done, total, found.counts["changed"]))

        limit = options.decode.max_file_size
        for stale in list(changed_rows(reader, index, limit, present, self._workers, step)):
            present[stale.split][stale.row] = False
            found.add(Finding("changed", stale.reason, stale.split, stale.row, stale.path))
        return present, total

    def _decode_sources(
        self, reader: Reader, index: SampleIndex, options: BuildOptions, wanted: RowFlags
    ) -> int:
        """Decode the sources of some rows again and compare the pixels; return how many."""
        decode = replace(options.decode, strict_decode=False)  # pixels alone are compared
        store = replace(options.store, appearance=False)
        job = RedecodeJob(index.dataset.source, decode, store)
        total, done = count_rows(wanted), 0
        mine = decoder_text(options.decode.plugins, options.store.store)
        theirs = reader.header.decoder
        by = ""
        if mine != theirs:
            by = f" (the file was decoded by {printable(theirs)}, this is {mine})"
        tasks, total_tasks = stored_tasks(reader, wanted, index), count_stored_tasks(wanted)
        for task, decoded in self._workers.run(job, tasks, total=total_tasks):
            proof_of = "channel_sums" if options.store.keeps_files else "row_crc32"
            stored = reader.splits[task.split][proof_of]
            before = stored[task.start : task.start + len(decoded)]
            for i, (again, proof) in enumerate(zip(decoded, before, strict=True)):
                row = task.start + i
                reason = again.reason and f"it cannot be decoded any more: {again.reason}{by}"
                now = again.channel_sums or again.row_crc32.to_bytes(4, "little")
                if not reason and now != proof.tobytes():
                    reason = f"decoding it again gives different pixels{by}"
                if not reason and again.mask_crc32 != mask_crc32(reader, task.split, row):
                    reason = f"decoding its mask again gives other values{by}"
                if reason:
                    path = task.files[i].path
                    self._found.add(Finding("pixels", reason, task.split, row, path))
            done += len(decoded)
            bad = self._found.counts["pixels"]
            self._report(Progress("decode", done, total, bad, task.split))
        return done


def _drawn(present: RowFlags, count: int | str) -> RowFlags:
    """Return `count` of the marked rows, drawn evenly; all if there are no more."""
    total = count_rows(present)
    if not isinstance(count, int) or count >= total:
        return present
    marked = {name: np.flatnonzero(mask) for name, mask in present.items()}
    drawn = np.random.RandomState(0).permutation(total)[:count]
    wanted, before = {}, 0
    for name, rows in marked.items():
        mine = drawn[(drawn >= before) & (drawn < before + len(rows))] - before
        wanted[name] = np.zeros(len(present[name]), np.bool_)
        wanted[name][rows[mine]] = True
        before += len(rows)
    return wanted
