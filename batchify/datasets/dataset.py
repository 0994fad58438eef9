"""The images and labels that a build reads: Dataset, Samples and Annotations."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from batchify.common.text import plural, printable
from batchify.errors import BatchifyWarning, DatasetError, Skipped
from batchify.storage.source import Source, SourceFile

_ROWS_AT_ONCE = 1 << 16
PATHS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Samples:
    """The image files in compact form: all paths as contiguous bytes, and two numbers per file.

    Parameters
    ----------
    names : bytes or bytearray
        All paths, one after another: relative to the dataset folder, "/" separated.
    ends : ndarray of int64, shape (n,)
        Where each path ends in `names`.
    labels : ndarray of int32, shape (n,)
        Class index of each file.
    extents : ndarray of int64, shape (n, k), or None
        The position of each file, for a source that does not find files by their paths.
    width : int
        Minimum width of the column of paths, in bytes, if these samples are part of more.
    sizes : ndarray of int64, shape (n,), or None
        Size of each file in bytes, if the build needs it.
    """

    names: bytes | bytearray
    ends: NDArray[np.int64]
    labels: NDArray[np.int32]
    extents: NDArray[np.int64] | None = None
    width: int = 1
    sizes: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ends)

    def __repr__(self) -> str:
        return f"<{len(self):,} samples>"

    def path(self, index: int) -> bytes:
        """Return the path of one sample, relative to the dataset folder."""
        start = self.ends[index - 1] if index else 0
        return bytes(self.names[start : self.ends[index]])

    def paths(self, indices: NDArray[np.integer[Any]]) -> list[bytes]:
        """Return the paths of some samples, in the order of `indices`."""
        stops = self.ends[indices]
        starts = np.where(indices > 0, self.ends[indices - 1], 0)
        names = memoryview(self.names)
        return [bytes(names[a:b]) for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]

    def pieces(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield the paths of all samples some thousand at a time, with the index of the first."""
        for start in range(0, len(self), PATHS_AT_ONCE):
            yield start, self.paths(np.arange(start, min(start + PATHS_AT_ONCE, len(self))))

    def files(self, indices: NDArray[np.integer[Any]]) -> tuple[SourceFile, ...]:
        """Return some samples as files of their source, in the order of `indices`."""
        paths = self.paths(indices)
        if self.extents is None:
            return tuple(map(SourceFile, paths))
        extents = map(tuple, self.extents[indices].tolist())
        return tuple(map(SourceFile, paths, extents))

    def subset(self, indices: NDArray[np.integer[Any]], width: int) -> Samples:
        """Return a table of some samples, in the order of `indices`.

        Parameters
        ----------
        width : int
            `path_nbytes` of all samples, so that files of parts can be merged.
        """
        paths = self.paths(indices)
        ends = np.fromiter(map(len, paths), np.int64, len(paths)).cumsum(dtype=np.int64)
        extents = None if self.extents is None else self.extents[indices]
        sizes = None if self.sizes is None else self.sizes[indices]
        return Samples(b"".join(paths), ends, self.labels[indices], extents, width, sizes)

    @cached_property
    def path_nbytes(self) -> int:
        """Bytes of the longest path, at least `width`."""
        longest = self.width
        for start in range(0, len(self), _ROWS_AT_ONCE):
            before = self.ends[start - 1] if start else 0
            ends = self.ends[start : start + _ROWS_AT_ONCE]
            longest = max(longest, int(np.diff(ends, prepend=before).max()))
        return longest


def join_samples(
    pieces: Iterable[list[bytes]],
    labels: NDArray[np.int32],
    extents: NDArray[np.int64] | None = None,
) -> Samples:
    """Return samples, given their paths in pieces."""
    names = bytearray()
    lengths = [np.empty(0, np.int32)]
    for paths in pieces:
        names += b"".join(paths)
        lengths.append(np.fromiter(map(len, paths), np.int32, len(paths)))
    return Samples(names, np.concatenate(lengths).cumsum(dtype=np.int64), labels, extents)


def reorder_samples(
    samples: Samples,
    labels: NDArray[np.int32],
    extents: NDArray[np.int64] | None,
    order: NDArray[np.int64],
) -> Samples:
    """Return samples in another order, with their labels and extents."""
    pieces = (
        samples.paths(order[i : i + PATHS_AT_ONCE]) for i in range(0, len(order), PATHS_AT_ONCE)
    )
    return join_samples(pieces, labels[order], None if extents is None else extents[order])


ArrayT = TypeVar("ArrayT", bound=NDArray[Any])


@dataclass(frozen=True, eq=False)
class KeptColumn:
    """A column of a manifest that is stored in the file (--keep-columns).

    Parameters
    ----------
    values : ndarray of int64, float64 or bool, shape (n,), or Samples
        Texts are `Samples`.
    """

    name: str
    values: NDArray[Any] | Samples

    @property
    def dtype(self) -> str:
        """Its dtype in the file, in NumPy's notation."""
        if isinstance(self.values, Samples):
            return f"S{self.values.path_nbytes}"
        return self.values.dtype.str

    def rows(self, indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Return the values of some samples, as the file stores them."""
        if isinstance(self.values, Samples):
            return np.array(self.values.paths(indices), self.dtype)
        rows: NDArray[Any] = self.values[indices]
        return rows

    def subset(self, indices: NDArray[np.integer[Any]]) -> KeptColumn:
        """Return the values of some samples, in the order of `indices`."""
        if isinstance(self.values, Samples):
            values = self.values
            return replace(self, values=values.subset(indices, values.path_nbytes))
        return replace(self, values=self.values[indices])

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        if isinstance(self.values, Samples):
            return len(self.values.names) + self.values.ends.nbytes + self.values.labels.nbytes
        return self.values.nbytes


@dataclass(frozen=True, eq=False)
class Annotations:
    """Columns of a manifest, in the order of the samples; None for those it does not have.

    Parameters
    ----------
    values : ndarray of float32, shape (n, K), or None
        Labels of ``multilabel`` and ``regression``.
    masks : Samples or None
        The mask image of each sample; its `Samples.width` is that of the longest path.
    weights : ndarray of float32, shape (n,), or None
    groups : ndarray of uint8, shape (n, 16), or None
        A hash of the name of each sample's group.
    digest : str
        SHA-256, in hex, of the rows of the manifest: see `rows_digest`; empty for folders.
    is_split : bool
        The manifest has the split of each sample.
    label_columns : tuple of str
        The columns of the manifest that hold the labels.
    kept : tuple of KeptColumn
        More columns to store in the file.
    drops_unlabelled : bool
        Rows without a label were ignored.
    """

    values: NDArray[np.float32] | None = None
    masks: Samples | None = None
    weights: NDArray[np.float32] | None = None
    groups: NDArray[np.uint8] | None = None
    digest: str = ""
    is_split: bool = False
    label_columns: tuple[str, ...] = ()
    kept: tuple[KeptColumn, ...] = ()
    drops_unlabelled: bool = False

    @property
    def recorded(self) -> dict[str, Any]:
        """The entries of a file's config."""
        if not self.digest:
            return {}
        found: dict[str, Any] = {
            "manifest_sha256": self.digest,
            "label_columns": self.label_columns,
        }
        if self.weights is not None:
            found["weights"] = True
        if self.kept:
            found["keep_columns"] = [column.name for column in self.kept]
        if self.drops_unlabelled:
            found["unlabelled"] = "drop"
        return found

    def mask_files(self, indices: NDArray[np.integer[Any]]) -> tuple[SourceFile, ...]:
        """Return the masks of some samples as files of their source; empty if there are none."""
        return () if self.masks is None else self.masks.files(indices)

    def subset(self, indices: NDArray[np.integer[Any]]) -> Annotations:
        """Return the annotations of some samples, in the order of `indices`."""

        def some(array: ArrayT | None) -> ArrayT | None:
            return None if array is None else array[indices]

        return replace(
            self,
            values=some(self.values),
            masks=None if self.masks is None else self.masks.subset(indices, self.masks.width),
            weights=some(self.weights),
            groups=some(self.groups),
            kept=tuple(column.subset(indices) for column in self.kept),
        )

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        arrays = (self.values, self.weights, self.groups)
        masks = 0 if self.masks is None else len(self.masks.names) + self.masks.ends.nbytes
        kept = sum(column.nbytes for column in self.kept)
        return masks + kept + sum(array.nbytes for array in arrays if array is not None)


@dataclass(frozen=True, eq=False)
class Dataset:
    """The images and labels of a dataset, as they were found.

    Parameters
    ----------
    source : Source
        Where its files come from.
    layout : str
        ``classes`` (one folder per class), ``splits`` (one folder per split, with class
        folders), ``flat`` (no class folders) or ``manifest``.
    classes : tuple of bytes
        In the order of their indices.
    samples : Samples
        In the order of splits, classes, files.
    splits : dict of str to ndarray of int32, or None
        Indices of the samples of each split; None if the dataset is not split.
    skipped : tuple of Skipped
        Files that are named like an image but not read: links out of the folder, FIFOs, devices.
    hidden, loose : int
        How many hidden files and folders, and files outside of class folders, were ignored.
    excluded : int
        How many files and folders were ignored by patterns, --include and --exclude.
    other : Mapping of str to int
        How many files were ignored for their extension, by extension.
    warnings : tuple of BatchifyWarning
        Things that may not be what the user intends.
    image_endings : Mapping of str to tuple of str
        Endings in `other` whose files look like images, with their spellings.
    short : tuple of (bytes, int, Mapping of str to int)
        Folders of classes and splits in which more images were ignored because of their ending
        than taken: path, number taken, and numbers ignored, by ending.
    annotations : Annotations
        Other columns of a manifest.
    unlabelled : tuple of str
        Splits whose samples have no labels: their `Samples.labels` are -1.
    undrawn : int
        How many images a limit did not take.
    unlisted : int
        How many images of its folder a manifest does not list.
    entered : bytes
        The path of the only folder that was taken as the dataset; empty for the dataset itself.
    linked : tuple of bytes
        Entries of `skipped` that are folders of classes or splits outside of the dataset.
    """

    source: Source
    layout: str
    classes: tuple[bytes, ...]
    samples: Samples
    splits: Mapping[str, NDArray[np.int32]] | None
    skipped: tuple[Skipped, ...]
    hidden: int
    loose: int
    other: Mapping[str, int]
    warnings: tuple[BatchifyWarning, ...] = ()
    annotations: Annotations = field(default_factory=Annotations)
    unlabelled: tuple[str, ...] = ()
    undrawn: int = 0
    excluded: int = 0
    unlisted: int = 0
    entered: bytes = b""
    linked: tuple[bytes, ...] = ()
    image_endings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    short: tuple[tuple[bytes, int, Mapping[str, int]], ...] = ()

    def __repr__(self) -> str:
        images, classes = len(self.samples), plural(len(self.classes), "class", "classes")
        return f"<batchify dataset {self.name}: {plural(images, 'image')}, {classes}>"

    @property
    def name(self) -> str:
        """The name of the dataset, for messages."""
        return printable(self.source.location)

    @property
    def ignored_images(self) -> dict[str, int]:
        """Endings in `other` whose files look like images."""
        return {name: count for name, count in self.other.items() if name in self.image_endings}

    def check_linked(
        self, advice: str = "pass --follow-links to read it, or --on-error skip to skip it"
    ) -> None:
        """Refuse class folders that are links out of the dataset: their images would be missing.

        Parameters
        ----------
        advice : str
            What the user can do, for the error.
        """
        if self.linked:
            names = ", ".join(map(printable, self.linked[:3]))
            more = f" and {len(self.linked) - 3:,} more" if len(self.linked) > 3 else ""
            raise DatasetError(
                f"dataset {self.name}: {names}{more} is a link out of the dataset folder; {advice}"
            )

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class name to index."""
        return {os.fsdecode(name): index for index, name in enumerate(self.classes)}


def encode_labels(
    indices: NDArray[np.int32], class_mode: str, n_classes: int
) -> NDArray[np.int64] | NDArray[np.float32]:
    """Return class indices as the labels that a file stores in a class mode.

    Returns
    -------
    ndarray of int64, shape (n,), or of float32, shape (n, n_classes)
        The index for sparse and binary; one-hot for categorical.
    """
    if class_mode != "categorical":
        return indices.astype("<i8")
    one_hot = np.zeros((len(indices), n_classes), "<f4")
    one_hot[np.arange(len(indices)), indices] = 1
    return one_hot


def sample_labels(
    dataset: Dataset, rows: NDArray[np.int32], class_mode: str
) -> NDArray[Any] | None:
    """Return the labels that a file stores for some samples.

    None if the samples have no labels, and in the class modes ``none`` and ``mask`` (masks are
    decoded with the images).

    Parameters
    ----------
    rows : ndarray of int32
        Sample indices.
    """
    if class_mode in ("none", "mask"):
        return None
    values = dataset.annotations.values
    if values is None:
        indices = dataset.samples.labels[rows]
        if (indices < 0).any():
            return None
        return encode_labels(indices, class_mode, len(dataset.classes))
    found = values[rows].astype("<f4", copy=False)
    is_single = class_mode == "regression" and found.shape[1] == 1
    return found[:, 0].copy() if is_single else found
