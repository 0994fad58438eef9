"""List the images of a layout's folders, and give each its class."""

from __future__ import annotations

import itertools
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from batchify.common.paths import sort_names
from batchify.common.text import plural, printable, shown_names
from batchify.datasets.classes import NO_CLASS, order_classes, unlisted_warnings
from batchify.datasets.dataset import Samples, reorder_samples
from batchify.datasets.layout import Layout, Part
from batchify.datasets.walk import ClassFolder, FolderImages, Walk, walk_class
from batchify.errors import DatasetError

_UNLABELLED = -1
_DROPPED = -2
_EXAMPLES = 5


@dataclass(frozen=True, eq=False)
class FoundSamples:
    """The images of a dataset with their classes.

    Parameters
    ----------
    samples : Samples
        In the order of splits, classes, files.
    splits : dict of str to ndarray of int32
        The samples of each split; of the whole dataset under an empty name if it is not split.
    unlabelled : tuple of str
        Splits without labels.
    """

    classes: tuple[bytes, ...]
    samples: Samples
    splits: dict[str, NDArray[np.int32]]
    unlabelled: tuple[str, ...]


def find_samples(walk: Walk, layout: Layout, *, needs_labels: bool) -> FoundSamples:
    """List the images of a layout's folders.

    Raises
    ------
    DatasetError
        If every image needs a class, and the path of one does not match ``--label-from``.
    """
    numbering: _Numbering
    if walk.options.label_from:
        numbering = _ByPath(walk, needs_labels=needs_labels)
    elif walk.options.class_from != "top":
        numbering = _ByFolder(walk)
    else:
        numbering = _ByTopFolder(walk, layout)
    samples, sizes = _walk_parts(walk, layout, numbering)
    return numbering.finish(samples, sizes)


def _walk_parts(
    walk: Walk, layout: Layout, numbering: _Numbering
) -> tuple[Samples, dict[str, int]]:
    """Return the samples, and the number of samples in each split.

    Paths are appended in place; numbers are joined at the end, and each column is released before
    the next: this is the peak of memory.
    """
    names = bytearray()
    pieces: dict[str, list[NDArray[np.int32]]] = {"lengths": [], "labels": []}
    extents, width = bytearray(), 0
    sizes = {}
    for part in layout.parts:
        total, before = 0, walk.other.copy()
        for folder in part.folders:
            for path, found in walk_class(walk, folder):
                pieces["labels"].append(numbering.labels(part, folder, path, found))
                names += found.blob
                found.blob.clear()
                pieces["lengths"].append(found.lengths)
                if found.extents is not None:
                    extents += found.extents.data
                    width = found.extents.shape[1]
                total += len(found.lengths)
        sizes[part.split] = total
        if part.folders and len(layout.parts) > 1:
            walk.count_ignored(part.folder, total, walk.other - before)
    none = np.empty(0, np.int32)
    ends = np.concatenate([none, *pieces.pop("lengths")]).cumsum(dtype=np.int64)
    labels = np.concatenate([none, *pieces.pop("labels")])
    numbers = np.frombuffer(extents, np.int64).reshape(-1, width) if width else None
    return Samples(names, ends, labels, numbers), sizes


def _ranges(sizes: dict[str, int]) -> dict[str, NDArray[np.int32]]:
    """Return the samples of each split, given their number."""
    found, start = {}, 0
    for split, size in sizes.items():
        found[split] = np.arange(start, start + size, dtype=np.int32)
        start += size
    return found


class _Numbering(ABC):
    """Gives images their labels, and sorts them by label at the end."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.unlabelled: list[str] = []
        self._numbers: dict[bytes, int] = {}

    @abstractmethod
    def labels(
        self, part: Part, folder: ClassFolder, path: bytes, found: FolderImages
    ) -> NDArray[np.int32]:
        """Return the label of each image of one folder."""

    def number(self, name: bytes) -> int:
        """Return the number of a class, in the order in which classes are met."""
        return self._numbers.setdefault(name, len(self._numbers))

    def finish(self, samples: Samples, sizes: dict[str, int]) -> FoundSamples:
        """Return the samples in the order of splits, classes, files."""
        options, labels = self.walk.options, samples.labels
        classes = order_classes(self._numbers, options, f"dataset {self.walk.name}")
        index = {name: i for i, name in enumerate(classes)}
        final = np.array(
            [*(index.get(name, _DROPPED) for name in self._numbers), _UNLABELLED], np.int32
        )
        counts = np.bincount(labels[labels >= 0], minlength=len(final))
        others = {
            name: int(counts[number]) for name, number in self._numbers.items() if name not in index
        }
        self.walk.warnings += unlisted_warnings(others, "image")
        labels = final[labels]  # _UNLABELLED, -1, is the last of them
        pieces, start = [], 0
        for split, size in sizes.items():  # one after another: order is the peak of memory
            some = labels[start : start + size]
            order = np.argsort(some, kind="stable")
            if others:
                order = order[some[order] != _DROPPED]
            pieces.append(order.astype(np.int32) + np.int32(start))
            sizes[split] = len(order)
            start += size
        order = np.concatenate(pieces)
        samples = reorder_samples(samples, labels, samples.extents, order)
        return FoundSamples(tuple(classes), samples, _ranges(sizes), tuple(self.unlabelled))


class _ByTopFolder(_Numbering):
    """The class is the class folder; images stay in the order in which they are listed."""

    def __init__(self, walk: Walk, layout: Layout) -> None:
        super().__init__(walk)
        folders = [folder for part in layout.parts if part.is_labelled for folder in part.folders]
        found = Counter(folder.name or NO_CLASS for folder in folders)
        if any(folder.name for folder in folders):
            found.pop(NO_CLASS, None)
        self._classes = order_classes(found, walk.options, f"dataset {walk.name}")
        self._index = {name: i for i, name in enumerate(self._classes)}
        others = {name: count for name, count in found.items() if name not in self._index}
        walk.warnings += unlisted_warnings(others, "folder")
        for part in layout.parts:
            if part.is_labelled:
                part.folders[:] = sorted(filter(self._takes, part.folders), key=self._label)

    def _takes(self, folder: ClassFolder) -> bool:
        return not folder.name or folder.name in self._index

    def _label(self, folder: ClassFolder) -> int:
        return self._index.get(folder.name, 0)

    def labels(
        self, part: Part, folder: ClassFolder, _path: bytes, found: FolderImages
    ) -> NDArray[np.int32]:
        """Return the label of the class folder for each image."""
        label = self._label(folder) if part.is_labelled else _UNLABELLED
        if not part.is_labelled and part.split not in self.unlabelled:
            self.unlabelled.append(part.split)
        return np.full(len(found.lengths), label, np.int32)

    def finish(self, samples: Samples, sizes: dict[str, int]) -> FoundSamples:
        """Return the samples in order, without classes that patterns emptied."""
        classes, labels = self._classes, samples.labels
        counts = np.bincount(labels[labels >= 0], minlength=len(classes)).tolist()
        emptied = set() if self.walk.options.classes else self.walk.emptied  # listed ones stay
        kept = [name for name, n in zip(classes, counts, strict=True) if n or name not in emptied]
        if len(kept) < len(classes):
            index = {name: i for i, name in enumerate(kept)}
            final = np.array([index.get(name, _UNLABELLED) for name in classes], np.int32)
            samples = replace(samples, labels=np.where(labels < 0, labels, final[labels]))
        return FoundSamples(tuple(kept), samples, _ranges(sizes), tuple(self.unlabelled))


class _ByFolder(_Numbering):
    """The class is the folder that the image is in, or its whole path."""

    def __init__(self, walk: Walk) -> None:
        super().__init__(walk)
        self._above: dict[bytes, set[bytes]] = {}

    def labels(
        self, part: Part, folder: ClassFolder, path: bytes, found: FolderImages
    ) -> NDArray[np.int32]:
        """Return the label of the folder for each image."""
        label = _UNLABELLED
        if part.is_labelled:
            outer = len(folder.path) - len(folder.name)
            is_leaf = self.walk.options.class_from == "leaf"
            above, _, leaf = path[outer:].rpartition(b"/")
            name = leaf if is_leaf else path[outer:]
            self._above.setdefault(name, set()).add(above)
            label = self.number(name or NO_CLASS)
        elif part.split not in self.unlabelled:
            self.unlabelled.append(part.split)
        return np.full(len(found.lengths), label, np.int32)

    def finish(self, samples: Samples, sizes: dict[str, int]) -> FoundSamples:
        """Return the samples in order; warn of folders of one name, unless all outer ones match."""
        merged = [name for name, above in self._above.items() if len(above) > 1]
        if merged and len(set(map(frozenset, self._above.values()))) > 1:
            sort_names(merged)
            first = ", ".join(
                printable(above + b"/" + merged[0] if above else merged[0])
                for above in sorted(self._above[merged[0]])[:_EXAMPLES]
            )
            self.walk.warn(
                "merged-classes",
                f"folders with the same name became one class: {shown_names(merged, 'and')} (such "
                f"as {first}); --class-from path keeps them apart",
            )
        return super().finish(samples, sizes)


class _ByPath(_Numbering):
    """The class is the first group of a match on the path."""

    def __init__(self, walk: Walk, *, needs_labels: bool) -> None:
        super().__init__(walk)
        self._needs_labels = needs_labels
        self._search = re.compile(walk.options.label_from).search
        self._images: Counter[str] = Counter()
        self._unmatched: Counter[str] = Counter()
        self._examples: dict[str, list[bytes]] = {}

    def labels(
        self, part: Part, _folder: ClassFolder, _path: bytes, found: FolderImages
    ) -> NDArray[np.int32]:
        """Return the label of each image; without a match, that of no class."""
        labels = np.full(len(found.lengths), _UNLABELLED, np.int32)
        for i, path in enumerate(itertools.chain.from_iterable(found.pieces())):
            match = self._search(os.fsdecode(path))
            if match is not None and match[1]:
                labels[i] = self.number(os.fsencode(match[1]))
                continue
            if not self._needs_labels:
                labels[i] = self.number(NO_CLASS)
                continue
            self._unmatched[part.split] += 1
            examples = self._examples.setdefault(part.split, [])
            if len(examples) < _EXAMPLES:
                examples.append(path)
        self._images[part.split] += len(labels)
        return labels

    def finish(self, samples: Samples, sizes: dict[str, int]) -> FoundSamples:
        """Return the samples in order, if all have a class, or a test split has none at all."""
        count = self._unmatched["test"]
        if count and count == self._images["test"] and self._numbers:
            self.unlabelled.append("test")
            self.walk.warn(
                "unlabelled",
                f"none of the {plural(count, 'path')} of test matches --label-from: its images "
                "are stored without labels",
            )
        wrong = sum(self._unmatched.values()) - (count if self.unlabelled else 0)
        if wrong:
            examples = [
                path
                for split, paths in self._examples.items()
                if split not in self.unlabelled
                for path in paths
            ]
            shown = ", ".join(map(printable, examples[:_EXAMPLES]))
            raise DatasetError(
                f"dataset {self.walk.name}: {wrong:,} of {plural(len(samples), 'path')} do not "
                f"match --label-from {printable(self.walk.options.label_from)}, such as {shown}; "
                "the class is the first group of the match, which must not be empty"
            )
        return super().finish(samples, sizes)
