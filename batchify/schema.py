"""Schema version 1 of the file: its names, dtypes and attributes.

Constants and tiny pure helpers; no NumPy, HDF5 or Pillow, so that the command line can offer the
choices without importing them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

from batchify._version import __version__

FORMAT = "batchify"
SCHEMA_VERSION = 1
CREATOR = f"batchify {__version__}"

SPLITS = ("train", "validation", "test")
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
"""Folder, in lower case -> the split that it is."""
SKIPPED = "skipped"
STATISTICS = "statistics"
DIGEST = "content_sha256"
DIGEST_NBYTES = 32
IMAGE_COLUMNS = ("images", "encoded")
"""What holds the images, as pixels or as the files' own bytes; all other columns are records."""
HARD_LINKS = {"images": "X", "labels": "y"}
"""Column -> prefix of its hard link in the root: ``/X_train`` is ``/train/images``."""

ClassMode = Literal["sparse", "categorical", "binary", "none", "multilabel", "regression", "mask"]
ColorMode = Literal["rgb", "rgba", "grayscale"]
Compression = Literal["none", "gzip"]
Dtype = Literal["uint8", "uint16", "float32"]
Exif = Literal["ignore", "apply"]
Fit = Literal["stretch", "crop", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
OnError = Literal["fail", "skip"]
Policy = Literal["keras", "stratified", "hash"]
Store = Literal["decoded", "encoded"]

CLASS_MODES: tuple[str, ...] = get_args(ClassMode)
COLOR_MODES: tuple[str, ...] = get_args(ColorMode)
COMPRESSIONS: tuple[str, ...] = get_args(Compression)
DTYPES: tuple[str, ...] = get_args(Dtype)
EXIFS: tuple[str, ...] = get_args(Exif)
FITS: tuple[str, ...] = get_args(Fit)
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)
ON_ERRORS: tuple[str, ...] = get_args(OnError)
POLICIES: tuple[str, ...] = get_args(Policy)
STORES: tuple[str, ...] = get_args(Store)

INDEXED_MODES = ("sparse", "categorical", "binary")
"""Class modes whose labels are classes."""
MANIFEST_MODES = ("multilabel", "regression", "mask")
"""Class modes whose labels only a manifest has; ``classes`` are its label columns."""

CHANNELS = {"rgb": 3, "rgba": 4, "grayscale": 1}
STORED_DTYPES = {"uint8": "|u1", "uint16": "<u2", "float32": "<f4"}

KERAS_EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")
EXTRA_EXTENSIONS = ("webp", "gif", "avif")

FLAGS = (
    "animated", "mpo", "exif_rotated", "alpha", "cmyk", "sixteen_bit", "palette", "grayscale",
)  # fmt: skip
"""Bit names of ``source_flags``, lowest bit first: what was special about a source image."""

MAX_CLASSES = 1 << 17
CHUNK_NBYTES = 65536
PIECE_NBYTES = 4 << 20
"""Rows that are read or copied at once take about this."""
RECORDS_NBYTES = 128 << 10
"""The same for records, which are held several times over while they are summed."""
_METADATA_BASE_NBYTES = 65536
_METADATA_CHUNK_NBYTES = 24
"""Above what HDF5 needs a chunk: 8 bytes of index, 20 where it is filtered (measured)."""
_CLASSES_HEADER_NBYTES = 45
_COMPACT_ATTRIBUTE_NBYTES = 65536
"""An attribute whose message has this size or more is stored among the raw data (measured)."""


def flag_bit(name: str) -> int:
    """Return the mask of the flag `name` in ``source_flags``."""
    return 1 << FLAGS.index(name)


def itemsize(dtype: str) -> int:
    """Return the bytes of one channel of one stored pixel, for a key of `STORED_DTYPES`."""
    return int(STORED_DTYPES[dtype][-1])


@dataclass(frozen=True, slots=True)
class Column:
    """One dataset of a split: shape (rows first), dtype as NumPy spells it.

    A dtype of ``S<n>`` is fixed-length text of n bytes, UTF-8 to HDF5.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    itemsize: int

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row."""
        return prod(self.shape[1:]) * self.itemsize

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk: whole rows, about 64 KiB, never more than there are."""
        return max(1, min(self.shape[0], CHUNK_NBYTES // self.row_nbytes))

    @property
    def chunks(self) -> int:
        """How many chunks hold the rows."""
        return -(-self.shape[0] // self.chunk_rows)

    @property
    def nbytes(self) -> int:
        """Bytes on disk uncompressed: all chunks, the last one whole."""
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
    weights: bool = False,
    label_path_nbytes: int = 1,
) -> tuple[Column, ...]:
    """Return the columns of a split of `rows` rows, in the order they are made.

    Parameters
    ----------
    rows : int
    image_shape : tuple of int
        (H, W, C).
    dtype : str
        A key of `STORED_DTYPES`.
    class_mode : str
        One of `CLASS_MODES`; ``none`` has no labels.
    n_classes : int
    path_nbytes : int
        Of the longest path.
    encoded_nbytes : int, optional
        Of all files together, where their own bytes are stored.
    weights : bool
        Rows have weights.
    label_path_nbytes : int
        Of the longest path of a mask.
    """
    height, width, _ = image_shape
    labels = {
        "sparse": [Column("labels", (rows,), "<i8", 8)],
        "binary": [Column("labels", (rows,), "<i8", 8)],
        "categorical": [Column("labels", (rows, n_classes), "<f4", 4)],
        "none": [],
        "multilabel": [Column("labels", (rows, n_classes), "<f4", 4)],
        "regression": [Column("labels", (rows, n_classes)[: 1 + (n_classes > 1)], "<f4", 4)],
        "mask": [
            Column("labels", (rows, height, width), "|u1", 1),
            Column("label_paths", (rows,), f"S{label_path_nbytes}", label_path_nbytes),
            Column("label_sha256", (rows, 32), "|u1", 1),
        ],
    }[class_mode]
    images = [Column("images", (rows, *image_shape), STORED_DTYPES[dtype], itemsize(dtype))]
    sums = []
    if encoded_nbytes is not None:
        images = [
            Column("encoded", (encoded_nbytes,), "|u1", 1),
            Column("image_extents", (rows, 2), "<i8", 8),
        ]
        sums = [Column("channel_sums", (rows, 3, image_shape[2]), "<i8", 8)]
    if weights:
        labels.append(Column("weights", (rows,), "<f4", 4))
    return (
        *images,
        *labels,
        Column("paths", (rows,), f"S{path_nbytes}", path_nbytes),
        Column("source_sha256", (rows, 32), "|u1", 1),
        Column("row_crc32", (rows,), "<u4", 4),
        Column("source_size", (rows, 2), "<i4", 4),
        Column("source_flags", (rows,), "<u2", 2),
        *sums,
        Column("record_crc32", (rows,), "<u4", 4),
    )


def learnt_columns(names: Collection[str]) -> tuple[str, ...]:
    """Return which of a split's columns decoding fills beside the images.

    The others are known before.
    """
    masks = ("labels", "label_sha256") if "label_sha256" in names else ()
    learnt = ("source_sha256", "row_crc32", "source_size", "source_flags", "channel_sums", *masks)
    return tuple(name for name in learnt if name in names)


def statistics_columns(split: str, channels: int) -> tuple[Column, ...]:
    """Return the datasets of ``/statistics`` that are of a split, with a value for each channel.

    Mean and standard deviation of the images, rescaled.
    """
    return (
        Column(f"mean_{split}", (channels,), "<f8", 8),
        Column(f"std_{split}", (channels,), "<f8", 8),
    )


def digest_column() -> Column:
    """Return the dataset in the root that holds the SHA-256 of all content but the images."""
    return Column(DIGEST, (DIGEST_NBYTES,), "|u1", 1)


def metadata_nbytes(columns: tuple[Column, ...], attribute_nbytes: int) -> int:
    """Return the size of the one block at the head of the file that takes all its metadata."""
    needed = (
        _METADATA_BASE_NBYTES
        + 2 * attribute_nbytes
        + _METADATA_CHUNK_NBYTES * sum(column.chunks for column in columns)
    )
    return -(-needed // 4096) * 4096


def classes_nbytes(classes: int, name_nbytes: int) -> int:
    """Return what the ``classes`` attribute takes outside of the metadata block.

    Parameters
    ----------
    classes : int
    name_nbytes : int
        Of the longest name.
    """
    message = classes * name_nbytes + _CLASSES_HEADER_NBYTES
    return message if message >= _COMPACT_ATTRIBUTE_NBYTES else 0
