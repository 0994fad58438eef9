"""Runs the tasks of a job: in this process, or on local worker processes.

A job is picklable and opens a handler where it runs; tasks go to the handler, results come back
in the order of the tasks.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.synchronize import Event
from typing import Any, Protocol, TypeVar

from batchify import durable
from batchify.errors import WorkerDiedError

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")
TaskT_contra = TypeVar("TaskT_contra", contravariant=True)
ResultT_co = TypeVar("ResultT_co", covariant=True)

GROUP_SIGNALS = ("SIGINT", "SIGHUP") if sys.platform != "win32" else ()
"""What a terminal sends to all processes at once."""

IN_FLIGHT = 6
"""Tasks submitted for each worker; one slow task then leaves the others work to do."""

START_S = 0.5
"""Work left, in seconds, from which worker processes pay (``scripts/bench start``)."""


class StoppedError(Exception):
    """A task was given up half done, because the run ended."""


class Job(Protocol[TaskT_contra, ResultT_co]):
    """What is to be done with every task."""

    def open(
        self, stopped: Callable[[], bool]
    ) -> contextlib.AbstractContextManager[Callable[[TaskT_contra], ResultT_co]]:
        """Return a context whose value handles tasks, in the process that runs them.

        Parameters
        ----------
        stopped : callable
            True when nobody wants the result any more: a long task then raises `StoppedError`.
        """
        ...

    def describe(self, task: TaskT_contra) -> str:
        """Return what a task is about, to be named when its worker died."""
        ...


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _most_processes() -> int:
    """Return how many processes a pool may have: Windows waits on at most 63 handles."""
    return 61 if sys.platform == "win32" else 1 << 16


class Workers:
    """The worker processes of a build; started when they are needed, or ahead of that.

    Parameters
    ----------
    workers : int or None
        Processes. 1 is this process. None is as many as there are CPUs, or this process, where
        the work left, judged by the tasks done so far, would not pay for starting them.
    """

    def __init__(self, workers: int | None) -> None:
        self.count = min(usable_cpus() if workers is None else workers, _most_processes())
        self.chosen = workers is not None
        self._pool: ProcessPoolExecutor | None = None
        self._stop: Event | None = None

    def start(self) -> None:
        """Start the processes, if there are to be any, without waiting for them."""
        if self.count == 1 or self._pool is not None:
            return
        # spawn: a forked child would inherit the lock of the build and h5py's state
        context = multiprocessing.get_context("spawn")
        with _starting_processes():  # the first is Python's resource tracker
            self._stop = context.Event()
            self._pool = ProcessPoolExecutor(
                self.count, mp_context=context, initializer=start_worker, initargs=(self._stop,)
            )
            for _ in range(self.count):
                self._pool.submit(_get_ready)

    def run(
        self, job: Job[TaskT, ResultT], tasks: Iterable[TaskT], *, total: int
    ) -> Iterator[ResultT]:
        """Yield the result of every task, in order.

        Parameters
        ----------
        job : Job
        tasks : iterable
            Made as they are needed, so that they take no memory while they wait.
        total : int
            How many there are.

        Raises
        ------
        WorkerDiedError
            If a worker process ended: killed, out of memory, or crashed in a decoder.
        """
        waiting = iter(tasks)
        done = 0
        if self.count == 1 or (self._pool is None and not self.chosen):
            patience_s = START_S if self.count > 1 else math.inf
            for result in _run_here(job, waiting, total=total, patience_s=patience_s):
                yield result
                done += 1
        if done < total:
            self.start()
            yield from self._run_there(job, waiting)

    def _run_there(self, job: Job[TaskT, ResultT], waiting: Iterator[TaskT]) -> Iterator[ResultT]:
        """Yield the result of every task, in order, from the processes."""
        assert self._pool is not None
        pickled = pickle.dumps(job)
        in_flight: deque[tuple[TaskT, Future[ResultT]]] = deque()
        try:
            while True:
                while len(in_flight) < self.count * IN_FLIGHT:
                    task = next(waiting, None)
                    if task is None:
                        break
                    with _starting_processes():
                        in_flight.append((task, self._pool.submit(_handle, pickled, task)))
                if not in_flight:
                    return
                result = in_flight[0][1].result()
                in_flight.popleft()
                yield result
        except BrokenProcessPool as error:
            unfinished = [
                job.describe(task)
                for task, future in in_flight
                if not future.done() or future.exception() is not None
            ]
            raise WorkerDiedError(
                "a worker process died: killed, out of memory, or crashed in a decoder. "
                "It was working on one of:\n  " + "\n  ".join(unfinished[: 2 * self.count])
            ) from error

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None and self._stop is not None:
            self._stop.set()  # tasks that are with the workers already end after their batch
            self._pool.shutdown(wait=True, cancel_futures=True)


def _run_here(
    job: Job[TaskT, ResultT], tasks: Iterator[TaskT], *, total: int, patience_s: float
) -> Iterator[ResultT]:
    """Yield results of tasks done in this process until the rest would take `patience_s`."""
    with job.open(lambda: False) as handle:
        started = time.monotonic()
        for done in range(total):
            if done and (time.monotonic() - started) / done * (total - done) > patience_s:
                return
            yield handle(next(tasks))


@dataclass
class _Worker:
    """What this process, a worker, has open: the handler of the job it was last sent."""

    stop: Event
    job: bytes = b""
    handler: Callable[[Any], Any] = id
    lifetime: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


_worker: _Worker


def start_worker(stop: Event) -> None:
    """Make this process a worker: runs once, before its first task."""
    global _worker
    # The parent decides what a signal to the process group means.
    for name in GROUP_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    durable.fill_standard_files()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = _Worker(stop)


def _end_with_parent() -> None:
    """End this process when its parent has: an orphan must not write into a later build's file."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _get_ready() -> None:
    """Import what tasks will need, while the parent is still at its plan."""
    importlib.import_module("batchify.fill")


def _handle(job: bytes, task: Any) -> Any:
    if _worker.job != job:
        _worker.lifetime.close()
        opened = pickle.loads(job).open(_worker.stop.is_set)  # noqa: S301 - from our own parent
        _worker.handler = _worker.lifetime.enter_context(opened)
        _worker.job = job
    return _worker.handler(task)


@contextlib.contextmanager
def _starting_processes() -> Iterator[None]:
    """Start workers without the caller's main module, and deaf to signals to the process group.

    spawn imports the main module into every worker: that takes time, and it runs a script that
    has no ``if __name__ == "__main__"`` again. The tasks need nothing of it.
    """
    main = sys.modules["__main__"]
    kept = {name: main.__dict__.pop(name, None) for name in ("__file__", "__spec__")}
    main.__spec__ = None
    try:
        with durable.signals_blocked(*GROUP_SIGNALS):
            yield
    finally:
        for name, value in kept.items():
            if value is not None or name == "__spec__":
                setattr(main, name, value)
