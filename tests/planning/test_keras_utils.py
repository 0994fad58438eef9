"""The split of ``keras.utils.image_dataset_from_directory``: the same files, or an error."""

from __future__ import annotations

import inspect
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import encoded, photo, save
from helpers.frameworks import framework

import batchify
from batchify.errors import BatchifyWarning, DatasetError, OptionError
from batchify.planning.plan import BuildPlan

CASES: list[dict[str, Any]] = [
    {"seed": 0, "validation_split": 0.2},
    {"seed": 123, "validation_split": 0.29},
    {"seed": 2**32 - 1, "validation_split": 0.9},
    {"seed": 7, "validation_split": 0.5, "classes": ["owl", "b-c"]},
    {"seed": 1, "validation_split": 0.3, "shuffle": False},
    {"seed": 5, "validation_split": 0.3, "follow_links": True},
]
"""Options of a build; `keras_arguments` are those of Keras."""


def keras_arguments(case: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of Keras for the options of a build."""
    return {{"classes": "class_names"}.get(name, name): value for name, value in case.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw class folders with what the two functions of Keras treat differently."""
    root = tmp_path_factory.mktemp("utils") / "data"
    draw = random.Random(4)
    endings = [".png", ".PNG", ".jpg", ".JPEG", ".gif", ".bmp", ".tif", ".ppm", ".webp", "jpg", ""]
    for name in ("b", "b-c", "owl", "Ära", ".cache"):
        for i in range(draw.randrange(17, 30)):
            inner = draw.choice(["", "", "deep/", "deep-er/", "deep/est/"])
            save(root / name / f"{inner}{draw.randrange(10**6)}{i}{draw.choice(endings)}", b"x")
    (root / "empty").mkdir()
    save(root / "loose.png", b"x")
    save(root / "owl" / ".DS_Store", b"x")
    (root / "b" / "linked").symlink_to(root / "owl" / "deep", target_is_directory=True)
    return root


def split_files(plan: BuildPlan) -> dict[str, set[str]]:
    """Return the files of each split of a plan."""
    return {
        split.name: {os.fsdecode(path) for _, paths in plan.paths(split) for path in paths}
        for split in plan.splits
    }


def expected_split(
    root: Path, *, seed: int, validation_split: float, classes: list[str] | None = None,
    shuffle: bool = True, follow_links: bool = False,
) -> dict[str, set[str]]:  # fmt: skip
    """Return the split of Keras, written down from its rules."""
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    files: list[str] = []
    for name in classes or names:
        walk = os.walk(root / name, followlinks=follow_links)
        for place, _, found in sorted(walk, key=lambda entry: entry[0]):
            files += [
                os.path.relpath(os.path.join(place, file), root)
                for file in sorted(found)
                if file.lower().endswith((".bmp", ".gif", ".jpeg", ".jpg", ".png"))
            ]
    if shuffle:
        np.random.RandomState(seed).shuffle(files)
    count = int(validation_split * len(files))
    return {"train": set(files[:-count]), "validation": set(files[-count:])}


@pytest.mark.filterwarnings("ignore::batchify.BatchifyWarning")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_files_of_each_split_are_those_of_keras(folder: Path, case: dict[str, Any]) -> None:
    """For any classes, nested folders, endings and links; a trial run takes some of each."""
    expected = expected_split(folder, **case)
    plan = batchify.plan_build(folder, split="keras-utils", hidden=True, **case)
    assert split_files(plan) == expected
    assert plan.config["split"] == "keras-utils"
    trial = split_files(
        batchify.plan_build(folder, split="keras-utils", hidden=True, limit=20, **case)
    )
    assert all(trial[name] <= expected[name] for name in expected)
    assert sum(map(len, trial.values())) == 20


@pytest.mark.frameworks
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_keras_itself_agrees(folder: Path, case: dict[str, Any]) -> None:
    """The function of Keras 3 reads the same files for training and for validation."""
    utils = framework("keras").utils
    framework("grain")
    if "format" not in inspect.signature(utils.image_dataset_from_directory).parameters:
        pytest.skip("this Keras reads folders with TensorFlow only")
    parts = utils.image_dataset_from_directory(
        folder, subset="both", format="grain", batch_size=None, verbose=False,
        **keras_arguments(case),
    )  # fmt: skip
    found = [{os.path.relpath(path, folder) for path in part.file_paths} for part in parts]
    plan = batchify.plan_build(folder, split="keras-utils", hidden=True, **case)
    assert split_files(plan) == dict(zip(("train", "validation"), found, strict=True))
    assert [os.fsdecode(name) for name in plan.dataset.classes] == parts[0].class_names


def test_a_build_and_a_loader_take_the_same_images(tmp_path: Path) -> None:
    """With GIF images, and without TIFF images, which a line of the report counts."""
    root = tmp_path / "data"
    for i, (name, kind) in enumerate([("gif", "GIF"), ("png", "PNG"), ("tif", "TIFF")] * 8):
        save(root / "ab"[i % 2] / f"{i:02}.{name}", encoded(photo(9, 8, seed=i), kind))
    out = tmp_path / "out.h5"
    report = batchify.build(root, out, split="keras-utils", seed=0, target_size=(8, 8))
    assert " --seed 0 --split keras-utils\n" in str(batchify.summarize(out))
    assert "ignored because of their ending: 8 .tif; --split keras-utils takes" in str(report)
    expected = expected_split(root, seed=0, validation_split=0.2)
    with batchify.open(out) as file:
        assert {name: set(split.paths) for name, split in file.items()} == expected
    with pytest.warns(BatchifyWarning, match="tif"):
        loader = batchify.Loader.from_directory(
            root, subset="validation", split="keras-utils", seed=0
        )
    assert set(loader.filenames) == expected["validation"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "split keras-utils needs --seed: the seed that you give to image_dataset_from_dir"),
        ({"test_split": 0.1}, "has no test split, as in Keras; remove --test-split"),
        ({"group_duplicates": True}, "split keras-utils does not keep groups together"),
        ({"manifest": "a.csv"}, "which has no --manifest; remove it, or choose another --split"),
        ({"include": ["a"], "exclude": ["b"]}, "no --include and no --exclude; remove them"),
        ({"extensions": ["webp"]}, "no --extensions"),
        ({"label_from": "(a)"}, "no --label-from"),
        ({"class_from": "leaf"}, "no --class-from"),
        ({"class_order": "natural"}, "no --class-order natural"),
        ({"layout": "splits"}, "no --layout splits"),
        ({"class_mode": "none"}, "no --class-mode none"),
    ],
)
def test_options_without_a_counterpart_are_refused(options: dict[str, Any], message: str) -> None:
    """Before anything is listed: the split would silently be another one."""
    seed: dict[str, Any] = {"seed": 1} if options else {}
    with pytest.raises(OptionError, match=message):
        batchify.plan_build("nowhere", split="keras-utils", **seed, **options)


def test_files_that_keras_takes_and_a_build_does_not_are_an_error(tmp_path: Path) -> None:
    """Hidden and system files, links out of the dataset, and folders that are splits."""
    root = tmp_path / "data"
    for i in range(10):
        save(root / "ab"[i % 2] / f"{i}.png", encoded(photo(9, 8, seed=i), "PNG"))
    options: dict[str, Any] = {"split": "keras-utils", "seed": 1}
    batchify.plan_build(root, **options)
    copy = save(root / "a" / ".checkpoints" / "0.png", b"x")
    with pytest.raises(DatasetError, match=r"such as a/\.checkpoints/0\.png; pass --hidden"):
        batchify.plan_build(root, **options)
    assert batchify.plan_build(root, **options, hidden=True).images == 11
    copy.unlink()
    system = save(root / "@eaDir" / "0.png", b"x")
    with pytest.raises(DatasetError, match="of the system as classes, such as @eaDir; pass --hid"):
        batchify.plan_build(root, **options)
    system.unlink()
    system.parent.rmdir()
    link = root / "b" / "out.png"
    link.symlink_to(save(tmp_path / "out.png", b"x"))
    with pytest.raises(DatasetError, match=r"takes b/out\.png, which a build does not read: link"):
        batchify.plan_build(root, **options)
    assert batchify.plan_build(root, **options, follow_links=True).images == 11
    link.unlink()
    (root / "a").rename(root / "train")
    (root / "b").rename(root / "val")
    for name in ("train", "val"):
        save(root / name / "c" / "0.png", b"x")
    with pytest.raises(DatasetError, match=r"into folders already \(train, validation\), and"):
        batchify.plan_build(root, **options)


def test_a_split_that_keras_makes_of_nothing_is_an_error(tmp_path: Path) -> None:
    """It reads all images for validation if the share is less than one image."""
    root = tmp_path / "data"
    for i in range(9):
        save(root / "ab"[i % 2] / f"{i}.png", encoded(photo(9, 8, seed=i), "PNG"))
    options: dict[str, Any] = {"split": "keras-utils", "seed": 1}
    with pytest.raises(
        OptionError, match=r"validation split 0\.1 of 9 images is less than one, and"
    ):
        batchify.plan_build(root, **options, validation_split=0.1)
    assert len(batchify.plan_build(root, **options, validation_split=0.12).splits[1]) == 1
    assert len(batchify.plan_build(root, **options, validation_split=0).splits) == 1


def test_a_folder_around_the_class_folders_is_an_error(tmp_path: Path) -> None:
    """Keras takes it as the only class."""
    root = tmp_path / "data"
    for i in range(10):
        save(root / "in" / "photos" / "ab"[i % 2] / f"{i}.png", encoded(photo(9, 8, seed=i), "PNG"))
    options: dict[str, Any] = {"split": "keras-utils", "seed": 1}
    with pytest.raises(
        DatasetError, match=r"takes its only folder, in/photos, as a class; build from that"
    ):
        batchify.plan_build(root, **options)
    assert batchify.plan_build(root / "in" / "photos", **options).images == 10


def test_without_a_shuffle_the_last_classes_are_validation(folder: Path) -> None:
    """As in Keras, where it is a trap; a warning says so."""
    plan = batchify.plan_build(folder, split="keras-utils", shuffle=False, hidden=True)
    found = {warning.code: str(warning) for warning in plan.warnings}
    assert "as Keras does with shuffle=False: " in found["unshuffled-split"]
    assert "missing-class" in found
