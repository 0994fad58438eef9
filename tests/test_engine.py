"""The engine: results in order, here or in processes, and never a wait for the dead."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from batchify import engine
from batchify.errors import WorkerDiedError


@dataclass(frozen=True)
class Doubling:
    """Doubles numbers; a negative one kills the worker."""

    delay_s: float = 0.0

    @contextlib.contextmanager
    def open(self, _stopped: Callable[[], bool]) -> Iterator[Callable[[int], tuple[int, int]]]:
        """Return the handler."""
        yield self._double

    def _double(self, task: int) -> tuple[int, int]:
        if task < 0:
            os._exit(9)
        time.sleep(self.delay_s * (task % 3))
        return 2 * task, os.getpid()

    def describe(self, task: int) -> str:
        """Name a task."""
        return f"task {task}"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    """Though some take longer; from as many processes as were asked for."""
    with engine.Workers(workers) as crew:
        results = list(crew.run(Doubling(0.01), range(40), total=40))
    assert [value for value, _ in results] == [2 * task for task in range(40)]
    pids = {pid for _, pid in results}
    assert (os.getpid() in pids) == (workers == 1)
    assert len(pids) <= workers


def test_a_small_job_stays_in_this_process() -> None:
    """Starting processes would cost more than it saves."""
    with engine.Workers(None) as crew:
        results = list(crew.run(Doubling(), range(50), total=50))
    assert {pid for _, pid in results} == {os.getpid()}


def test_a_large_job_moves_to_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as what is left would take longer than starting them; order and results hold."""
    monkeypatch.setattr(engine, "usable_cpus", lambda: 2)
    with engine.Workers(None) as crew:
        results = list(crew.run(Doubling(0.1), range(20), total=20))
    assert [value for value, _ in results] == [2 * task for task in range(20)]
    assert os.getpid() in {results[0][1], results[1][1]}
    assert results[-1][1] != os.getpid()


def test_tasks_are_made_as_they_are_needed() -> None:
    """An endless source of tasks is not drained ahead of the workers."""
    made = []

    def tasks() -> Iterator[int]:
        for task in range(1000):
            made.append(task)
            yield task

    with engine.Workers(2) as crew:
        results = crew.run(Doubling(), tasks(), total=1000)
        for _ in range(10):
            next(results)
    assert len(made) <= 10 + 2 * engine.IN_FLIGHT


def test_the_same_processes_serve_several_jobs() -> None:
    """One after another, started once, ahead of the first."""
    with engine.Workers(2) as crew:
        crew.start()
        first = list(crew.run(Doubling(), range(20), total=20))
        second = list(crew.run(Doubling(0.001), range(20), total=20))
    assert [value for value, _ in first] == [value for value, _ in second]
    assert len({pid for _, pid in first + second}) <= 2


def test_a_run_that_is_given_up_ends_soon() -> None:
    """Tasks that wait are dropped; no process stays."""
    started = time.monotonic()
    with engine.Workers(2) as crew:
        next(crew.run(Doubling(0.2), range(1, 1000), total=999))
    assert time.monotonic() - started < 5


def test_a_worker_that_dies_is_an_error_that_names_its_task() -> None:
    """Not a wait for ever."""
    with pytest.raises(WorkerDiedError, match=r"(?s)a worker process died.*\n  task -1") as caught:
        _run_all([1, 2, -1, 3])
    assert caught.value.exit_code == 1


def _run_all(tasks: list[int]) -> None:
    with engine.Workers(2) as crew:
        list(crew.run(Doubling(), tasks, total=len(tasks)))


PARENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from batchify import engine
from test_engine import Doubling
crew = engine.Workers(2)
results = crew.run(Doubling(30.0), range(3, 1000), total=997)
print(next(results)[1], flush=True)
next(results)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill and ps differ there")
def test_workers_end_with_their_parent() -> None:
    """A kill -9 of the parent leaves no orphan that could write into a later build's file."""
    tests = str(Path(__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, tests], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if (
            Path(f"/proc/{worker}/stat").exists()
            and " Z " in Path(f"/proc/{worker}/stat").read_text()
        ):
            return
        time.sleep(0.05)
    raise AssertionError("the worker outlived its parent")


def test_usable_cpus_is_what_this_process_may_use() -> None:
    """At least one."""
    assert engine.usable_cpus() >= 1
    if hasattr(os, "sched_getaffinity"):
        assert engine.usable_cpus() == len(os.sched_getaffinity(0))
