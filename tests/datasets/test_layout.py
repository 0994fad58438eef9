"""Which folder is what: recognized, or asked with the option that settles it."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.drawing import save

from batchify.dataset_options import DiscoverOptions
from batchify.datasets.dataset import Dataset
from batchify.datasets.discovery import discover
from batchify.errors import DatasetError, OptionError

posix = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")

CLASSES = ("cat", "dog")
NFC, NFD = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")


def images(*folders: str, count: int = 2) -> list[str]:
    """Return paths of images in each folder."""
    return [f"{folder}/{i}.jpg" for folder in folders for i in range(count)]


def of_classes(*folders: str) -> list[str]:
    """Return paths of images in the folders of two classes in each folder."""
    return images(*(f"{folder}/{name}" for folder in folders for name in CLASSES))


def touch(root: Path, *names: str) -> Path:
    """Make empty files, and the folders above them; a name with a final slash is a folder."""
    for name in names:
        if name.endswith("/"):
            (root / name).mkdir(parents=True)
        else:
            save(root / name, b"")
    return root


class Found(NamedTuple):
    """A case that is recognized: files, options, and what they are."""

    files: list[str]
    layout: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    unlabelled: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    entered: str = ""
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    needs_labels: bool = True


RECOGNIZED = {
    "class-folders": Found(images("cat", "dog"), "classes", CLASSES, {"": 4}),
    "split-folders": Found(
        of_classes("train", "val", "test"), "splits", CLASSES,
        {"train": 4, "validation": 4, "test": 4},
    ),
    "split-names": Found(
        of_classes("Train Data", "valid_imgs", "TEST-SET"), "splits", CLASSES,
        {"train": 4, "validation": 4, "test": 4},
    ),
    "kaggle-test": Found(
        [*of_classes("train"), *images("test", count=7)], "splits", CLASSES,
        {"train": 4, "test": 7}, ("test",), ("unlabelled",),
    ),
    "unlabelled-test": Found(
        [*of_classes("train"), *images("test/unknown")], "splits", CLASSES,
        {"train": 4, "test": 2}, ("test",), ("unlabelled",),
    ),
    "doubled-unlabelled-test": Found(
        [*of_classes("train/train"), *images("test/test")], "splits", CLASSES,
        {"train": 4, "test": 2}, ("test",), ("unlabelled",),
    ),
    "doubled": Found(
        of_classes("training_set/training_set", "test_set/test_set"), "splits", CLASSES,
        {"train": 4, "test": 4},
    ),
    "seg-train": Found(
        of_classes("seg_train/seg_train", "seg_test/seg_test"), "splits", CLASSES,
        {"train": 4, "test": 4},
    ),
    "wrapper": Found(
        [*of_classes("mydata/train", "mydata/val"), "README.txt", "__MACOSX/._mydata"], "splits",
        CLASSES, {"train": 4, "validation": 4}, entered="mydata",
    ),
    "nested-wrapper": Found(
        of_classes("a/b/c"), "classes", CLASSES, {"": 4}, entered="a/b/c",
    ),
    "empty-split-folder": Found(
        [*of_classes("train"), "val/"], "splits", CLASSES, {"train": 4},
    ),
    "annotations-beside": Found(
        [*of_classes("train", "val"), "Annotations/0.xml"], "splits", CLASSES,
        {"train": 4, "validation": 4},
    ),
    "train-is-a-class": Found(
        images("bus", "car", "train"), "classes", ("bus", "car", "train"), {"": 6}
    ),
    "valid-is-a-class": Found(
        images("invalid", "valid"), "classes", ("invalid", "valid"), {"": 4}
    ),
    "nested": Found(
        images("a/airfield", "a/alley", "b/bank"), "classes", ("a", "b"), {"": 6},
        codes=("nested-classes",),
    ),
    "class-from-leaf": Found(
        images("a/airfield", "a/alley", "b/airfield"), "classes", ("airfield", "alley"), {"": 6},
        options={"class_from": "leaf"},
    ),
    "class-from-path": Found(
        images("a/airfield", "a/alley", "b/airfield"), "classes",
        ("a/airfield", "a/alley", "b/airfield"), {"": 6}, options={"class_from": "path"},
    ),
    "class-from-leaf-in-splits": Found(
        images("train/a/x", "train/b/y", "val/a/x", "val/b/y"), "splits", ("x", "y"),
        {"train": 4, "validation": 4}, options={"class_from": "leaf"},
    ),
    "photos-of-classes": Found(
        images("n01/images", "n02/images"), "classes", ("n01", "n02"), {"": 4}
    ),
    "flat": Found(
        ["0.jpg", "1.jpg", "x/2.jpg"], "flat", ("unlabelled",), {"": 3},
        options={"layout": "flat"}, needs_labels=False,
    ),
    "flat-without-labels": Found(
        ["0.jpg", "1.jpg", "x/"], "flat", ("unlabelled",), {"": 2}, needs_labels=False
    ),
    "flat-splits-without-labels": Found(
        images("train", "val"), "splits", ("unlabelled",), {"train": 2, "validation": 2},
        needs_labels=False,
    ),
    "label-from": Found(
        ["pug_1.jpg", "cat_2.jpg", "x/pug_3.jpg"], "flat", ("cat", "pug"), {"": 3},
        options={"label_from": "([a-z]+)_[0-9]+"},
    ),
    "label-from-in-splits": Found(
        ["train/cat.0.jpg", "train/dog.0.jpg", "test1/1.jpg"], "splits", CLASSES,
        {"train": 2, "test": 1}, ("test",), ("unlabelled",),
        options={"label_from": r"(cat|dog)\."},
    ),
    "label-from-in-classes": Found(
        ["a/cat_0.jpg", "b/dog_0.jpg", "loose_0.jpg"], "classes", CLASSES, {"": 2},
        options={"label_from": "([a-z]+)_", "layout": "classes"},
    ),
    "layout-splits": Found(
        [*of_classes("train", "val"), *images("runs/exp1")], "splits", CLASSES,
        {"train": 4, "validation": 4}, codes=("ignored-folders",), options={"layout": "splits"},
    ),
    "layout-splits-flat-val": Found(
        [*of_classes("train"), *images("val")], "splits", CLASSES, {"train": 4, "validation": 2},
        ("validation",), ("unlabelled",), options={"layout": "splits"},
    ),
    "layout-classes": Found(
        [*of_classes("train"), *images("runs")], "classes", ("runs", "train"), {"": 6},
        options={"layout": "classes"},
    ),
    "layout-classes-same-folders": Found(
        images("p1/l", "p1/r", "p2/l", "p2/r"), "classes", ("p1", "p2"), {"": 8},
        codes=("nested-classes",), options={"layout": "classes"},
    ),
    "excluded-folder": Found(
        [*of_classes("train", "val", "test"), *images("runs/exp1")], "splits", CLASSES,
        {"train": 4, "validation": 4, "test": 4}, options={"exclude": ("runs",)},
    ),
    "case": Found(
        images("train/Cat", "train/dog", "val/cat", "val/dog"), "splits", ("Cat", "cat", "dog"),
        {"train": 4, "validation": 4}, codes=("similar-classes",),
    ),
    "unicode-form": Found(
        images(NFC, NFD), "classes", (NFD, NFC), {"": 4}, codes=("similar-classes",)
    ),
    "junk": Found(
        [*images("cat", "dog", count=10), "cat/@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg",
         "__pycache__/", "System Volume Information/"],
        "classes", CLASSES, {"": 20},
    ),
}  # fmt: skip


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS takes both forms for one folder")
@pytest.mark.parametrize("name", RECOGNIZED)
def test_what_is_clear_is_recognized(tmp_path: Path, name: str) -> None:
    """Layout, classes, splits and warnings of each case, and every image once."""
    case = RECOGNIZED[name]
    root = touch(tmp_path / "D", *case.files)
    found = discover(root, DiscoverOptions(**case.options), needs_labels=case.needs_labels)
    splits = found.splits or {"": np.arange(len(found.samples), dtype=np.int32)}
    assert found.layout == case.layout
    assert tuple(map(os.fsdecode, found.classes)) == case.classes
    assert {split: len(rows) for split, rows in splits.items()} == case.counts
    assert found.unlabelled == case.unlabelled
    assert tuple(warning.code for warning in found.warnings) == case.codes
    assert os.fsdecode(found.entered) == case.entered
    labels_are_sorted(found)


def labels_are_sorted(found: Dataset) -> None:
    """Check that labels ascend in each split, and that only unlabelled splits have none."""
    labels = found.samples.labels
    for split, rows in (found.splits or {"": np.arange(len(labels), dtype=np.int32)}).items():
        some = labels[rows].tolist()
        assert some == sorted(some)
        assert (min(some) < 0) == (split in found.unlabelled)


class Asked(NamedTuple):
    """A case that is refused: files, what the message says, the options that it names."""

    files: list[str]
    reason: str
    ways: tuple[str, ...]
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed


ASKED = {
    "flat-val": Asked(
        [*images("train/n01", "train/n02"), *images("val", count=5)],
        "val has 5 images but no class folders",
        ("--exclude val", "--manifest FILE", "--layout splits", "--layout classes"),
    ),
    "flat-train": Asked(
        images("train", "test1"), "train has 2 images but no class folders",
        ("--label-from REGEX", "--manifest FILE", "--class-mode none"),
    ),
    "mixed": Asked(
        [*of_classes("train", "val", "test"), *images("runs/exp1")],
        "test, train and val are named like splits, runs is not",
        ("--exclude runs", "--layout splits", "--layout classes"),
    ),
    "mixed-flat": Asked(
        images("train", "val", "runs"), "train and val are named like splits, runs is not",
        ("--exclude runs",),
    ),
    "mixed-space": Asked(
        [*of_classes("train"), *images("my runs")], "train is named like a split, my runs is not",
        ("--exclude 'my runs'",),
    ),
    "tiny-imagenet": Asked(
        images("train/n01/images", "train/n02/images", "val/images", "test/images"),
        "val shares no class with train: train has n01 and n02, val has images",
        ("--manifest FILE", "--exclude val", "--layout splits"),
    ),
    "case-of-all": Asked(
        images("train/Cat", "train/Dog", "val/cat", "val/dog"),
        "val shares no class with train: train has Cat and Dog, val has cat and dog, which differ "
        "by case",
        ("--layout splits",),
    ),
    "same-folders": Asked(
        images("p1/l", "p1/r", "p2/l", "p2/r"),
        "all 2 folders hold the same folders and no images of their own",
        ("--class-from leaf", "--layout classes"),
    ),
    "same-folders-in-splits": Asked(
        images("train/p1/l", "train/p1/r", "train/p2/l", "train/p2/r"),
        "all 2 folders hold the same folders", ("--class-from leaf", "--layout splits"),
    ),
    "detection": Asked(
        [*images("images/train", "images/val"), "labels/train/0.txt", "labels/val/0.txt"],
        "images and labels look like images and their annotations",
        ("--exclude labels", "--manifest FILE", "--layout classes"),
    ),
    "detection-in-splits": Asked(
        [*images("train/images", "valid/images"), "train/labels/0.txt", "valid/labels/0.txt"],
        "images and labels in train look like images", ("--exclude labels", "--class-mode none"),
    ),
    "segmentation": Asked(
        images("images", "masks"), "images and masks look like images and their annotations",
        ("--class-mode mask", "--exclude masks"),
    ),
    "only-images": Asked(
        images("images"), "its name is not that of a class", ("--label-from REGEX",)
    ),
    "wrapper-with-images": Asked(
        [*of_classes("mydata"), "cover.jpg"],
        "mydata is the only folder, but there are images next to it",
        ("--layout classes", "batchify build"),
    ),
    "flat-with-labels": Asked(
        ["0.jpg", "1.jpg"], "has 2 images, such as 0.jpg, but no class folders",
        ("--class-mode none", "--label-from", "--manifest"),
    ),
    "labels-in-names": Asked(
        ["pug_12.jpg", "cat_2.jpg", "new/"],
        "has 2 images, such as cat_2.jpg, but no class folders with images (new hold none)",
        ("--label-from",),
    ),
    "loose-images": Asked(
        ["cat/0.jpg", *images(".", count=5)], "has 5 images next to its class folders, and only 1",
        ("--layout classes", "--layout flat"),
    ),
    "repeated-split": Asked(
        images("train/a", "val/a", "validation/a"),
        "folders val, validation are all the validation split", ("--exclude", "--layout classes"),
    ),
    "layout-flat-without-labels": Asked(
        ["0.jpg"], "a flat layout has no class folders", ("--label-from", "--class-mode none"),
        {"layout": "flat"},
    ),
    "layout-splits-without-splits": Asked(
        images("cat"), "--layout splits needs folders that are named like splits", (),
        {"layout": "splits"},
    ),
    "label-from-without-match": Asked(
        ["pug_1.jpg", "cat_2.jpg", "3.jpg", "x/4.jpg"], "2 of 4 paths do not match --label-from",
        ("such as 3.jpg, x/4.jpg",), {"label_from": "([a-z]+)_"},
    ),
    "label-from-with-empty-group": Asked(
        ["pug_1.jpg", "_2.jpg"], "1 of 2 paths do not match", ("such as _2.jpg",),
        {"label_from": "([a-z]*)_"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_what_is_not_clear_is_asked(tmp_path: Path, name: str) -> None:
    """The message says what was seen, and names the options that settle it."""
    case = ASKED[name]
    root = touch(tmp_path / "D", *case.files)
    with pytest.raises(DatasetError) as error:
        discover(root, DiscoverOptions(**case.options))
    message = str(error.value)
    assert case.reason in message
    assert str(root) in message
    for way in case.ways:
        assert way in message


def test_the_message_shows_the_folders(tmp_path: Path) -> None:
    """With what each of them holds."""
    files = [*images("train/n01", "train/n02"), *images("val", count=5)]
    with pytest.raises(DatasetError) as error:
        discover(touch(tmp_path, *files))
    lines = str(error.value).splitlines()
    assert lines[1:4] == ["Found:", "  train/  2 folders (n01, n02)", "  val/    5 images"]


def test_what_the_message_offers_settles_it(tmp_path: Path) -> None:
    """The options of the message for mixed folders lead to the datasets that it says."""
    files = [*of_classes("train", "val"), *images("runs/exp1")]
    root = touch(tmp_path, *files)
    excluded = discover(root, DiscoverOptions(exclude=("runs",)))
    splits = discover(root, DiscoverOptions(layout="splits"))
    assert excluded.classes == splits.classes == (b"cat", b"dog")
    assert bytes(excluded.samples.names) == bytes(splits.samples.names)
    assert len(discover(root, DiscoverOptions(layout="classes")).classes) == 3


def test_options_that_contradict_each_other_are_refused() -> None:
    """--class-from is about folders, --label-from and flat layouts are not."""
    with pytest.raises(OptionError, match="--class-from takes classes from folders"):
        DiscoverOptions(class_from="leaf", label_from="(a)")
    with pytest.raises(OptionError, match="--layout flat does not"):
        DiscoverOptions(class_from="leaf", layout="flat")
    with pytest.raises(OptionError, match="label from must have a group"):
        DiscoverOptions(label_from="a")
