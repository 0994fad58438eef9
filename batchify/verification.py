"""Proves a file: its structure, every row, the digest, and what it was made of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchify import engine
from batchify.content import Records, content_digest, link_faults, record_sums
from batchify.copies import local_copy
from batchify.damage import bad_labels, bad_weights, damaged_images, mask_crc32
from batchify.dataset import Dataset, discover
from batchify.errors import FileFormatError, FileMissingError, OptionError
from batchify.findings import Finding, Findings, Verification
from batchify.names import printable
from batchify.options import IMAGE_TIMEOUT_S, BuildOptions
from batchify.processes import check_workers
from batchify.reader import Reader
from batchify.recorded import decoder_text, recorded_options
from batchify.redecode import DecodeJob
from batchify.relisted import relisted
from batchify.report import Progress
from batchify.resume import Masks
from batchify.shardindex import ShardFile, is_shard_folder, read_index
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
from batchify.urls import shown_path
from batchify.values import at_least


def verify(
    path: str | os.PathLike[str],
    *,
    quick: bool = False,
    source: str | os.PathLike[str] | None = None,
    redecode: int | str | None = None,
    workers: int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    progress: Callable[[Progress], None] | None = None,
) -> Verification:
    """Check all of a file against what was written, and on request against its sources.

    Parameters
    ----------
    path : path
        A file, or a folder of shards.
    quick : bool
        Leave out the stored images: only structure, labels, paths, hashes and the digest.
    source : path, optional
        The dataset, a folder or an archive: all images are hashed again.
    redecode : int or str, optional
        How many images of `source` to decode again, drawn evenly, or ``"all"``.
    workers : int, optional
        Processes that hash and decode; the CPUs that this one may use by default.
    image_timeout_s : float
        Seconds after which an image that is still being read or decoded is given up.
    progress : callable, optional
        Called with a `Progress` now and then.

    Returns
    -------
    Verification
        With findings, where there are any; nothing is raised for damage.

    Raises
    ------
    FileMissingError, FileAccessError
    DatasetNotFoundError, DatasetError
        If `source` is no dataset.
    OptionError

    Notes
    -----
    Memory: some MiB for each thread that reads images; with `source` also some 50 bytes an image.
    """
    _check_options(source, redecode, workers, image_timeout_s)
    report = progress or (lambda _: None)
    found = Findings()
    with contextlib.ExitStack() as lifetime:
        name = os.fsencode(lifetime.enter_context(local_copy(path, report)))
        sources = None
        if source is not None:
            crew = lifetime.enter_context(engine.Workers(workers, image_timeout_s))
            sources = _Sources(source, redecode, image_timeout_s, crew)
        if is_shard_folder(name):
            done = _verify_shards(name, quick, sources, found, report)
        else:
            done = _verify_file(name, quick, sources, found, report)
    return Verification(shown_path(path), *done, found.counts, tuple(found.kept))


class _Done(NamedTuple):
    """How many rows there are, and how many images, sources and decoded sources were looked at."""

    rows: int = 0
    images: int = 0
    sources: int = 0
    decoded: int = 0


@dataclass
class _Sources:
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


def _verify_file(
    path: bytes,
    quick: bool,
    sources: _Sources | None,
    found: Findings,
    report: Callable[[Progress], None],
    shard: ShardFile | None = None,
) -> _Done:
    """Check a file, or a shard of a list."""
    rows = images = hashed = decoded = 0
    try:
        with Reader(path) as reader:
            rows = sum(map(reader.rows, reader.splits))
            if shard is not None and (rows, reader.digest.hex()) != (shard.rows, shard.digest):
                found.add(Finding("digest", "its rows or content_sha256 are not those of the list"))
            options = _check_structure(reader, found)
            _check_records(reader, found)
            if not quick:
                images = _check_images(reader, found, report)
            if sources is not None:
                index = sources.index
                if index is None:
                    index = SampleIndex(_found(reader, sources, options))
                    if options.manifest is None:  # of all shards
                        sources.index = index
                if shard is None and "shard" not in reader.header.config:
                    _check_new(stored_keys(reader), index, found)
                present, hashed = _check_sources(
                    reader, index, options, sources.crew, found, report
                )
                if sources.redecode is not None:
                    wanted = _drawn(present, sources.redecode)
                    decoded = _check_pixels(
                        reader, index, options, wanted, sources.crew, found, report
                    )
    except FileFormatError as error:
        found.add(Finding("structure", str(error)))
    return _Done(rows, images, hashed, decoded)


def _verify_shards(
    folder: bytes,
    quick: bool,
    sources: _Sources | None,
    found: Findings,
    report: Callable[[Progress], None],
) -> _Done:
    """Check all shards of a folder, and that they are those of its list."""
    try:
        files = read_index(folder).files
    except FileFormatError as error:
        found.add(Finding("structure", str(error)))
        return _Done()
    total, before = sum(file.rows for file in files), 0
    redecode = None if sources is None else sources.redecode
    done = _Done()
    keys = []
    for file in files:
        found.shard = file.name
        path = os.path.join(folder, os.fsencode(file.name))
        if isinstance(redecode, int) and sources is not None:  # of all shards together
            after = before + file.rows
            sources.redecode = redecode * after // total - redecode * before // total
            before = after
        try:
            part = _verify_file(path, quick, sources, found, report, file)
            if sources is not None:
                with Reader(path) as reader:
                    keys.append(stored_keys(reader))
        except FileMissingError:
            found.add(Finding("structure", "there is no such file"))
        except FileFormatError:
            pass  # it is among the findings
        else:
            done = _Done(*map(sum, zip(done, part, strict=True)))
    found.shard = ""
    if sources is not None and sources.index is not None:
        _check_new(np.concatenate(keys), sources.index, found)
    return done


def _check_new(keys: NDArray[np.uint64], index: SampleIndex, found: Findings) -> None:
    """Find the files of a dataset that are not among those of the rows."""
    for path in new_samples(keys, index.dataset):
        found.add(Finding("new", "it is not in the file", path=path))


def _found(reader: Reader, sources: _Sources, options: BuildOptions) -> Dataset:
    """Return what is in the dataset now: by its folders, or of the rows that a manifest listed."""
    if options.manifest is None:
        return discover(sources.path, options.discover, timeout_s=sources.timeout_s)
    return relisted(reader, sources.path, options.discover, timeout_s=sources.timeout_s)


def _check_options(
    source: object, redecode: int | str | None, workers: int | None, image_timeout_s: float
) -> None:
    if redecode is not None and source is None:
        raise OptionError("redecode needs the source folder (--source DIR)")
    if redecode is not None and redecode != "all":
        at_least("redecode", redecode, 1)  # type: ignore[arg-type]  # it refuses what is no int
    check_workers(workers, image_timeout_s)


def _check_structure(reader: Reader, found: Findings) -> BuildOptions:
    """Check what the reader did not have to believe; return the options of the build."""
    for fault in link_faults(reader):
        found.add(Finding("structure", fault))
    options = recorded_options(reader.header.config)
    for name in reader.splits:
        scale = reader.scale_factor(name)
        wanted = None if options.store.dtype == "float32" else np.float32(options.store.scale)
        if scale != wanted:
            message = f"scale_factor of {name} is {scale}, but the config says {wanted}"
            found.add(Finding("structure", message))
    return options


def _check_records(reader: Reader, found: Findings) -> None:
    """Check labels, paths, hashes and sizes of every row, and the digest of all of it."""
    n_classes = len(reader.header.classes)
    class_mode = str(reader.header.config["class_mode"])

    def look(split: str, start: int, records: Records) -> None:
        damaged = record_sums(records) != records["record_crc32"]
        _add_rows(
            found,
            "record",
            "its checksum (record_crc32) is another",
            split,
            start,
            records,
            damaged,
        )
        if "labels" in records:
            wrong, message = bad_labels(records["labels"], class_mode, n_classes)
            _add_rows(found, "label", message, split, start, records, wrong & ~damaged)
        if "weights" in records:
            wrong = bad_weights(records["weights"])
            message = "its weight is negative, or not a number"
            _add_rows(found, "label", message, split, start, records, wrong & ~damaged)

    if content_digest(reader, look) != reader.digest:
        found.add(Finding("digest", "content_sha256 is not that of the content"))


def _add_rows(
    found: Findings,
    code: str,
    message: str,
    split: str,
    start: int,
    records: Records,
    wrong: NDArray[np.bool_],
) -> None:
    for i in np.flatnonzero(wrong).tolist():
        found.add(Finding(code, message, split, start + i, bytes(records["paths"][i])))


def _check_images(reader: Reader, found: Findings, report: Callable[[Progress], None]) -> int:
    """Read every stored image and compare its checksum, in threads."""
    total = sum(map(reader.rows, reader.splits))
    checked = 0
    for split, columns in reader.splits.items():
        for rows, damaged in damaged_images(reader, split):
            for row, reason in damaged:
                path = bytes(columns["paths"][row])
                found.add(Finding("image", reason, split, row, path))
            checked += rows
            report(Progress("verify", checked, total, found.counts["image"], split))
    return checked


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
