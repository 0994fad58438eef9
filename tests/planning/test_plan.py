"""The plan: rows, shapes, bytes and identity, before anything is decoded."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.properties import examples
from helpers.synthetic import made_up
from hypothesis import given, settings
from hypothesis import strategies as st

from batchify.dataset_options import SplitOptions
from batchify.datasets.dataset import Dataset
from batchify.datasets.discovery import discover
from batchify.errors import OptionError, Skipped
from batchify.format.structure import create_file, read_row_offsets
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.planning.plan import BuildPlan
from batchify.planning.planner import make_plan


def plan_of(dataset: Dataset, **groups: object) -> BuildPlan:
    """Return the plan of a dataset, with options that differ in some groups."""
    return make_plan(dataset, replace(BuildOptions(), **groups), decoder="test 1.0")  # type: ignore[arg-type]


@settings(max_examples=examples(40), deadline=None)
@given(
    counts=st.lists(st.integers(0, 400), min_size=1, max_size=40).filter(any),
    side=st.integers(1, 200),
    store=st.builds(
        StoreOptions,
        class_mode=st.sampled_from(["sparse", "categorical", "none"]),
        dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    ),
    test=st.sampled_from([0.0, 0.1]),
    path_nbytes=st.integers(4, 300),
    skipped=st.lists(st.builds(Skipped, st.just(b"a/b"), st.text(min_size=1)), max_size=3),
)
def test_the_planned_bytes_are_the_bytes_of_the_file(
    counts: list[int],
    side: int,
    store: StoreOptions,
    test: float,
    path_nbytes: int,
    skipped: list[Skipped],
) -> None:
    """For any classes, shapes, dtypes and splits, to the byte; and every row has a place."""
    plan = replace(
        plan_of(
            made_up(counts, path_nbytes=path_nbytes),
            decode=DecodeOptions((side, side)),
            store=store,
            split=SplitOptions(test=test),
        ),
        skipped=tuple(skipped),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = os.fsencode(folder) + b"/out.h5"
        create_file(path, plan.file_layout)
        assert os.path.getsize(path) == plan.nbytes
        for where in read_row_offsets(path).values():
            assert len(where.offsets) <= 1, "images must be one run of bytes"


@pytest.mark.parametrize(
    ("classes", "name_nbytes"),
    [(600, 20), (1000, 65), (1000, 66), (2, 32745), (2, 32746), (5000, 34), (20_000, 34)],
)
def test_the_bytes_hold_for_many_classes(tmp_path: Path, classes: int, name_nbytes: int) -> None:
    """Below and above the size at which HDF5 stores an attribute elsewhere."""
    names = tuple(b"%0*d" % (name_nbytes, i) for i in range(classes))
    plan = plan_of(replace(made_up([1] * classes), classes=names))
    path = os.fsencode(tmp_path / "out.h5")
    create_file(path, plan.file_layout)
    assert os.path.getsize(path) == plan.nbytes
    with h5py.File(path) as file:
        assert tuple(file.attrs["classes"].tolist()) == names


def test_the_bytes_hold_for_a_million_images(tmp_path: Path) -> None:
    """ImageNet's size is planned and allocated at once, with less than 0.1 % of metadata."""
    plan = plan_of(made_up([1000] * 1000))
    path = os.fsencode(tmp_path / "out.h5")
    create_file(path, plan.file_layout)
    assert os.path.getsize(path) == plan.nbytes
    assert plan.file_layout.metadata_nbytes < plan.nbytes / 1000
    with h5py.File(path) as file:
        assert file["X_train"].shape == (800_000, 150, 150, 3)
        assert file["X_train"].maxshape == (None, 150, 150, 3)


def test_identity_follows_what_is_in_the_file() -> None:
    """Options, rows, classes and decoder change it; batch size does not."""
    dataset = made_up([10, 10])
    base = plan_of(dataset).identity
    assert plan_of(dataset).identity == base
    assert plan_of(dataset, batch_size=7).identity == base
    others = [
        plan_of(dataset, decode=DecodeOptions((10, 10))),
        plan_of(dataset, store=StoreOptions(class_mode="categorical")),
        plan_of(dataset, split=SplitOptions(seed=1)),
        plan_of(dataset, split=SplitOptions(policy="stratified")),
        plan_of(made_up([10, 11])),
        plan_of(replace(dataset, classes=(b"a", b"b"))),
        make_plan(dataset, BuildOptions(), decoder="test 1.1"),
    ]
    assert len({base, *(plan.identity for plan in others)}) == 1 + len(others)


def test_folders_that_are_splits_refuse_another_split(tmp_path: Path) -> None:
    """--validation-split on a dataset that is split already is a usage error, not ignored."""
    for name in ("train", "val"):
        draw_dataset(tmp_path / name, {"cat": 2})
    dataset = discover(tmp_path)
    assert [split.name for split in plan_of(dataset).splits] == ["train", "validation"]
    with pytest.raises(OptionError, match="is split into folders already"):
        plan_of(dataset, split_given=True)


def test_what_a_user_should_know_is_said() -> None:
    """Empty splits, classes without images, and binary labels past 1."""
    plan = plan_of(made_up([3, 0, 1]), store=StoreOptions(class_mode="binary"))
    assert tuple(map(str, plan.warnings)) == (
        "the validation split is empty: too few images for its share",
        "1 of 3 classes have no images: class1",
        "class mode binary needs exactly 2 classes, found 3",
    )
    assert plan_of(made_up([10, 10])).warnings == ()


def test_rows_are_dropped_in_place() -> None:
    """What stays keeps its order, and what goes is listed after what was skipped before."""
    plan = replace(plan_of(made_up([10, 10])), skipped=(Skipped(b"x", "before"),))
    dropped = {split.name: np.zeros(len(split), np.bool_) for split in plan.splits}
    dropped["train"][[0, 5]] = True
    kept = plan.without(dropped, [Skipped(b"y", "after")])
    expected = np.delete(plan.splits[0].rows, [0, 5])
    np.testing.assert_array_equal(kept.splits[0].rows, expected)
    assert kept.splits[0].columns[0].shape[0] == 14
    assert [entry.reason for entry in kept.skipped] == ["before", "after"]
