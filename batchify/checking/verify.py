"""Verify a file: compare it with its checksums, and with its image files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.building.row_sources import stored_keys
from batchify.checking.findings import Finding
from batchify.checking.provenance import SourceCheck
from batchify.checking.verification import Findings, Verification
from batchify.choices import check_at_least, check_workers
from batchify.common.paths import shown_path
from batchify.common.progress import Progress, ProgressCallback, reporting
from batchify.errors import FileFormatError, FileMissingError, OptionError
from batchify.format.checksums import Records, content_digest, link_faults, record_sums
from batchify.format.config import recorded_options
from batchify.format.images import damaged_images
from batchify.format.reader import OTHER_BUILD, Reader, is_listed
from batchify.format.shard_index import (
    INDEX_NAME,
    ShardFile,
    ShardIndex,
    is_shard_folder,
    read_index,
)
from batchify.options import IMAGE_TIMEOUT_S, BuildOptions
from batchify.storage.transfer import local_copy
from batchify.workers import engine


def verify(
    path: str | os.PathLike[str],
    *,
    quick: bool = False,
    source: str | os.PathLike[str] | None = None,
    redecode: int | str | None = None,
    workers: int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    progress: ProgressCallback | bool | None = None,
) -> Verification:
    """Check that a file is intact, and on request that its image files are unchanged.

    Parameters
    ----------
    path : path
        A file, or a folder of shards.
    quick : bool
        Do not read the stored images: only structure, labels, paths, hashes and the digest.
    source : path, optional
        The dataset, a folder or an archive: all images are hashed again.
    redecode : int or str, optional
        How many images of `source` to decode again, drawn evenly, or ``"all"``.
    workers : int, optional
        Processes that hash and decode; by default, one per CPU that this process may use.
    image_timeout_s : float
        Seconds after which an image that is still being read or decoded is skipped.
    progress : callable or bool
        True shows a bar (tqdm). A function is called with a `Progress` for every stage and task.

    Returns
    -------
    Verification
        With all findings; damage raises no error.

    Raises
    ------
    FileMissingError, FileAccessError
    DatasetNotFoundError, DatasetError
        If `source` is not a dataset.
    OptionError

    Notes
    -----
    Memory: some MiB per thread that reads images; with `source`, 50 bytes per image more.
    """
    _check_options(source, redecode, workers, image_timeout_s)
    with reporting(progress) as report, contextlib.ExitStack() as lifetime:
        name = lifetime.enter_context(local_copy(path, report))
        verifier = Verifier(report, quick=quick)
        if source is not None:
            pool = lifetime.enter_context(engine.Workers(workers, image_timeout_s))
            verifier.compare_with(source, pool, image_timeout_s)
        if is_shard_folder(name):
            verifier.check_shards(os.fsencode(name), redecode)
        else:
            verifier.check_file(name, redecode)
    return verifier.result(shown_path(path))


def _check_options(
    source: object, redecode: int | str | None, workers: int | None, image_timeout_s: float
) -> None:
    if redecode is not None and source is None:
        raise OptionError("redecode needs the source folder (--source DIR)")
    if redecode is not None and redecode != "all":
        check_at_least("redecode", redecode, 1)  # type: ignore[arg-type]  # it refuses other types
    check_workers(workers, image_timeout_s)


class Verifier:
    """Checks a file, or the shards of a folder, and collects findings.

    Parameters
    ----------
    quick : bool
        Do not read the stored images.
    """

    def __init__(self, report: ProgressCallback, *, quick: bool) -> None:
        self._report = report
        self._quick = quick
        self._found = Findings()
        self._sources: SourceCheck | None = None
        self._rows = self._images = self._hashed = self._decoded = 0

    def compare_with(
        self, source: str | os.PathLike[str], workers: engine.Workers, timeout_s: float
    ) -> None:
        """Check the files that follow against a dataset as well."""
        self._sources = SourceCheck(source, timeout_s, workers, self._found, self._report)

    def result(self, path: bytes) -> Verification:
        """Return what was checked and found so far."""
        found = self._found
        counts = (self._rows, self._images, self._hashed, self._decoded)
        return Verification(path, *counts, found.counts, tuple(found.kept))

    def check_file(
        self,
        path: str | bytes | os.PathLike[str],
        redecode: int | str | None,
        shard: ShardFile | None = None,
    ) -> None:
        """Check a file, or a shard; damage that keeps it from being read further is a finding.

        Parameters
        ----------
        redecode : int, str or None
            How many of its images to decode again, or ``"all"``.
        shard : ShardFile, optional
            Its entry in the shard index.
        """
        try:
            with Reader(path) as reader:
                self._check_open_file(reader, redecode, shard)
        except FileFormatError as error:
            self._found.add(Finding("structure", str(error)))

    def _check_open_file(
        self, reader: Reader, redecode: int | str | None, shard: ShardFile | None
    ) -> None:
        rows = sum(map(reader.rows, reader.splits))
        self._rows += rows
        if shard is not None and (rows, reader.digest.hex()) != (shard.rows, shard.digest):
            message = "its rows or content_sha256 do not match the shard index"
            self._found.add(Finding("digest", message))
        options = self._check_structure(reader)
        self._check_records(reader)
        if not self._quick:
            self._check_images(reader, rows)
        if self._sources is not None:
            hashed, decoded = self._sources.check(
                reader,
                options,
                redecode,
                has_all_rows=shard is None and "shard" not in reader.header.config,
            )
            self._hashed += hashed
            self._decoded += decoded

    def check_shards(self, folder: bytes, redecode: int | str | None) -> None:
        """Check all shards of a folder, and that they match its index."""
        try:
            index = read_index(folder)
        except FileFormatError as error:
            self._found.add(Finding("structure", str(error)))
            return
        total, before = max(1, sum(index.rows.values())), 0
        keys = [np.empty(0, np.uint64)]
        for file in index.files:
            self._found.shard = file.name
            path = os.path.join(folder, os.fsencode(file.name))
            share, after = redecode, before + file.rows
            if isinstance(redecode, int):  # for all shards together
                share = redecode * after // total - redecode * before // total
            before = after
            try:
                self.check_file(path, share, file)
                if self._sources is not None:
                    with Reader(path) as reader:
                        keys.append(stored_keys(reader))
            except FileMissingError:
                self._found.add(Finding("structure", "there is no such file"))
            except FileFormatError:
                pass  # check_file has added a finding
        for self._found.shard, fault in list_faults(folder, index):
            self._found.add(Finding("digest", fault))
        self._found.shard = ""
        if self._sources is not None:
            self._sources.check_new(np.concatenate(keys))

    def _check_structure(self, reader: Reader) -> BuildOptions:
        """Check what opening the file does not check; return the options of the build."""
        for fault in link_faults(reader):
            self._found.add(Finding("structure", fault))
        options = recorded_options(reader.header.config)
        for name in reader.splits:
            scale = reader.scale_factor(name)
            wanted = None if options.store.dtype == "float32" else np.float32(options.store.scale)
            if scale != wanted:
                message = f"scale_factor of {name} is {scale}, but the config says {wanted}"
                self._found.add(Finding("structure", message))
        return options

    def _check_records(self, reader: Reader) -> None:
        """Check labels, paths, hashes and sizes of every row, and the digest of all of it."""
        n_classes = len(reader.header.classes)
        class_mode = str(reader.header.config["class_mode"])

        def look(split: str, start: int, records: Records) -> None:
            def add(code: str, message: str, wrong: NDArray[np.bool_]) -> None:
                for i in np.flatnonzero(wrong).tolist():
                    path = bytes(records["paths"][i])
                    self._found.add(Finding(code, message, split, start + i, path))

            damaged = record_sums(records) != records["record_crc32"]
            add("record", "checksum mismatch (record_crc32)", damaged)
            if "labels" in records:
                wrong, message = bad_labels(records["labels"], class_mode, n_classes)
                add("label", message, wrong & ~damaged)
            if "weights" in records:
                wrong = bad_weights(records["weights"])
                add("label", "its weight is negative, or not a number", wrong & ~damaged)

        if content_digest(reader, look) != reader.digest:
            self._found.add(Finding("digest", "content_sha256 mismatch"))

    def _check_images(self, reader: Reader, total: int) -> None:
        """Read every stored image and compare its checksum, in threads."""
        checked = 0
        for split, columns in reader.splits.items():
            for rows, damaged in damaged_images(reader, split):
                for row, reason in damaged:
                    path = bytes(columns["paths"][row])
                    self._found.add(Finding("image", reason, split, row, path))
                checked += rows
                bad = self._found.counts["image"]
                self._report(Progress("verify", checked, total, bad, split))
        self._images += checked


def bad_labels(
    labels: NDArray[Any], class_mode: str, n_classes: int
) -> tuple[NDArray[np.bool_], str]:
    """Return which stored labels are not valid, shape (n,), and why."""
    rows = labels.reshape(len(labels), -1)
    if class_mode == "mask":  # any value is valid
        return np.zeros(len(labels), np.bool_), ""
    if class_mode == "regression":
        return ~np.isfinite(rows).all(axis=1), "its label is not a finite number"
    is_truth = ((rows == 0) | (rows == 1)).all(axis=1)
    if class_mode == "multilabel":
        return ~is_truth, "its label has values other than 0 and 1"
    message = f"its label is not one of {n_classes} classes"
    if class_mode == "categorical":
        return ~(is_truth & (rows.sum(axis=1) == 1)), message
    return np.asarray((labels < 0) | (labels >= n_classes)), message


def bad_weights(weights: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which weights are not finite numbers of at least 0, shape (n,)."""
    return np.asarray(~(np.isfinite(weights) & (weights >= 0)))


def list_faults(folder: bytes, index: ShardIndex) -> Iterator[tuple[str, str]]:
    """Yield (file, how it differs from the shard index).

    Rows and digests are compared when each shard is verified; a shard that cannot be read is
    reported there.
    """
    skipped, is_whole = 0, True
    for file in index.files:
        path = os.path.join(folder, os.fsencode(file.name))
        try:
            with Reader(path) as reader:
                if reader.digest.hex() == file.digest:
                    if not is_listed(reader, file.name, index):
                        yield file.name, OTHER_BUILD
                    if os.path.getsize(path) != file.nbytes:
                        yield file.name, "its size does not match the shard index"
                skipped += len(reader.skipped())
        except (FileFormatError, FileMissingError):
            is_whole = False
    with open(os.path.join(folder, INDEX_NAME), "rb") as found:
        is_same = found.read() == index.text()
    if not is_same or (is_whole and skipped != index.skipped):
        yield os.fsdecode(INDEX_NAME), "it is damaged"
