"""The splits: pure functions of counts, shares and a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchify import choices
from batchify.choices import Policy
from batchify.dataset_options import SplitOptions
from batchify.datasets.dataset import Samples, join_samples
from batchify.errors import OptionError
from batchify.planning.policies import (
    POLICIES,
    keras_order,
    keras_random,
    split_samples,
    stratified,
)

counts = st.lists(st.integers(0, 60), min_size=1, max_size=8)
shares = st.tuples(st.floats(0, 0.6), st.floats(0, 0.39))
policies = st.sampled_from(choices.POLICIES)


def samples_of(per_class: list[int]) -> Samples:
    """Return the samples of classes with so many files each, all of the same name."""
    labels = np.repeat(np.arange(len(per_class), dtype=np.int32), per_class)
    return Samples(b"", np.zeros(len(labels), np.int64), labels)


def in_groups(groups: list[int]) -> Samples:
    """Return samples of one class, each named after its group."""
    names = [b"g%d/%d" % (group, i) for i, group in enumerate(groups)]
    return join_samples([names], np.zeros(len(groups), np.int32))


def test_every_policy_has_a_function() -> None:
    """What ``--split`` may be is what there is."""
    assert tuple(POLICIES) == choices.POLICIES


@given(per_class=counts, share=shares, policy=policies, seed=st.integers(0, 2**32 - 1))
def test_every_sample_goes_to_one_split(
    per_class: list[int], share: tuple[float, float], policy: Policy, seed: int
) -> None:
    """Splits are disjoint, together they are all samples, each in class order and file order."""
    validation, test = share
    if policy == "keras-utils":
        test = 0.0  # it has no test split
        assume(not validation or int(validation * sum(per_class)))  # else refused
    options = SplitOptions(policy, validation, test, seed=seed)
    splits = split_samples(samples_of(per_class), options)
    together = np.concatenate(list(splits.values()))
    assert sorted(together.tolist()) == list(range(sum(per_class)))
    for rows in splits.values():
        assert rows.tolist() == sorted(rows.tolist())


@pytest.mark.parametrize("policy", choices.POLICIES)
@given(groups=st.lists(st.integers(0, 5), min_size=1, max_size=40), seed=st.integers(0, 99))
def test_every_policy_keeps_groups_or_refuses_them(
    policy: Policy, groups: list[int], seed: int
) -> None:
    """No split of a file leaks: a group of any kind is in one split, or there is no file."""
    numbers = np.array(groups)
    digests = np.repeat(numbers[:, None].astype(np.uint8) + 1, 32, axis=1)
    kept = choices.POLICY_GROUPS.get(policy, 0)
    asked: list[dict[str, Any]] = [{"group_by": r"(g\d+)/"}, {"group_duplicates": True}]
    for each in [*asked, {**asked[0], **asked[1]}]:
        if len(each) > kept:
            with pytest.raises(OptionError, match="--group-by"):
                SplitOptions(policy, 0.4, seed=seed, **each)
            continue
        options = SplitOptions(policy, 0.4, seed=seed, **each)
        splits = split_samples(in_groups(groups), options, digests)
        members = [set(numbers[rows].tolist()) for rows in splits.values()]
        assert not set.intersection(*members)
    column = digests[:, :16]
    options = SplitOptions(policy, 0.4, seed=seed)
    if kept:
        splits = split_samples(in_groups(groups), options, named=column)
        assert not set.intersection(*[set(numbers[rows].tolist()) for rows in splits.values()])
    else:
        with pytest.raises(OptionError, match="the group column of the manifest needs"):
            split_samples(in_groups(groups), options, named=column)


def test_a_new_policy_refuses_groups_until_it_says_that_it_keeps_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a policy that does not know of groups would make files that leak."""
    monkeypatch.setattr(choices, "POLICIES", (*choices.POLICIES, "new"))
    SplitOptions("new")  # type: ignore[arg-type]
    for asked in ({"group_by": "(a)"}, {"group_duplicates": True}):
        with pytest.raises(OptionError, match="need --split stratified or hash"):
            SplitOptions("new", **asked)  # type: ignore[arg-type]


@given(per_class=counts, share=shares)
def test_keras_takes_the_first_files(per_class: list[int], share: tuple[float, float]) -> None:
    """Validation is the first int(v * n) files of each class, test the next, training the rest."""
    validation, test = share
    splits = split_samples(samples_of(per_class), SplitOptions("keras", validation, test))
    first = 0
    for count in per_class:
        a = first + int(validation * count)
        b = a + int(test * count)
        if validation:
            assert set(range(first, a)) <= set(splits["validation"].tolist())
        if test:
            assert set(range(a, b)) <= set(splits["test"].tolist())
        assert set(range(b, first + count)) <= set(splits["train"].tolist())
        first += count


@given(count=st.integers(0, 200), share=shares, seed=st.integers(0, 2**32 - 1))
def test_stratified_serves_every_split(count: int, share: tuple[float, float], seed: int) -> None:
    """A class with as many files as there are splits has an image in each of them."""
    validation, test = share
    options = SplitOptions("stratified", validation, test, seed=seed)
    chosen = stratified(3, count, options)
    wanted = 1 + bool(validation) + bool(test)
    served = sum(bool(len(rows)) for rows in chosen.values())
    assert served == min(count, wanted)
    if count:
        assert len(chosen["train"]) >= 1
    if count >= wanted and validation * count >= 1 and validation + test < 0.9:
        assert abs(len(chosen["validation"]) - validation * count) <= 2


def test_stratified_is_random_by_seed_and_class() -> None:
    """The same seed gives the same split; another seed or class another one."""
    options = SplitOptions("stratified", 0.5, seed=1)
    first = stratified(0, 50, options)["validation"].tolist()
    assert first == stratified(0, 50, options)["validation"].tolist()
    assert first != stratified(1, 50, options)["validation"].tolist()
    assert (
        first != stratified(0, 50, SplitOptions("stratified", 0.5, seed=2))["validation"].tolist()
    )
    assert first != list(range(25))


def test_a_share_of_0_makes_no_split() -> None:
    """Only the splits that were asked for are there."""
    assert list(split_samples(samples_of([4]), SplitOptions(validation=0))) == ["train"]
    splits = split_samples(samples_of([4]), SplitOptions(test=0.2))
    assert list(splits) == ["train", "validation", "test"]


@given(count=st.integers(0, 50), seed=st.integers(0, 2**32 - 1), seen=st.integers(0, 2**33))
def test_an_epoch_is_a_permutation(count: int, seed: int, seen: int) -> None:
    """Every row once, by a seed that the batches seen move on, past 2**32 too."""
    order = keras_order(count, shuffle=True, seed=seed)
    assert sorted(order.tolist()) == list(range(count))
    np.testing.assert_array_equal(order, np.random.RandomState(seed).permutation(count))
    state = np.random.RandomState((seed + seen) % 2**32)
    np.testing.assert_array_equal(keras_random(seed, seen).permutation(9), state.permutation(9))
    np.testing.assert_array_equal(keras_order(count, shuffle=False, seed=seed), np.arange(count))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"validation": 1.0}, "validation split must be from 0 up to less than 1"),
        ({"test": -0.1}, "test split must be"),
        ({"validation": float("nan")}, "validation split must be"),
        ({"validation": 0.6, "test": 0.4}, "leave nothing to train on"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"seed": 2**32}, "seed must be less than"),
        ({"policy": "random"}, "split policy must be one of keras, keras-utils, strat"),
    ],
)
def test_shares_that_cannot_be_meant_are_refused(values: dict[str, float], message: str) -> None:
    """Each with what is wrong."""
    with pytest.raises(OptionError, match=message):
        SplitOptions(**values)  # type: ignore[arg-type]
