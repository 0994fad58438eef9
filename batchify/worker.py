"""The side of the engine that runs a job's tasks, in a worker process or in a thread of this one.

Whoever runs a task leaves a breadcrumb before each of its items (an image, say): the engine reads
there what was in hand when a process died, and sees there whether anything still moves.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import SpawnContext
from typing import Any, NamedTuple, Protocol, TypeVar

from batchify import durable

TaskT = TypeVar("TaskT")
ResultT_co = TypeVar("ResultT_co", covariant=True)

GROUP_SIGNALS = ("SIGINT", "SIGHUP") if sys.platform != "win32" else ()
"""What a terminal sends to all processes at once."""

NOTHING = -1
"""The breadcrumb between items, and the serial number between tasks."""

Mark = Callable[[int], None]
"""To be called with the number of an item before it is worked on, and with `NOTHING` when no item
is in hand; raises `StoppedError` when nobody wants the result of the task any more."""


class StoppedError(Exception):
    """A task was given up half done, because the run ended."""


class Job(Protocol[TaskT, ResultT_co]):
    """What is to be done with every task. Picklable; opened where its tasks are run."""

    @property
    def advice(self) -> str:
        """What a user can do about an item whose worker died or hung."""
        ...

    def open(self, mark: Mark) -> contextlib.AbstractContextManager[Callable[[TaskT], ResultT_co]]:
        """Return a context whose value handles tasks, in the process that runs them."""
        ...

    def name(self, task: TaskT, item: int) -> str:
        """Return what an item of a task is called, or the task for `NOTHING`."""
        ...

    def without(self, task: TaskT, item: int, reason: str) -> TaskT | None:
        """Return the task with an item that is given up; None if no item may be."""
        ...


class Crumb(NamedTuple):
    """What a worker has in hand: its process, the task's serial number, the item's number."""

    pid: int
    serial: int
    item: int


class Board:
    """Shared memory for breadcrumbs: a flag that says stop, and a `Crumb` for each worker."""

    def __init__(self, context: SpawnContext, slots: int) -> None:
        self._memory = context.RawArray("q", 1 + len(Crumb._fields) * slots)
        self._claim = context.Lock()
        self._slots = slots

    def claim(self) -> memoryview:
        """Return the numbers of a free slot, for the process that calls."""
        numbers = self._numbers()
        with self._claim:
            for slot in range(self._slots):
                mine = numbers[1 + 3 * slot : 4 + 3 * slot]
                if not mine[0]:
                    mine[0], mine[1], mine[2] = os.getpid(), NOTHING, NOTHING
                    return mine
        raise RuntimeError("more workers than slots")

    def crumbs(self) -> list[Crumb]:
        """Return what each worker has in hand."""
        numbers = self._numbers().tolist()[1:]
        found = [Crumb(*numbers[start : start + 3]) for start in range(0, len(numbers), 3)]
        return [crumb for crumb in found if crumb.pid]

    def stop(self) -> None:
        """Ask all workers to give up the tasks that they have in hand."""
        self._numbers()[0] = 1

    def stop_flag(self) -> memoryview:
        """Return the flag, as one number."""
        return self._numbers()[:1]

    def _numbers(self) -> memoryview:
        return memoryview(self._memory).cast("B").cast("q")


@dataclass
class _Worker:
    """What this process, a worker, has open: the handler of the job it was last sent."""

    crumb: memoryview
    stop: memoryview
    job: bytes = b""
    handler: Callable[[Any], Any] = id
    lifetime: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def mark(self, item: int) -> None:
        """Leave a breadcrumb."""
        self.crumb[2] = item
        if self.stop[0]:
            raise StoppedError


_worker: _Worker


def start_worker(board: Board) -> None:
    """Make this process a worker: runs once, before its first task."""
    global _worker
    # The parent decides what a signal to the process group means.
    for name in GROUP_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    durable.fill_standard_files()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = _Worker(board.claim(), board.stop_flag())


def _end_with_parent() -> None:
    """End this process when its parent has: an orphan must not write into a later build's file."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def get_ready() -> None:
    """Import what tasks will need, while the parent is still at its plan."""
    importlib.import_module("batchify.fill")


def handle(job: bytes, serial: int, task: Any) -> Any:
    """Run a task of a pickled job in this worker process."""
    _worker.crumb[2] = NOTHING
    _worker.crumb[1] = serial
    try:
        if _worker.job != job:
            _worker.lifetime.close()
            opened = pickle.loads(job).open(_worker.mark)  # noqa: S301 - from our own parent
            _worker.handler = _worker.lifetime.enter_context(opened)
            _worker.job = job
        return _worker.handler(task)
    finally:
        _worker.crumb[1] = NOTHING


class WorkerThread:
    """Runs the tasks of a job in a thread, so that the one that waits for them can give up.

    Parameters
    ----------
    job : Job
    trace : callable, optional
        Called with the name of each item before it is worked on.
    """

    def __init__(self, job: Job[Any, Any], trace: Callable[[str], None] | None = None) -> None:
        self._job = job
        self._trace = trace
        self._task: Any = None
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        self._stopped = False
        self.item = NOTHING
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def submit(self, task: Any) -> None:
        """Hand over a task."""
        self.item = NOTHING
        self._tasks.put(task)

    def result(self, timeout_s: float) -> Any:
        """Return the result of the task, or raise what it raised.

        Raises
        ------
        queue.Empty
            If there is none yet.
        """
        result, error = self._results.get(timeout=timeout_s)
        if error is not None:
            raise error
        return result

    def close(self, grace_s: float) -> None:
        """Stop before the next item, and leave a thread alone that does not."""
        self._stopped = True
        self._tasks.put(None)
        self._thread.join(grace_s)

    def _mark(self, item: int) -> None:
        self.item = item
        if self._stopped:
            raise StoppedError
        if self._trace is not None and item != NOTHING:
            self._trace(self._job.name(self._task, item))

    def _serve(self) -> None:
        try:
            with self._job.open(self._mark) as run:
                while (task := self._tasks.get()) is not None:
                    self._task = task
                    self._results.put((run(task), None))
        except Exception as error:  # noqa: BLE001 - raised again where the result is awaited
            self._results.put((None, error))
