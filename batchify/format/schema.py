"""Schema 1: the columns of a file, its layout, and the offsets of its rows.

Constants and small pure helpers, without NumPy, HDF5 or Pillow.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

from batchify._version import __version__
from batchify.choices import APPEARANCE, LOSSY_STORES, STORED_DTYPES, canonical_json, itemsize
from batchify.errors import Skipped
from batchify.image_options import StoreOptions

FORMAT = "batchify"
SCHEMA_VERSION = 1
CREATOR = f"batchify {__version__}"
SKIPPED = "skipped"
STATISTICS = "statistics"
IGNORED = "ignored"
DIGEST = "content_sha256"
DIGEST_NBYTES = 32

IMAGE_COLUMNS = ("images", "encoded")
"""The columns of images, as pixels or as encoded files; all other columns are records."""

HARD_LINKS = {"images": "X", "labels": "y"}
"""Column -> prefix of its hard link in the root: ``/X_train`` is ``/train/images``."""

MAX_CLASSES = 1 << 17
CHUNK_NBYTES = 65536

SLOTS_CHUNK_NBYTES = 64 << 20
"""The same for the slots of encoded images in an unfinished file, which take far more room."""

PIECE_NBYTES = 4 << 20
"""Target size of one read or copy of rows, in bytes."""

RECORDS_NBYTES = 128 << 10
"""The same for records, which need several copies in memory for their checksums."""

_METADATA_BASE_NBYTES = 65536

_METADATA_CHUNK_NBYTES = 24
"""More than HDF5 needs for a chunk: 8 bytes of index, 20 if it is filtered (measured)."""

_CLASSES_HEADER_NBYTES = 45

_COMPACT_ATTRIBUTE_NBYTES = 65536
"""An attribute whose message has this size or more is stored with the raw data (measured)."""


KEPT_DTYPES = {"<i8": 8, "<f8": 8, "|b1": 1}
"""Sizes of the numbers and truth values that a column of --keep-columns may have."""

Filler = Literal["plan", "decoding", "seal"]
"""Which stage of a build writes a column: before decoding, with the images, or at the end."""


@dataclass(frozen=True, slots=True)
class Column:
    """One dataset of the file: shape (rows first), dtype as NumPy spells it.

    A dtype of ``S<n>`` is fixed-length text of n bytes, UTF-8 to HDF5.

    Parameters
    ----------
    filled_by : str
        Columns filled by decoding are copied when rows are dropped, and checked on resume.
    chunk_nbytes : int
        About the size of a chunk.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    itemsize: int
    filled_by: Filler
    chunk_nbytes: int = CHUNK_NBYTES

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row."""
        return prod(self.shape[1:]) * self.itemsize

    @property
    def chunk_rows(self) -> int:
        """Rows per chunk: at least one row, at most all of them."""
        return max(1, min(self.shape[0], self.chunk_nbytes // self.row_nbytes))

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.shape[0] // self.chunk_rows)

    @property
    def nbytes(self) -> int:
        """Bytes on disk without compression: all chunks, including padding of the last."""
        return self.chunks * self.chunk_rows * self.row_nbytes


def split_columns(
    rows: int,
    image_shape: tuple[int, int, int],
    dtype: str,
    class_mode: str,
    n_classes: int,
    path_nbytes: int,
    encoded_nbytes: int | None = None,
    *,
    store: str = "encoded",
    slots: bool = False,
    appearance: bool = False,
    weights: bool = False,
    label_path_nbytes: int = 1,
    kept: Sequence[tuple[str, str]] = (),
) -> tuple[Column, ...]:
    """Return the columns of a split of `rows` rows, in the order they are created.

    Parameters
    ----------
    image_shape : tuple of int
        (H, W, C).
    dtype : str
        A key of `STORED_DTYPES`.
    class_mode : str
        One of `choices.CLASS_MODES`; ``none`` has no labels.
    path_nbytes : int
        Bytes of the longest path.
    encoded_nbytes : int, optional
        Bytes of all images together, if they are stored encoded.
    store : str
        One of `choices.STORES`, if they are.
    slots : bool
        Each has room for the largest image: see `batchify.format.rows.put_in_slots`.
    appearance : bool
        Whether rows have the columns of --appearance.
    weights : bool
        Whether rows have weights.
    label_path_nbytes : int
        Bytes of the longest path of a mask.
    kept : sequence of (str, str)
        Name and dtype of the columns of --keep-columns: one of `KEPT_DTYPES`, or ``S<n>``.
    """
    height, width, _ = image_shape
    labels = {
        "sparse": [Column("labels", (rows,), "<i8", 8, "plan")],
        "binary": [Column("labels", (rows,), "<i8", 8, "plan")],
        "categorical": [Column("labels", (rows, n_classes), "<f4", 4, "plan")],
        "none": [],
        "multilabel": [Column("labels", (rows, n_classes), "<f4", 4, "plan")],
        "regression": [
            Column("labels", (rows, n_classes)[: 1 + (n_classes > 1)], "<f4", 4, "plan")
        ],
        "mask": [
            Column("labels", (rows, height, width), "|u1", 1, "decoding"),
            Column("label_paths", (rows,), f"S{label_path_nbytes}", label_path_nbytes, "plan"),
            Column("label_sha256", (rows, 32), "|u1", 1, "decoding"),
        ],
    }[class_mode]
    images = [
        Column("images", (rows, *image_shape), STORED_DTYPES[dtype], itemsize(dtype), "decoding")
    ]
    sums, keeps_files = [], store == "encoded"
    chunk_nbytes = SLOTS_CHUNK_NBYTES if slots else CHUNK_NBYTES
    if encoded_nbytes is not None:
        images = [
            Column("encoded", (encoded_nbytes,), "|u1", 1, "decoding", chunk_nbytes),
            Column("image_extents", (rows, 2), "<i8", 8, "plan" if keeps_files else "decoding"),
        ]
        sums = [Column("channel_sums", (rows, 3, image_shape[2]), "<i8", 8, "decoding")]
        if store in LOSSY_STORES:
            sums.append(Column("psnr", (rows,), "<f4", 4, "decoding"))
    if appearance:
        measures = APPEARANCE.items()
        sums += [
            Column(each, (rows,), dtype, int(dtype[2:]), "decoding") for each, dtype in measures
        ]
    if weights:
        labels.append(Column("weights", (rows,), "<f4", 4, "plan"))
    further = [
        Column(name, (rows,), dtype, KEPT_DTYPES.get(dtype) or int(dtype[1:]), "plan")
        for name, dtype in kept
    ]
    return (
        *images,
        *labels,
        *further,
        Column("paths", (rows,), f"S{path_nbytes}", path_nbytes, "plan"),
        Column("source_sha256", (rows, 32), "|u1", 1, "decoding"),
        Column("row_crc32", (rows,), "<u4", 4, "decoding"),
        Column("source_size", (rows, 2), "<i4", 4, "decoding"),
        Column("source_flags", (rows,), "<u2", 2, "decoding"),
        *sums,
        Column("record_crc32", (rows,), "<u4", 4, "seal"),
    )


def with_encoded(columns: Iterable[Column], nbytes: int) -> tuple[Column, ...]:
    """Return columns with a number of bytes of encoded images, instead of their slots."""
    return tuple(
        replace(column, shape=(nbytes,), chunk_nbytes=CHUNK_NBYTES)
        if column.name == "encoded"
        else column
        for column in columns
    )


def statistics_columns(split: str, channels: int) -> tuple[Column, ...]:
    """Return the datasets of a split in ``/statistics``, with a value for each channel.

    They are the mean and the standard deviation of the images, rescaled.
    """
    return (
        Column(f"mean_{split}", (channels,), "<f8", 8, "seal"),
        Column(f"std_{split}", (channels,), "<f8", 8, "seal"),
    )


def digest_column() -> Column:
    """Return the dataset in the root with the SHA-256 of all content except the images."""
    return Column(DIGEST, (DIGEST_NBYTES,), "|u1", 1, "seal")


@dataclass(frozen=True, eq=False)
class SplitShape:
    """The datasets of one split."""

    name: str
    columns: tuple[Column, ...]

    @property
    def statistics(self) -> tuple[Column, ...]:
        """The datasets with a value for each channel of its images."""
        channels = next(
            column.shape[-1] for column in self.columns if column.name in ("images", "channel_sums")
        )
        return statistics_columns(self.name, channels)

    @property
    def decoded_columns(self) -> tuple[Column, ...]:
        """The columns, other than images, that are only known after decoding."""
        return tuple(
            column
            for column in self.columns
            if column.filled_by == "decoding" and column.name not in IMAGE_COLUMNS
        )


@dataclass(frozen=True, eq=False)
class FileLayout:
    """The layout of a file to create.

    Parameters
    ----------
    classes : tuple of bytes
        In the order of their indices.
    config : Mapping
        The options, as recorded in the file.
    decoder : str
        Names and versions of the libraries that decode, as recorded in the file.
    ignored : Mapping of str to int
        How many files were ignored because of their ending, by ending.
    """

    classes: tuple[bytes, ...]
    config: Mapping[str, Any]
    decoder: str
    store: StoreOptions
    splits: tuple[SplitShape, ...]
    skipped: tuple[Skipped, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def skipped_itemsizes(self) -> tuple[int, int]:
        """Bytes of the longest path and of the longest reason in ``/skipped``."""
        paths = max((len(s.path) for s in self.skipped), default=1)
        return paths, max((len(s.reason.encode()) for s in self.skipped), default=1)

    @property
    def metadata_nbytes(self) -> int:
        """Bytes of the block at the start of the file that holds all HDF5 metadata."""
        attributes = self._names_nbytes + len(canonical_json(self.config)) * 4
        if self.ignored:
            attributes += len(canonical_json(self.ignored)) * 4
        chunks = sum(column.chunks for column in (*self._columns, digest_column()))
        needed = _METADATA_BASE_NBYTES + 2 * attributes + _METADATA_CHUNK_NBYTES * chunks
        return -(-needed // 4096) * 4096

    @property
    def _names_nbytes(self) -> int:
        """Bytes of the names of the classes, each as long as the longest."""
        return len(self.classes) * max(map(len, self.classes))

    @property
    def _columns(self) -> Iterator[Column]:
        """All datasets of the splits."""
        for split in self.splits:
            yield from split.columns
            yield from split.statistics

    @property
    def nbytes(self) -> int:
        """Exact size of the uncompressed file; less if images are dropped later."""
        data = sum(column.nbytes for column in self._columns)
        data += sum(self.skipped_itemsizes) * len(self.skipped) + DIGEST_NBYTES
        classes = self._names_nbytes + _CLASSES_HEADER_NBYTES
        outside = classes if classes >= _COMPACT_ATTRIBUTE_NBYTES else 0
        return self.metadata_nbytes + data + outside


@dataclass(frozen=True, slots=True)
class RowOffsets:
    """The byte offsets of the rows of one column.

    Parameters
    ----------
    first_rows, offsets : tuple of int
        Runs of contiguous rows: the first row of each, and its byte offset.
    """

    row_nbytes: int
    first_rows: tuple[int, ...]
    offsets: tuple[int, ...]

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (byte offset, first row, last row + 1) for each run of bytes of some rows."""
        run = bisect.bisect_right(self.first_rows, start) - 1
        while start < stop:
            end = self.first_rows[run + 1] if run + 1 < len(self.first_rows) else stop
            end = min(end, stop)
            offset = self.offsets[run] + (start - self.first_rows[run]) * self.row_nbytes
            yield offset, start, end
            start, run = end, run + 1

    def ranges(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return (byte offset, number of bytes) for each run of bytes of some rows."""
        return [
            (offset, (last - first) * self.row_nbytes)
            for offset, first, last in self.extents(start, stop)
        ]
