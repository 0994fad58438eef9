"""Split folders that lack validation or test: a share takes it from train, the others stay."""

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
from helpers.stopping import StopError, stop_after
from helpers.tabled import options_of, write_table

from batchify.building import jobs
from batchify.building.build import build
from batchify.building.changes import find_changes
from batchify.checking.verify import verify
from batchify.dataset_options import SplitOptions
from batchify.errors import BatchifyWarning, OptionError
from batchify.format.config import build_command
from batchify.image_options import DecodeOptions
from batchify.loading.loader import Loader
from batchify.options import BuildOptions
from batchify.planning.planner import fingerprint, plan_build
from batchify.sharding.build import build_shards
from batchify.sharding.merge import merge

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)


def options(policy: Any = "keras", validation: float | None = 0.2, **split: Any) -> BuildOptions:
    """Return options of a small build."""
    return replace(SMALL, split=SplitOptions(policy, validation, **split))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Draw folders to train and to test with."""
    counts = {"Training/a": 10, "Training/b": 15, "Testing/a": 3, "Testing/b": 2}
    return draw_dataset(tmp_path / "data", counts)


def paths(out: Path) -> dict[str, list[str]]:
    """Return the sorted paths of each split."""
    with h5py.File(out) as file:
        names = [name for name in ("train", "validation", "test") if name in file]
        return {name: sorted(p.decode() for p in file[name]["paths"]) for name in names}


def test_validation_is_a_share_of_train(run: Run, root: Path, tmp_path: Path) -> None:
    """As Keras takes it: the first files of each class; the test folder stays (case L10)."""
    small = ("--target-size", "20x16")
    done = run("build", root, "out.h5", "--validation-split", "0.2", *small)
    assert done.returncode == 0, done.stderr
    assert "20 train + 5 validation + 5 test images" in done.stdout
    assert "  validation: 5 images taken from train" in done.stdout.splitlines()
    found = paths(tmp_path / "out.h5")
    first = [f"Training/a/img_{i:03}.jpg" for i in range(2)]
    assert found["validation"] == [*first, *(f"Training/b/img_{i:03}.jpg" for i in range(3))]
    assert found["test"] == [f"Testing/{n}/img_{i:03}.jpg" for n, k in (("a", 3), ("b", 2))
                             for i in range(k)]  # fmt: skip
    assert not set(found["train"]) & set(found["validation"])
    with h5py.File(tmp_path / "out.h5") as file:
        config = json.loads(file.attrs["config"])
    assert (config["split"], config["validation_split"]) == ("keras", 0.2)
    assert (config["from_train"], "test_split" in config) == (["validation"], False)
    assert "--validation-split 0.2" in build_command(config, skipped=False)
    again = run("build", root, "out.h5", "--validation-split", "0.2", "--check", *small)
    assert again.returncode == 0, again.stdout
    assert run("build", root, "out.h5", "--check", *small).returncode == 9
    assert run("verify", "out.h5", "--source", root).returncode == 0
    assert run("inspect", "out.h5").returncode == 0


@pytest.mark.parametrize("policy", ["keras", "stratified", "hash"])
def test_the_rows_are_those_of_train_alone(root: Path, tmp_path: Path, policy: Any) -> None:
    """What a policy takes from train is what it takes of a dataset of these folders."""
    plan = plan_build(root, options(policy))
    assert [split.name for split in plan.splits] == ["train", "validation", "test"]
    rows = {split.name: plan.dataset.samples.paths(split.rows) for split in plan.splits}
    alone = plan_build(root / "Training", options(policy))
    of_train = {split.name: alone.dataset.samples.paths(split.rows) for split in alone.splits}
    if policy != "hash":  # which goes by the whole path
        for name, expected in of_train.items():
            assert rows[name] == [b"Training/" + path for path in expected]
    assert sum(map(len, rows.values())) == 30
    assert len(set().union(*rows.values())) == 30


def test_groups_stay_together(root: Path, tmp_path: Path) -> None:
    """Named ones, and copies."""
    first = (root / "Training/a/img_000.jpg").read_bytes()
    for name in ("Training/b/copy.jpg", "Training/b/more.jpg"):
        (root / name).write_bytes(first)
    copies = {"Training/a/img_000.jpg", "Training/b/copy.jpg", "Training/b/more.jpg"}
    for seed in range(4):
        out = tmp_path / f"{seed}.h5"
        build(root, out, options("stratified", group_duplicates=True, seed=seed))
        found = paths(out)
        assert any(copies <= set(found[name]) for name in ("train", "validation"))
    grouped = options("stratified", 0.4, group_by=r"img_00(.)")
    for name in copies:
        (root / name).unlink()
    shutil.rmtree(root / "Testing")
    draw_dataset(root, {"Testing/a": 1})
    (root / "Testing/a/img_000.jpg").rename(root / "Testing/a/img_00x.jpg")
    draw_dataset(root, {"Training/b": 10})
    for path in root.glob("Training/b/img_01*"):
        path.unlink()
    build(root, tmp_path / "out.h5", grouped)
    found = paths(tmp_path / "out.h5")
    numbers = [{path[-5] for path in found[name]} for name in ("train", "validation")]
    assert numbers[1]
    assert not set.intersection(*numbers)


@pytest.mark.parametrize("how", ["copies", "names"])
def test_folders_that_share_a_group_are_refused(
    run: Run, root: Path, tmp_path: Path, how: str
) -> None:
    """The group could not be kept in one split, as was asked for: nothing is decoded."""
    asked = ["--validation-split", "0.2", "--split", "stratified"]
    if how == "copies":
        first = (root / "Training/a/img_000.jpg").read_bytes()
        (root / "Testing/b/copy.jpg").write_bytes(first)
        asked += ["--group-duplicates"]
        pair = "Training/a/img_000.jpg in train and Testing/b/copy.jpg in test"
    else:
        asked += ["--group-by", r"img_(\d+)"]
        pair = "Training/b/img_000.jpg in train and Testing/a/img_000.jpg in test"
    done = run("build", root, "out.h5", *asked)
    assert done.returncode == 1
    assert pair in done.stderr
    assert f"or build without {asked[4]}" in done.stderr
    assert not (tmp_path / "out.h5").exists()


def test_both_come_from_a_single_folder(tmp_path: Path) -> None:
    """Only what was asked for is taken."""
    root = draw_dataset(tmp_path / "data", {"train/a": 10, "train/b": 10})
    plan = plan_build(root, options(validation=0.2, test=0.3))
    assert {split.name: len(split) for split in plan.splits} == {
        "train": 10, "validation": 4, "test": 6,
    }  # fmt: skip
    assert plan.warnings == ()
    plan = plan_build(root, options(validation=None, test=0.3))
    assert {split.name: len(split) for split in plan.splits} == {"train": 14, "test": 6}
    assert [warning.code for warning in plan.warnings] == ["no-validation"]


def test_a_dataset_without_validation_is_a_warning(run: Run, root: Path) -> None:
    """It names the option; a share of 0 says that none is wanted."""
    done = run("build", root, "out.h5", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == (
        "  warning: there is no validation split, only train and test; --validation-split 0.2 "
        "takes one from train"
    )
    plan = ("build", root, "out.h5", "--dry-run")
    assert "warning" not in run(*plan, "--validation-split", "0").stdout
    assert "warning" not in run("build", root / "Training", "out.h5", "--dry-run").stdout


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--test-split", "0.1"], "remove --test-split"),
        (["--test-split", "0.1", "--validation-split", "0.2"], "remove --test-split"),
        (["--split", "stratified"], "take validation from train with --validation-split 0.2"),
        (
            ["--split", "hash", "--validation-split", "0"],
            "remove --split, --group-by and --group-duplicates",
        ),
    ],
)
def test_a_split_that_is_there_is_not_made_again(
    run: Run, root: Path, tmp_path: Path, arguments: list[str], advice: str
) -> None:
    """Exit 2, and what to leave out; nothing is written."""
    done = run("build", root, "out.h5", *arguments)
    assert done.returncode == 2
    assert "is split into folders already (train, test)" in done.stderr
    assert advice in done.stderr
    assert not (tmp_path / "out.h5").exists()


def test_there_must_be_a_train_folder(tmp_path: Path) -> None:
    """There is nothing to take validation from."""
    root = draw_dataset(tmp_path / "data", {"test/a": 3})
    with pytest.raises(OptionError, match="there is no train split to take validation from"):
        plan_build(root, options())


def test_a_table_with_splits_is_treated_alike(photos: Path, tmp_path: Path) -> None:
    """Its train rows are shared out; groups of the table need a policy that keeps them."""
    files = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))
    rows = [
        {"path": path, "label": path.split("/")[0], "split": "test" if i % 5 == 0 else "train",
         "group": f"g{i}"}
        for i, path in enumerate(files)
    ]  # fmt: skip
    plain = [{key: row[key] for key in ("path", "label", "split")} for row in rows]
    table = write_table(tmp_path / "t.csv", plain)
    with pytest.warns(BatchifyWarning, match="no validation split, only train and test"):
        build(photos, tmp_path / "none.h5", options_of(table))
    report = build(photos, tmp_path / "out.h5", options_of(table, validation=0.25))
    assert {split.name: len(split) for split in report.plan.splits} == {
        "train": 9, "validation": 3, "test": 3,
    }  # fmt: skip
    assert verify(tmp_path / "out.h5", source=photos).is_ok
    with pytest.raises(OptionError, match="is split by the manifest already"):
        build(photos, tmp_path / "no.h5", options_of(table, test=0.25))
    table = write_table(tmp_path / "g.csv", rows)
    with pytest.raises(OptionError, match="the group column of the manifest needs"):
        build(photos, tmp_path / "no.h5", options_of(table, validation=0.25))
    build(photos, tmp_path / "g.h5", options_of(table, validation=0.25, policy="stratified"))


def test_a_stopped_build_continues(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same share, or with another one: the file is that of a fresh build."""
    monkeypatch.setattr(jobs, "TASK_ROWS", 4)
    build(root, tmp_path / "whole.h5", options())
    with pytest.raises(StopError):
        build(root, tmp_path / "out.h5", options(), progress=stop_after(8))
    with pytest.raises(StopError):
        build(root, tmp_path / "out.h5", options(validation=0.4), progress=stop_after(12))
    build(root, tmp_path / "out.h5", options())
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert build(root, tmp_path / "out.h5", options()).up_to_date
    assert not find_changes(root, tmp_path / "out.h5", options()).is_due
    assert find_changes(root, tmp_path / "out.h5", options(validation=0.4)).is_due


def test_shards_are_those_of_the_file(root: Path, tmp_path: Path) -> None:
    """With copies that stay together."""
    first = (root / "Training/a/img_000.jpg").read_bytes()
    (root / "Training/b/copy.jpg").write_bytes(first)
    how = options("stratified", group_duplicates=True)
    build(root, tmp_path / "one.h5", how)
    build_shards(root, tmp_path / "shards", how, shards=2)
    merge(tmp_path / "shards", tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()


def test_fingerprints_and_identities_differ(root: Path) -> None:
    """By the share, the policy and the seed."""
    every = [options(), options(validation=0.3), options(validation=None), options("stratified"),
             options("stratified", seed=1)]  # fmt: skip
    assert len({plan_build(root, each).identity for each in every}) == len(every)
    assert len({str(fingerprint(root, each)) for each in every}) == len(every)


def test_a_loader_takes_the_same_images(root: Path) -> None:
    """In the same order as the file has them."""
    plan = plan_build(root, options())
    for split in plan.splits:
        loader = Loader.from_directory(
            root, subset=split.name, validation_split=0.2, target_size=(20, 16), batch_size=99
        )
        expected = plan.dataset.samples.paths(np.sort(split.rows))
        assert [name.encode() for name in loader.filenames] == expected
    with pytest.raises(OptionError, match="there is no split 'validation'"):
        Loader.from_directory(root, subset="validation")
    with pytest.raises(OptionError, match="remove --test-split"):
        Loader.from_directory(root, test_split=0.1)
