"""Which rows are shown: a few of each class, drawn by a seed."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset

import batchify
from batchify.errors import FileFormatError, OptionError
from batchify.format.class_labels import class_counts
from batchify.format.reader import Reader
from batchify.reporting.sampling import Shown, sample_rows
from batchify.reporting.summary import summary_of


def built(root: Path, counts: dict[str, int], class_mode: str = "sparse") -> Path:
    """Build a file of so many drawn photos of each class."""
    draw_dataset(root / "photos", counts, size=(8, 8), format_name="PNG")
    out = root / f"{class_mode}.h5"
    batchify.build(
        root / "photos",
        out,
        batchify.BuildOptions(
            decode=batchify.DecodeOptions(target_size=(8, 8)),
            store=batchify.StoreOptions(class_mode=class_mode),  # type: ignore[arg-type]
        ),
        workers=1,
    )
    return out


def labels(path: Path, split: str) -> list[int]:
    """Read the class of each row with plain h5py."""
    with h5py.File(path) as file:
        stored = file[split]["labels"][()]
    return list(stored.argmax(axis=1) if stored.ndim == 2 else stored)


@pytest.mark.parametrize("class_mode", ["sparse", "categorical"])
def test_each_class_shows_rows_of_its_own(tmp_path: Path, class_mode: str) -> None:
    """All rows of a small class, some of a large one, ascending, with the count of all."""
    path = built(tmp_path, {"cat": 3, "dog": 20, "empty": 0, "fox": 9}, class_mode)
    known = labels(path, "train")
    with Reader(path) as reader:
        shown = sample_rows(reader, "train", per_class=5, most_classes=10, seed=0)
    assert [(of.class_index, of.count, len(of.rows)) for of in shown] == [
        (0, 3, 3),
        (1, 16, 5),
        (3, 8, 5),
    ]
    for of in shown:
        assert list(of.rows) == sorted(set(of.rows))
        assert {known[row] for row in of.rows} == {of.class_index}


def test_a_seed_always_draws_the_same_rows(tmp_path: Path) -> None:
    """Seeds differ, a seed does not."""
    path = built(tmp_path, {"cat": 40, "dog": 40})
    with Reader(path) as reader:
        draws = [
            sample_rows(reader, "train", per_class=4, most_classes=2, seed=seed)
            for seed in (0, 0, 1)
        ]
    assert draws[0] == draws[1] != draws[2]


def test_every_split_shows_the_same_of_many_classes(tmp_path: Path) -> None:
    """Those that a split has, of the first ones in an order that the seed alone decides."""
    path = built(tmp_path, {f"c{i:02}": 5 for i in range(30)})
    with Reader(path) as reader:
        found = {
            split: [
                of.class_index
                for of in sample_rows(reader, split, per_class=1, most_classes=7, seed=3)
            ]
            for split in reader.splits
        }
    order = np.random.RandomState([3]).permutation(30)
    assert found["train"] == found["validation"] == sorted(order[:7])


def test_without_labels_rows_of_the_whole_split_are_drawn(tmp_path: Path) -> None:
    """One entry, of no class."""
    path = built(tmp_path, {"cat": 5, "dog": 10}, "none")
    with Reader(path) as reader:
        assert class_counts(reader, "train") is None
        (shown,) = sample_rows(reader, "train", per_class=100, most_classes=1, seed=0)
        (fewer,) = sample_rows(reader, "train", per_class=3, most_classes=1, seed=0)
    assert shown == Shown(None, 12, tuple(range(12)))
    assert (fewer.count, len(fewer.rows)) == (12, 3)


def test_an_empty_split_shows_nothing(tmp_path: Path) -> None:
    """There is no class of it."""
    path = built(tmp_path, {"cat": 1})
    with Reader(path) as reader:
        assert sample_rows(reader, "validation", per_class=1, most_classes=1, seed=0) == []


@pytest.mark.parametrize("class_mode", ["sparse", "categorical"])
def test_labels_of_no_class_are_refused(tmp_path: Path, class_mode: str) -> None:
    """A label outside of the classes is damage, not a class more."""
    path = built(tmp_path, {"cat": 5, "dog": 5}, class_mode)
    with h5py.File(path, "r+") as file:
        file["train/labels"][2] = 2 if class_mode == "sparse" else 1
    with Reader(path) as reader:
        with pytest.raises(FileFormatError, match="not class indices"):
            sample_rows(reader, "train", per_class=1, most_classes=1, seed=0)
        with pytest.raises(FileFormatError, match="not class indices"):
            summary_of(reader)


@pytest.mark.parametrize(
    ("per_class", "most_classes", "seed"), [(0, 1, 0), (1, 0, 0), (1, 1, -1), (1, 1, 2**32)]
)
def test_numbers_that_cannot_be_meant_are_refused(
    tmp_path: Path, per_class: int, most_classes: int, seed: int
) -> None:
    """Nothing to show, or a seed that NumPy does not take."""
    path = built(tmp_path, {"cat": 2})
    with Reader(path) as reader, pytest.raises(OptionError):
        sample_rows(reader, "train", per_class=per_class, most_classes=most_classes, seed=seed)
