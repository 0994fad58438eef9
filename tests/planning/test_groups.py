"""Splits without leaks: groups, identical files and hashes, in any dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import encoded, photo, save
from helpers.properties import examples
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchify.building.build import build
from batchify.common.progress import Progress
from batchify.dataset_options import SplitOptions
from batchify.datasets.dataset import Samples
from batchify.errors import DatasetError, OptionError, ResumeError
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions
from batchify.planning.groups import repeat_numbers
from batchify.planning.planner import plan_build
from batchify.planning.policies import keep_groups, split_samples

SMALL = DecodeOptions((8, 8))
shares = st.tuples(st.floats(0, 0.6), st.floats(0, 0.39))
seeds = st.integers(0, 2**32 - 1)
classes_and_groups = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=1, max_size=80
).map(sorted)


def samples_of(paths: list[bytes], labels: NDArray[np.int32] | None = None) -> Samples:
    """Return samples of some paths."""
    ends = np.cumsum([len(path) for path in paths], dtype=np.int64)
    if labels is None:
        labels = np.zeros(len(paths), np.int32)
    return Samples(b"".join(paths), ends, labels)


def split_of(splits: dict[str, NDArray[np.int32]], count: int) -> list[str]:
    """Return the split of each sample; each must have just one."""
    found: list[str] = [""] * count
    for name, rows in splits.items():
        assert rows.tolist() == sorted(rows.tolist())
        for row in rows.tolist():
            assert not found[row]
            found[row] = name
    assert all(found)
    return found


@given(pairs=classes_and_groups, share=shares, seed=seeds)
@settings(max_examples=examples(300), deadline=None)
def test_groups_stay_whole(
    pairs: list[tuple[int, int]], share: tuple[float, float], seed: int
) -> None:
    """Every sample has one split, every group one, and every class is in training."""
    labels = np.array([label for label, _ in pairs], np.int32)
    groups = np.array([group for _, group in pairs], np.int32)
    options = SplitOptions("stratified", *share, seed=seed, group_by="(x)")
    splits = keep_groups(labels, groups, options)
    found = split_of(splits, len(pairs))
    of_group: dict[int, set[str]] = {}
    for group, name in zip(groups.tolist(), found, strict=True):
        of_group.setdefault(group, set()).add(name)
    assert all(len(names) == 1 for names in of_group.values())
    assert set(labels.tolist()) == set(labels[splits["train"]].tolist())
    again = keep_groups(labels, groups, options)
    assert split_of(again, len(pairs)) == found


@given(
    sizes=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=25), min_size=1, max_size=4),
    share=shares,
    seed=seeds,
)
@settings(max_examples=examples(300), deadline=None)
def test_shares_are_kept_as_well_as_groups_allow(
    sizes: list[list[int]], share: tuple[float, float], seed: int
) -> None:
    """In each class within two groups, and some in every split where there are enough groups."""
    labels, groups, number = [], [], 0
    for label, members in enumerate(sizes):
        for size in members:
            labels += [label] * size
            groups += [number] * size
            number += 1
    options = SplitOptions("stratified", *share, seed=seed, group_by="(x)")
    splits = keep_groups(np.array(labels, np.int32), np.array(groups, np.int32), options)
    wanted = {"validation": share[0], "test": share[1]}
    for label, members in enumerate(sizes):
        count = sum(members)
        for name, rows in splits.items():
            have = sum(labels[row] == label for row in rows.tolist())
            if len(members) >= len(splits):
                assert have
            due = wanted.get(name, 1 - sum(share)) * count
            assert abs(have - due) <= 2 * max(members) + 2


@given(per_class=st.lists(st.integers(0, 40), min_size=1, max_size=6), share=shares, seed=seeds)
def test_groups_of_one_change_nothing(
    per_class: list[int], share: tuple[float, float], seed: int
) -> None:
    """Where no files belong together the split is the one without groups."""
    labels = np.repeat(np.arange(len(per_class), dtype=np.int32), per_class)
    options = SplitOptions("stratified", *share, seed=seed)
    plain = split_samples(samples_of([b""] * len(labels), labels), options)
    numbers = np.random.RandomState(1).permutation(len(labels)).astype(np.int32)
    grouped = keep_groups(labels, numbers, options)
    for name, rows in plain.items():
        np.testing.assert_array_equal(grouped[name], rows)


def test_seeds_differ() -> None:
    """The groups of validation are drawn, also where no two are of one size."""
    labels = np.zeros(210, np.int32)
    groups = np.repeat(np.arange(20, dtype=np.int32), range(1, 21))
    found = set()
    for seed in range(20):
        options = SplitOptions("stratified", 0.3, seed=seed, group_by="(x)")
        splits = keep_groups(labels, groups, options)
        found.add(tuple(sorted(set(groups[splits["validation"]].tolist()))))
        assert 55 <= len(splits["validation"]) <= 71
    assert len(found) > 10
    assert any(19 in groups for groups in found)


names = st.binary(min_size=1, max_size=6).map(lambda name: b"c/" + name.replace(b"/", b"_"))


@given(
    old=st.sets(names, min_size=1, max_size=40),
    new=st.sets(names, max_size=40),
    share=shares,
    seed=seeds,
)
def test_hash_never_moves_a_file(
    old: set[bytes], new: set[bytes], share: tuple[float, float], seed: int
) -> None:
    """Whatever is added or removed, a file stays in its split."""
    options = SplitOptions("hash", *share, seed=seed)

    def splits(paths: set[bytes]) -> dict[bytes, str]:
        ordered = sorted(paths)
        samples = samples_of(ordered)
        found = split_of(split_samples(samples, options), len(ordered))
        return dict(zip(ordered, found, strict=True))

    before, after = splits(old), splits(old | new)
    assert before == {path: after[path] for path in old}


@given(seed=seeds, low=st.floats(0.05, 0.3), more=st.floats(0, 0.3))
def test_a_larger_share_takes_from_training_alone(seed: int, low: float, more: float) -> None:
    """What was in validation or in test stays there."""
    samples = samples_of([b"c/%d" % i for i in range(300)])
    found = []
    for share in (low, low + more):
        options = SplitOptions("hash", share, 0.2, seed=seed)
        found.append(split_samples(samples, options))
    assert set(found[0]["validation"].tolist()) <= set(found[1]["validation"].tolist())
    np.testing.assert_array_equal(found[0]["test"], found[1]["test"])


def test_hash_keeps_the_shares() -> None:
    """About: it is a hash that decides; another seed makes another split."""
    samples = samples_of([b"c/%d.jpg" % i for i in range(20_000)])
    options = SplitOptions("hash", 0.2, 0.1)
    splits = split_samples(samples, options)
    assert abs(len(splits["validation"]) - 4000) < 250
    assert abs(len(splits["test"]) - 2000) < 200
    other = SplitOptions("hash", 0.2, 0.1, seed=1)
    again = split_samples(samples, other)
    assert set(splits["test"].tolist()) != set(again["test"].tolist())


@given(
    people=st.lists(st.integers(0, 8), min_size=1, max_size=60),
    policy=st.sampled_from(["hash", "stratified"]),
    share=shares,
)
def test_group_by_keeps_people_whole(
    people: list[int], policy: str, share: tuple[float, float]
) -> None:
    """By the first group of the match, over class folders; hash, too."""
    paths = [b"%s/p%d_%d.jpg" % (b"ab"[i % 2 : i % 2 + 1], p, i) for i, p in enumerate(people)]
    order = sorted(range(len(paths)), key=paths.__getitem__)
    paths = [paths[i] for i in order]
    labels = np.array([path[0] - ord("a") for path in paths], np.int32)
    assume(labels[0] == 0)
    options = SplitOptions(policy, *share, group_by=r"/(p\d+)_")  # type: ignore[arg-type]
    samples = samples_of(paths, labels)
    found = split_of(split_samples(samples, options), len(paths))
    places: dict[bytes, set[str]] = {}
    for path, split in zip(paths, found, strict=True):
        places.setdefault(path.split(b"/")[1].split(b"_")[0], set()).add(split)
    assert all(len(splits) == 1 for splits in places.values())


@given(values=st.lists(st.integers(0, 5), max_size=40))
def test_repeats_have_a_number_in_common(values: list[int]) -> None:
    """The same hash, the same number; files that cannot be read are all apart."""
    digests = np.zeros((len(values), 32), np.uint8)
    digests[:, 31] = values
    numbers = repeat_numbers(digests).tolist()
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            assert (numbers[i] == numbers[j]) == (i == j or (a == b and a > 0))


@given(people=st.lists(st.integers(0, 12), min_size=1, max_size=40), data=st.data(), share=shares)
def test_groups_that_share_an_image_are_one(
    people: list[int], data: st.DataObject, share: tuple[float, float]
) -> None:
    """Neither a person nor an image is in two splits when both are asked for."""
    images = data.draw(
        st.lists(st.integers(1, 25), min_size=len(people), max_size=len(people)), "images"
    )
    samples = samples_of([b"c/p%d_%d" % pair for pair in zip(people, range(99), strict=False)])
    digests = np.zeros((len(people), 32), np.uint8)
    digests[:, 0] = images
    options = SplitOptions("stratified", *share, group_by=r"(p\d+)", group_duplicates=True)
    found = split_of(split_samples(samples, options, digests), len(people))
    for of in (people, images):
        splits: dict[int, set[str]] = {}
        for key, split in zip(of, found, strict=True):
            splits.setdefault(key, set()).add(split)
        assert all(len(names) == 1 for names in splits.values())


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """Draw thirty files of ten pictures, three of each under other names."""
    for i in range(30):
        save(tmp_path / "data" / "ab"[i % 2] / f"{i}.png", encoded(photo(seed=i % 10), "PNG"))
    return tmp_path / "data"


@pytest.mark.parametrize("policy", ["stratified", "hash"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_identical_files_stay_together(
    copies: Path, tmp_path: Path, policy: str, seed: int
) -> None:
    """No hash of a source is in two splits of the file, and the file says how it was split."""
    split = SplitOptions(policy, 0.3, 0.2, seed=seed, group_duplicates=True)  # type: ignore[arg-type]
    build(copies, tmp_path / "out.h5", BuildOptions(split=split, decode=SMALL))
    with h5py.File(tmp_path / "out.h5") as file:
        seen: set[bytes] = set()
        for name in ("train", "validation", "test"):
            hashes = {row.tobytes() for row in file[name]["source_sha256"][:]}
            assert not seen & hashes
            seen |= hashes
        assert len(seen) == 10
        assert b'"group_duplicates":true' in file.attrs["config"]
        assert b'"split":"%s"' % policy.encode() in file.attrs["config"]


@pytest.mark.parametrize("policy", ["stratified", "hash"])
@pytest.mark.parametrize("hidden", [False, True])
def test_files_that_change_between_hash_and_decode_leak_nothing(
    copies: Path, policy: str, hidden: bool
) -> None:
    """Files that become copies once they were hashed, or could not be hashed, end the build."""
    data = (copies / "a" / "0.png").read_bytes()
    files = sorted((copies / "a").glob("*.png"))
    if hidden:
        for file in files:
            file.write_bytes(b"")

    def change(progress: Progress) -> None:
        if progress.stage == "hash" and progress.done == progress.total:
            for file in files:
                file.write_bytes(data)

    options = BuildOptions(
        split=SplitOptions(policy, 0.4, group_duplicates=True),  # type: ignore[arg-type]
        decode=SMALL,
    )
    out = copies.parent / "out.h5"
    with pytest.raises(ResumeError, match=r"1 image would be in several splits, a/.*--restart"):
        build(copies, out, options, progress=change)
    assert not out.exists()
    build(copies, out, options, restart=True)
    with h5py.File(out) as file:
        found = [
            {row.tobytes() for row in file[split]["source_sha256"][()]}
            for split in ("train", "validation")
        ]
    assert not found[0] & found[1]


def test_the_loader_splits_alike(copies: Path) -> None:
    """Training from the folder has the splits of the file."""
    from batchify.loading.loader import Loader

    plan = plan_build(copies, BuildOptions(split=SplitOptions("hash", 0.3, group_by=r"(\d)\.")))
    loader = Loader.from_directory(
        copies, subset="validation", split="hash", validation_split=0.3, group_by=r"(\d)\."
    )
    assert len(plan.splits[1]) == sum(len(next(loader)[1]) for _ in range(len(loader)))


def test_a_file_without_a_group_is_named(copies: Path) -> None:
    """One that was left to itself might be a leak."""
    options = BuildOptions(split=SplitOptions("stratified", group_by=r"(1\d)"))
    with pytest.raises(DatasetError, match=r"no group in the paths of 20 of 30 files: a/0"):
        plan_build(copies, options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"policy": "keras", "group_by": "(x)"}, "need --split stratified or hash"),
        ({"policy": "keras", "group_duplicates": True}, "need --split stratified or hash"),
        ({"policy": "hash", "group_by": "(x)", "group_duplicates": True}, "takes both"),
        ({"policy": "hash", "group_by": "("}, "group by is not a regular expression"),
        ({"policy": "hash", "group_by": "x"}, "must have a group in parentheses"),
        ({"policy": "hash", "group_by": "(\udcff)"}, "group by is not a regular expression"),
        ({"policy": "hash", "group_by": "(x)" + "x" * 4094}, "group by has 4,097 characters"),
        ({"policy": "hash", "group_by": b"(x)"}, "group by must be a text"),
    ],
)
def test_groups_that_cannot_be_meant_are_refused(values: dict[str, Any], message: str) -> None:
    """Each with what to do."""
    with pytest.raises(OptionError, match=message):
        SplitOptions(**values)
