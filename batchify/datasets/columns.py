"""Parse and check the columns of a manifest, and collect them as arrays."""

from __future__ import annotations

import hashlib
import math
import os
import re
from array import array
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.split_names import SPLIT_FOLDERS, named_split
from batchify.common.text import printable
from batchify.dataset_options import DiscoverOptions
from batchify.datasets.classes import NO_CLASS, order_classes
from batchify.datasets.kept import KeptTexts
from batchify.datasets.texts import TextColumn, is_missing
from batchify.options import BuildOptions

_FLOAT32_MAX = 3.4028234663852886e38
_SPLITS = {name: choices.SPLITS.index(split) for name, split in SPLIT_FOLDERS.items()}

_CLASS_NBYTES = 255
"""The longest name of a folder on most file systems."""

_TRUTH = {"0": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0}
_FILE_MARKS = re.compile(r"[0-9/\\.]")
_DRIVE = re.compile("[A-Za-z]:[/\\\\]")


def parse_number(name: str, text: str) -> float:
    """Return a number that fits into float32, or raise ValueError."""
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ValueError(_bad(name, text, "not a number"))
    if abs(value) > _FLOAT32_MAX:
        raise ValueError(_bad(name, text, "not finite, or too large for float32"))
    return value


def parse_weight(name: str, text: str) -> float:
    """Return a number of at least 0, or raise ValueError."""
    value = parse_number(name, text)
    if value < 0:
        raise ValueError(_bad(name, text, "negative"))
    return value


def parse_truth(name: str, text: str) -> float:
    """Return 0 or 1, or raise ValueError."""
    value = _TRUTH.get(text.strip().lower())
    if value is None:
        what = "neither 0 nor 1"
        if text.strip() in ("-1", "-1.0"):
            what += (
                "; write 0 if it means no (in pandas: replace(-1, 0)), or store the numbers with "
                "--class-mode regression"
            )
        raise ValueError(_bad(name, text, what))
    return value


def parse_text(name: str, text: str) -> bytes:
    """Return a text in UTF-8.

    Raises
    ------
    ValueError
        If it is blank, or cannot be the name of a file or a class.
    """
    if not text or text.isspace():
        raise ValueError(f"{printable(name)} is empty")
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(_bad(name, text, "not valid UTF-8")) from None
    if b"\0" in data:
        raise ValueError(_bad(name, text, "not valid: it has a NUL character"))
    return data


def parse_class(name: str, text: str) -> bytes:
    """Return the name of a class, or raise ValueError if it is empty or too long."""
    data = parse_text(name, text)
    if len(data) > _CLASS_NBYTES:
        raise ValueError(
            f"{printable(name)} has {len(data):,} bytes; a class has {_CLASS_NBYTES} at most"
        )
    return data


def clean_path(name: str, text: str) -> bytes:
    """Return the path of an image, relative to the dataset, without ``.`` and repeated "/".

    Raises
    ------
    ValueError
        If it is empty, or leads out of the dataset.
    """
    if os.sep == "\\":
        text = text.replace("\\", "/")
    path = parse_text(name, text)
    if path.startswith(b"/") or _DRIVE.match(text):
        raise ValueError(_bad(name, text, "absolute; paths are relative to DATASET"))
    if b"/." in path or b"//" in path or path.startswith(b"."):
        parts = path.split(b"/")
        if b".." in parts:
            raise ValueError(_bad(name, text, 'not allowed: it has ".." in it'))
        path = b"/".join(part for part in parts if part not in (b"", b"."))
    return path


def split_number(text: str) -> int | None:
    """Return the number in `choices.SPLITS` of a split; None if a text names no split."""
    text = text.strip().lower()
    if text in _SPLITS:
        return _SPLITS[text]
    is_file = _FILE_MARKS.search(text) is not None  # train_0001 is an image, not the train split
    split = None if is_file else named_split(text)
    return None if split is None else choices.SPLITS.index(split)


def parse_split(text: str) -> int:
    """Return the number of a split in `choices.SPLITS`, or raise ValueError."""
    found = split_number(text)
    if found is None:
        what = f"none of {', '.join(SPLIT_FOLDERS)}"
        raise ValueError(_bad("split", text, what))
    return found


def parse_fold(text: str) -> int:
    """Return the number of a fold, which may be written as a float, or raise ValueError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value.is_integer():
        raise ValueError(_bad("fold", text, "not a whole number"))
    return int(value)


def _bad(name: str, text: str, what: str) -> str:
    shown = printable(text if len(text) <= 100 else text[:100] + "…")
    return f"{printable(name)} {shown} is {what}" if text.strip() else f"{printable(name)} is empty"


class ClassColumn:
    """Classes in the order of their rows, numbered by their first row.

    Attributes
    ----------
    unlisted : Counter of bytes
        Rows that were ignored, by their class, which ``--classes`` does not list.
    """

    def __init__(self, options: DiscoverOptions) -> None:
        self._options = options
        self._listed = frozenset(map(os.fsencode, options.classes))
        self._numbers: dict[bytes, int] = {}
        self._labels = array("i")
        self.unlisted: Counter[bytes] = Counter()

    def takes(self, name: bytes) -> bool:
        """Return whether a row of this class is taken; count it if not."""
        if not self._listed or name in self._listed:
            return True
        self.unlisted[name] += 1
        return False

    def add(self, name: bytes) -> None:
        """Add one."""
        self._labels.append(self._numbers.setdefault(name, len(self._numbers)))

    def add_unlabelled(self) -> None:
        """Add a row without a class: its class index is -1."""
        self._labels.append(-1)

    @property
    def found(self) -> list[bytes]:
        """All classes, including those that are not listed."""
        return [*self._numbers, *self.unlisted]

    @property
    def rows(self) -> int:
        """How many rows have one of them."""
        return len(self._labels) - self._labels.count(-1) + self.unlisted.total()

    def sorted(self, where: str) -> tuple[tuple[bytes, ...], NDArray[np.int32]]:
        """Return the classes in order, and the class index of each row.

        `where` names the manifest in errors.
        """
        names = order_classes(self.found, self._options, where, numbered=True)
        index = np.full(len(self._numbers) + 1, -1, np.int32)  # the last is for rows without one
        for i, name in enumerate(names):
            if name in self._numbers:
                index[self._numbers[name]] = i
        return tuple(names), index[np.frombuffer(self._labels, np.int32)]


class Columns:
    """The columns of a manifest that are read.

    Parameters
    ----------
    labels : sequence of str
        The names of the label columns.
    optional : sequence of str
        The `OPTIONAL_COLUMNS` that the manifest has.
    kept : sequence of KeptTexts
        More columns to store in the file.
    unlabelled_splits : collection of str
        Splits whose rows need no label.

    Attributes
    ----------
    lines : array of int64
        The line on which each row begins.
    folds : set of int
        The folds of rows that are not test, if there is a column for them.
    unlabelled : int
        Rows without a label: they were ignored, or no labels are needed.
    """

    def __init__(
        self,
        labels: Sequence[str],
        optional: Sequence[str],
        kept: Sequence[KeptTexts],
        options: BuildOptions,
        unlabelled_splits: Collection[str] = (),
    ) -> None:
        assert options.manifest is not None
        self.unlabelled = 0
        self._drops = options.manifest.unlabelled == "drop"
        self._bare = () if self._drops else unlabelled_splits
        self._kept, self._first_kept = kept, 1 + len(labels) + len(optional)
        self._mode = options.store.class_mode
        self._labels = labels
        self._at = {name: 1 + len(labels) + i for i, name in enumerate(optional)}
        self._fold = options.split.fold
        self.folds: set[int] = set()
        self.lines = array("q")
        self.paths, self.masks = TextColumn(), TextColumn()
        self.classes = ClassColumn(options.discover)
        self._values, self._weights = array("f"), array("f")
        self._splits, self._groups = bytearray(), bytearray()

    def add(self, line: int, texts: Sequence[str]) -> None:
        """Add a row: its path, labels, optional and kept columns.

        Raises
        ------
        ValueError
            If a text is not valid; nothing is added.
        """
        at, mode = self._at, self._mode
        is_labelled = not self._labels or not all(map(is_missing, texts[1 : 1 + len(self._labels)]))
        is_bare = not is_labelled and bool(self._bare) and texts[at["split"]] in self._bare
        if not is_labelled and mode != "none" and not is_bare:
            if not self._drops:
                text = texts[1].strip()
                what = f"{text}, which means that there is no value" if text else "empty"
                raise ValueError(f"{printable(self._labels[0])} is {what} (see --unlabelled)")
            self.unlabelled += 1
            return
        path = clean_path("path", texts[0])
        split = parse_split(texts[at["split"]]) if "split" in at else None
        if "fold" in at:
            split = self._split_of_fold(split, texts[at["fold"]])
        group = parse_text("group", texts[at["group"]]) if "group" in at else None
        weighs = parse_weight("weight", texts[at["weight"]]) if "weight" in at else None
        kept = [
            column.encode(text)
            for column, text in zip(self._kept, texts[self._first_kept :], strict=True)
        ]
        if mode in ("multilabel", "regression"):
            parse = parse_truth if mode == "multilabel" else parse_number
            values = [parse(*each) for each in zip(self._labels, texts[1:], strict=False)]
            self._values.extend(values)
        elif mode == "mask":
            self.masks.add(clean_path(self._labels[0], texts[1]))
        elif is_bare:
            self.classes.add_unlabelled()
        elif self._labels:
            self.unlabelled += not is_labelled
            name = parse_class(self._labels[0], texts[1]) if is_labelled else NO_CLASS
            if not self.classes.takes(name):
                return
            self.classes.add(name)
        self.paths.add(path)
        self.lines.append(line)
        for column, data in zip(self._kept, kept, strict=True):
            column.add(data)
        if split is not None:
            self._splits.append(split)
        if group is not None:
            self._groups += hashlib.blake2b(group, digest_size=16).digest()
        if weighs is not None:
            self._weights.append(weighs)

    def _split_of_fold(self, split: int | None, text: str) -> int:
        """Return the split of a row by its fold; rows of a test split stay there."""
        train, validation, test = range(3)
        if split == test:
            return test
        if split == validation:
            raise ValueError("split is validation, which --fold takes from the column fold")
        fold = parse_fold(text)
        self.folds.add(fold)
        return validation if fold == self._fold else train

    @property
    def values(self) -> NDArray[np.float32] | None:
        """Labels that are numbers, shape (n, K); None if they are classes or masks."""
        if self._mode not in ("multilabel", "regression"):
            return None
        return np.frombuffer(self._values, np.float32).reshape(-1, len(self._labels))

    @property
    def weights(self) -> NDArray[np.float32] | None:
        """Shape (n,); None if there is no such column."""
        return np.frombuffer(self._weights, np.float32) if "weight" in self._at else None

    @property
    def splits(self) -> NDArray[np.uint8] | None:
        """Numbers in `choices.SPLITS`, shape (n,); None if there is no such column."""
        is_split = "split" in self._at or "fold" in self._at
        return np.frombuffer(self._splits, np.uint8) if is_split else None

    @property
    def groups(self) -> NDArray[np.uint8] | None:
        """A hash of the name of each group, shape (n, 16); None if there is no such column."""
        groups = np.frombuffer(self._groups, np.uint8).reshape(-1, 16)
        return groups if "group" in self._at else None
