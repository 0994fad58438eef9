"""Create the HDF5 structure of a file, and read the byte offsets of its rows.

The recipe (h5py and HDF5 calls, all measured; see `create_file`):

- ``meta_block_size`` puts all metadata into one block at the start of the file, so that the rows
  of each column are contiguous although they are chunked and resizable;
- early allocation with fill time "never" gives every chunk its offset without writing it;
- ``libver`` v110 keeps the chunk index at 8 bytes per chunk, and HDF5 1.10 can read it;
- no object times, fixed-length text: the same plan gives the same bytes;
- HDF5 writes only metadata. When it cannot write a row, it drops it silently as the dataset is
  closed, and then crashes (HDF5 1.14 and 2.0), so rows are written without it, by offset.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5g, h5p, h5s, h5t, h5z
from numpy.typing import NDArray

from batchify import choices
from batchify.choices import canonical_json
from batchify.common import durable
from batchify.common.text import printable
from batchify.errors import BatchifyError, FileFormatError
from batchify.format import schema
from batchify.format.rows import RowWriter
from batchify.format.schema import FileLayout, RowOffsets

_IMAGE_SUBCLASS = {3: "IMAGE_TRUECOLOR", 1: "IMAGE_GRAYSCALE"}
_INTERPRETATION = {3: "rgb-image", 4: "rgba-image"}  # NeXus has no name for (H, W, 1)


def versions() -> dict[str, str]:
    """Return the versions of h5py and HDF5, by name."""
    return {"h5py": h5py.__version__, "HDF5": h5py.version.hdf5_version}


def text_dtype(nbytes: int) -> np.dtype[np.bytes_]:
    """Return the dtype of fixed-length UTF-8 text."""
    dtype: np.dtype[np.bytes_] = h5py.string_dtype("utf-8", max(1, nbytes))
    return dtype


def create_file(path: bytes, file_layout: FileLayout, *, compressed: bool = False) -> None:
    """Write the complete structure of a file, with all attributes and the skipped files.

    Rows have offsets but are not written yet. HDF5 is closed when this returns.

    Parameters
    ----------
    path : bytes
        Truncated if it exists.
    compressed : bool
        Give the images a filter, and no chunks yet: `chunk_writer` adds them.
    """
    with _write_failures(), _new_file(path, file_layout.metadata_nbytes) as file:
        _write_root(file, file_layout)
        for split in file_layout.splits:
            group = h5py.Group(_new_group(file, split.name))
            if file_layout.store.is_encoded:
                _describe_encoded(group, file_layout)
            else:
                _set(group, "NX_class", "NXdata")
                _set(group, "signal", "images")
            for column in split.columns:
                level = file_layout.store.compression_level
                _make(group, column, level if compressed and column.name == "images" else None)
                if prefix := schema.HARD_LINKS.get(column.name):
                    file[f"{prefix}_{split.name}"] = group[column.name]
            if not file_layout.store.is_encoded:
                _describe_images(group, file_layout)
            _describe_flags(group["source_flags"])
        statistics = h5py.Group(_new_group(file, schema.STATISTICS))
        for split in file_layout.splits:
            for column in split.statistics:
                _make(statistics, column, None)
        _make(file, schema.digest_column(), None)
        # Last, as it may be large: attributes added later would move it.
        classes = file_layout.classes
        width = max(map(len, classes))
        file.attrs.create("classes", np.array(classes, text_dtype(width)))
    if file_layout.skipped:
        with h5py.File(path, "r", locking=False) as file:  # offsets of all columns take seconds
            where = {f"{schema.SKIPPED}/rows": dataset_row_offsets(file[schema.SKIPPED])}
        with RowWriter(path, where) as writer:
            write_skipped(writer, file_layout)


def write_skipped(writer: RowWriter, file_layout: FileLayout) -> None:
    """Write the skipped files, with their reasons."""
    if file_layout.skipped:
        rows = [(skipped.path, skipped.reason.encode()) for skipped in file_layout.skipped]
        table = np.array(rows, _skipped_dtype(file_layout))
        writer.put(schema.SKIPPED, 0, {"rows": as_bytes(table)})


@contextlib.contextmanager
def _write_failures() -> Iterator[None]:
    """Raise OSError for everything that HDF5 could not write: closing raises a RuntimeError.

    HDF5 writes again as it closes, and then that error hides the one of the first write.
    """
    try:
        yield
    except BatchifyError:
        raise
    except RuntimeError as error:
        first = error.__context__
        raise first if isinstance(first, OSError) else OSError(str(error)) from error


def as_bytes(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """Return rows of any dtype as their bytes."""
    return rows.view(np.uint8).reshape(len(rows), -1)


def _new_file(path: bytes, metadata_nbytes: int) -> h5py.File:
    """Open a new file with the low-level API: h5py.File cannot keep times out of the root."""
    creation = h5p.create(h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)
    access.set_meta_block_size(metadata_nbytes)
    access.set_file_locking(False, True)  # the journal holds the lock
    return h5py.File(h5f.create(path, h5f.ACC_TRUNC, fapl=access, fcpl=creation))


def _new_group(file: h5py.File, name: str) -> h5g.GroupID:
    """Create a group without times."""
    creation = h5p.create(h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    return h5g.create(file.id, name.encode(), gcpl=creation)


def _write_root(file: h5py.File, file_layout: FileLayout) -> None:
    _set(file, "format", schema.FORMAT)
    file.attrs.create("schema_version", schema.SCHEMA_VERSION, dtype="<i8")
    _set(file, "creator", schema.CREATOR)
    _set(file, "decoder", file_layout.decoder)
    _set(file, "config", canonical_json(file_layout.config))
    _set(file, "NX_class", "NXroot")
    if not file_layout.store.is_encoded:
        _set(file, "default", file_layout.splits[0].name)
    if file_layout.ignored:
        _set(file, schema.IGNORED, canonical_json(file_layout.ignored))
    if file_layout.skipped:
        count = len(file_layout.skipped)
        _make_dataset(
            file, schema.SKIPPED, _skipped_dtype(file_layout), (count,), _chunked((count,))
        )


def _skipped_dtype(file_layout: FileLayout) -> np.dtype[Any]:
    path_nbytes, reason_nbytes = file_layout.skipped_itemsizes
    return np.dtype([("path", text_dtype(path_nbytes)), ("reason", text_dtype(reason_nbytes))])


def _set(target: h5py.File | h5py.Group | h5py.Dataset, name: str, text: str) -> None:
    data = text.encode()
    target.attrs.create(name, np.bytes_(data), dtype=text_dtype(len(data)))


def _make(group: h5py.Group, column: schema.Column, gzip_level: int | None) -> None:
    """Create an empty, resizable column; all rows have offsets unless it is compressed."""
    creation = _chunked((column.chunk_rows, *column.shape[1:]))
    if gzip_level is not None:
        creation.set_alloc_time(h5d.ALLOC_TIME_INCR)
        if column.itemsize > 1:
            creation.set_shuffle()
        creation.set_deflate(gzip_level)
    text = column.dtype.startswith("S")
    dtype = text_dtype(column.itemsize) if text else np.dtype(column.dtype)
    _make_dataset(group, column.name, dtype, column.shape, creation)


def _chunked(chunk: tuple[int, ...]) -> h5p.PropDCID:
    """Return the properties of a new dataset: chunks are allocated early and never filled."""
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_chunk(chunk)
    creation.set_fill_time(h5d.FILL_TIME_NEVER)
    creation.set_obj_track_times(False)
    creation.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    return creation


def _make_dataset(
    group: h5py.Group,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    creation: h5p.PropDCID,
) -> None:
    space = h5s.create_simple(shape, (h5s.UNLIMITED, *shape[1:]))
    h5d.create(group.id, name.encode(), h5t.py_create(dtype, logical=True), space, creation)


def _describe_encoded(group: h5py.Group, file_layout: FileLayout) -> None:
    """Write the factor for decoded pixels; there are no pictures for viewers to show."""
    _set(group, "NX_class", "NXcollection")
    if file_layout.store.dtype != "float32":  # on bytes, it would scale them by convention
        group.attrs.create("scale_factor", file_layout.store.scale, dtype="<f4")


def _describe_images(group: h5py.Group, file_layout: FileLayout) -> None:
    """Write the attributes of conventions for readers and viewers: CF, HDF5 images, NXdata."""
    images = group["images"]
    channels = images.shape[-1]
    if file_layout.store.dtype != "float32":
        images.attrs.create("scale_factor", file_layout.store.scale, dtype="<f4")
    if subclass := _IMAGE_SUBCLASS.get(channels):
        ascii_text = {"CLASS": "IMAGE", "IMAGE_VERSION": "1.2", "IMAGE_SUBCLASS": subclass}
        for name, value in {**ascii_text, "INTERLACE_MODE": "INTERLACE_PIXEL"}.items():
            images.attrs.create(
                name, np.bytes_(value), dtype=h5py.string_dtype("ascii", len(value))
            )
    if interpretation := _INTERPRETATION.get(channels):
        _set(images, "interpretation", interpretation)
    if channels != 3:  # H5Web shows only RGB as it is; for others, the last two axes: one channel
        group.attrs.create("default_slice", np.array([b"0", b".", b".", b"0"], text_dtype(1)))


def _describe_flags(flags: h5py.Dataset) -> None:
    """Write the names of the bits, by the CF convention."""
    masks = [choices.flag_bit(name) for name in choices.FLAGS]
    flags.attrs.create("flag_masks", np.array(masks, "<u2"))
    _set(flags, "flag_meanings", " ".join(choices.FLAGS))


def read_row_offsets(path: bytes) -> dict[str, RowOffsets]:
    """Return the row offsets of each uncompressed column, as HDF5 reports them.

    Returns
    -------
    dict of str to RowOffsets
        Keys are ``split/column``, ``/column`` for the root, and ``skipped/rows``.
    """
    found = {}
    with h5py.File(path, "r", locking=False) as file:
        for group in (*choices.SPLITS, schema.STATISTICS):
            for name, dataset in file.get(group, {}).items():
                if not filters(dataset):
                    found[f"{group}/{name}"] = dataset_row_offsets(dataset)
        if schema.SKIPPED in file:
            found[f"{schema.SKIPPED}/rows"] = dataset_row_offsets(file[schema.SKIPPED])
        found[f"/{schema.DIGEST}"] = dataset_row_offsets(file[schema.DIGEST])
    return found


def dataset_row_offsets(dataset: h5py.Dataset) -> RowOffsets:
    """Return the row offsets of an uncompressed dataset.

    Raises
    ------
    FileFormatError
        If rows have no offset, several, or one past the end of the file.
    """
    chunk_rows: int = dataset.chunks[0]
    row_nbytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64))
    chunk_nbytes, inner = chunk_rows * row_nbytes, (0,) * (len(dataset.shape) - 1)
    starts: list[tuple[int, int]] = []  # (first row, offset) of each run; all the memory it takes
    ends: list[int] = []
    next_row = next_offset = -1

    def add(info: h5d.StoreInfo) -> None:  # called a million times: as little as possible
        nonlocal next_row, next_offset
        where, _, offset, _ = info
        row = where[0]
        if row != next_row or offset != next_offset or where[1:] != inner:
            if row % chunk_rows or where[1:] != inner:
                raise FileFormatError("a chunk has an impossible offset")
            starts.append((row, offset))
            ends.append(next_row)
        next_row, next_offset = row + chunk_rows, offset + chunk_nbytes

    dataset.id.chunk_iter(add)
    runs = sorted((*start, end) for start, end in zip(starts, [*ends[1:], next_row], strict=False))
    nbytes = dataset.file.id.get_filesize()
    if any(start + (last - first) * row_nbytes > nbytes for first, start, last in runs):
        raise FileFormatError("some rows are past the end of the file")
    ends = [0, *(last for _, _, last in runs)]
    if [first for first, _, _ in runs] != ends[:-1] or ends[-1] < dataset.shape[0]:
        raise FileFormatError(
            f"{printable(os.fsencode(dataset.file.filename))}: rows have no offset, or several"
        )
    return RowOffsets(row_nbytes, tuple(run[0] for run in runs), tuple(run[1] for run in runs))


def compress_chunk(data: bytes, nbytes: int, itemsize: int, level: int) -> bytes:
    """Return a chunk of `nbytes` as HDF5's filters would store it; the last may have fewer rows."""
    data = data.ljust(nbytes, b"\0")
    if itemsize > 1:  # HDF5's shuffle: all first bytes, then all second bytes …
        data = np.frombuffer(data, np.uint8).reshape(-1, itemsize).T.tobytes()
    return zlib.compress(data, level)


@contextlib.contextmanager
def chunk_writer(path: bytes) -> Iterator[Callable[[str, int, bytes], None]]:
    """Open a file for its compressed images; the value stores a chunk at a row of a split."""
    try:
        with (
            _write_failures(),
            h5py.File(path, "r+", libver=("v110", "v110"), locking=False) as file,
        ):

            def write(split: str, first_row: int, data: bytes) -> None:
                images = file[split]["images"]  # without the filters of HDF5: the chunk has them
                images.id.write_direct_chunk((first_row, *(0,) * (images.ndim - 1)), data)

            yield write
    except OSError as error:
        raise durable.io_error("compressing into", path, error) from error


def filters(dataset: h5py.Dataset) -> tuple[int, ...]:
    """Return the filter identifiers of a dataset, in the order they are applied."""
    creation: Any = dataset.id.get_create_plist()
    return tuple(creation.get_filter(i)[0] for i in range(creation.get_nfilters()))


GZIP_FILTERS = ((h5z.FILTER_DEFLATE,), (h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE))
