"""Verify a file: compare it with its checksums, and with its image files."""

from __future__ import annotations

import contextlib
import os
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
from batchify.datasets.discovery import holds_shards
from batchify.errors import FileFormatError, FileMissingError, OptionError
from batchify.format.checksums import Records, content_digest, link_faults, record_sums
from batchify.format.config import recorded_options
from batchify.format.intact import damaged_images
from batchify.format.reader import OTHER_BUILD, Reader, is_listed
from batchify.format.shard_index import INDEX_NAME, ShardFile, ShardIndex, ShardPath
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.loading.shards import Part, open_copy, open_folder, read_index_bytes
from batchify.options import BuildOptions
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
    path : path or URL
        A file, or a folder of shards. At a URL, one file at a time is downloaded to the folder for
        temporary files; with `quick`, all but its images.
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
    FileMissingError, FileAccessError, RemoteError
    DatasetNotFoundError, DatasetError
        If `source` is not a dataset.
    OptionError

    Notes
    -----
    Memory: some MiB per thread that reads images; with `source`, 50 bytes per image more.
    """
    _check_options(source, redecode, workers, image_timeout_s)
    with reporting(progress) as report, contextlib.ExitStack() as lifetime:
        verifier = Verifier(report, quick=quick)
        if source is not None:
            pool = lifetime.enter_context(engine.Workers(workers, image_timeout_s))
            verifier.compare_with(source, pool, image_timeout_s)
        if holds_shards(path):
            verifier.check_shards(path, redecode)
        elif quick:
            verifier.check_file(lifetime.enter_context(open_copy(path, "records")), redecode)
        else:
            verifier.check_file(lifetime.enter_context(local_copy(path, report)), redecode)
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

    def check_shards(self, folder: str | os.PathLike[str], redecode: int | str | None) -> None:
        """Check all shards of a folder, here or at a URL, and that they match its index."""
        part: Part = "records" if self._quick else "copy"
        with contextlib.ExitStack() as lifetime:
            try:
                index, shards = lifetime.enter_context(open_folder(folder, part, is_partial=True))
            except FileFormatError as error:
                self._found.add(Finding("structure", str(error)))
                return
            listing = _Listing(index)
            total, before = max(1, sum(index.rows.values())), 0
            for shard in shards:
                share, after = redecode, before + shard.file.rows
                if isinstance(redecode, int):  # for all shards together
                    share = redecode * after // total - redecode * before // total
                before = after
                self._found.shard = shard.name
                self._check_shard(shard, share, listing)
            for self._found.shard, fault in listing.all_faults(read_index_bytes(folder)):
                self._found.add(Finding("digest", fault))
        self._found.shard = ""
        if self._sources is not None:
            self._sources.check_new(np.concatenate([np.empty(0, np.uint64), *listing.keys]))

    def _check_shard(self, shard: ShardPath, redecode: int | str | None, listing: _Listing) -> None:
        try:
            with shard.here() as path:
                self.check_file(path, redecode, shard.file)
                listing.add(path, shard, has_sources=self._sources is not None)
                return
        except FileMissingError:
            self._found.add(Finding("structure", "there is no such file"))
        except FileFormatError as error:  # it ends early while it is fetched
            self._found.add(Finding("structure", str(error)))
        listing.is_whole = False

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


class _Listing:
    """Compares shards with the shard index.

    Rows and digests are compared when each shard is verified; a shard that cannot be read is
    reported there.
    """

    def __init__(self, index: ShardIndex) -> None:
        self._index = index
        self._faults: list[tuple[str, str]] = []
        self._skipped = 0
        self.is_whole = True
        self.keys: list[NDArray[np.uint64]] = []
        """The keys of the image files of each shard, for the search for new ones."""

    def add(self, path: bytes | os.PathLike[str], shard: ShardPath, *, has_sources: bool) -> None:
        """Compare a shard, of which there is a copy at `path`, with its entry."""
        try:
            with Reader(path) as reader:
                if reader.digest.hex() == shard.file.digest:
                    if not is_listed(reader, shard.file.name, self._index):
                        self._faults.append((shard.name, OTHER_BUILD))
                    if reader.nbytes != shard.file.nbytes:
                        fault = "its size does not match the shard index"
                        self._faults.append((shard.name, fault))
                self._skipped += len(reader.skipped())
                if has_sources:
                    self.keys.append(stored_keys(reader))
        except FileFormatError:
            self.is_whole = False

    def all_faults(self, data: bytes) -> list[tuple[str, str]]:
        """Return (file, how it differs from the shard index), with those of the index itself."""
        is_same = data == self._index.text()
        if is_same and not (self.is_whole and self._skipped != self._index.skipped):
            return self._faults
        return [*self._faults, (os.fsdecode(INDEX_NAME), "it is damaged")]
