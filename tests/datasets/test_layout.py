"""Which folder is what: recognized, or asked with the option that settles it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.files import touch
from helpers.running import Run

from batchify.dataset_options import DiscoverOptions
from batchify.datasets.dataset import Dataset
from batchify.datasets.discovery import discover
from batchify.errors import DatasetError, OptionError
from batchify.format.config import build_command
from batchify.loading.loader import Loader

TOP = Path(__file__).parents[2]

posix = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")

CLASSES = ("cat", "dog")
NFC, NFD = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")


def images(*folders: str, count: int = 2) -> list[str]:
    """Return paths of images in each folder."""
    return [f"{folder}/{i}.jpg" for folder in folders for i in range(count)]


def of_classes(*folders: str) -> list[str]:
    """Return paths of images in the folders of two classes in each folder."""
    return images(*(f"{folder}/{name}" for folder in folders for name in CLASSES))


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
        codes=("merged-classes",), options={"class_from": "leaf"},
    ),
    "class-from-path": Found(
        images("a/airfield", "a/alley", "b/airfield"), "classes",
        ("a/airfield", "a/alley", "b/airfield"), {"": 6}, options={"class_from": "path"},
    ),
    "class-from-leaf-of-the-same": Found(
        images("p1/l", "p1/r", "p2/l", "p2/r"), "classes", ("l", "r"), {"": 8},
        options={"class_from": "leaf"},
    ),
    "empty-folders-of-a-split": Found(
        [*of_classes("train"), "val/cat/", "val/dog/"], "splits", CLASSES,
        {"train": 4, "validation": 0}, codes=("empty-split",),
    ),
    "class-from-leaf-in-splits": Found(
        images("train/a/x", "train/b/y", "val/a/x", "val/b/y"), "splits", ("x", "y"),
        {"train": 4, "validation": 4}, options={"class_from": "leaf"},
    ),
    "subfolders-of-some": Found(
        images("bird", "cat", "dog/husky", "dog/pug"), "classes", ("bird", "cat", "dog"), {"": 8}
    ),
    "subfolders-beside-images": Found(
        images("cat", "dog", "dog/husky", "dog/pug"), "classes", CLASSES, {"": 8}
    ),
    "doubled-classes": Found(images("cat/cat", "dog/dog"), "classes", CLASSES, {"": 4}),
    "dated-photos": Found(
        images("cat/2020/05", "cat/2021/06", "dog", "dog/2020"), "classes", CLASSES, {"": 8}
    ),
    "an-empty-class": Found(
        [*images("cat", "dog"), "bird/"], "classes", ("bird", *CLASSES), {"": 4}
    ),
    "readme-beside": Found(
        [*images("cat", "dog"), "README.md", "labels.csv", ".git/0.jpg"], "classes", CLASSES,
        {"": 4},
    ),
    "numbered-classes": Found(
        [*images("class_1", "class_2"), "classes.csv"], "classes", ("class_1", "class_2"), {"": 4}
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
    "listed-class-is-excluded": Found(
        images("a", "b", "c"), "classes", ("a", "b", "c"), {"": 4},
        options={"classes": ("a", "b", "c"), "exclude": ("a/*",)},
    ),
    "listed-class-is-in-one-split": Found(
        images("train/a", "train/b", "val/a"), "splits", ("b",), {"train": 2, "validation": 0},
        codes=("unlisted-classes", "empty-split"), options={"classes": ("b",)},
    ),
    "loose-few": Found(
        [*images("cat", "dog", count=10), *images(".", count=19)], "classes", CLASSES, {"": 20},
        codes=("loose",),
    ),
    "loose-in-a-split": Found(
        [*images("train/cat", "train/dog", count=10), *images("train", count=5)], "splits",
        CLASSES, {"train": 20}, codes=("loose",),
    ),
    "loose-without-labels": Found(
        [*images("cat"), *images(".", count=3)], "classes", ("cat",), {"": 2}, codes=("loose",),
        needs_labels=False,
    ),
    "loose-excluded": Found(
        ["cat/0.jpg", *images(".", count=5), "5.[x].png"], "classes", ("cat",), {"": 1},
        options={"exclude": ("/*.jpg", "/*.png")},
    ),
    "days-in-classes": Found(
        [*images("cat", "dog", "cat/day1", "cat/day2", "dog/day1", "dog/day2")], "classes",
        CLASSES, {"": 12},
    ),
    "one-folder-in-all": Found(
        images("cat/a", "cat/x", "dog/b", "dog/x"), "classes", CLASSES, {"": 8},
        codes=("nested-classes",),
    ),
    "images-of-something": Found(
        ["photos/a.jpg", "paintings/b.jpg"], "classes", ("paintings", "photos"), {"": 2},
        codes=("kinds",),
    ),
    "images-next-to-classes": Found(
        images("cat", "dog", "images"), "classes", ("cat", "dog", "images"), {"": 6},
        codes=("kinds",),
    ),
    "mask-is-a-class": Found(
        images("mask", "no_mask"), "classes", ("mask", "no_mask"), {"": 4}
    ),
    "wrapper-patterns": Found(
        [*of_classes("mydata/train", "mydata/val"), *images("mydata/runs")], "splits", CLASSES,
        {"train": 4, "validation": 4}, entered="mydata", options={"exclude": ("/runs",)},
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
    """Layout, classes, splits and warnings of each (L1, L5, L6, L18), and every image once."""
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
        assert (min(some, default=0) < 0) == (split in found.unlabelled)


class Asked(NamedTuple):
    """A case that is refused: files, what the message says, the options that it names."""

    files: list[str]
    reason: str
    ways: tuple[str, ...]
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    needs_labels: bool = True


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
        "both folders hold the same folders and no images of their own",
        ("--class-from leaf", "--layout classes"),
    ),
    "repeated-folders": Asked(
        images("cat/test", "cat/train", "dog/train"), "several folders hold train, and none has",
        ("--class-from leaf", "--layout classes"),
    ),
    "repeated-folders-of-some": Asked(
        images("p1/cat", "p1/dog", "p2/cat", "p3/dog"), "several folders hold cat and dog",
        ("--class-from leaf", "--layout classes"),
    ),
    "same-folders-in-splits": Asked(
        images("train/p1/l", "train/p1/r", "train/p2/l", "train/p2/r"),
        "both folders hold the same folders", ("--class-from leaf", "--layout splits"),
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
    "annotations-by-label-from": Asked(
        ["images/pug_1.jpg", "images/cat_1.jpg", "annotations/trimaps/pug_1.png"],
        "images and annotations look like images and their annotations",
        ("--exclude annotations --label-from REGEX", "--layout flat"), {"label_from": "([a-z]+)_"},
    ),
    "masks-without-labels": Asked(
        images("images", "masks"), "images and masks look like images and their annotations",
        ("--exclude masks --class-mode none", "--layout flat"), needs_labels=False,
    ),
    "masks-without-labels-in-splits": Asked(
        images("train/images", "train/masks"), "images and masks in train look like images",
        ("--exclude masks --class-mode none", "--layout splits"), needs_labels=False,
    ),
    "kinds-in-longer-names": Asked(
        images("ISIC_Task1_Training_Input", "ISIC_Task1_Training_GroundTruth"),
        "look like images and their annotations",
        ("--exclude ISIC_Task1_Training_GroundTruth --label-from REGEX",),
    ),
    "test-next-to-images": Asked(
        images("images", "test"), "test is named like a split, images is not",
        ("--manifest FILE", "--exclude test --label-from REGEX", "--layout classes"),
    ),
    "unlabelled-beside-train": Asked(
        images("train", "extra", "unlabeled"),
        "train is named like a split, extra and unlabeled are not",
        ("--exclude extra --exclude unlabeled --label-from REGEX", "--layout classes"),
    ),
    "test-next-to-a-dataset": Asked(
        [*of_classes("plants/plants/train", "plants/plants/valid"), *images("test/test")],
        "test is named like a split, plants is not", ("--exclude test",),
    ),
    "doubled-with-images": Asked(
        [*of_classes("train/train"), "train/train/0.jpg"],
        "train/train holds both folders and images",
        ("--exclude '/train/train/*.jpg'", "--layout splits"),
    ),
    "only-folder-with-a-table": Asked(
        [*images("photos_2020"), "labels.csv"],
        "photos_2020 is the only folder, and there is a table of labels with it",
        ("--manifest FILE", "--label-from REGEX", "--class-mode none", "--layout classes"),
    ),
    "only-folder-doubled": Asked(
        images("celeba/celeba"), "celeba is the only folder, in a folder of the same name",
        ("--manifest FILE", "--class-mode none"),
    ),
    "work-folders": Asked(
        [*of_classes("data"), *images("plots")],
        "data holds several folders and no images of its own; plots is next to it and does not",
        ("--exclude plots", "batchify build", "--layout classes"),
    ),
    "work-folders-of-folders": Asked(
        [*of_classes("data"), *images("results/1", "results/2")],
        "data holds several folders and no images of its own; results is next to it",
        ("--exclude results", "--layout classes"),
    ),
    "train-beside-work-folders": Asked(
        [*of_classes("data/train"), *images("results")], "data holds several folders",
        ("--exclude results",),
    ),
    "splits-beside-work-folders": Asked(
        [*of_classes("data/train", "data/val"), "notebooks/x.ipynb"],
        "data holds folders that are named like splits (train and val); notebooks is next to it",
        ("--exclude notebooks", "--layout classes"),
    ),
    "empty-beside": Asked(
        [*of_classes("in"), "empty/"], "in holds several folders", ("--exclude empty",)
    ),
    "annotations-beside-classes": Asked(
        [*of_classes("101_ObjectCategories"), "Annotations/x/1.mat"],
        "101_ObjectCategories holds several folders", ("--exclude Annotations",),
    ),
    "meta-beside-classes": Asked(
        [*of_classes("images"), "attributes/", "parts/parts.txt"],
        "images holds several folders and no images of its own; attributes and parts are next",
        ("--exclude attributes --exclude parts",),
    ),
    "copy-inside": Asked(
        [*images("no", "yes"), *images("brain/no", "brain/yes")],
        "brain holds folders that are named like those next to it (no and yes)",
        ("--exclude brain", "--layout classes"),
    ),
    "copy-of-the-wrapper": Asked(
        of_classes("cells", "cells/cells"), "cells holds folders that are named like those next",
        ("--exclude cells/cells",),
    ),
    "copy-in-a-split": Asked(
        of_classes("train", "train/all"), "all holds folders that are named like those next to it",
        ("--exclude all", "--layout splits"),
    ),
    "parts-with-a-table": Asked(
        [*images("HAM_part_1", "HAM_part_2"), "meta.csv"],
        "HAM_part_1 and HAM_part_2 have names that differ by a number only, and there is a table",
        ("--manifest FILE", "--layout flat --class-mode none", "--layout classes"),
    ),
    "parts-of-images": Asked(
        images("images_001/images", "images_002/images"), "names that differ by a number only",
        ("--manifest FILE", "--layout flat --label-from REGEX"),
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
    "wrapper-of-images": Asked(
        [*of_classes("mydata"), "mydata/stray.jpg"],
        "mydata is the only folder, and holds both folders and images",
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
        ["cat/0.jpg", *images(".", count=5)],
        "has 5 images next to its class folders, such as 0.jpg, and only 1",
        ("--layout classes", "--layout flat"),
    ),
    "loose-in-a-small-split": Asked(
        [*images("train/n1", count=9), "val/n1/0.jpg", *images("val", count=6)],
        "has 6 images next to its class folders in val, such as val/0.jpg, and only 1 in them",
        ("--layout splits", "--exclude '/val/*.jpg'", "--layout flat", "--label-from"),
    ),
    "folds": Asked(
        [*of_classes("fold1", "fold2"), "fold1/stray.jpg"],
        "both folders hold the same folders and few images of their own (1, such as "
        "fold1/stray.jpg)",
        ("--class-from leaf --exclude '/fold1/*.jpg'", "--layout classes"),
    ),
    "folds-that-differ": Asked(
        [*of_classes("fold1", "fold2"), *images("fold2/owl")],
        "both folders hold folders cat and dog and no images of their own",
        ("--class-from leaf", "--layout classes"),
    ),
    "targets": Asked(
        images("images", "targets"), "images and targets look like images and their annotations",
        ("--class-mode mask", "--exclude targets", "--layout classes"),
    ),
    "edges": Asked(
        images("edges", "photos"), "photos and edges look like images and their annotations",
        ("--exclude edges",),
    ),
    "pairs": Asked(
        ["images/1.jpg", "images/2.jpg", "results/1_out.png", "results/2_out.png"],
        "images and results look like images and their annotations", ("--exclude results",),
    ),
    "scans-and-masks": Asked(
        images("scans", "masks"), "scans and masks look like images and their annotations",
        ("--exclude masks",),
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
    """The message says what was seen, and names the options (cases L2, L4, L12, L13)."""
    case = ASKED[name]
    root = touch(tmp_path / "D", *case.files)
    with pytest.raises(DatasetError) as error:
        discover(root, DiscoverOptions(**case.options), needs_labels=case.needs_labels)
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


SETTLED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "repeated-folders-of-some": ({"class_from": "leaf"}, CLASSES),
    "test-next-to-a-dataset": ({"exclude": ("test",)}, CLASSES),
    "doubled-with-images": ({"exclude": ("/train/train/*.jpg",)}, CLASSES),
    "annotations-by-label-from": (
        {"exclude": ("annotations",), "label_from": "([a-z]+)_"},
        ("cat", "pug"),
    ),
    "test-next-to-images": ({"exclude": ("test",), "label_from": r"([0-9])\."}, ("0", "1")),
    "work-folders": ({"exclude": ("plots",)}, CLASSES),
    "work-folders-of-folders": ({"exclude": ("results",)}, CLASSES),
    "train-beside-work-folders": ({"exclude": ("results",)}, CLASSES),
    "splits-beside-work-folders": ({"exclude": ("notebooks",)}, CLASSES),
    "empty-beside": ({"exclude": ("empty",)}, CLASSES),
    "annotations-beside-classes": ({"exclude": ("Annotations",)}, CLASSES),
    "meta-beside-classes": ({"exclude": ("attributes", "parts")}, CLASSES),
    "copy-inside": ({"exclude": ("brain",)}, ("no", "yes")),
    "copy-of-the-wrapper": ({"exclude": ("cells/cells",)}, CLASSES),
    "copy-in-a-split": ({"exclude": ("all",)}, CLASSES),
    "parts-with-a-table": ({"layout": "classes"}, ("HAM_part_1", "HAM_part_2")),
}


@pytest.mark.parametrize("name", SETTLED)
def test_what_is_offered_settles_what_is_asked(tmp_path: Path, name: str) -> None:
    """The first option that a message offers leads to the dataset, without another question."""
    options, classes = SETTLED[name]
    found = discover(touch(tmp_path / "D", *ASKED[name].files), DiscoverOptions(**options))
    assert tuple(map(os.fsdecode, found.classes)) == classes


def test_an_empty_split_names_its_folder(tmp_path: Path, run: Run) -> None:
    """Empty folders are not too few images for a share, and what helps is named."""
    root = draw(tmp_path / "D", *of_classes("train"))
    touch(root, "val/cat/", "val/dog/")
    done = run("build", root, "out.h5", *SMALL)
    assert "the validation split is empty: val holds no images; --exclude val" in done.stdout
    assert "too few images" not in done.stdout
    ways = ("--exclude", "val", "--validation-split", "0.5")
    done = run("build", root, "other.h5", *SMALL, *ways)
    assert done.returncode == 0
    assert "is empty" not in done.stdout


def test_nothing_is_said_of_classes_without_labels(tmp_path: Path, run: Run) -> None:
    """--class-mode none stores no classes, so that none can be missing in train."""
    root = draw(tmp_path / "D", "train/cat_0.jpg", "train/dog_1.jpg", "val/2.jpg")
    ways = ("--class-mode", "none", "--label-from", "([a-z]+)_")
    done = run("build", root, "out.h5", *SMALL, *ways)
    assert done.returncode == 0
    assert "classes have no images" not in done.stdout


def test_merged_classes_are_named(tmp_path: Path) -> None:
    """--class-from leaf says which folders of one name became one class."""
    root = touch(tmp_path, *images("animal/bat", "animal/cat", "sport/bat"))
    (warning,) = discover(root, DiscoverOptions(class_from="leaf")).warnings
    assert "one class: bat (such as animal/bat, sport/bat)" in str(warning)
    assert "--class-from path" in str(warning)


@posix
def test_a_link_to_another_class_is_a_warning(tmp_path: Path) -> None:
    """Keras takes it as a class, too: the same images have two labels."""
    root = touch(tmp_path, *images("cat", "dog"))
    (root / "kitty").symlink_to("cat")
    found = discover(root)
    assert found.classes == (b"cat", b"dog", b"kitty")
    assert [each.code for each in found.warnings] == ["repeated-class"]
    assert "kitty is a link to cat" in str(found.warnings[0])
    assert discover(root, DiscoverOptions(exclude=("kitty",))).warnings == ()


ODD = ("runs [old]", "a*b", "w?", "!x", "#y", " lead", "trail ", r"a\\b", "-x", "tab\there", "**")


@posix
@pytest.mark.parametrize("name", ODD)
def test_odd_names(tmp_path: Path, name: str) -> None:
    """Characters that mean something in patterns, and to a shell, are escaped."""
    root = touch(tmp_path, *of_classes("train"), *images(name))
    assert offered(root) == {"train": 4}


def offered(root: Path) -> dict[str, int]:
    """Return the images of each split with the first --exclude that the message offers."""
    with pytest.raises(DatasetError) as error:
        discover(root)
    (way,) = (line for line in str(error.value).splitlines() if line.startswith("  --exclude"))
    words = shlex.split(re.split(r"  ignore ", way.strip())[0])
    found = discover(root, DiscoverOptions(exclude=tuple(words[1::2])))
    return {split: len(rows) for split, rows in (found.splits or {}).items()}


def test_more_folders_than_are_shown_are_excluded(tmp_path: Path) -> None:
    """The message offers an option for each of them."""
    root = touch(tmp_path, *of_classes("train", "val"), *images("r1", "r2", "r3", "r4", "r5"))
    assert offered(root) == {"train": 4, "validation": 4}


@pytest.mark.parametrize("name", ["loose-in-a-small-split", "loose-images", "folds"])
def test_the_patterns_for_loose_images_settle_it(tmp_path: Path, name: str) -> None:
    """What is next to the class folders is excluded, and nothing else."""
    root = touch(tmp_path, *ASKED[name].files)
    with pytest.raises(DatasetError) as error:
        discover(root)
    (pattern,) = re.findall(r"--exclude '([^']+)'", str(error.value))
    options = DiscoverOptions(exclude=(pattern,))
    if name == "folds":
        options = DiscoverOptions(exclude=(pattern,), class_from="leaf")
    found = discover(root, options)
    assert len(found.samples) == {"loose-images": 1, "folds": 8}.get(name, 10)
    assert not found.loose


def test_options_that_contradict_each_other_are_refused() -> None:
    """--class-from is about folders, --label-from and flat layouts are not."""
    with pytest.raises(OptionError, match="--class-from takes classes from folders"):
        DiscoverOptions(class_from="leaf", label_from="(a)")
    with pytest.raises(OptionError, match="--layout flat does not"):
        DiscoverOptions(class_from="leaf", layout="flat")
    with pytest.raises(OptionError, match="label from must have a group"):
        DiscoverOptions(label_from="a")


def draw(root: Path, *names: str) -> Path:
    """Draw small images, all of them different, and the folders above them."""
    for seed, name in enumerate(names):
        format_name = {".jpg": "JPEG", ".png": "PNG"}[os.path.splitext(name)[1]]
        save(root / name, encoded(photo(12, 10, seed=seed), format_name))
    return root


SMALL = ("--target-size", "8x8")


def test_a_flat_test_folder_is_stored_without_labels(tmp_path: Path, run: Run) -> None:
    """Kaggle's folders: two classes, and a test split of images alone, as the build says."""
    root = draw(tmp_path / "k", *of_classes("train"), *images("test", count=7))
    done = run("build", root, "k.h5", *SMALL)
    assert done.returncode == 0
    told = [line for line in done.stdout.splitlines() if "without labels" in line]
    assert len(told) == 1
    assert told[0].startswith("  warning: test has 7 images but no class folders: the images of ")
    with h5py.File(tmp_path / "k.h5") as file:
        assert file.attrs["classes"].tolist() == [b"cat", b"dog"]
        assert len(file["test/images"]) == 7
        assert "labels" not in file["test"]
        assert sorted(file["train/labels"][:]) == [0, 0, 1, 1]
    assert run("build", root, "k.h5", *SMALL, "--check").returncode == 0
    assert run("verify", "k.h5", "--source", root).returncode == 0


@pytest.mark.parametrize("only", [(), ("--dry-run",), ("--shards", "2")])
def test_a_doubt_leaves_no_file(tmp_path: Path, run: Run, only: tuple[str, ...]) -> None:
    """The command ends with 1 and the options; with one of them, it builds."""
    root = draw(tmp_path / "D", *of_classes("train", "val"), *images("runs/exp1"))
    done = run("build", root, "out.h5", *SMALL, *only)
    assert done.returncode == 1
    assert "train and val are named like splits, runs is not" in done.stderr
    assert "--exclude runs" in done.stderr
    assert os.listdir(tmp_path) == ["D"]
    assert run("build", root, "out.h5", *SMALL, *only, "--exclude", "runs").returncode == 0


def test_a_wrapper_makes_the_file_of_what_it_holds(tmp_path: Path, run: Run) -> None:
    """A folder in a folder, and the same in an archive: the same bytes, and the build says so."""
    inner = draw(tmp_path / "w" / "mydata", *of_classes("train", "val"))
    (tmp_path / "w" / "README.txt").write_text("not an image")
    archive = shutil.make_archive(str(tmp_path / "w"), "zip", tmp_path / "w")
    made = {}
    for name, dataset in {"in": inner, "w": tmp_path / "w", "zip": archive}.items():
        done = run("build", dataset, f"{name}.h5", *SMALL)
        assert done.returncode == 0
        assert ("dataset: mydata, the only folder in it" in done.stdout) == (name != "in")
        made[name] = (tmp_path / f"{name}.h5").read_bytes()
    assert made["in"] == made["w"] == made["zip"]
    for dataset in (inner, tmp_path / "w", archive):
        assert run("verify", "w.h5", "--source", dataset, "--redecode", "all").returncode == 0
        assert run("build", dataset, "w.h5", *SMALL, "--check").returncode == 0
    plan = json.loads(run("build", tmp_path / "w", "x.h5", "--dry-run", "--json").stdout)
    assert plan["entered"] == "mydata"


def test_labels_from_names_are_stored_and_found_again(tmp_path: Path, run: Run) -> None:
    """The pattern is in the config; verify, --check and the printed command use it."""
    root = draw(tmp_path / "pets", "pug_1.jpg", "cat_2.jpg", "new/pug_3.jpg", "cat_4.jpg")
    done = run("build", root, "out.h5", *SMALL)
    assert done.returncode == 1
    assert "--label-from" in done.stderr
    pattern = "([a-z]+)_[0-9]+"
    flags = (*SMALL, "--label-from", pattern, "--validation-split", "0")
    assert run("build", root, "out.h5", *flags).returncode == 0
    with h5py.File(tmp_path / "out.h5") as file:
        config = json.loads(file.attrs["config"])
        assert (config["layout"], config["label_from"]) == ("flat", pattern)
        assert file.attrs["classes"].tolist() == [b"cat", b"pug"]
        stored = dict(zip(file["train/paths"][:], file["train/labels"][:].tolist(), strict=True))
    assert stored == {b"pug_1.jpg": 1, b"cat_2.jpg": 0, b"new/pug_3.jpg": 1, b"cat_4.jpg": 0}
    assert run("build", root, "out.h5", *flags, "--check").returncode == 0
    assert run("verify", "out.h5", "--source", root).returncode == 0
    command = build_command(config, skipped=False)
    assert "--layout flat" in command
    assert f"--label-from {shlex.quote(pattern)}" in command
    draw(root, "3.jpg")
    done = run("verify", "out.h5", "--source", root)
    assert done.returncode == 6
    assert "3.jpg" in done.stdout


def test_nested_classes_are_stored_and_found_again(tmp_path: Path, run: Run) -> None:
    """--class-from leaf merges folders of one name, and is recorded."""
    root = draw(tmp_path / "D", *images("a/airfield", "a/alley", "b/airfield"))
    flags = (*SMALL, "--class-from", "leaf", "--validation-split", "0")
    assert run("build", root, "out.h5", *flags).returncode == 0
    with h5py.File(tmp_path / "out.h5") as file:
        assert file.attrs["classes"].tolist() == [b"airfield", b"alley"]
        assert sorted(file["train/labels"][:]) == [0, 0, 0, 0, 1, 1]
        assert json.loads(file.attrs["config"])["class_from"] == "leaf"
    assert run("verify", "out.h5", "--source", root).returncode == 0


def test_a_flat_folder_without_labels_is_built(tmp_path: Path, run: Run) -> None:
    """--class-mode none takes images to predict on; the refusal without it names it."""
    root = draw(tmp_path / "D", "1.jpg", "2.jpg", "3.jpg")
    refused = run("build", root, "out.h5", *SMALL)
    assert refused.returncode == 1
    assert "--class-mode none" in refused.stderr
    flags = (*SMALL, "--class-mode", "none", "--validation-split", "0")
    assert run("build", root, "out.h5", *flags).returncode == 0
    with h5py.File(tmp_path / "out.h5") as file:
        assert sorted(file["train/paths"][:]) == [b"1.jpg", b"2.jpg", b"3.jpg"]
        assert "labels" not in file["train"]
    assert run("verify", "out.h5", "--source", root).returncode == 0
    assert run("build", root, "out.h5", *flags, "--check").returncode == 0
    assert run("inspect", "out.h5").returncode == 0


@posix
@pytest.mark.parametrize("name", ["linked-class"])
def test_a_class_that_is_a_link_out_is_asked(tmp_path: Path, run: Run, name: str) -> None:
    """Its images would be missing: an error in every command, unless an option says what to do."""
    draw(tmp_path / "elsewhere", *images("cat"))
    root = draw(tmp_path / name, *images("dog"))
    (root / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    for only in ((), ("--dry-run",), ("--check",), ("--shards", "2")):
        done = run("build", root, "out.h5", *SMALL, *only)
        assert done.returncode == 1
        assert "cat is a link out of the dataset folder" in done.stderr
        assert "--follow-links" in done.stderr
        assert "--on-error skip" in done.stderr
    with pytest.raises(DatasetError, match="pass follow_links=True"):
        Loader.from_directory(root)
    refused = run("fingerprint", root)  # no key for a build that is refused
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--on-error skip" in refused.stderr
    assert run("fingerprint", root, "--on-error", "skip").returncode == 0
    checked = run("check", root, "--json", "--quiet")
    assert checked.returncode == 8
    found = {each["code"]: each for each in json.loads(checked.stdout)["findings"]}
    assert found["linked-class"]["examples"][0]["path"] == "cat"
    assert run("build", root, "skip.h5", *SMALL, "--on-error", "skip").returncode == 0
    assert run("build", root, "all.h5", *SMALL, "--follow-links").returncode == 0
    with h5py.File(tmp_path / "all.h5") as file:
        assert sum(len(file[split]["images"]) for split in ("train", "validation")) == 4


@posix
def test_links_in_a_class(tmp_path: Path, run: Run) -> None:
    """A folder and a file outside of the dataset: a warning, a finding, and an option."""
    outside = draw(tmp_path / "elsewhere", *images("cat", count=3))
    root = draw(tmp_path / "D", *of_classes("."))
    (root / "cat" / "more").symlink_to(outside / "cat")
    (root / "cat" / "far.jpg").symlink_to(outside / "cat" / "0.jpg")
    done = run("build", root, "out.h5", *SMALL)
    assert done.returncode == 0
    assert "warning: ignored 2 links that lead out of the dataset" in done.stdout
    assert "such as cat/far.jpg: --follow-links" in done.stdout
    checked = json.loads(run("check", root, "--json", "--quiet").stdout)
    assert "links" in {each["code"] for each in checked["findings"]}
    done = run("build", root, "all.h5", *SMALL, "--follow-links")
    assert "ignored" not in done.stdout
    assert "all.h5: 7 train + 1 validation images" in done.stdout


def test_patterns_mean_the_same(tmp_path: Path, run: Run) -> None:
    """They start at DATASET, or at its only folder; verify finds the same files in each."""
    files = [*of_classes("train", "val"), *images("runs", "train/runs")]
    inner = draw(tmp_path / "w" / "mydata", *files)
    archive = shutil.make_archive(str(tmp_path / "w"), "zip", tmp_path / "w")
    made = set()
    for dataset in (tmp_path / "w", archive):
        for pattern in ("/mydata/runs", "/runs", "mydata/runs"):
            done = run("build", dataset, "out.h5", *SMALL, "--exclude", pattern, "--overwrite")
            assert done.returncode == 0
            assert "unused-pattern" not in done.stdout
            with h5py.File(tmp_path / "out.h5") as file:
                made.add((tuple(file["train/paths"][:]), tuple(file.attrs["classes"])))
    assert len(made) == 1
    assert (
        run("build", inner, "out.h5", *SMALL, "--exclude", "/runs", "--overwrite").returncode == 0
    )
    for dataset in (tmp_path / "w", archive, inner):
        assert run("verify", "out.h5", "--source", dataset).returncode == 0


def test_doubtful_classes_are_warnings_and_findings(tmp_path: Path, run: Run) -> None:
    """Names that are nearly the same, classes that train lacks, nested folders: by one code."""
    root = draw(tmp_path / "D", *images("train/Cat", "train/dog", "val/cat", "val/dog"))
    done = run("build", root, "out.h5", *SMALL, "--json")
    codes = [each["code"] for each in json.loads(done.stdout)["warnings"]]
    assert codes == ["similar-classes", "missing-class"]
    for checked in (run("check", root, "--json", "--quiet"), run("check", "out.h5", "--json")):
        found = {each["code"]: each for each in json.loads(checked.stdout)["findings"]}
        assert {"similar-classes", "missing-class"} <= found.keys()
        assert "the same name" in found["similar-classes"]["advice"]
        assert "move images of these classes there" in found["missing-class"]["advice"]
    nested = draw(tmp_path / "N", *images("a/airfield", "a/alley", "b/bank"))
    found = {
        each["code"]: each
        for each in json.loads(run("check", nested, "--json", "--quiet").stdout)["findings"]
    }
    assert "--class-from leaf" in found["nested-classes"]["message"]


def test_every_row_of_the_page_is_a_test() -> None:
    """The page "My data looks like this" says only what a test, or a case of one, holds."""
    page = (TOP / "batchify" / "docs" / "data.md").read_text(encoding="utf-8")
    names = re.findall(r"^\| `([a-z0-9-]+)` \|", page, flags=re.MULTILINE)
    assert len(names) == len(set(names)) >= 25
    tests = [path.read_text(encoding="utf-8") for path in (TOP / "tests").rglob("test_*.py")]
    spelled = {name: (f'"{name}"', f"def test_{name.replace('-', '_')}") for name in names}
    assert [n for n in names if not any(s in text for s in spelled[n] for text in tests)] == []


def test_a_single_class_is_doubted(run: Run, tmp_path: Path) -> None:
    """Photos in one folder, perhaps of several classes: all labels are 0, and the build says so."""
    draw_dataset(tmp_path / "d", {"birds": 5})
    done = run("build", tmp_path / "d", tmp_path / "out.h5")
    assert done.returncode == 0
    assert "  warning: there is only one class, birds, and every label is 0" in done.stdout
    done = run("build", tmp_path / "d", tmp_path / "none.h5", "--class-mode", "none")
    assert "only one class" not in done.stdout
