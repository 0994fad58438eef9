"""Ranks: every row once over all of them, equal numbers of batches, and epochs that resume."""

from __future__ import annotations

import copy
import itertools
import json
import os
import pickle
import types
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.properties import examples
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import batchify
from batchify.building.build import build
from batchify.dataset_options import SplitOptions
from batchify.errors import OptionError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.loading import prefetching
from batchify.loading.frameworks import shared_epochs
from batchify.loading.ranks import largest_share, shares, step_ends
from batchify.loading.split import Split
from batchify.options import BuildOptions

COUNT = 61


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    """Build two files of the same images, mapped and compressed, and one of others."""
    folder = tmp_path_factory.mktemp("ranks")
    found = {}
    for name, a, compression in (("none", 20, "none"), ("gzip", 20, "gzip"), ("more", 19, "none")):
        root = folder / f"data-{a}"
        if not root.exists():
            draw_dataset(root, {"a": a, "b": COUNT - a})
        options = BuildOptions(
            decode=DecodeOptions((8, 9)),
            split=SplitOptions(validation=0),
            store=StoreOptions(compression=compression),  # type: ignore[arg-type]
        )
        build(root, folder / f"{name}.h5", options)
        found[name] = batchify.open(folder / f"{name}.h5")["train"]
    return found


def dealt(
    rows: int, batch_size: int, world_size: int, start: int, *, drop_last: bool
) -> list[list[int]]:
    """Return the rows of each step, for a rule in words: whole steps, then what is left."""
    left = list(range(start, rows))
    steps = []
    while len(left) >= batch_size * world_size:
        steps.append([left.pop(0) for _ in range(batch_size * world_size)])
    if left and not drop_last:
        if len(left) < world_size:
            steps[-1] += left
        else:
            steps.append(left)
    return steps


@settings(max_examples=examples(300), deadline=None)
@given(st.integers(0, 90), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 90))
def test_ranks_share_every_step(
    rows: int, batch_size: int, world_size: int, drop_last: bool, start: int
) -> None:
    """Evenly and in order: full batches, and at the end batches that differ by one row at most."""
    assume(start <= rows)
    rest = (rows - start) % (batch_size * world_size)
    impossible = not drop_last and rows - start == rest and 0 < rest < world_size
    if impossible:
        with pytest.raises(OptionError, match=r"cannot be shared by \d ranks"):
            step_ends(rows, batch_size, world_size, drop_last=drop_last, start=start)
        return
    ends = step_ends(rows, batch_size, world_size, drop_last=drop_last, start=start)
    order = np.arange(rows) * 7
    every = [shares(order, ends, rank, world_size) for rank in range(world_size)]
    steps = dealt(rows, batch_size, world_size, start, drop_last=drop_last)
    assert {len(batches) for batches in every} == {len(steps)}
    for number, step in enumerate(steps):
        batches = [batches[number].tolist() for batches in every]
        assert list(itertools.chain(*batches)) == [7 * row for row in step]
        sizes = {len(batch) for batch in batches}
        assert max(sizes) - min(sizes) <= 1
        assert 0 < min(sizes) <= max(sizes) <= largest_share(rows, batch_size, world_size)
        if number < len(steps) - 1 or drop_last:
            assert sizes == {batch_size}


def rows_of(batches: Any) -> list[list[int]]:
    """Return the rows of each batch of an epoch."""
    return [rows.tolist() for *_, rows in batches]


def global_rows(
    split: Split, size: int, world_size: int, state: Any = None, **options: Any
) -> list[list[int]]:
    """Return the rows of each step of an epoch, of all ranks together."""
    found = []
    for rank in range(world_size):
        options |= {"rank": rank, "world_size": world_size, "with_rows": True, "shuffle": True}
        batches = split.batches(size, **options)
        if state is not None:
            batches.load_state_dict(state)
        found.append(rows_of(batches))
    return [list(itertools.chain(*step)) for step in zip(*found, strict=True)]


@pytest.mark.parametrize("kind", ["none", "gzip"])
def test_the_order_does_not_depend_on_the_ranks(files: dict[str, Split], kind: str) -> None:
    """Steps of the same size have the same rows, however many ranks share them."""
    order = files[kind].batches(1, shuffle=True, seed=4).order(0).tolist()
    alone = global_rows(files[kind], 12, 1, seed=4)
    assert list(itertools.chain(*alone)) == order
    assert sorted(order) == list(range(COUNT))
    for ranks in (2, 3, 4):
        steps = global_rows(files[kind], 12 // ranks, ranks, seed=4)
        together = [list(itertools.chain(*some)) for some in (alone[:-2], alone[-2:])]
        assert steps[:4] == alone[:4]
        assert list(itertools.chain(*steps)) == list(itertools.chain(*together))
        assert sorted(itertools.chain(*steps)) == list(range(COUNT))


@settings(max_examples=examples(40), deadline=None)
@given(
    kind=st.sampled_from(["none", "gzip"]),
    first=st.tuples(st.integers(1, 9), st.integers(1, 4)),
    second=st.tuples(st.integers(1, 9), st.integers(1, 4)),
    epoch=st.integers(0, 2),
    steps=st.integers(0, 70),
    prefetch=st.integers(0, 3),
)
def test_an_epoch_resumes_where_it_stopped(
    files: dict[str, Split],
    kind: str,
    first: tuple[int, int],
    second: tuple[int, int],
    epoch: int,
    steps: int,
    prefetch: int,
) -> None:
    """With the rest of its rows in order, whatever was read ahead, and then with the next epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefetching, "SLOW_S", 0)
        states = []
        for rank in range(first[1]):
            batches = files[kind].batches(
                first[0], shuffle=True, seed=3, rank=rank, world_size=first[1], prefetch=prefetch
            )
            batches.epoch = epoch
            steps = min(steps, len(batches))
            for _ in itertools.islice(batches, steps) if steps else ():
                pass
            states.append(json.loads(json.dumps(batches.state_dict())))
    assert all(state == states[0] for state in states)
    assert len(json.dumps(states[0])) < 200
    order = batches.order(epoch).tolist()
    row = states[0]["row"]
    assert row == (COUNT if steps == len(batches) else steps * first[0] * first[1])
    if 0 < COUNT - row < second[1]:
        with pytest.raises(OptionError, match="left in this epoch cannot be shared by"):
            global_rows(files[kind], *second, states[0], seed=3)
        return
    rest = global_rows(files[kind], *second, states[0], seed=3)
    assert list(itertools.chain(*rest)) == order[row:]
    if first == second and steps:
        assert rest == global_rows(files[kind], *second, {**states[0], "row": 0}, seed=3)[steps:]


def test_a_state_is_of_the_latest_iteration(files: dict[str, Split]) -> None:
    """Before, within and after it; setting the epoch, and a copy, count as well."""
    batches = files["none"].batches(10, shuffle=True, seed=2, with_rows=True)

    def position() -> tuple[int, int]:
        state = batches.state_dict()
        return state["epoch"], state["row"]

    assert position() == (0, 0)
    epoch = iter(batches)
    assert position() == (0, 0)
    next(epoch), next(epoch)
    assert position() == (0, 20)
    for _ in range(5):
        next(epoch)
    assert position() == (0, COUNT)
    assert next(epoch, None) is None
    assert position() == (1, 0)
    next(iter(batches))
    assert position() == (1, 10)
    batches.epoch = 5
    assert position() == (5, 0)
    state = batches.state_dict()
    full = rows_of(batches)
    batches.load_state_dict({**state, "row": 30})
    assert position() == (5, 30)
    other = pickle.loads(pickle.dumps(batches))
    assert rows_of(batches) == rows_of(other) == full[3:]
    assert len(rows_of(batches)) == len(rows_of(other)) == 7


def test_a_state_at_the_very_end_has_no_more_batches(files: dict[str, Split]) -> None:
    """The loop over that epoch ends at once; the next one is the next epoch."""
    batches = files["none"].batches(10, shuffle=True, with_rows=True)
    for _ in itertools.islice(batches, 7):
        pass
    state = batches.state_dict()
    other = files["none"].batches(10, shuffle=True, with_rows=True)
    other.load_state_dict(state)
    assert rows_of(other) == []
    assert rows_of(other) == rows_of(batches)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("none", {"seed": 6}, r"seed was 5, not 6"),
        ("none", {"shuffle": False}, r"shuffle was True, not False"),
        ("more", {}, r"the content of the file was '\w{16}', not '\w{16}'"),
        ("gzip", {}, r"the content of the file was"),
    ],
)
def test_a_state_of_other_batches_is_refused(
    files: dict[str, Split], kind: str, options: dict[str, Any], message: str
) -> None:
    """The message names what differs."""
    state = files["none"].batches(4, shuffle=True, seed=5).state_dict()
    other = files[kind].batches(4, **{"shuffle": True, "seed": 5, **options})
    with pytest.raises(OptionError, match=f"this state is of other batches: {message}"):
        other.load_state_dict(state)
    assert other.state_dict()["row"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2; this batchify reads version 1"),
        ({"row": -1}, "damaged: epoch 0, row -1"),
        ({"row": COUNT + 1}, "damaged: row 62 of 61"),
        ({"epoch": None}, "damaged: epoch None, row 0"),
        ({"order": 1}, r"the checksum of the order was 1, not \d+"),
    ],
)
def test_a_damaged_state_is_refused(
    files: dict[str, Split], change: dict[str, Any], message: str
) -> None:
    """A newer version, or numbers that cannot be."""
    batches = files["none"].batches(4, shuffle=True)
    with pytest.raises(OptionError, match=message):
        batches.load_state_dict({**batches.state_dict(), **change})
    with pytest.raises(OptionError, match=r"not a state that state_dict\(\) returned"):
        batches.load_state_dict({"_num_yielded": 3})


def test_ranks_are_checked(files: dict[str, Split]) -> None:
    """Before anything is read."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"rank": 2, "world_size": 2}, "rank must be below the world size, 2, not 2"),
        ({"rank": -1, "world_size": 2}, "rank must be a whole number of at least 0"),
        ({"world_size": 0}, "world size must be a whole number of at least 1"),
        ({"world_size": COUNT + 1}, "61 rows cannot be shared by 62 ranks: each needs one"),
    ]
    for options, message in cases:
        with pytest.raises(OptionError, match=message):
            files["none"].batches(1, **options)
    assert len(files["none"].batches(1, world_size=COUNT + 1, drop_last=True)) == 0
    shown = repr(files["none"].batches(4, rank=np.int64(1), world_size=3))  # type: ignore[arg-type]
    assert shown.endswith(", rank 1 of 3>")


def test_the_epoch_is_a_whole_number(files: dict[str, Split]) -> None:
    """Of Python or NumPy; a state has it as JSON. Flags are True or False."""
    batches = files["none"].batches(4, shuffle=True)
    batches.epoch = np.int64(3)  # type: ignore[assignment]
    assert json.loads(json.dumps(batches.state_dict()))["epoch"] == 3
    other = files["none"].batches(4, shuffle=True)
    other.load_state_dict(batches.state_dict())
    next(iter(batches))
    assert json.loads(json.dumps(batches.state_dict()))["row"] == 4
    assert (batches.epoch, other.epoch) == (4, 3)
    for wrong in (-1, 1.5, "1"):
        batches.epoch = wrong  # type: ignore[assignment]
        with pytest.raises(OptionError, match="epoch must be a whole number of at least 0"):
            next(iter(batches))
    for name in ("scaled", "reuse"):
        with pytest.raises(OptionError, match=f"{name} must be True or False, not 'no'"):
            files["none"].batches(4, **{name: "no"})  # type: ignore[arg-type]


def test_reused_memory_has_room_for_one_row_more(tmp_path: Path, files: dict[str, Split]) -> None:
    """Where the rows after the last full step are fewer than the ranks, also after a resume."""
    for reuse, prefetch in itertools.product((False, True), (0, 2)):
        resumed = files["none"].batches(
            7, rank=3, world_size=4, reuse=reuse, prefetch=prefetch, scaled=False
        )
        assert [len(x) for x, _ in resumed] == [7, 7, 2]
        resumed.load_state_dict(files["none"].batches(32).state_dict(1))
        ((x, _),) = resumed
        assert (x == files["none"].images[53:]).all()
        sizes = []
        for rank in range(4):
            batches = files["none"].batches(
                5, rank=rank, world_size=4, reuse=reuse, prefetch=prefetch, scaled=False
            )
            for x, y in batches:
                assert len(x) == len(y)
                last = x[-1].copy(), len(x)
            assert (last[0] == files["none"].images[40 + (rank + 1) * 21 // 4 - 1]).all()
            sizes.append(last[1])
        assert sizes == [5, 5, 5, 6]


@settings(max_examples=examples(20), deadline=None)
@given(st.randoms(use_true_random=False))
def test_workers_agree_on_the_number_of_an_epoch(random: Any) -> None:
    """Those of one loader, in whatever order several loaders' workers start, or never start."""
    epochs = shared_epochs.SharedEpochs(7)
    for first in (7, 9, 11):
        calls = [(loader, worker) for loader in (first, first + 1) for worker in range(3)]
        random.shuffle(calls)
        numbers: dict[int, set[int]] = {}
        for loader, _ in calls:
            worker = shared_epochs._shared(epochs._owner, epochs._table)
            numbers.setdefault(loader, set()).add(worker.take_with_others(1000 + loader, 3))
        assert sorted(numbers.values(), key=min) == [{first}, {first + 1}]
    worker = shared_epochs._shared(epochs._owner, epochs._table)
    assert worker.take_with_others(5, 3) == 13  # the others are killed before they begin
    assert epochs.by_workers
    assert [worker.take_with_others(6, 1) for _ in range(3)] == [14, 15, 16]  # one that persists
    assert epochs.take() == 17
    assert not epochs.by_workers
    epochs.set(2)
    assert worker.take_with_others(5, 3) == 2  # not with those that were killed


def test_a_copy_counts_epochs_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a fork; a worker of a process that the dataset was not made in is refused."""
    epochs = shared_epochs.SharedEpochs(3)
    copies = [copy.deepcopy(epochs), pickle.loads(pickle.dumps(epochs))]
    assert epochs.take() == 3
    assert [each.take() for each in copies] == [3, 3]
    assert epochs.next == 4
    if hasattr(os, "fork"):
        pid = os.fork()
        if not pid:
            os._exit(0 if [epochs.take(), epochs.take()] == [4, 5] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert epochs.next == 4
    with monkeypatch.context() as patch:
        patch.setattr("multiprocessing.get_context", Mock(side_effect=OSError(38, "no semaphores")))
        assert [each.take() for each in [shared_epochs.SharedEpochs(5)] * 2] == [5, 6]
    other = types.SimpleNamespace(pid=os.getpid() + 1)
    monkeypatch.setattr("multiprocessing.parent_process", lambda: other)
    with pytest.raises(OptionError, match=r"made in another process: call to_torch\(\) in the one"):
        epochs.take_with_others(1, 2)
