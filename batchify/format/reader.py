"""Open and validate a built file, or each shard of a folder.

A file may be hostile, so only what schema 1 describes is read: no soft, external
or user-defined links, no external storage, no virtual datasets, no filters except gzip, no
variable-length data. Sizes are compared with the size of the file before memory is allocated.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import h5py
import numpy as np
from h5py import h5g, h5t
from numpy.typing import NDArray

from batchify import choices
from batchify.common.closing import Closing
from batchify.common.paths import shown_path
from batchify.common.text import printable
from batchify.errors import FileAccessError, FileFormatError, Skipped
from batchify.format import schema, strict
from batchify.format.config import image_shape, kept_names, recorded_choice, unlabelled_splits
from batchify.format.rows import row_ends
from batchify.format.schema import RowOffsets
from batchify.format.shard_index import ShardIndex, ShardPath, shard_name
from batchify.format.strict import open_digest, open_skipped, open_statistics, read_header
from batchify.format.structure import dataset_row_offsets, filters

_TRIES = 5
_PIECE_ROWS = 4096

_DAMAGED = (OSError, RuntimeError, ValueError, KeyError, TypeError, IndexError, OverflowError)
"""Errors that h5py raises for damaged files; deep JSON raises RecursionError, a RuntimeError."""

_UNMAPPABLE = (errno.ENODEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What mmap answers on network and FUSE file systems without it."""


class Reader(Closing):
    """An open, checked file.

    Parameters
    ----------
    structure_only : bool
        Do not read any rows: the file may have none yet.

    Raises
    ------
    FileMissingError
        If there is no such file.
    FileAccessError
        If it cannot be opened.
    FileFormatError
        If it is not a complete batchify file of a schema version that this release reads.
    """

    def __init__(
        self, path: str | bytes | os.PathLike[str], *, structure_only: bool = False
    ) -> None:
        self.path = os.fsencode(path)
        self.shown = shown_path(path)
        for _ in range(_TRIES):
            self.fd = strict.open_signed(self.path, printable(self.shown))
            self.nbytes = os.fstat(self.fd).st_size
            try:
                self._file = _opened(self.path)
            except _DAMAGED as error:
                os.close(self.fd)
                raise self._refusal(error) from error
            if _identity(os.stat(self.path)) == self.identity:
                break
            self.close()  # another file took the name meanwhile
        else:
            raise FileAccessError(f"{printable(self.shown)} is replaced repeatedly")
        self._offsets: dict[tuple[str, str], RowOffsets] = {}
        self._mapped: NDArray[np.uint8] | None = None
        try:
            root = self._file.id
            names = strict.hard_links(root, "/")
            self.header = read_header(root)
            config = self.header.config
            self.store = recorded_choice({"store": "decoded", **config}, "store", choices.STORES)
            self.is_encoded = self.store != "decoded"
            self.image_shape = image_shape(config)
            self.image_dtype = np.dtype(
                choices.STORED_DTYPES[recorded_choice(config, "dtype", choices.DTYPES)]
            )
            self.digest_dataset = open_digest(root, self.nbytes)
            is_made = structure_only or any(self.digest_dataset[()])
            self._has_slots = self.store in choices.REENCODED_STORES and not is_made
            self._unlabelled = unlabelled_splits(config)
            self.kept = kept_names(config)
            """The columns of --keep-columns."""
            self.has_appearance = config.get("appearance") is True
            self.columns: dict[str, tuple[schema.Column, ...]] = {}
            """The columns of each split, as schema 1 describes them."""
            self.splits = {
                name: self._split(strict.open_group(root, name), name)
                for name in choices.SPLITS
                if name in names
            }
            if not self.splits:
                raise FileFormatError("it has no split")
            for name in self.splits if self.is_encoded and not structure_only else ():
                self._row_ends(name, gaps=self._has_slots)  # from here on, they can be trusted
            nbytes = self.nbytes
            self.statistics = open_statistics(root, self.splits, self.image_shape[-1], nbytes)
            self.skipped_table = open_skipped(root, nbytes) if schema.SKIPPED in names else None
        except _DAMAGED as error:
            self.close()
            raise self._refusal(error) from error

    def finished(self) -> Reader:
        """Return the file itself, unless a build has not finished it: its rows may be zeros.

        Raises
        ------
        FileFormatError
            If it has no digest yet, which a build writes last; the file is closed then.
        """
        if not any(self.digest_dataset[()]):
            self.close()
            raise FileFormatError(
                f"{printable(self.shown)} is unfinished; run the command that builds it again"
            )
        return self

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the open file, even if another file has its name now."""
        return _identity(os.fstat(self.fd))

    @property
    def root(self) -> h5g.GroupID:
        """The root group."""
        return self._file["/"].id

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Turn any error that HDF5 raises for damage into a FileFormatError with the path."""
        try:
            yield
        except _DAMAGED as error:
            raise self._refusal(error) from error

    def scale_factor(self, split: str) -> np.float32 | None:
        """Return the factor for the stored pixels of a split; None if there is none."""
        with self.refusing():
            if self.is_encoded:
                owner = strict.open_group(self.root, split)
            else:
                owner = self.splits[split]["images"].id
            if "scale_factor" not in strict.attribute_names(owner):
                return None
            value = strict.attribute(owner, "scale_factor", h5t.FLOAT)
            if value.ndim or value.dtype != np.float32:
                raise FileFormatError(f"scale_factor of {split} is not a single float32")
            return np.float32(value[()])

    def channel_statistics(self, split: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of each channel of a split's images, rescaled.

        NaN if there are no images.
        """
        with self.refusing():
            mean, std = (self.statistics[f"{kind}_{split}"][()] for kind in ("mean", "std"))
            if self.rows(split) and not np.isfinite([mean, std]).all():
                raise FileFormatError(f"{schema.STATISTICS} of {split} are not finite")
        return tuple(mean.tolist()), tuple(std.tolist())

    def class_mode(self, split: str) -> str:
        """Return the class mode of a split: ``none`` if only this split has no labels."""
        mode = recorded_choice(self.header.config, "class_mode", choices.CLASS_MODES)
        return "none" if split in self._unlabelled else mode

    def rows(self, split: str) -> int:
        """Return the number of rows of a split."""
        return len(self.splits[split]["paths"])

    def ends(self, split: str) -> NDArray[np.int64]:
        """Return where the bytes of each row end in ``encoded``: see `row_ends`."""
        with self.refusing():
            return self._row_ends(split)

    def _row_ends(self, split: str, *, gaps: bool = False) -> NDArray[np.int64]:
        count, nbytes = self.rows(split), len(self.splits[split]["encoded"])
        return row_ends(self.pieces(split, "image_extents"), split, count, nbytes, gaps=gaps)

    @property
    def digest(self) -> bytes:
        """The stored SHA-256 of all content but the images."""
        with self.refusing():
            return bytes(self.digest_dataset[()])

    def row_offsets(self) -> dict[str, RowOffsets]:
        """Return the row offsets of all uncompressed columns; keys are ``split/column``."""
        with self.refusing():
            return {
                f"{split}/{name}": self.offsets(split, name)
                for split, columns in self.splits.items()
                for name, dataset in columns.items()
                if not filters(dataset)
            }

    def offsets(self, split: str, name: str) -> RowOffsets:
        """Return the row offsets of an uncompressed column; use it with `refusing`."""
        if (split, name) not in self._offsets:
            self._offsets[split, name] = dataset_row_offsets(self.splits[split][name])
        return self._offsets[split, name]

    def mapped(self) -> NDArray[np.uint8] | None:
        """Return all bytes of the file, mapped; None if the file system cannot map files."""
        if self._mapped is None:
            with os.fdopen(self.fd, "rb", closefd=False) as file:  # the open file, not its name
                try:
                    self._mapped = np.memmap(file, np.uint8, "r")
                except OSError as error:
                    if error.errno not in _UNMAPPABLE:
                        raise
        return self._mapped

    def note_path(self, path: bytes) -> None:
        """Note that the file was renamed."""
        self.path = self.shown = path

    def records(self, split: str) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        """Yield (first row, some rows of all columns but the images), in order."""
        columns = {
            name: data
            for name, data in self.splits[split].items()
            if name not in schema.IMAGE_COLUMNS
        }
        nbytes = sum(data.dtype.itemsize * math.prod(data.shape[1:]) for data in columns.values())
        at_once = max(1, schema.RECORDS_NBYTES // nbytes)
        with self.refusing():
            for start in range(0, len(columns["paths"]), at_once):
                yield start, {name: data[start : start + at_once] for name, data in columns.items()}

    def column(self, split: str, name: str) -> NDArray[Any]:
        """Return all rows of a column."""
        with self.refusing():
            rows: NDArray[Any] = self.splits[split][name][()]
        return rows

    def pieces(self, split: str, column: str) -> Iterator[NDArray[Any]]:
        """Yield the rows of an uncompressed column, in order, some thousand at a time."""
        dataset = self.splits[split][column]
        row_nbytes = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
        at_once = max(1, min(_PIECE_ROWS, schema.PIECE_NBYTES // row_nbytes))
        with self.refusing():
            for start in range(0, dataset.shape[0], at_once):
                yield dataset[start : start + at_once]

    def skipped(self) -> tuple[Skipped, ...]:
        """Return the skipped files, with their reasons."""
        if self.skipped_table is None:
            return ()
        with self.refusing():
            rows = self.skipped_table[()]
        return tuple(
            Skipped(bytes(path), bytes(reason).decode("utf-8", "replace"))
            for path, reason in zip(rows["path"], rows["reason"], strict=True)
        )

    def close(self) -> None:
        """Close the file; what was mapped of it stays, as long as it is used."""
        self._mapped = None
        self._file.close()
        os.close(self.fd)

    def _refusal(self, reason: Exception) -> FileFormatError:
        return FileFormatError(
            f"{printable(self.shown)} is not a valid batchify file: {printable(str(reason))}"
        )

    def _split(self, group: h5g.GroupID, name: str) -> dict[str, h5py.Dataset]:
        """Return the columns of a split, after comparing each with schema 1."""
        strict.hard_links(group, name)
        paths = strict.open_dataset(group, name, "paths", self.nbytes)
        if len(paths.shape) != 1:
            raise FileFormatError(f"{name}/paths has the wrong shape")
        encoded_nbytes = None
        if self.is_encoded:
            encoded_nbytes = strict.open_dataset(group, name, "encoded", self.nbytes).shape[0]
        self.columns[name] = schema.split_columns(
            paths.shape[0],
            self.image_shape,
            recorded_choice(self.header.config, "dtype", choices.DTYPES),
            self.class_mode(name),
            len(self.header.classes),
            paths.get_type().get_size(),
            encoded_nbytes,
            store=self.store,
            slots=self._has_slots,
            appearance=self.has_appearance,
            weights=self.header.config.get("weights") is True,
            label_path_nbytes=self._text_nbytes(group, name, "label_paths"),
            kept=[(each, self._kept_dtype(group, name, each)) for each in self.kept],
        )
        columns = {}
        for column in self.columns[name]:
            dataset = strict.open_dataset(group, name, column.name, self.nbytes)
            strict.check_column(dataset, f"{name}/{column.name}", column)
            columns[column.name] = h5py.Dataset(dataset)
        return columns

    def _kept_dtype(self, group: h5g.GroupID, split: str, name: str) -> str:
        """Return the dtype of a column of --keep-columns, which must be one of schema 1."""
        dataset = strict.open_dataset(group, split, name, self.nbytes)
        if dataset.get_type().get_class() == h5t.STRING:
            return f"S{dataset.get_type().get_size()}"
        dtype: str = dataset.dtype.str
        if dtype not in schema.KEPT_DTYPES:
            raise FileFormatError(
                f"{split}/{printable(name)} has a type that is not part of schema 1"
            )
        return dtype

    def _text_nbytes(self, group: h5g.GroupID, split: str, name: str) -> int:
        """Return the length of the texts of a column; 1 if there is no such column."""
        if name.encode() not in group:
            return 1
        return int(strict.open_dataset(group, split, name, self.nbytes).get_type().get_size())


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _opened(path: bytes) -> h5py.File:
    """Open without a lock: a finished file does not change, and some file systems have none.

    There is no chunk cache either: rows are read once, in large pieces.
    """
    try:
        return h5py.File(path, "r", locking=False, rdcc_nbytes=0)
    except OSError:
        return h5py.File(path, "r")  # if this process has it open already, with a lock


OTHER_BUILD = "it is not from the build of the shard index"


def is_listed(reader: Reader, name: str, index: ShardIndex) -> bool:
    """Return whether a file is the shard of that name, from the build that wrote the index."""
    header, splits = reader.header, list(reader.splits)
    split = splits[0]
    count = len(index.splits.get(split, ()))
    number = dict(header.config).get("shard")
    return (
        isinstance(number, int)
        and len(splits) == 1
        and name == shard_name(split, number, count)
        and dict(header.config) == {**index.config, "shard": number, "shards": count}
        and header.classes == index.classes
        and (header.creator, header.decoder) == (index.creator, index.decoder)
    )


def open_shards(
    shards: Iterable[ShardPath], index: ShardIndex
) -> Iterator[tuple[ShardPath, Reader]]:
    """Yield each shard of a folder with its open file, which is closed before the next opens.

    Raises
    ------
    FileFormatError
        If a shard cannot be read, or is not from the build that wrote the index.
    """
    for shard in shards:
        with shard.here() as path, Reader(path) as reader:
            if not is_listed(reader, shard.file.name, index):
                raise shard.damaged(OTHER_BUILD)
            yield shard, reader
