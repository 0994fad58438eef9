"""Trial runs: at most so many images, with every class and split, by a seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.running import Run
from helpers.stopping import StopError, stop_after
from helpers.tabled import listed, options_of, write_table
from hypothesis import given
from hypothesis import strategies as st

from batchify.building import jobs
from batchify.building.build import build
from batchify.building.changes import find_changes
from batchify.checking.verify import verify
from batchify.dataset_options import SplitOptions
from batchify.datasets.dataset import Dataset
from batchify.datasets.discovery import discover
from batchify.errors import OptionError
from batchify.format.config import build_command, recorded_options
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.loading.loader import Loader
from batchify.options import BuildOptions
from batchify.planning import limits
from batchify.planning.limits import share_out
from batchify.planning.planner import fingerprint, plan_build
from batchify.sharding.build import build_shards
from batchify.sharding.merge import merge

SMALL = BuildOptions(decode=DecodeOptions((8, 10)), batch_size=4)
COUNTS = {"a": 40, "b": 20, "c": 3, "d": 1}


def limited(**split: Any) -> BuildOptions:
    """Return options of a small build."""
    return replace(SMALL, split=SplitOptions(**split))


def touch(root: Path, counts: dict[str, int]) -> Path:
    """Make files that are never decoded."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i:03}.jpg").touch()
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a dataset of classes of unequal size."""
    return touch(tmp_path / "data", COUNTS)


def draw_samples(dataset: Dataset, options: SplitOptions) -> Dataset:
    """Draw from a dataset with its own splits, or none."""
    splits = dataset.splits or {"train": np.arange(len(dataset.samples), dtype=np.int32)}
    return limits.draw_samples(dataset, splits, options)[0]


def counts(dataset: Dataset) -> list[int]:
    """Return the images of each class."""
    return list(np.bincount(dataset.samples.labels, minlength=len(dataset.classes)).tolist())


tables = st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=1, max_size=3).map(
    lambda rows: np.array(rows, np.int64)
)


@given(found=tables, most=st.integers(1, 120))
def test_shares_are_exact_and_every_kind_has_its_one(
    found: np.ndarray[Any, Any], most: int
) -> None:
    """As many as asked for, or all; each class, then each split, then each class of each split."""
    taken = share_out(found, most)
    assert taken.sum() == min(most, found.sum())
    assert ((taken >= 0) & (taken <= found)).all()
    classes, splits = found.any(axis=0), found.any(axis=1)
    if most >= classes.sum():
        assert (taken.any(axis=0) == classes).all()
    if most >= classes.sum() + splits.sum() - 1:
        assert (taken.any(axis=1) == splits).all()
    if most >= (found > 0).sum():
        assert ((taken > 0) == (found > 0)).all()


@given(found=tables, most=st.integers(1, 120))
def test_larger_classes_have_no_fewer_images(found: np.ndarray[Any, Any], most: int) -> None:
    """Apart from the one that a split or a class has in any case."""
    taken, flat = share_out(found, most).ravel(), found.ravel()
    for i, count in enumerate(flat):
        assert (taken[flat > count] >= taken[i] - 1).all()


def test_a_limit_is_in_proportion(root: Path) -> None:
    """Every class has an image, the rest go by size; a larger limit takes more of the same."""
    dataset = discover(root)
    before: set[bytes] = set()
    for most, expected in ((4, [1, 1, 1, 1]), (10, [6, 2, 1, 1]), (32, [20, 10, 1, 1])):
        drawn = draw_samples(dataset, SplitOptions(limit=most))
        assert counts(drawn) == expected
        assert drawn.undrawn == 64 - most
        paths = drawn.samples.paths(np.arange(most))
        assert paths == sorted(paths)
        assert before <= set(paths)
        before = set(paths)
    small = draw_samples(dataset, SplitOptions(limit=3))
    assert counts(small) == [2, 1, 0, 0]
    assert [(w.code, str(w)) for w in small.warnings] == [
        (
            "small-limit",
            "--limit 3 is less than the 4 classes: 2 classes have no image in this file",
        )
    ]
    assert draw_samples(dataset, SplitOptions(limit=64)) is dataset


def test_a_class_has_no_more_than_its_limit(root: Path) -> None:
    """The smaller classes are whole; both limits may be given."""
    dataset = discover(root)
    assert counts(draw_samples(dataset, SplitOptions(max_per_class=5))) == [5, 5, 3, 1]
    drawn = draw_samples(dataset, SplitOptions(max_per_class=5, limit=8))
    assert sum(counts(drawn)) == 8
    assert max(counts(drawn)) == 3


def test_the_seed_draws(root: Path) -> None:
    """The same seed the same files, another seed others; an added file moves few."""
    dataset = discover(root)

    def drawn(of: Dataset, seed: int) -> set[bytes]:
        found = draw_samples(of, SplitOptions(max_per_class=10, seed=seed)).samples
        return set(found.paths(np.arange(len(found))))

    assert drawn(dataset, 1) == drawn(discover(root), 1) != drawn(dataset, 2)
    (root / "a" / "0000.jpg").touch()
    assert len(drawn(discover(root), 1) - drawn(dataset, 1)) <= 1


def test_the_draw_does_not_decide_the_split(tmp_path: Path) -> None:
    """A split by hash has its share of what was drawn, which goes by another hash."""
    root = touch(tmp_path / "many", {"a": 2000})
    plan = plan_build(root, limited(policy="hash", validation=0.5, limit=400))
    sizes = {split.name: len(split) for split in plan.splits}
    assert 150 < sizes["validation"] < 250


@pytest.mark.parametrize("policy", ["keras", "stratified"])
def test_every_split_has_its_images(root: Path, policy: Any) -> None:
    """A class that has some in validation has one there; all are where a full build has them."""
    whole = plan_build(root, limited(policy=policy))
    split_of = {
        path: split.name
        for split in whole.splits
        for path in whole.dataset.samples.paths(split.rows)
    }
    plan = plan_build(root, limited(policy=policy, limit=10))
    rows = {split.name: len(split) for split in plan.splits}
    assert sum(rows.values()) == 10
    assert rows["validation"] >= 2
    assert not plan.warnings
    for split in plan.splits:
        paths = plan.dataset.samples.paths(split.rows)
        assert {split_of[path] for path in paths} == {split.name}


def test_groups_are_drawn_together(tmp_path: Path) -> None:
    """All but one group of a class are taken whole, or not at all."""
    root = tmp_path / "data"
    (root / "a").mkdir(parents=True)
    for i in range(60):
        (root / "a" / f"p{i % 12:02}_{i:03}.jpg").touch()
    options = SplitOptions("stratified", limit=23, group_by=r"(p\d\d)")
    drawn = draw_samples(discover(root), options).samples
    groups = [path[2:5] for path in drawn.paths(np.arange(len(drawn)))]
    sizes = sorted(groups.count(group) for group in set(groups))
    assert sizes == [3, 5, 5, 5, 5]


def test_split_folders_keep_their_shares(tmp_path: Path) -> None:
    """Every class of every split has an image, the larger ones more."""
    root = touch(
        tmp_path / "data", {"train/a": 80, "train/b": 40, "val/a": 8, "val/b": 4, "test/a": 1}
    )
    plan = plan_build(root, limited(limit=20))
    rows = {split.name: len(split) for split in plan.splits}
    assert sum(rows.values()) == 20
    assert rows["test"] == 1
    assert rows["validation"] >= 2
    plan = plan_build(root, limited(max_per_class=9))
    assert sum(len(split) for split in plan.splits) == 18
    assert counts(plan.dataset) == [9, 9]
    assert all(len(split) for split in plan.splits)


def test_splits_without_labels_have_no_class_to_limit(tmp_path: Path) -> None:
    """A limit of the classes leaves them whole; one of all takes its share."""
    root = touch(tmp_path / "data", {"train/a": 50, "val/a": 10, "test/a": 40})
    found = discover(root)
    assert found.splits is not None
    found.samples.labels[found.splits["test"]] = -1
    dataset = replace(found, unlabelled=("test",))
    for options, expected in (
        (SplitOptions(max_per_class=6), [5, 1, 40]),
        (SplitOptions(limit=10), [5, 1, 4]),
    ):
        drawn = draw_samples(dataset, options)
        assert drawn.splits is not None
        assert [len(rows) for rows in drawn.splits.values()] == expected
        assert (drawn.samples.labels[drawn.splits["test"]] == -1).all()


@pytest.mark.parametrize("mode", ["none", "multilabel", "regression", "mask"])
def test_a_limit_of_classes_needs_classes(mode: Any) -> None:
    """The message names the other option."""
    table = options_of(Path("t.csv"), mode)
    for options in (table, replace(SMALL, store=StoreOptions("none"))):
        with pytest.raises(OptionError, match=r"labels that are classes.*pass --limit"):
            replace(options, split=SplitOptions(max_per_class=3))


def test_numbers_and_masks_are_drawn_from_all(photos: Path, tmp_path: Path) -> None:
    """Labels, weights and groups stay with their images."""
    rows = [
        {"path": path, "label": i, "weight": i, "group": f"g{i // 2}"}
        for i, path in enumerate(listed(photos))
    ]
    table = write_table(tmp_path / "t.csv", rows)
    options = options_of(table, "regression", limit=7, policy="stratified")
    build(photos, tmp_path / "out.h5", options)
    of = {row["path"]: row["label"] for row in rows}
    with h5py.File(tmp_path / "out.h5") as file:
        split_rows = [
            (path.decode(), label, weight)
            for name in ("train", "validation")
            for path, label, weight in zip(
                file[name]["paths"], file[name]["labels"], file[name]["weights"], strict=True
            )
        ]
    assert len(split_rows) == 7
    assert all(of[path] == label == weight for path, label, weight in split_rows)
    assert verify(tmp_path / "out.h5", source=photos).is_ok


def test_the_command_draws_and_says_so(run: Run, tmp_path: Path) -> None:
    """And records it: the file is checked against the draw, not against the whole folder."""
    root = draw_dataset(tmp_path / "photos", {"cat": 12, "dog": 8})
    small = ("--target-size", "8x10", "--seed", "3")
    done = run("build", root, "out.h5", "--limit", "10", *small)
    assert done.returncode == 0, done.stderr
    assert "  drawn: 10 of 20 images (--limit, --max-per-class, --seed)" in done.stdout.splitlines()
    with h5py.File(tmp_path / "out.h5") as file:
        assert sum(len(file[name]["paths"]) for name in ("train", "validation")) == 10
        config = json.loads(file.attrs["config"])
    assert config["limit"] == 10
    assert "max_per_class" not in config
    assert recorded_options(config).split == SplitOptions("keras", 0.2, 0.0, seed=3, limit=10)
    assert "--limit 10" in build_command(config, skipped=False)
    assert run("build", root, "out.h5", "--limit", "10", "--check", *small).returncode == 0
    assert run("build", root, "out.h5", "--check", *small).returncode == 9
    assert run("verify", "out.h5", "--source", root, "--redecode", "all").returncode == 0
    assert run("check", root, "--limit", "10", *small).returncode in (0, 8)
    told = json.loads(
        run("build", root, "o.h5", "--max-per-class", "2", "--dry-run", "--json").stdout
    )
    assert (told["ignored"]["undrawn"], told["config"]["max_per_class"]) == (16, 2)
    assert run("build", root, "o.h5", "--limit", "0").returncode == 2
    done = run("build", root, "o.h5", "--max-per-class", "2", "--class-mode", "none")
    assert (done.returncode, "pass --limit" in done.stderr) == (2, True)


def test_verify_finds_what_the_draw_lacks(run: Run, tmp_path: Path) -> None:
    """Where the folder changed so that the draw has another file, that is new."""
    root = draw_dataset(tmp_path / "photos", {"cat": 6})
    build(root, tmp_path / "out.h5", limited(max_per_class=3))
    (drawn,) = plan_build(root, limited(max_per_class=1, validation=0.0)).splits
    path = plan_build(root, limited(max_per_class=1, validation=0.0)).path("train", 0)
    assert len(drawn) == 1
    (root / path.decode()).unlink()
    found = verify(tmp_path / "out.h5", source=root)
    assert (found.counts["missing"], found.counts["new"]) == (1, 1)


def test_a_trial_is_resumed_and_cut_into_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are those of one build in one go, also after a build of another limit."""
    monkeypatch.setattr(jobs, "TASK_ROWS", 4)
    root = draw_dataset(tmp_path / "photos", {"cat": 15, "dog": 10})
    options = limited(limit=16)
    build(root, tmp_path / "one.h5", options)
    with pytest.raises(StopError):
        build(root, tmp_path / "out.h5", options, progress=stop_after(4))
    with pytest.raises(StopError):
        build(root, tmp_path / "out.h5", limited(limit=12), progress=stop_after(8))
    build(root, tmp_path / "out.h5", options)
    build_shards(root, tmp_path / "shards", options, shards=2)
    assert verify(tmp_path / "shards", source=root).is_ok
    merge(tmp_path / "shards", tmp_path / "merged.h5")
    for name in ("out.h5", "merged.h5"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert not find_changes(root, tmp_path / "out.h5", options).is_due
    found = find_changes(root, tmp_path / "out.h5", SMALL)
    assert (len(found.new), found.vanished) == (9, [])
    found = find_changes(root, tmp_path / "out.h5", limited(limit=12))
    assert (found.new, found.vanished) == ([], [])
    assert found.reasons == [
        "limit was 16, now 12",
        "other images are drawn now (--limit, --max-per-class, --seed)",
    ]


def test_the_fingerprint_is_that_of_the_draw(tmp_path: Path) -> None:
    """Files that were not drawn do not count."""
    root = draw_dataset(tmp_path / "photos", {"cat": 12})
    options = limited(limit=5)
    before = str(fingerprint(root, options))
    drawn = plan_build(root, options).dataset.samples
    others = set(listed(root)) - {p.decode() for p in drawn.paths(np.arange(len(drawn)))}
    (root / others.pop()).write_bytes(b"changed")
    assert str(fingerprint(root, options)) == before
    assert str(fingerprint(root, limited(limit=6))) != before


def test_a_loader_draws_the_same(root: Path) -> None:
    """As a build with these options."""
    plan = plan_build(root, limited(limit=20, seed=5))
    for split in plan.splits:
        loader = Loader.from_directory(root, subset=split.name, limit=20, seed=5)
        expected = plan.dataset.samples.paths(np.sort(split.rows))
        assert [name.encode() for name in loader.filenames] == expected
    loader = Loader.from_directory(root, max_per_class=2, validation_split=0.0)
    assert len(loader.filenames) == 7


def test_verify_draws_as_the_build_did(tmp_path: Path) -> None:
    """By the split that the file records, with copies in one, or with validation of train."""
    counts = {"train/a": 9, "train/b": 7, "test/a": 4}
    root = draw_dataset(tmp_path / "photos", counts)
    copy = (root / "train/a/img_000.jpg").read_bytes()
    (root / "train/b/copy.jpg").write_bytes(copy)
    options = limited(policy="stratified", validation=0.25, group_duplicates=True, limit=9)
    for source in (root, root / "train"):
        build(source, tmp_path / "out.h5", options, overwrite=True)
        assert verify(tmp_path / "out.h5", source=source).is_ok
