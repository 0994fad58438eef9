"""Cross-validation: K files that together are a partition, divided as scikit-learn divides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.frameworks import framework
from helpers.properties import examples
from helpers.running import Run
from helpers.tabled import write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import batchify
from batchify import choices
from batchify.choices import canonical_json
from batchify.dataset_options import SplitOptions
from batchify.datasets.dataset import Samples, join_samples
from batchify.errors import DatasetError, ManifestError, OptionError
from batchify.format.config import build_command, recorded_options
from batchify.planning.folds import grouped_folds, stratified_folds
from batchify.planning.policies import split_samples, stratified

per_class = st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(lambda n: sum(n) >= 16)
seeds = st.integers(0, 2**32 - 1)
LABELS = np.repeat(np.array([0, 1, 3], np.int32), [5, 4, 7])
SCIKIT_LEARN = {
    None: [0, 0, 1, 1, 2, 0, 1, 2, 2, 0, 0, 0, 1, 1, 2, 2],
    3: [1, 2, 0, 0, 1, 1, 2, 2, 0, 0, 1, 0, 0, 1, 2, 2],
}
"""What StratifiedKFold(3) of scikit-learn 1.9 makes of `LABELS`, by seed."""


def samples_of(counts: list[int]) -> Samples:
    """Return samples of classes with so many files each."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return join_samples(
        [[b"%d/%d" % (label, i) for i, label in enumerate(labels.tolist())]], labels
    )


def all_folds(
    samples: Samples, folds: int, policy: Any, **options: Any
) -> list[dict[str, NDArray[np.int32]]]:
    """Return the splits of each fold."""
    return [
        split_samples(samples, SplitOptions(policy, folds=folds, fold=fold, **options))
        for fold in range(folds)
    ]


@given(
    counts=per_class, folds=st.integers(2, 7), test=st.sampled_from([0, 0.1, 0.5]), seed=seeds,
    policy=st.sampled_from(["keras", "stratified", "hash"]),
)  # fmt: skip
@settings(max_examples=examples(200), deadline=None)
def test_folds_are_a_partition(
    counts: list[int], folds: int, test: float, seed: int, policy: choices.Policy
) -> None:
    """Each image is in one validation split or in the test split of all; train is the rest.

    The test split is that of a build without folds, and classes are even, except for hashes.
    """
    samples = samples_of(counts)
    splits = all_folds(samples, folds, policy, test=test, seed=seed)
    alone = split_samples(samples, SplitOptions(policy, 0, test, seed=seed))
    numbers = np.full(len(samples), -1)
    for fold, found in enumerate(splits):
        assert list(found) == ["train", "validation", "test"][: 3 if test else 2]
        together = np.concatenate(list(found.values()))
        assert sorted(together.tolist()) == list(range(len(samples)))
        assert all(rows.tolist() == sorted(rows.tolist()) for rows in found.values())
        assert (numbers[found["validation"]] == -1).all()
        numbers[found["validation"]] = fold
        if test:
            np.testing.assert_array_equal(found["test"], alone["test"])
    assert (np.flatnonzero(numbers >= 0) == alone["train"]).all()
    if policy != "hash":
        sizes = [len(found["validation"]) for found in splits]
        assert max(sizes) - min(sizes) <= 1
        for label in range(len(counts)):
            of_class = numbers[(samples.labels == label) & (numbers >= 0)]
            assert np.ptp(np.bincount(of_class, minlength=folds)) <= 1


def test_the_fold_of_a_hash_depends_on_the_path_alone() -> None:
    """Other files, other shares of test, and the order of the folds move none."""
    some, more = samples_of([40, 40]), samples_of([40, 40, 70])
    before = all_folds(some, 4, "hash", seed=5)
    after = all_folds(more, 4, "hash", seed=5, test=0.2)
    for small, large in zip(before, after, strict=True):
        kept = set(large["validation"].tolist()) | set(large["test"].tolist())
        assert set(small["validation"].tolist()) <= kept
        assert abs(len(large["validation"]) - 30) < 20
    digests = np.zeros((80, 32), np.uint8)
    digests[:, 0] = np.arange(80) // 2 + 1
    for fold in range(4):
        options = SplitOptions("hash", folds=4, fold=fold, group_duplicates=True)
        rows = split_samples(some, options, digests)["validation"].tolist()
        assert all(row ^ 1 in rows for row in rows)


@pytest.mark.parametrize("seed", SCIKIT_LEARN)
def test_folds_are_those_that_scikit_learn_made(seed: int | None) -> None:
    """By class, in runs or shuffled by its random state; a class may be missing."""
    random = None if seed is None else np.random.RandomState(seed)
    assert stratified_folds(LABELS, 3, random).tolist() == SCIKIT_LEARN[seed]


grouped = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 14)), min_size=7, max_size=90)


@given(pairs=grouped.map(sorted), folds=st.integers(2, 7), seed=seeds)
@settings(max_examples=examples(200), deadline=None)
def test_groups_never_cross_folds(pairs: list[tuple[int, int]], folds: int, seed: int) -> None:
    """No fold is empty, and single images make up for groups: then classes are even."""
    labels, groups = (np.array(each, np.int32) for each in zip(*pairs, strict=True))
    if len(set(groups.tolist())) < folds:
        folds = 2
        groups = np.arange(len(groups), dtype=np.int32) // 2
    found = grouped_folds(labels, groups, folds, np.random.RandomState(seed))
    assert set(found.tolist()) == set(range(folds))
    for group in np.unique(groups):
        assert len(set(found[groups == group].tolist())) == 1
    # each pair of copies once, and as many single images as even out any of them
    singles = np.arange(1000, 1000 + folds * 100, dtype=np.int32)
    all_labels = np.concatenate([np.zeros(len(labels), np.int32), np.zeros_like(singles)])
    mixed = grouped_folds(
        all_labels, np.concatenate([groups, singles]), folds, np.random.RandomState(seed)
    )
    assert np.ptp(np.bincount(mixed)) <= 1


@pytest.mark.frameworks
def test_scikit_learn_itself_agrees() -> None:
    """Folds by class are the same as its own; with groups, classes are at least as even."""
    model = framework("sklearn.model_selection")
    random = np.random.RandomState(0)
    evenness = []
    for trial in range(60):
        drawn = np.sort(random.randint(0, random.randint(1, 7), random.randint(60, 300)))
        labels: NDArray[np.int32] = drawn.astype(np.int32)
        folds = int(random.randint(2, min(8, np.bincount(labels)[np.unique(labels)].min())))
        for seed in (None, trial):
            splitter = model.StratifiedKFold(folds, shuffle=seed is not None, random_state=seed)
            mine = stratified_folds(
                labels, folds, None if seed is None else np.random.RandomState(seed)
            )
            assert mine.tolist() == numbers_of(splitter.split(labels, labels), labels).tolist()
        groups = random.randint(0, random.randint(20, len(labels)), len(labels)).astype(np.int32)
        if trial % 2:
            groups += labels * 1000
        splitter = model.StratifiedGroupKFold(folds, shuffle=True, random_state=trial)
        theirs = numbers_of(splitter.split(labels, labels, groups), labels)
        mine = grouped_folds(labels, groups, folds, np.random.RandomState(trial))
        evenness.append([unevenness(each, labels, folds) for each in (mine, theirs)])
    ours, others = np.transpose(evenness)
    assert (ours <= others + 1e-12).mean() > 0.9
    assert ours.mean() < others.mean()


def numbers_of(splits: Any, labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the fold of each sample, given the splits of scikit-learn."""
    found = np.full(len(labels), -1)
    for number, (_, validation) in enumerate(splits):
        found[validation] = number
    return found


def unevenness(found: NDArray[Any], labels: NDArray[np.int32], folds: int) -> float:
    """Return how much the share of a fold in the classes varies, on average."""
    counts = np.zeros((folds, int(labels.max()) + 1))
    np.add.at(counts, (found, labels), 1)
    counts = counts[:, counts.any(axis=0)]
    return float((counts.std(axis=0) / counts.mean(axis=0)).mean())


@pytest.mark.frameworks
def test_a_plan_has_the_folds_of_scikit_learn(tmp_path: Path) -> None:
    """For the sorted paths and their classes, with the seed as random state, or without one."""
    model = framework("sklearn.model_selection")
    root = draw_dataset(tmp_path / "data", {"b": 11, "a": 8, "c": 5}, size=(9, 8))
    files = sorted(path.relative_to(root).as_posix() for path in root.glob("*/*"))
    labels = [file[0] for file in files]
    for policy, shuffle in (("stratified", {"shuffle": True, "random_state": 7}), ("keras", {})):
        splitter = model.StratifiedKFold(4, **shuffle)
        for fold, parts in enumerate(splitter.split(files, labels)):
            plan = batchify.plan_build(root, folds=4, fold=fold, split=policy, seed=7)  # type: ignore[arg-type]
            for split, members in zip(plan.splits, parts, strict=True):
                found = {path.decode() for _, some in plan.paths(split) for path in some}
                assert found == {files[i] for i in members}, split.name


@pytest.mark.frameworks
def test_a_stratified_split_has_the_proportions_of_train_test_split() -> None:
    """In each class, the numbers of validation are the same, or one more or less."""
    model = framework("sklearn.model_selection")
    random = np.random.RandomState(1)
    for trial in range(100):
        counts = random.randint(2, 200, random.randint(2, 9))
        share = float(random.uniform(0.1, 0.5))
        labels = np.repeat(np.arange(len(counts)), counts)
        if share * len(labels) < len(counts):
            continue
        _, validation = model.train_test_split(
            labels, test_size=share, stratify=labels, random_state=trial
        )
        theirs = np.bincount(validation, minlength=len(counts))
        options = SplitOptions("stratified", share, seed=trial)
        mine = [len(stratified(i, n, options)["validation"]) for i, n in enumerate(counts.tolist())]
        assert np.abs(np.array(mine) - theirs).max() <= 1
        assert np.abs(np.array(mine) - np.maximum(1, share * counts)).max() <= 0.5
    with pytest.raises(ValueError, match="least populated class"):
        model.train_test_split([0, 1, 1, 1], test_size=0.5, stratify=[0, 1, 1, 1])
    few = np.repeat([0, 1], [2, 40])
    assert 0 not in model.train_test_split(few, test_size=0.2, stratify=few, random_state=0)[1]
    assert len(stratified(0, 2, SplitOptions("stratified", 0.2))["validation"]) == 1


SMALL = ("--target-size", "8x8")


def paths(out: Path) -> dict[str, list[str]]:
    """Return the sorted paths of each split."""
    with h5py.File(out) as file:
        return {
            name: sorted(path.decode() for path in file[name]["paths"])
            for name in choices.SPLITS if name in file
        }  # fmt: skip


def test_the_command_builds_a_file_for_each_fold(run: Run, tmp_path: Path) -> None:
    """The fold is recorded, shown, part of the identity, and served without a file, too."""
    root = draw_dataset(tmp_path / "data", {"a": 9, "b": 6}, size=(9, 8))
    folds = ("--folds", "3", "--split", "stratified", "--test-split", "0.2")
    found = []
    for fold in range(3):
        out = tmp_path / f"fold{fold}.h5"
        done = run("build", root, out, *folds, "--fold", str(fold), *SMALL)
        assert done.returncode == 0, done.stderr
        found.append(paths(out))
    together = [path for each in found for path in each["validation"]]
    assert sorted([*together, *found[0]["test"]]) == sorted(
        path for split in found[1].values() for path in split
    )
    shown = run("inspect", tmp_path / "fold1.h5").stdout
    assert "--split stratified --test-split 0.2 --folds 3 --fold 1" in shown
    with h5py.File(tmp_path / "fold1.h5") as file:
        config = json.loads(file.attrs["config"])
    assert (config["folds"], config["fold"]) == (3, 1)
    assert "validation_split" not in config
    assert recorded_options(config).split == SplitOptions("stratified", test=0.2, folds=3, fold=1)
    done = run("build", root, tmp_path / "fold1.h5", *folds, "--fold", "2", *SMALL, "--check")
    assert (done.returncode, "fold was 1, now 2" in done.stdout) == (9, True)
    loader = batchify.Loader.from_directory(
        root, subset="validation", folds=3, fold=1, split="stratified", test_split=0.2
    )
    assert sorted(loader.filenames) == found[1]["validation"]


def test_a_test_folder_stays_and_train_is_divided(tmp_path: Path) -> None:
    """In all files; a dataset with a validation split has no folds."""
    root = draw_dataset(
        tmp_path / "data", {"train/a": 6, "train/b": 4, "test/a": 2, "test/b": 1}, size=(9, 8)
    )
    plans = [batchify.plan_build(root, folds=2, fold=fold) for fold in range(2)]
    assert [plan.rows for plan in plans] == [{"train": 5, "validation": 5, "test": 3}] * 2
    config = plans[0].config
    assert (config["from_train"], config["folds"], config["fold"]) == (["validation"], 2, 0)
    command = build_command(json.loads(canonical_json(config)), skipped=False)
    assert command == "batchify build DATASET OUT --folds 2 --fold 0"
    (root / "test").rename(root / "val")
    with pytest.raises(OptionError, match=r"already \(train, validation\); remove --folds"):
        batchify.plan_build(root, folds=2, fold=0)


def test_a_column_of_a_manifest_has_the_folds(tmp_path: Path) -> None:
    """Its rows are validation; those of a test split stay. All else is an error that says why."""
    root = draw_dataset(tmp_path / "data", {"a": 6, "b": 6}, size=(9, 8), format_name="PNG")
    rows = [
        {"path": f"{name}/img_{i:03}.png", "label": name, "fold": f"{i % 3}.0"}
        for name in "ab"
        for i in range(6)
    ]
    table = write_table(tmp_path / "t.csv", rows)

    def plan(**options: Any) -> dict[str, list[int]]:
        found = batchify.plan_build(root, manifest=table, **options)
        assert found.config.get("fold") == options.get("fold")
        return {
            split.name: sorted(int(path[-5:-4]) for _, some in found.paths(split) for path in some)
            for split in found.splits
        }

    assert plan(fold=1) == {"train": [0, 0, 2, 2, 3, 3, 5, 5], "validation": [1, 1, 4, 4]}
    assert len(plan(folds=4, fold=3)["validation"]) == 3  # the column is ignored
    with pytest.raises(ManifestError, match="has no row of fold 3, only of 0, 1, 2"):
        plan(fold=3)
    with pytest.raises(OptionError, match="a test split taken from train would be another one"):
        plan(fold=1, test_split=0.2)
    with pytest.raises(OptionError, match="is split by the manifest already"):
        plan(fold=1, split="stratified")
    for row in rows[:2]:
        row.update(split="test", fold="")
    for row in rows[2:]:
        row["split"] = "train"
    table = write_table(tmp_path / "t.csv", rows)
    found = plan(fold=1)
    assert found["test"] == [0, 1]
    assert found["validation"] == [1, 4, 4]
    rows[3]["split"] = "val"
    table = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(ManifestError, match="split is validation, which --fold takes from"):
        plan(fold=1)
    rows[3].update(split="train", fold="x")
    table = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(ManifestError, match="fold x is not a whole number"):
        plan(fold=1)
    table = write_table(tmp_path / "t.csv", [{"path": "a/img_000.png", "label": "a"}])
    with pytest.raises(ManifestError, match="has no column fold, only path, label; --fold takes"):
        plan(fold=1)


@pytest.mark.parametrize("policy", ["stratified", "hash"])
def test_the_groups_of_a_manifest_stay_in_one_fold(tmp_path: Path, policy: Any) -> None:
    """In all files; a fold column that divides a group is an error."""
    root = draw_dataset(tmp_path / "data", {"a": 12, "b": 9}, size=(9, 8))
    rows = [
        {"path": f"{name}/img_{i:03}.jpg", "label": name, "group": f"patient {i % 7}"}
        for name, count in (("a", 12), ("b", 9))
        for i in range(count)
    ]
    table = write_table(tmp_path / "t.csv", rows)
    found: dict[int, set[int]] = {}
    for fold in range(3):
        plan = batchify.plan_build(root, manifest=table, folds=3, fold=fold, split=policy, seed=1)
        for split in plan.splits:
            if split.name == "validation":
                for path in (path for _, some in plan.paths(split) for path in some):
                    found.setdefault(int(path[-6:-4]) % 7, set()).add(fold)
    assert sorted(found) == list(range(7))
    assert all(len(folds) == 1 for folds in found.values())
    for i, row in enumerate(rows):
        row["fold"] = str(i % 2)
    table = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(ManifestError, match="its group is in"):
        batchify.plan_build(root, manifest=table, fold=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 5}, "--folds 5 needs --fold, the one for validation: 0 to 4"),
        ({"folds": 5, "fold": 5}, "fold must be 0 to 4, since there are 5 folds, not 5"),
        ({"folds": 5, "fold": -1}, "fold must be a whole number of at least 0"),
        ({"folds": 1, "fold": 0}, "folds must be a whole number of at least 2"),
        ({"fold": 0}, "--fold needs --folds, or a --manifest with a column fold"),
        ({"folds": 2, "fold": 0, "validation_split": 0.1}, "remove --validation-split"),
        ({"folds": 2, "fold": 0, "split": "keras-utils", "seed": 1}, "keras-utils has no folds"),
        ({"folds": 2, "fold": 0, "limit": 9}, "would draw other images for each fold"),
        ({"folds": 9, "fold": 0}, "9 folds need at least as many images, but there are 5"),
        (
            {"folds": 4, "fold": 0, "split": "stratified", "group_by": r"img_00(0|1|.)"},
            "4 folds need at least as many groups, but there are 3",
        ),
    ],
)
def test_folds_that_cannot_be_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """With what to give instead; classes that are smaller than the folds cause a warning."""
    root = draw_dataset(tmp_path / "data", {"a": 3, "b": 2}, size=(9, 8))
    with pytest.raises((OptionError, DatasetError), match=message):
        batchify.plan_build(root, **options)
    plan = batchify.plan_build(root, folds=3, fold=0)
    assert [w.code for w in plan.warnings] == ["small-folds"]
    assert "1 class has fewer images than there are folds" in str(plan.warnings[0])
