"""Open built files for training: `batchify.open` and `batchify.load`.

Nothing that a fork or a thread could break stays open.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchify.choices import check_flag
from batchify.common.text import printable
from batchify.errors import FileFormatError, OptionError
from batchify.format.images import StoredPixels
from batchify.format.reader import Reader
from batchify.format.structure import filters
from batchify.loading.arrays import Column
from batchify.loading.columns import KeptColumns, Paths
from batchify.loading.dataset_file import DatasetFile
from batchify.loading.files import Path, accessing, find_paths, find_urls
from batchify.loading.joining import combined, mismatch, other_classes
from batchify.loading.origin import DecodeOverrides, Origin
from batchify.loading.remote.cache_options import cache_options
from batchify.loading.split import Split
from batchify.loading.split_data import Statistics
from batchify.loading.stored_array import StoredArray

if TYPE_CHECKING:
    from batchify.storage.remote_file import RemoteFile

Mapped = NDArray[np.uint8]
"""All bytes of a file."""


def _open_file(
    path: bytes,
    overrides: DecodeOverrides,
    remote: RemoteFile | None = None,
    in_memory: bool = False,
    reader: Reader | None = None,
) -> DatasetFile:
    """Open one file; its images are read from the remote file, if that is given.

    Parameters
    ----------
    reader : Reader, optional
        The file itself, if it is open already.
    """
    with (reader or Reader(path)).finished() as reader, accessing(path):
        mapped = None if in_memory else reader.mapped()
        classes = tuple(os.fsdecode(name) for name in reader.header.classes)
        splits = {
            name: _split(reader, mapped, name, classes, overrides, remote) for name in reader.splits
        }
        return DatasetFile(splits, classes, (os.fsdecode(path),))


def _split(
    reader: Reader,
    mapped: Mapped | None,
    name: str,
    classes: tuple[str, ...],
    overrides: DecodeOverrides,
    remote: RemoteFile | None,
) -> Split:
    columns = reader.splits[name]
    path = reader.path if remote is None else os.fsencode(remote.shown)
    origin = Origin((path,), name, (reader.digest,), reader.rows(name), overrides, reopen)
    images = _images(reader, mapped, name, origin, remote)
    scale = reader.scale_factor(name)
    if scale is None and images.dtype != np.float32:
        where = name if reader.is_encoded else f"{name}/images"
        raise FileFormatError(f"{printable(reader.path)}: {where} has no scale_factor")
    labels = _labels(reader, mapped, name, origin, remote) if "labels" in columns else None
    weights = _column(reader, mapped, name, "weights") if "weights" in columns else None
    class_mode = reader.class_mode(name)
    if labels is not None and class_mode in ("sparse", "binary"):
        known = (np.asarray(labels) >= 0) & (np.asarray(labels) < len(classes))
        if not known.all():
            raise FileFormatError(f"{printable(reader.path)}: {name} has labels without a class")
    paths = Paths([_column(reader, mapped, name, "paths")])
    further = {each: [_column(reader, mapped, name, each)] for each in reader.kept}
    return Split(
        name, images, labels, paths, classes, scale, origin,
        weights=weights, class_mode=class_mode, columns=KeptColumns(further),
        sizes=[_column(reader, mapped, name, "source_size")], statistics=_statistics(reader, name),
    )  # fmt: skip


def _statistics(reader: Reader, name: str) -> Statistics | None:
    """Return the recorded mean and deviation of a split; None if they are damaged."""
    try:
        mean, std = reader.channel_statistics(name)
    except FileFormatError:
        return None
    return np.array(mean), np.array(std)


def _images(
    reader: Reader, mapped: Mapped | None, name: str, origin: Origin, remote: RemoteFile | None
) -> Column:
    """Return the images of a split: mapped, or read (and decoded) when they are indexed."""
    if reader.is_encoded:
        from batchify.loading.encoded import EncodedArray, EncodedImages  # which need Pillow

        return EncodedArray(EncodedImages(reader, name, origin.overrides, remote), origin)
    if remote is None and not filters(reader.splits[name]["images"]):
        found = _view(reader, mapped, name, "images")
        if found is not None:
            return found
    return StoredArray(StoredPixels(reader, name, file=remote), origin)


def _labels(
    reader: Reader, mapped: Mapped | None, name: str, origin: Origin, remote: RemoteFile | None
) -> Column:
    """Return the labels of a split; masks, which are large, are not read into memory."""
    is_large = len(reader.splits[name]["labels"].shape) > 2
    if is_large and (mapped is None or remote is not None):
        return StoredArray(StoredPixels(reader, name, "labels", remote), origin, "labels")
    return _column(reader, mapped, name, "labels")


def _column(reader: Reader, mapped: Mapped | None, split: str, name: str) -> NDArray[Any]:
    """Return a small column: mapped, or in memory if it is not contiguous."""
    found = _view(reader, mapped, split, name)
    if found is None:
        return reader.column(split, name)
    return found.view(np.ndarray)


def _view(reader: Reader, mapped: Mapped | None, split: str, name: str) -> NDArray[Any] | None:
    """Return a mapped column, or None if its rows are not contiguous or cannot be mapped.

    Raises
    ------
    FileFormatError
        If the file ends before its rows do.
    """
    dataset = reader.splits[split][name]
    with reader.refusing():
        where = reader.offsets(split, name)
        dtype = np.dtype(dataset.dtype.str)  # without h5py's metadata for strings
        if not len(dataset):
            return np.empty(dataset.shape, dtype)
        if mapped is None or len(where.offsets) != 1:
            return None
        first, last = where.offsets[0], where.offsets[0] + len(dataset) * where.row_nbytes
        if first < 0 or last > len(mapped):
            raise FileFormatError(f"{split}/{name} has rows past the end of the file")
    rows: NDArray[Any] = mapped[first:last].view(dtype).reshape(dataset.shape)
    return rows


def open(  # noqa: A001 - batchify.open, as gzip.open
    path: Path | Sequence[Path],
    *,
    trusted: bool = False,
    cache: Path | bool | None = True,
    cache_limit: int | str | None = None,
) -> DatasetFile:
    """Open a built file for training; or several files, or a folder of them, as one.

    Parameters
    ----------
    path : path or URL, or sequence of them
        Files that `batchify.build` made. A folder means the shards in its shard index or,
        without one, the .h5 and .hdf5 files in it, sorted by name. Several files must have
        the same classes and the same kind of images.
    trusted : bool
        For files of encoded images: decode images beyond the default limits on pixels and sides, up
        to the limits that the file records. Do not use it for files that you do not trust.
    cache : path, bool or None
        For URLs: the folder for files that are fetched, which processes share. True is
        ``batchify/shards`` in the cache folder of this user. False or None fetches no files:
        images are read by range requests. Local files are read where they are.
    cache_limit : int or str, optional
        For URLs: how many bytes the cache may take, ``"20GB"`` for example. The files that were
        not used for longest are removed.

    Returns
    -------
    DatasetFile

    Raises
    ------
    FileMissingError, FileAccessError, FileFormatError
        As `batchify.format.reader.Reader`: anything that does not match schema 1 is refused.
    OptionError
        If a URL or the limit is not valid, or the limit is less than a file.
    RemoteError
        If a store does not answer, also from reading rows. Reading them again continues.
    OutputIOError
        If the cache cannot be written, also from reading rows.

    Notes
    -----
    Files of a URL are fetched when their rows are read, ahead of an epoch of
    `Split.batches` and of what builds on it. Labels and other columns of such a split are
    array-like; ``split.labels[:]`` is an array, for which a part of every file is fetched.

    If a new build replaces the file, an open file keeps its old rows. Memory: nothing is read yet;
    the system decides how many of the mapped rows it caches.
    """
    check_flag("trusted", trusted)
    urls = find_urls(path)
    options = cache_options(cache, cache_limit)  # checked for local files, too
    if not urls:
        return _open(path, DecodeOverrides(trusted=trusted))
    from batchify.loading.remote.open import open_remote  # imports asyncio

    return open_remote(urls, DecodeOverrides(trusted=trusted), options, _open_file)


def _open(path: Path | Sequence[Path], overrides: DecodeOverrides) -> DatasetFile:
    with contextlib.ExitStack() as opening:  # closes the others if one cannot be opened
        opened = [opening.enter_context(_open_file(each, overrides)) for each in find_paths(path)]
        found = opened[0] if len(opened) == 1 else _joined_files(opened)
        opening.pop_all()
    return found


def _joined_files(opened: Sequence[DatasetFile]) -> DatasetFile:
    """Return several files as one."""
    classes = opened[0].classes
    names: dict[str, list[Split]] = {}
    for each in opened:
        if each.classes != classes:
            one, other = (printable(os.fsencode(file.paths[0])) for file in (each, opened[0]))
            raise FileFormatError(other_classes(one, other, each.classes, classes))
        for name, split in each.items():
            names.setdefault(name, []).append(split)
    splits = {name: _chained(name, parts) for name, parts in names.items()}
    return DatasetFile(splits, classes, tuple(file.paths[0] for file in opened))


def load(path: Path | Sequence[Path], split: str = "train") -> Any:
    """Return a split as arrays in memory, like ``X_train, y_train`` in tutorials.

    Parameters
    ----------
    path
        As for `open`.
    split : str

    Returns
    -------
    X : ndarray of float32, shape (N, H, W, C)
        Pixels times the rescale factor of the build.
    y : ndarray of float32, shape (N,) or (N, K)
        If the file has no labels, only X is returned.

    Raises
    ------
    OptionError
        If there is no such split.

    Notes
    -----
    Memory: the whole split, 4 bytes for each channel of a pixel.
    """
    file = open(path)
    if split not in file:
        raise OptionError(f"there is no split {split!r}, only {', '.join(file)}")
    found = file[split]
    return found.batches().read(slice(None))


def _chained(name: str, parts: Sequence[Split]) -> Split:
    """Return the same split of several files as one.

    Raises
    ------
    FileFormatError
        If the files have different kinds of images or labels.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts[1:]:
        reason = mismatch(part, first)
        if reason is not None:
            raise FileFormatError(reason)
    origins = [part.origin for part in parts]
    origin = Origin(
        tuple(path for found in origins for path in found.files),
        name,
        tuple(digest for found in origins for digest in found.digests),
        sum(found.rows for found in origins),
        first.origin.overrides,
        reopen,
    )
    return combined(parts, origin)


def reopen(origin: Origin) -> Split:
    """Open a split again, in another process.

    Raises
    ------
    FileFormatError
        If a file is not the one that it was.
    """
    file = _open(origin.files, origin.overrides)
    if origin.split not in file or file[origin.split].origin != origin:
        raise FileFormatError(
            f"{', '.join(map(printable, origin.files))} was rebuilt after it was opened; "
            "open it again"
        )
    return file[origin.split]
