"""The columns of a manifest, typed and checked."""

from __future__ import annotations

import hashlib
import math
import os
import re
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.paths import sort_names
from batchify.common.text import printable
from batchify.datasets.dataset import Samples
from batchify.options import BuildOptions

_FLOAT32_MAX = 3.4028234663852886e38


_SPLITS = {name: choices.SPLITS.index(split) for name, split in choices.SPLIT_FOLDERS.items()}


_CLASS_NBYTES = 255
"""As long as the name of a folder may be."""


_TRUTH = {"0": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0}


_DRIVE = re.compile("[A-Za-z]:[/\\\\]")


def number(name: str, text: str) -> float:
    """Return a number that float32 holds.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ValueError(_bad(name, text, "not a number"))
    if abs(value) > _FLOAT32_MAX:
        raise ValueError(_bad(name, text, "not finite, or more than float32 holds"))
    return value


def weight(name: str, text: str) -> float:
    """Return a weight: a number of at least 0.

    Raises
    ------
    ValueError
        If it is none.
    """
    value = number(name, text)
    if value < 0:
        raise ValueError(_bad(name, text, "negative"))
    return value


def truth(name: str, text: str) -> float:
    """Return 0 or 1.

    Raises
    ------
    ValueError
        If it is neither.
    """
    value = _TRUTH.get(text.strip().lower())
    if value is None:
        raise ValueError(_bad(name, text, "neither 0 nor 1"))
    return value


def encoded(name: str, text: str) -> bytes:
    """Return a text, which must not be blank, in UTF-8.

    Raises
    ------
    ValueError
        If it is blank, or no file or class can be called so.
    """
    if not text or text.isspace():
        raise ValueError(f"{printable(name)} is empty")
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(_bad(name, text, "not a text that UTF-8 has")) from None
    if b"\0" in data:
        raise ValueError(_bad(name, text, "not a text: it has a NUL character"))
    return data


def class_name(name: str, text: str) -> bytes:
    """Return the name of a class.

    Raises
    ------
    ValueError
        If it is empty or too long.
    """
    data = encoded(name, text)
    if len(data) > _CLASS_NBYTES:
        raise ValueError(
            f"{printable(name)} has {len(data):,} bytes; a class has {_CLASS_NBYTES} at most"
        )
    return data


def relative_path(name: str, text: str, suffixes: tuple[bytes, ...]) -> bytes:
    """Return the path of an image, relative to the dataset, without ``.`` and repeated "/".

    Raises
    ------
    ValueError
        If it is empty, leads out of the dataset, or has another ending than `suffixes`.
    """
    if os.sep == "\\":
        text = text.replace("\\", "/")
    path = encoded(name, text)
    if path.startswith(b"/") or _DRIVE.match(text):
        raise ValueError(_bad(name, text, "absolute; paths are relative to DATASET"))
    if b"/." in path or b"//" in path or path.startswith(b"."):
        parts = path.split(b"/")
        if b".." in parts:
            raise ValueError(_bad(name, text, 'not allowed: it has ".." in it'))
        path = b"/".join(part for part in parts if part not in (b"", b"."))
    if not path.lower().endswith(suffixes):
        raise ValueError(
            _bad(name, text, "not of a kind that is decoded, by its ending (see --extensions)")
        )
    return path


def split_number(text: str) -> int:
    """Return the number of a split in `choices.SPLITS`.

    Raises
    ------
    ValueError
        If it is none.
    """
    found = _SPLITS.get(text.strip().lower())
    if found is None:
        what = f"none of {', '.join(choices.SPLIT_FOLDERS)}"
        raise ValueError(_bad("split", text, what))
    return found


def _bad(name: str, text: str, what: str) -> str:
    shown = printable(text if len(text) <= 100 else text[:100] + "…")
    return f"{printable(name)} {shown} is {what}" if text.strip() else f"{printable(name)} is empty"


def alike(names: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Return pairs of classes whose names differ in case or spaces alone."""
    first: dict[str, bytes] = {}
    pairs = []
    for name in names:
        key = "".join(os.fsdecode(name).casefold().split())
        if first.setdefault(key, name) != name:
            pairs.append((first[key], name))
    return pairs


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
