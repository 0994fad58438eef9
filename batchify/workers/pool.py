"""Worker processes and a worker thread, which leave breadcrumbs for the engine.

A worker leaves a breadcrumb before each item of a task (an image, say). From it the engine knows
which item was in progress when a process died, and whether a process still makes progress.
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
import time
from collections.abc import Callable, Container, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol, TypeVar

from batchify.common import system

TaskT = TypeVar("TaskT")
ResultT_co = TypeVar("ResultT_co", covariant=True)

GROUP_SIGNALS = ("SIGINT", "SIGHUP") if sys.platform != "win32" else ()
"""The signals that a terminal sends to all processes of a group."""

NOTHING = -1
"""The breadcrumb between items, and the serial number between tasks."""

Mark = Callable[[int], None]
"""Called with the number of an item before it is processed, and with `NOTHING` between items;
raises `StoppedError` when the result of the task is no longer wanted."""


class StoppedError(Exception):
    """A task was abandoned because the run ended."""


class Job(Protocol[TaskT, ResultT_co]):
    """What workers do with each task. Picklable; opened in the process that runs the tasks."""

    @property
    def advice(self) -> str:
        """What a user can do about an item whose worker died or hung."""
        ...

    def open_handler(
        self, mark: Mark
    ) -> contextlib.AbstractContextManager[Callable[[TaskT], ResultT_co]]:
        """Return a context whose value handles tasks, in the process that runs them."""
        ...

    def describe(self, task: TaskT, item: int) -> str:
        """Return a text that names an item of a task, or the whole task for `NOTHING`."""
        ...

    def without_item(self, task: TaskT, item: int, reason: str) -> TaskT | None:
        """Return the task with an item marked to be skipped; None if no item may be skipped."""
        ...


class Crumb(NamedTuple):
    """What a worker is processing: its process, the task's serial number, the item's number."""

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
        """Return the numbers of a free slot for the calling process."""
        numbers = self._numbers()
        with self._claim:
            for slot in range(self._slots):
                mine = numbers[1 + 3 * slot : 4 + 3 * slot]
                if not mine[0]:
                    mine[0], mine[1], mine[2] = os.getpid(), NOTHING, NOTHING
                    return mine
        raise RuntimeError("more workers than slots")

    def crumbs(self) -> list[Crumb]:
        """Return what each worker is processing."""
        numbers = self._numbers().tolist()[1:]
        found = [Crumb(*numbers[start : start + 3]) for start in range(0, len(numbers), 3)]
        return [crumb for crumb in found if crumb.pid]

    def stop(self) -> None:
        """Ask all workers to abandon their current tasks."""
        self._numbers()[0] = 1

    def stop_flag(self) -> memoryview:
        """Return the flag as a number."""
        return self._numbers()[:1]

    def _numbers(self) -> memoryview:
        return memoryview(self._memory).cast("B").cast("q")


@dataclass
class _Worker:
    """The state of this worker process: the open handler of the last job it was sent."""

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
    system.fill_standard_files()
    system.offer_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = _Worker(board.claim(), board.stop_flag())
    system.TASK.is_stopped = lambda: bool(_worker.stop[0])


def _end_with_parent() -> None:
    """End this process when its parent ends: an orphan must not write into a later build's file."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def get_ready(module: str) -> None:
    """Import what tasks will need, while the parent is still planning."""
    importlib.import_module(module)


def handle(job: bytes, serial: int, task: Any) -> Any:
    """Run a task of a pickled job in this worker process."""
    _worker.crumb[2] = NOTHING
    _worker.crumb[1] = serial
    try:
        if _worker.job != job:
            _worker.lifetime.close()
            opened = pickle.loads(job).open_handler(_worker.mark)  # noqa: S301 - from our own parent
            _worker.handler = _worker.lifetime.enter_context(opened)
            _worker.job = job
        return _worker.handler(task)
    finally:
        _worker.crumb[1] = NOTHING


class WorkerThread:
    """A thread that runs the tasks of a job, so that the waiting thread can time out.

    Parameters
    ----------
    trace : callable, optional
        Called with the name of each item before it is processed.
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
        """Stop before the next item; do not wait longer than `grace_s` for a thread that hangs."""
        self._stopped = True
        self._tasks.put(None)
        self._thread.join(grace_s)

    def _mark(self, item: int) -> None:
        self.item = item
        if self._stopped:
            raise StoppedError
        if self._trace is not None and item != NOTHING:
            self._trace(self._job.describe(self._task, item))

    def _serve(self) -> None:
        system.TASK.is_stopped = lambda: self._stopped
        try:
            with self._job.open_handler(self._mark) as run:
                while (task := self._tasks.get()) is not None:
                    self._task = task
                    self._results.put((run(task), None))
        except Exception as error:  # noqa: BLE001 - raised again where the result is awaited
            self._results.put((None, error))


_EXIT_CODES_S = 0.5

_SPAWNING = threading.Lock()
"""The main module is hidden by one thread at a time."""


class _Context(SpawnContext):
    """A spawn context that records its processes, because the executor does not expose them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[BaseProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> BaseProcess:  # type: ignore[override]  # noqa: N802
        """Return a new process, as the executor asks for it."""
        process = super().Process(*args, **kwargs)
        self.started.append(process)
        return process


class Pool:
    """Worker processes, started without waiting for them.

    Parameters
    ----------
    imports : str
        The module that each process imports first.
    """

    def __init__(self, count: int, imports: str) -> None:
        # spawn: a forked child would inherit the lock of the build and h5py's state
        self._oom_kills = system.oom_kills()
        context = _Context()
        self._processes = context.started
        with _starting_processes():
            # The first process is Python's resource tracker; starting it unblocks SIGINT and
            # SIGTERM (multiprocessing/resource_tracker.py), so the workers need another block.
            self._board = Board(context, count)
        with _starting_processes():
            self._executor = ProcessPoolExecutor(
                count, mp_context=context, initializer=start_worker, initargs=(self._board,)
            )
            try:
                with contextlib.suppress(BrokenProcessPool):  # the first task will show
                    for _ in range(count):
                        self._executor.submit(get_ready, imports)
            except BaseException:  # a signal: processes that miss their initial data print errors
                self.kill(self.pids())
                raise

    def submit(self, job: bytes, serial: int, task: Any) -> Future[Any]:
        """Submit a task of a pickled job; raises BrokenProcessPool if a process died."""
        with _starting_processes():
            return self._executor.submit(handle, job, serial, task)

    def pids(self) -> list[int]:
        """Return the numbers of the processes."""
        return [process.pid for process in self._processes if process.pid is not None]

    def crumbs(self) -> list[Crumb]:
        """Return what each process is processing, or was when it died."""
        return self._board.crumbs()

    def kill(self, pids: Container[int]) -> None:
        """Kill the processes with these numbers."""
        for process in self._processes:
            if process.pid in pids:
                process.kill()

    def deaths(self) -> dict[int, int]:
        """Return the exit code of each process that died on its own, once the pool is broken.

        When one dies, the executor ends all others by SIGTERM; those are not reported.
        """
        deadline = time.monotonic() + _EXIT_CODES_S
        while True:
            codes = {process.pid: process.exitcode for process in self._processes}
            found = {
                pid: code
                for pid, code in codes.items()
                if pid is not None and code is not None and code not in (0, -signal.SIGTERM)
            }
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.01)

    def is_starved(self) -> bool:
        """Return whether the system has run out of memory since the processes were started."""
        return system.oom_kills() > self._oom_kills

    def end(self, grace_s: float) -> None:
        """Ask the processes to end, and kill those that are still alive after `grace_s`."""
        self._board.stop()
        # In a thread of its own: it waits for the processes, and for all futures to finish.
        ending = threading.Thread(
            target=self._executor.shutdown, kwargs={"wait": True, "cancel_futures": True}
        )
        ending.start()
        deadline = time.monotonic() + grace_s
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
        ending.join()


KILLED_ADVICE = (
    "use fewer --workers (1 takes the least memory), or give it more memory, and run the same "
    "command again"
)


def death_text(code: int | None) -> str:
    """Return how a worker process ended, given its exit code; None if SIGTERM ended all."""
    if code is None:
        return "its worker process was ended by SIGTERM"
    if code >= 0:
        return f"its worker process ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory, or kill -9)" if name == "SIGKILL" else ""
    return f"its worker process was ended by {name}{hint}"


@contextlib.contextmanager
def _starting_processes() -> Iterator[None]:
    """Start workers without the caller's main module, ignoring signals to the process group.

    spawn imports the main module into every worker: that takes time, and runs a script without
    ``if __name__ == "__main__"`` again. The tasks need nothing from it.
    """
    with _SPAWNING:
        yield from _without_main()


def _without_main() -> Iterator[None]:
    main = sys.modules["__main__"]
    kept = {name: main.__dict__.pop(name, None) for name in ("__file__", "__spec__")}
    main.__spec__ = None
    try:
        with system.signals_blocked(*GROUP_SIGNALS):
            yield
    finally:
        for name, value in kept.items():
            if value is not None or name == "__spec__":
                setattr(main, name, value)
