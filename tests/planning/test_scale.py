"""What grows with the dataset: bytes an image of plans, allocations and tasks; nothing is timed."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import h5py
import pytest
from helpers.synthetic import made_up

from batchify.building.target import Target
from batchify.building.workfile import WorkFile
from batchify.common import durable
from batchify.common.progress import Progress
from batchify.dataset_options import SplitOptions
from batchify.datasets.dataset import Samples
from batchify.errors import BatchifyError
from batchify.format import structure
from batchify.format.schema import RowOffsets
from batchify.format.shard_index import ShardFile
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions, RunOptions
from batchify.planning.plan import BuildPlan
from batchify.planning.planner import make_plan
from batchify.sharding.executors import build_elsewhere
from batchify.sharding.folder import LocalShards
from batchify.sharding.shards import ShardOutcome, Steps, cut_plan
from batchify.sharding.task import IN_FLIGHT, ShardWorkers, TaskMaker

IMAGES = 50_000
CLASSES = 100


def planned(
    split: SplitOptions | None = None, *, images: int = IMAGES, side: int = 224
) -> BuildPlan:
    """Return the plan of a dataset that is made up."""
    dataset = made_up([images // CLASSES] * CLASSES, path_nbytes=24)
    options = BuildOptions(decode=DecodeOptions((side, side)), split=split or SplitOptions())
    return make_plan(dataset, options, decoder="test 1.0")


@pytest.mark.parametrize(
    ("split", "most"),
    [
        (SplitOptions(), 30),
        (SplitOptions(policy="stratified"), 30),
        (SplitOptions(policy="hash"), 40),
        (SplitOptions(policy="stratified", group_by=r"(\d{3})$"), 60),
        (SplitOptions(policy="stratified", group_by="(.*)"), 60),
    ],
)
def test_a_plan_takes_tens_of_bytes_an_image(split: SplitOptions, most: int) -> None:
    """While it is made, above the dataset; by any policy, and where each image is a group."""
    planned(split, images=CLASSES * 10)  # what is imported and kept
    dataset = made_up([IMAGES // CLASSES] * CLASSES, path_nbytes=24)
    tracemalloc.start()
    try:
        make_plan(dataset, BuildOptions(split=split), decoder="test 1.0")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / IMAGES < most


def test_allocating_takes_next_to_nothing_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are known, written some thousand at a time; here into a file that is sparse.

    8 of the bytes are the stamp of the row's image file, by which a resumed build knows it.
    """
    monkeypatch.setattr(durable, "reserve", lambda *_: None)
    monkeypatch.setattr(durable, "check_room", lambda *_: None)
    target = Target(os.fsencode(tmp_path / "out.h5"), overwrite=False)
    with WorkFile(target) as work:
        work.allocate(planned(images=CLASSES))  # what is imported for it
        work.discard()
    plan = planned()
    with WorkFile(target) as work:
        tracemalloc.start()
        try:
            work.allocate(plan)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak / IMAGES < 20 + 8


def test_allocating_looks_at_all_rows_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the longest path, and for the places of each column: a million images take seconds."""
    longest: list[int] = []
    looked: list[str] = []

    def path_nbytes(samples: Samples) -> int:
        longest.append(len(samples))
        return 24

    def dataset_row_offsets(dataset: h5py.Dataset) -> RowOffsets:
        looked.append(dataset.name)
        return real(dataset)

    real = structure.dataset_row_offsets
    monkeypatch.setattr(Samples, "path_nbytes", property(path_nbytes))
    monkeypatch.setattr(structure, "dataset_row_offsets", dataset_row_offsets)
    plan = planned(side=2)
    longest.clear()
    with WorkFile(Target(os.fsencode(tmp_path / "out.h5"), overwrite=False)) as work:
        work.allocate(plan)
    assert len(longest) == len(plan.splits)
    assert len(looked) == len(set(looked)) > 10


def tasks_of(plan: BuildPlan, folder: Path) -> TaskMaker:
    """Return what makes the tasks of shards."""
    shards = LocalShards(os.fsencode(folder))
    return TaskMaker(plan, shards, RunOptions())


def test_a_task_takes_the_bytes_of_its_paths_and_some_more(tmp_path: Path) -> None:
    """What travels to a worker: 24 bytes of path here, and 16 more for each image."""
    plan = planned()
    make = tasks_of(plan, tmp_path)
    few, many = (pickle.dumps(make(cut_plan(plan, count)[0])) for count in (1000, 10))
    rows = IMAGES * 8 // 10 // 10 - IMAGES * 8 // 10 // 1000
    assert (len(many) - len(few)) / rows < 24 + 16.1
    assert len(few) < 40 * (24 + 16) + 10_000


class _Slow(Executor, ShardWorkers):
    """Does nothing until it is asked for news; then it has done all that it was given."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        super().__init__(self)
        self.most = 0
        self._given: list[tuple[str, Future[Any]]] = []

    def submit(self, _function: object, /, *arguments: Any, **_: Any) -> Future[Any]:
        """Take a task."""
        future: Future[Any] = Future()
        self._given.append((arguments[0].name, future))
        self.most = max(self.most, len(self._given))
        return future

    def rows_done(self) -> dict[str, tuple[int, int]]:
        """Do all tasks."""
        for name, future in self._given:
            future.set_result(ShardOutcome(ShardFile(name, 1, 1, "00")))
        self._given.clear()
        return {}

    def explain(self, error: BaseException, name: str) -> BatchifyError:
        """Return no error: there is none."""
        raise AssertionError(name) from error


def test_no_worker_of_a_cluster_waits_for_a_shard(tmp_path: Path) -> None:
    """As many are out at once as its workers want, and no more; 100 machines of 8 cores are 800."""
    plan = planned(SplitOptions(validation=0), images=10_000)
    parts = cut_plan(plan, 2500)
    workers = _Slow(at_once=1000)
    told: list[Progress] = []
    steps = Steps(plan, told.append)
    done = list(build_elsewhere(workers, parts, tasks_of(plan, tmp_path), None, steps))
    assert sorted(outcome.file.name for outcome in done) == [part.name for part in parts]
    assert workers.most == 1000
    assert told[-1].done == plan.images
    assert IN_FLIGHT > 800  # of an executor whose workers are not known
