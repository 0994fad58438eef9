"""Holds the rows of a file against what they were made of: the sources, as they are now."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchify import engine
from batchify.damage import mask_crc32
from batchify.dataset import Dataset, discover
from batchify.findings import Finding, Findings
from batchify.names import printable
from batchify.options import BuildOptions
from batchify.reader import Reader
from batchify.recorded import decoder_text
from batchify.redecode import DecodeJob
from batchify.relisted import relisted
from batchify.report import Progress
from batchify.resume import Masks
from batchify.sources import (
    SampleIndex,
    changed_rows,
    count_stored_tasks,
    new_samples,
    present_rows,
    stored_keys,
    stored_tasks,
)
from batchify.tasks import count_rows


@dataclass
class Sources:
    """What the sources of rows are held against.

    Parameters
    ----------
    path : path
        The dataset.
    redecode : int, str or None
        How many are to be decoded again.
    timeout_s : float
        For the walk of a remote one.
    crew : engine.Workers
    index : SampleIndex, or None
        What is in the dataset, when the first file has said how it was walked.
    """

    path: str | os.PathLike[str]
    redecode: int | str | None
    timeout_s: float
    crew: engine.Workers
    index: SampleIndex | None = None

    def check(
        self,
        reader: Reader,
        options: BuildOptions,
        found: Findings,
        report: Callable[[Progress], None],
        *,
        alone: bool,
    ) -> tuple[int, int]:
        """Hold the sources of a file's rows against the dataset.

        Parameters
        ----------
        reader : Reader
        options : BuildOptions
            As the file records them.
        found : Findings
        report : callable
        alone : bool
            The file has all rows, so that whatever else is in the dataset is new.

        Returns
        -------
        hashed, decoded : int
            Sources.
        """
        index = self.index
        if index is None:
            index = SampleIndex(self._listed(reader, options))
            if options.manifest is None:  # of all shards
                self.index = index
        if alone:
            check_new(stored_keys(reader), index, found)
        present, hashed = _check_sources(reader, index, options, self.crew, found, report)
        if self.redecode is None:
            return hashed, 0
        wanted = _drawn(present, self.redecode)
        return hashed, _check_pixels(reader, index, options, wanted, self.crew, found, report)

    def _listed(self, reader: Reader, options: BuildOptions) -> Dataset:
        """Return what is in the dataset now: by its folders, or of the rows of a manifest."""
        if options.manifest is None:
            return discover(self.path, options.discover, timeout_s=self.timeout_s)
        return relisted(reader, self.path, options.discover, timeout_s=self.timeout_s)


def check_new(keys: NDArray[np.uint64], index: SampleIndex, found: Findings) -> None:
    """Find the files of a dataset that are not among those of the rows."""
    for path in new_samples(keys, index.dataset):
        found.add(Finding("new", "it is not in the file", path=path))


def _check_sources(
    reader: Reader,
    index: SampleIndex,
    options: BuildOptions,
    crew: engine.Workers,
    found: Findings,
    report: Callable[[Progress], None],
) -> tuple[Masks, int]:
    """Hold the sources against a folder; return which rows still have theirs, and how many do."""
    present = present_rows(reader, index)
    for split, mask in present.items():
        for row in np.flatnonzero(~mask).tolist():
            path = bytes(reader.splits[split]["paths"][row])
            message = "it is not in the folder any more"
            if index.dataset.annotations.masks is not None:
                message = "it, or its mask, is not in the folder any more"
            found.add(Finding("missing", message, split, row, path))
    total = count_rows(present)

    def step(done: int) -> None:
        report(Progress("hash", done, total, found.counts["changed"]))

    limit = options.decode.max_file_size
    changed = list(changed_rows(reader, index, limit, present, crew, step))
    for stale in changed:
        present[stale.split][stale.row] = False
        found.add(Finding("changed", stale.reason, stale.split, stale.row, stale.path))
    return present, total


def _drawn(present: Masks, count: int | str) -> Masks:
    """Return `count` of the marked rows, drawn evenly; all of them where there are no more."""
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


def _check_pixels(
    reader: Reader,
    index: SampleIndex,
    options: BuildOptions,
    wanted: Masks,
    crew: engine.Workers,
    found: Findings,
    report: Callable[[Progress], None],
) -> int:
    """Decode the sources of some rows again; return how many."""
    job = DecodeJob(index.dataset.source, options.decode, options.store)
    total, done = count_rows(wanted), 0
    mine, theirs = decoder_text(), reader.header.decoder
    by = "" if mine == theirs else f" (the file was decoded by {printable(theirs)}, this is {mine})"
    tasks, total_tasks = stored_tasks(reader, wanted, index), count_stored_tasks(wanted)
    results = crew.run(job, tasks, total=total_tasks)
    for task, decoded in zip(stored_tasks(reader, wanted, index), results, strict=True):
        stored = reader.splits[task.split]["channel_sums" if reader.is_encoded else "row_crc32"]
        before = stored[task.start : task.start + len(decoded)]
        for i, (again, proof) in enumerate(zip(decoded, before, strict=True)):
            reason = again.reason and f"it cannot be decoded any more: {again.reason}{by}"
            now = again.channel_sums or again.row_crc32.to_bytes(4, "little")
            if not reason and now != proof.tobytes():
                reason = f"decoding it again gives other pixels{by}"
            if not reason and again.mask_crc32 != mask_crc32(reader, task.split, task.start + i):
                reason = f"decoding its mask again gives other values{by}"
            if reason:
                found.add(Finding("pixels", reason, task.split, task.start + i, task.files[i].path))
        done += len(decoded)
        report(Progress("decode", done, total, found.counts["pixels"], task.split))
    return done
