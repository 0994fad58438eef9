"""Export to one file of arrays, ``X_train`` and so on, as Keras' small datasets have them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from batchify.common import durable
from batchify.exporting.huggingface import column_name
from batchify.loading.columns import kept_kinds
from batchify.loading.dataset_file import DatasetFile
from batchify.loading.split import Split

_PIECE_NBYTES = 8 << 20
_MOST_ROWS = 4096


def write_npz(path: bytes, file: DatasetFile, report: Callable[[str, int], None]) -> None:
    """Write all splits to one file, without compression, as `numpy.savez` does; durably.

    Parameters
    ----------
    report : callable
        Called with the split and the rows of images that were written.

    Raises
    ------
    OutputIOError
        If the file cannot be written.

    Notes
    -----
    Memory: some MiB of rows.
    """
    try:
        with open(path, "wb") as raw:
            with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:
                for name, split in file.items():
                    for array, dtype, shape, pieces in _arrays(name, split):
                        _write_array(archive, array, dtype, shape, pieces)
                        if array.startswith("X_"):
                            report(name, len(split))
                names = np.array(file.classes, "U")
                if len(names):
                    _write_array(archive, "classes", names.dtype, names.shape, iter([names]))
            raw.flush()
            durable.sync(raw.fileno())
    except OSError as error:
        raise durable.io_error("writing", path, error) from error


_Array = tuple[str, np.dtype[Any], tuple[int, ...], Iterator[NDArray[Any]]]


def _arrays(name: str, split: Split) -> Iterator[_Array]:
    """Yield name, dtype, shape and rows of each array of a split."""
    columns = {"X": split.images, "y": split.labels, "weights": split.weights}
    for prefix, column in columns.items():
        if column is not None:
            yield f"{prefix}_{name}", column.dtype, column.shape, _rows(column)
    dtype = _text_dtype(_texts(split))
    paths = (np.array(piece, dtype) for piece in _texts(split))
    yield f"paths_{name}", dtype, (len(split),), paths
    taken = [*columns, "paths"]
    for kept, kind in kept_kinds(split.columns).items():
        label = column_name(kept, taken)
        taken.append(label)
        dtype = np.dtype(kind) if kind != "text" else _text_dtype(_kept(split, kept))
        values = (np.array(piece, dtype) for piece in _kept(split, kept))
        yield f"{label}_{name}", dtype, (len(split),), values


def _kept(split: Split, name: str) -> Iterator[NDArray[Any]]:
    for start in range(0, len(split), _MOST_ROWS):
        yield split.columns.rows(name, start, min(start + _MOST_ROWS, len(split)))


def _text_dtype(pieces: Iterable[Iterable[str]]) -> np.dtype[Any]:
    """Return the dtype of an array for the longest of some texts."""
    widths = (len(text) for piece in pieces for text in piece)
    return np.dtype(f"U{max(widths, default=0) or 1}")


def _rows(column: Any) -> Iterator[NDArray[Any]]:
    row_nbytes = max(1, column.dtype.itemsize * int(np.prod(column.shape[1:], dtype=np.int64)))
    at_once = max(1, min(_MOST_ROWS, _PIECE_NBYTES // row_nbytes))
    for start in range(0, len(column), at_once):
        yield np.asarray(column[start : start + at_once])


def _texts(split: Split) -> Iterator[list[str]]:
    for start in range(0, len(split), _MOST_ROWS):
        yield list(split.paths[start : start + _MOST_ROWS])


def _write_array(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    pieces: Iterator[NDArray[Any]],
) -> None:
    """Write an array in pieces of rows; entries have no time, so the same rows give the same."""
    entry = zipfile.ZipInfo(f"{name}.npy")  # of 1980
    with archive.open(entry, "w", force_zip64=True) as member:
        described = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(member, described)
        for piece in pieces:
            member.write(np.ascontiguousarray(piece).tobytes())
