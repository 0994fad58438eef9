"""A build ended at any system call, by a kill or a power loss: nothing is lost or half there.

A real build is traced once; what a crash may leave at each boundary between two of its calls is
then made from the trace, by the model of `disk`. Each such folder is checked, and built again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

import pytest
from helpers.crashing import IMAGES, LONG_SCENARIOS, OUT, SCENARIOS, Stage, digest, read, staged
from helpers.disk import Disk, Folder
from helpers.operations import Operation, Trace
from helpers.ptrace import why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

Record = Callable[[str, object], None]


@dataclass
class Checker:
    """Checks states of a folder."""

    stage: Stage
    states: int = 0
    distinct: set[bytes] = field(default_factory=set)

    def check(self, files: Folder) -> int:
        """Assert that the target is whole or as before, and that the next build is undisturbed.

        Returns
        -------
        int
            How many rows the next build needed not make again.
        """
        self.states += 1
        self.distinct.add(digest(files))
        self.stage.check_target(files)
        return self.stage.finish(files)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.long] if name in LONG_SCENARIOS else [])
        for name in SCENARIOS
    ],
)
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Return a scenario, ready to be traced."""
    with staged(request.param, tmp_path_factory.mktemp("stage")) as made:
        yield made


@pytest.fixture(scope="module")
def trace(stage: Stage) -> Trace:
    """Trace a build that ends well; assert that the trace tells all that was done."""
    folder = stage.folder(stage.before)
    ended = stage.trace(folder)
    assert (ended.trace.exit_code, ended.stderr) == (0, "")
    disk = Disk.before(ended.trace)
    for operation in ended.trace.operations:
        disk.do(operation)
    assert disk.after_kill() == read(folder)
    stage.check_target(read(folder))
    return ended.trace


def boundaries(trace: Trace, *, long: bool = True) -> Iterator[Disk]:
    """Yield the disk before the first operation, and after each.

    In the short form, where there are many, after some of those in a row that are alike, and after
    the first and the last of them: HDF5 writes its metadata in dozens of writes.
    """
    disk = Disk.before(trace)
    yield disk
    kinds = [(operation.kind, operation.file) for operation in trace.operations]
    step = 1 if long or len(kinds) < 60 else len(kinds) // 12
    for i, operation in enumerate(trace.operations):
        disk.do(operation)
        if i % step == 0 or kinds[i - 1 : i + 2] != 3 * [kinds[i]]:
            yield disk


def test_a_kill_between_any_two_calls(
    stage: Stage, trace: Trace, record_property: Record, long: bool
) -> None:
    """The target is absent, the old file or whole; the next build ends with the same bytes.

    What a build need not do again only grows while it runs.
    """
    checker, kept = Checker(stage), 0
    for disk in boundaries(trace, long=long):
        before, kept = kept, checker.check(disk.after_kill())
        assert kept >= before
    assert kept == IMAGES
    record_property("crash: boundaries", checker.states)
    assert checker.states > 20


def test_a_power_loss_between_any_two_calls(
    stage: Stage, trace: Trace, record_property: Record, long: bool
) -> None:
    """Whatever of what was not synced is lost, the same holds; and what was published stays."""
    checker, random, kept = Checker(stage), Random(0), 0
    for disk in boundaries(trace, long=long):
        before, kept = kept, checker.check(disk.after_power_loss())
        assert kept >= before
        if disk.pending:
            for _ in range(20 if long else 2):
                files = disk.after_power_loss(random)
                assert checker.check(files) >= kept
    assert disk.after_power_loss()[OUT] == stage.reference
    record_property("crash: power losses", checker.states)
    record_property("crash: distinct folders after them", len(checker.distinct))
    assert checker.states > 50


def test_crash_after_crash(stage: Stage, record_property: Record, long: bool) -> None:
    """A build that continues after a power loss may be ended by the next one, and so on.

    Where the plan changes, each of them is of another plan than the one before.
    """
    random, crashes = Random(1), 0
    for _ in range(40 if long else 1):
        files = stage.before
        for number in range(4):
            ended = stage.trace(stage.folder(files), then=number % 2 == 1)
            assert ended.trace.exit_code == 0
            count = random.randint(0, len(ended.trace.operations))
            disk = next(itertools.islice(boundaries(ended.trace), count, None))
            files = disk.after_power_loss(random)
            stage.check_target(files)
            crashes += 1
        stage.finish(files)
    record_property("crash: crashes after crashes", crashes)
    assert crashes >= 4


def test_the_model_of_a_power_loss() -> None:
    """Names and content are lost apart; an fsync keeps what it is of; a torn write shows zeros."""
    disk = Disk({"a": 0}, {0: b"old", 1: b""})
    disk.do(Operation("create", 1, "b"))
    disk.do(Operation("write", 1, "b", offset=600, nbytes=600, data=b"x" * 600))
    assert disk.after_power_loss() == {"a": b"old"}
    disk.do(Operation("sync folder"))
    assert disk.after_power_loss() == {"a": b"old", "b": b""}
    random = Random(0)
    contents = {disk.after_power_loss(random)["b"] for _ in range(200)}
    whole = bytes(600) + b"x" * 600
    assert {b"", whole, bytes(1200), bytes(1024) + b"x" * 176} <= contents
    assert whole[:1024] in contents
    disk.do(Operation("sync", 1, "b"))
    disk.do(Operation("rename", 1, "b", "a"))
    disk.do(Operation("unlink", 1, "a"))
    assert disk.after_kill() == {}
    found = [disk.after_power_loss(random) for _ in range(200)]
    for files in ({"a": whole}, {"a": b"old", "b": whole}, {}):
        assert files in found
    assert {"a": b"old", "b": whole} == disk.after_power_loss()
    assert all(set(files) in ({"a"}, {"a", "b"}, set()) for files in found)
