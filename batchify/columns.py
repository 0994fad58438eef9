"""The columns of a manifest while it is read: tens of bytes a row."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from batchify.cells import class_name, encoded, number, relative_path, split_number, truth, weight
from batchify.names import sort_names
from batchify.options import BuildOptions
from batchify.samples import Samples

OPTIONAL = ("split", "group", "weight")


class PathColumn:
    """Paths as they come, in one run of bytes."""

    def __init__(self) -> None:
        self._names = bytearray()
        self._lengths = array("i")

    def add(self, path: bytes) -> None:
        """Take one more."""
        self._names += path
        self._lengths.append(len(path))

    def samples(self) -> Samples:
        """Return them as a table, without labels."""
        ends = np.frombuffer(self._lengths, np.int32).cumsum(dtype=np.int64)
        return Samples(self._names, ends, np.zeros(len(ends), np.int32))


class ClassColumn:
    """Classes as they come, numbered by their first row."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._labels = array("i")

    def add(self, name: bytes) -> None:
        """Take one more."""
        self._labels.append(self._numbers.setdefault(name, len(self._numbers)))

    def sorted(self) -> tuple[tuple[bytes, ...], NDArray[np.int32]]:
        """Return the classes, sorted by code point, and the index of each row's."""
        names = list(self._numbers)
        sort_names(names)
        index = np.empty(len(names), np.int32)
        for i, name in enumerate(names):
            index[self._numbers[name]] = i
        return tuple(names), index[np.frombuffer(self._labels, np.int32)]


class Columns:
    """All columns that are understood.

    Parameters
    ----------
    names : list of str
        ``path``, the label columns, and those of `OPTIONAL` that are there.
    options : BuildOptions

    Attributes
    ----------
    lines : array of int64
        Where each row begins.
    """

    def __init__(self, names: Sequence[str], options: BuildOptions) -> None:
        assert options.manifest is not None
        self._suffixes = options.discover.suffixes
        self._mode = options.store.class_mode
        self._labels = options.manifest.label_columns
        self._at = {name: names.index(name) for name in OPTIONAL if name in names}
        self.lines = array("q")
        self.paths, self.masks, self.classes = PathColumn(), PathColumn(), ClassColumn()
        self._values, self._weights = array("f"), array("f")
        self._splits, self._groups = bytearray(), bytearray()

    def add(self, line: int, texts: Sequence[str]) -> None:
        """Take a row, whole or not at all.

        Raises
        ------
        ValueError
            If a text cannot be understood.
        """
        at, mode = self._at, self._mode
        path = relative_path("path", texts[0], self._suffixes)
        split = split_number(texts[at["split"]]) if "split" in at else None
        group = encoded("group", texts[at["group"]]) if "group" in at else None
        weighs = weight("weight", texts[at["weight"]]) if "weight" in at else None
        if mode in ("multilabel", "regression"):
            parse = truth if mode == "multilabel" else number
            values = [parse(*each) for each in zip(self._labels, texts[1:], strict=False)]
            self._values.extend(values)
        elif mode == "mask":
            self.masks.add(relative_path(self._labels[0], texts[1], self._suffixes))
        else:
            self.classes.add(class_name(self._labels[0], texts[1]))
        self.paths.add(path)
        self.lines.append(line)
        if split is not None:
            self._splits.append(split)
        if group is not None:
            self._groups += hashlib.blake2b(group, digest_size=16).digest()
        if weighs is not None:
            self._weights.append(weighs)

    @property
    def values(self) -> NDArray[np.float32] | None:
        """Labels that are numbers, shape (n, K)."""
        if self._mode not in ("multilabel", "regression"):
            return None
        return np.frombuffer(self._values, np.float32).reshape(-1, len(self._labels))

    @property
    def weights(self) -> NDArray[np.float32] | None:
        """Shape (n,)."""
        return np.frombuffer(self._weights, np.float32) if "weight" in self._at else None

    @property
    def splits(self) -> NDArray[np.uint8] | None:
        """Numbers in `schema.SPLITS`, shape (n,)."""
        return np.frombuffer(self._splits, np.uint8) if "split" in self._at else None

    @property
    def groups(self) -> NDArray[np.uint8] | None:
        """A hash of the name of each group, shape (n, 16)."""
        groups = np.frombuffer(self._groups, np.uint8).reshape(-1, 16)
        return groups if "group" in self._at else None
