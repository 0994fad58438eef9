"""Splits without labels, such as Kaggle's test folders: stored without the column, and said so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.running import Run

import batchify
from batchify.building.build import build
from batchify.building.changes import find_changes
from batchify.checking.check import check
from batchify.checking.verify import verify
from batchify.dataset_options import SplitOptions
from batchify.errors import FileFormatError
from batchify.format.reader import Reader
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.loading.loader import Loader
from batchify.options import BuildOptions
from batchify.reporting.report import write_report
from batchify.reporting.sheet import write_sheet
from batchify.reporting.summary import summarize
from batchify.sharding.build import build_shards
from batchify.sharding.merge import merge

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """Draw classes to train on, and a test folder without classes."""
    counts = {"train/cat": 6, "train/dog": 5, "val/cat": 2, "val/dog": 2, "test": 7}
    return draw_dataset(tmp_path / "kaggle", counts)


def stored(class_mode: Any = "sparse", **store: Any) -> BuildOptions:
    """Return options of a small build."""
    return replace(SMALL, store=StoreOptions(class_mode=class_mode, **store))


@pytest.mark.parametrize(
    "options",
    [
        stored(),
        stored("categorical"),
        stored("binary", compression="gzip"),
        stored(store="encoded"),
        stored(dtype="float32"),
    ],
    ids=["sparse", "categorical", "gzip", "encoded", "float32"],
)
def test_the_split_has_all_columns_but_the_labels(
    kaggle: Path, tmp_path: Path, options: BuildOptions
) -> None:
    """The other splits have theirs; the file is whole, up to date, and reads itself back."""
    out = tmp_path / "out.h5"
    report = build(kaggle, out, options)
    assert [warning.code for warning in report.warnings] == ["unlabelled"]
    with h5py.File(out) as file:
        assert json.loads(file.attrs["config"])["unlabelled_splits"] == ["test"]
        assert "labels" not in file["test"]
        assert "y_test" not in file
        assert set(file["train"]) - set(file["test"]) == {"labels"}
        assert len(file["test/paths"]) == 7
        assert (file["test/source_sha256"][()] != 0).any(axis=1).all()
        assert np.isfinite(file["statistics/mean_test"][()]).all()
    assert build(kaggle, out, options).up_to_date
    assert not find_changes(kaggle, out, options).is_due
    assert verify(out, source=kaggle, redecode="all").is_ok
    split = batchify.open(out)["test"]
    assert split.labels is None
    assert (split.class_mode, split.classes) == ("none", ("cat", "dog"))
    assert np.shape(batchify.load(out, "test")) == (7, 20, 16, 3)
    assert split[0].shape == (20, 16, 3)
    assert [np.shape(batch)[0] for batch in split.batches(batch_size=4)] == [4, 3]
    assert len(batchify.load(out, "train")) == 2


def test_shards_and_their_file_are_those_of_a_build(kaggle: Path, tmp_path: Path) -> None:
    """Each shard says which splits of all have no labels."""
    build(kaggle, tmp_path / "one.h5", SMALL)
    build_shards(kaggle, tmp_path / "shards", SMALL, shards=2)
    merge(tmp_path / "shards", tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert verify(tmp_path / "shards", source=kaggle).is_ok
    opened = batchify.open(tmp_path / "shards")
    assert (opened["test"].labels, len(opened["test"])) == (None, 7)
    assert "missing-class" not in [found.code for found in check(tmp_path / "shards").problems]
    counts = {split.name: split.class_counts for split in summarize(tmp_path / "shards").splits}
    assert counts == {"train": (6, 5), "validation": (2, 2), "test": None}


def test_skipped_images_are_left_out_of_it(kaggle: Path, tmp_path: Path) -> None:
    """When rows are dropped, no column of labels is copied."""
    (kaggle / "test" / "img_001.jpg").write_bytes(b"bad")
    build(kaggle, tmp_path / "out.h5", SMALL, on_error="skip")
    assert verify(tmp_path / "out.h5", source=kaggle).is_ok
    with Reader(tmp_path / "out.h5") as reader:
        assert (reader.rows("test"), reader.class_mode("test")) == (6, "none")
        assert reader.class_mode("train") == "sparse"


def test_checks_count_classes_of_the_other_splits(kaggle: Path, tmp_path: Path) -> None:
    """Its images are compared with all others all the same: a leak is one without labels."""
    copy = (kaggle / "train" / "cat" / "img_000.jpg").read_bytes()
    (kaggle / "test" / "copy.jpg").write_bytes(copy)
    build(kaggle, tmp_path / "out.h5", SMALL)
    for report in (check(kaggle, SMALL), check(tmp_path / "out.h5")):
        found = {problem.code: problem.message for problem in report.problems}
        assert "leak" in found
        assert not any("test" in text for code, text in found.items() if "class" in code)


def test_reports_say_that_there_are_no_labels(run: Run, kaggle: Path, tmp_path: Path) -> None:
    """The plan, the build, `inspect`, the sheet and the report; JSON has the names."""
    small = ("--target-size", "20x16")
    line = "test: 7 images without labels"
    for done in (run("build", kaggle, "out.h5", "--dry-run", *small),
                 run("build", kaggle, "out.h5", *small)):  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("without labels") == 1
        assert "  warning: test has 7 images but no class folders" in done.stdout
    told = json.loads(run("build", kaggle, "out.h5", "--json", *small).stdout)
    assert told["config"]["unlabelled_splits"] == ["test"]
    assert "labels" in told["splits"]["train"]["columns"]
    assert "labels" not in told["splits"]["test"]["columns"]
    text = run("inspect", "out.h5").stdout
    assert line in text.splitlines()
    assert (
        json.loads(run("inspect", "out.h5", "--json").stdout)["splits"]["test"]["class_counts"]
        is None
    )
    write_sheet(tmp_path / "out.h5", tmp_path / "sheet.png")
    write_report(tmp_path / "out.h5", tmp_path / "report.html")
    assert "test: 7 images without labels." in (tmp_path / "report.html").read_text("utf-8")
    assert run("verify", "out.h5", "--source", kaggle).returncode == 0
    assert run("build", kaggle, "out.h5", "--check", *small).returncode == 0
    assert run("check", "out.h5").returncode == run("check", kaggle).returncode == 0


def test_without_labels_at_all_nothing_is_said_of_it(kaggle: Path, tmp_path: Path) -> None:
    """Class mode none has no labels in any split, and the report does not count classes."""
    report = build(kaggle, tmp_path / "out.h5", stored("none"))
    assert "uint8, no labels, " in str(report)
    with h5py.File(tmp_path / "out.h5") as file:
        assert "unlabelled_splits" not in json.loads(file.attrs["config"])


@pytest.mark.parametrize("value", ["test", ["other"], [1], True])
def test_a_file_that_names_no_splits_is_refused(
    kaggle: Path, tmp_path: Path, value: object
) -> None:
    """By the strict reader, with a reason."""
    build(kaggle, tmp_path / "out.h5", SMALL)
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        config = json.loads(file.attrs["config"]) | {"unlabelled_splits": value}
        del file.attrs["config"]
        text = np.bytes_(json.dumps(config))
        file.attrs.create("config", text, dtype=h5py.string_dtype("utf-8", len(text)))
    with pytest.raises(FileFormatError, match="unlabelled_splits are not splits"):
        Reader(tmp_path / "out.h5")


def test_it_goes_with_validation_of_train_and_a_limit(kaggle: Path, tmp_path: Path) -> None:
    """A trial of what Kaggle gives: classes to train on, and images to predict."""
    shutil.rmtree(kaggle / "val")
    options = replace(SMALL, split=SplitOptions("stratified", 0.2, limit=12))
    report = build(kaggle, tmp_path / "out.h5", options)
    assert [warning.code for warning in report.warnings] == ["unlabelled"]
    assert {split.name: len(split) for split in report.plan.splits} == {
        "train": 5, "validation": 2, "test": 5,
    }  # fmt: skip
    with h5py.File(tmp_path / "out.h5") as file:
        assert "labels" not in file["test"]
        assert set(file["validation/labels"][()]) == {0, 1}
    assert build(kaggle, tmp_path / "out.h5", options).up_to_date
    assert verify(tmp_path / "out.h5", source=kaggle).is_ok
    build_shards(kaggle, tmp_path / "shards", options, shards=2)
    merge(tmp_path / "shards", tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "out.h5").read_bytes()


@pytest.mark.parametrize(("most", "limit"), [(2, 4), (3, 6), (4, 9)])
def test_verify_draws_the_sample_that_the_build_drew(
    kaggle: Path, tmp_path: Path, most: int, limit: int
) -> None:
    """The test images have no class there, either: none of the dataset is new."""
    shutil.rmtree(kaggle / "val")
    options = replace(SMALL, split=SplitOptions(max_per_class=most, limit=limit))
    build(kaggle, tmp_path / "out.h5", options, workers=1)
    assert verify(tmp_path / "out.h5", source=kaggle, workers=1).is_ok


def test_a_loader_yields_its_images_alone(kaggle: Path) -> None:
    """As with class mode none."""
    loader = Loader.from_directory(kaggle, subset="test", target_size=(20, 16), batch_size=7)
    batch = next(loader)
    assert isinstance(batch, np.ndarray)
    assert batch.shape == (7, 20, 16, 3)
    assert len(next(Loader.from_directory(kaggle, target_size=(20, 16)))) == 2
