"""The engine: results in order, here or in processes, and never a wait for the dead."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import pytest
from helpers.jobs import Doubling

from batchify.errors import WorkerDiedError, WorkersKilledError
from batchify.workers import capacity, engine, pool
from batchify.workers.watch import Watch

pytestmark = pytest.mark.workers

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")

KILLED = "its worker process was ended by SIGKILL (out of memory, or kill -9)"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(count: int) -> None:
    """Though some take longer; from as many processes as were asked for."""
    with engine.Workers(count) as workers:
        results = list(workers.run(Doubling(0.01), range(40), total=40))
    assert [(task, value) for task, (value, _) in results] == [(n, 2 * n) for n in range(40)]
    pids = {pid for _, (_, pid) in results}
    assert (os.getpid() in pids) == (count == 1)
    assert len(pids) <= count


def test_a_small_job_stays_in_this_process() -> None:
    """Starting processes would cost more than it saves."""
    with engine.Workers(None) as workers:
        results = list(workers.run(Doubling(), range(50), total=50))
    assert {pid for _, (_, pid) in results} == {os.getpid()}


def test_a_large_job_moves_to_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as what is left would take longer than starting them; order and results hold."""
    monkeypatch.setattr(capacity, "usable_cpus", lambda: 2)
    with engine.Workers(None) as workers:
        results = list(workers.run(Doubling(0.1), range(20), total=20))
    assert [value for _, (value, _) in results] == [2 * task for task in range(20)]
    assert os.getpid() in {results[0][1][1], results[1][1][1]}
    assert results[-1][1][1] != os.getpid()


def test_tasks_are_made_as_they_are_needed() -> None:
    """An endless source of tasks is not drained ahead of the workers."""
    made = []

    def tasks() -> Iterator[int]:
        for task in range(1000):
            made.append(task)
            yield task

    with engine.Workers(2) as workers:
        results = workers.run(Doubling(), tasks(), total=1000)
        for _ in range(10):
            next(results)
    assert len(made) <= 10 + 2 * engine.IN_FLIGHT


def test_the_same_processes_serve_several_jobs() -> None:
    """One after another, started once, ahead of the first."""
    with engine.Workers(2) as workers:
        workers.start()
        first = list(workers.run(Doubling(), range(20), total=20))
        second = list(workers.run(Doubling(0.001), range(20), total=20))
    assert [value for _, (value, _) in first] == [value for _, (value, _) in second]
    assert len({pid for _, (_, pid) in first + second}) <= 2


@pytest.mark.parametrize(("nbytes", "count"), [(0, 3), (1 << 50, 1)])
def test_processes_that_are_there_are_there_for_another_memory(
    nbytes: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were started lest an image ends this one: fewer take their place."""
    monkeypatch.setattr(capacity, "usable_cpus", lambda: 3)
    monkeypatch.setattr(capacity, "usable_memory", lambda: 1 << 40)
    with engine.Workers(None) as workers:
        workers.start()
        workers.fit(nbytes)
        assert workers.count == count
        results = list(workers.run(Doubling(), range(9), total=9))
    assert os.getpid() not in {pid for _, (_, pid) in results}


def test_a_run_that_is_given_up_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that wait are dropped, and processes end when they are asked to; none is killed."""
    monkeypatch.setattr(engine, "GRACE_S", 300)
    started = time.monotonic()
    with engine.Workers(2) as workers:
        next(workers.run(Doubling(0.2), range(1, 10_000), total=9999))  # a quarter of an hour
    assert time.monotonic() - started < 45


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (-1, "item 0 of task -1: its worker process ended with code 9; leave it out"),
        (-2, "item 0 of task -2: took too long (see --image-timeout); leave it out"),
        (-3, "item -1 of task -3: its worker process ended with code 9; leave it out"),
        pytest.param(-4, f"item 0 of task -4: {KILLED}; leave it out", marks=POSIX),
    ],
)
def test_a_worker_that_dies_or_hangs_is_an_error_that_names_what_it_had(
    task: int, message: str
) -> None:
    """Not a wait for ever; the results before it were handed out."""
    got: list[int] = []
    with pytest.raises(WorkerDiedError) as caught, engine.Workers(2, 1.0) as workers:
        got += (value for _, (value, _) in workers.run(Doubling(0.01), [1, 2, task, 3], total=4))
    assert str(caught.value) == message
    assert caught.value.exit_code == 1
    assert got == [] or got == [2, 4][: len(got)]


@pytest.mark.parametrize("task", [-1, -2, pytest.param(-4, marks=POSIX)])
def test_what_ends_a_worker_may_be_given_up(task: int) -> None:
    """All other tasks are done, each once, in their order, whatever was in flight."""
    tasks = [*range(1, 9), task, *range(9, 30), task, *range(30, 40)]
    with engine.Workers(2, 1.0) as workers:
        results = list(workers.run(Doubling(0.01, forgiving=True), tasks, total=len(tasks)))
    assert [task for task, _ in results] == [max(task, 0) for task in tasks]
    assert [value for _, (value, _) in results] == [2 * max(task, 0) for task in tasks]


@POSIX
def test_a_death_is_an_accident() -> None:
    """Whoever is killed from outside was not at fault: what it had in hand is tried again, alone.

    Fewer processes do the rest, which is said.
    """
    with engine.Workers(2) as workers:
        results = workers.run(Doubling(0.05), range(1, 60), total=59)
        got = []
        for _, (value, pid) in results:
            got.append(value)
            if len(got) in (5, 25):
                assert not workers.warnings or len(got) == 25
                os.kill(pid, signal.SIGKILL)
    assert got == [2 * task for task in range(1, 60)]
    (warning,) = workers.warnings
    assert warning.code == "workers-killed"
    assert str(warning).endswith("and 1 of 2 went on; next time, pass --workers 1")


@POSIX
@pytest.mark.parametrize(("task", "item"), [(-4, "item 0 of task -4: "), (-5, "")])
def test_a_lack_of_memory_is_nobodys_fault(
    task: int, item: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel says so, or it hits whatever is done: exit code 4, though items may fail."""
    monkeypatch.setattr(pool.Pool, "is_starved", lambda _: True)
    with pytest.raises(WorkersKilledError) as caught, engine.Workers(2) as workers:
        list(workers.run(Doubling(forgiving=True), [1, task, 3], total=3))
    assert str(caught.value).startswith(f"{item}{KILLED}, ")
    assert "use fewer --workers" in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("count", [1, None])
def test_a_task_that_hangs_in_this_process_is_found_too(count: int | None) -> None:
    """Where it may be given up, processes do the rest."""
    with engine.Workers(count, 0.5) as workers:
        results = list(workers.run(Doubling(forgiving=True), [1, -2, 3], total=3))
    assert [value for _, (value, _) in results] == [2, 0, 6]
    assert results[2][1][1] != os.getpid()
    with (
        pytest.raises(WorkerDiedError, match="took too long"),
        engine.Workers(count, 0.5) as workers,
    ):
        list(workers.run(Doubling(), [1, -2, 3], total=3))


@pytest.mark.parametrize("count", [None, 3])
def test_a_daemonic_process_works_alone(count: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python refuses it children, so a thread does all; what hangs there is named at once."""
    monkeypatch.setattr(engine, "START_S", 0.0)
    this = multiprocessing.current_process()
    monkeypatch.setitem(this._config, "daemon", True)  # type: ignore[attr-defined]
    with engine.Workers(count, 0.5) as workers:
        workers.start()
        results = list(workers.run(Doubling(0.01), range(9), total=9))
    assert {pid for _, (_, pid) in results} == {os.getpid()}
    with (
        pytest.raises(WorkerDiedError, match="took too long"),
        engine.Workers(count, 0.5) as workers,
    ):
        list(workers.run(Doubling(forgiving=True), [1, -2, 3], total=3))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP there")
def test_processes_that_never_begin_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped as they start, before they leave a breadcrumb; others take over."""
    monkeypatch.setattr(engine, "IDLE_TIMEOUT_S", 1.0)
    with engine.Workers(2, 1.0) as workers:
        workers.start()
        assert workers._pool is not None
        for pid in workers._pool.pids():
            os.kill(pid, signal.SIGSTOP)
        results = list(workers.run(Doubling(), range(1, 30), total=29))
    assert [value for _, (value, _) in results] == [2 * task for task in range(1, 30)]


def test_runs_in_two_threads_do_not_disturb_each_other() -> None:
    """Each has its own processes; the one that ends first takes none of the other's along."""

    def run(count: int) -> list[int]:
        with engine.Workers(2) as workers:
            results = workers.run(Doubling(0.02), range(1, count), total=count - 1)
            return [value for _, (value, _) in results]

    with ThreadPoolExecutor(2) as threads:
        short, long = threads.map(run, (10, 150))
    assert short == [2 * task for task in range(1, 10)]
    assert long == [2 * task for task in range(1, 150)]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP there")
def test_a_stopped_process_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was doing, and also when the run ends by something else."""
    with engine.Workers(2, 1.0) as workers:
        results = workers.run(Doubling(0.02, forgiving=True), range(1, 200), total=199)
        got = [next(results)]
        os.kill(got[0][1][1], signal.SIGSTOP)
        got += results
    assert [value for _, (value, _) in got] == [2 * task for task in range(1, 200)]
    monkeypatch.setattr(engine, "IDLE_TIMEOUT_S", 1.0)
    with engine.Workers(2, 1.0) as workers:
        workers.start()
        results = workers.run(Doubling(), range(1, 30), total=29)
        got = [next(results)]
        time.sleep(0.5)  # all is done: they wait for tasks
        os.kill(got[0][1][1], signal.SIGSTOP)
        got += results
    assert [value for _, (value, _) in got] == [2 * task for task in range(1, 30)]


def test_a_pause_of_the_machine_accuses_nobody() -> None:
    """Only time between two close looks counts."""
    watch = Watch(1.0)
    assert watch.poll_s == 0.25
    assert watch.look({1: "a"}) == []
    watch._last -= 1000  # as if nobody had run for a while
    assert watch.look({1: "a"}) == []
    watch._last -= 1000
    assert watch.look({1: "a"}) == [1]
    assert watch.look({1: "b"}) == []


PARENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from batchify.workers import engine, pool
from batchify.common import system
from helpers.jobs import Doubling
workers = engine.Workers(2)
results = workers.run(Doubling(30.0), range(3, 1000), total=997)
print(next(results)[1][1], flush=True)
next(results)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill and ps differ there")
def test_workers_end_with_their_parent() -> None:
    """A kill -9 of the parent leaves no orphan that could write into a later build's file."""
    tests = str(Path(__file__).parents[1])
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


def test_processes_go_where_their_start_is_broken_off(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By a signal: they are killed before they miss what they were to start with, and say so."""
    started: list[BaseProcess] = []

    class Interrupted(ProcessPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            context = cast("pool._Context", vars(self)["_mp_context"])
            super().submit(*args, **kwargs)
            started.extend(context.started)
            raise KeyboardInterrupt

    monkeypatch.setattr(pool, "ProcessPoolExecutor", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.Workers(2).start()
    (process,) = started
    ends = time.monotonic() + 60
    while process.exitcode is None and time.monotonic() < ends:
        time.sleep(0.01)  # a thread of the executor may be the one that waits for it
    assert process.exitcode == -signal.SIGKILL
    assert capfd.readouterr().err == ""
