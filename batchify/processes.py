"""A pool of spawned worker processes whose breadcrumbs and exit codes can be looked at."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Container, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

from batchify import durable
from batchify.values import at_least, positive
from batchify.worker import GROUP_SIGNALS, Board, Crumb, get_ready, handle, start_worker

_EXIT_CODES_S = 0.5
_SPAWNING = threading.Lock()
"""The main module is hidden by one thread at a time."""


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def most_processes() -> int:
    """Return how many processes a pool may have: Windows waits on at most 63 handles."""
    return 61 if sys.platform == "win32" else 1 << 16


def check_workers(workers: int | None, image_timeout_s: float) -> None:
    """Refuse numbers that cannot be meant, before any work.

    Raises
    ------
    OptionError
    """
    if workers is not None:
        at_least("workers", workers, 1)
    positive("image timeout", image_timeout_s)


class _Context(SpawnContext):
    """Starts processes by spawn, and keeps them: the executor tells nobody which ones are its."""

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
    count : int
    """

    def __init__(self, count: int) -> None:
        # spawn: a forked child would inherit the lock of the build and h5py's state
        context = _Context()
        self._processes = context.started
        with _starting_processes():
            # The first process is Python's resource tracker; starting it unblocks SIGINT and
            # SIGTERM (multiprocessing/resource_tracker.py), so the workers need a block anew.
            self._board = Board(context, count)
        with _starting_processes():
            self._executor = ProcessPoolExecutor(
                count, mp_context=context, initializer=start_worker, initargs=(self._board,)
            )
            try:
                with contextlib.suppress(BrokenProcessPool):  # the first task will tell
                    for _ in range(count):
                        self._executor.submit(get_ready)
            except BaseException:  # a signal; what they start with goes, and they would say so
                self.kill(self.pids())
                raise

    def submit(self, job: bytes, serial: int, task: Any) -> Future[Any]:
        """Hand a task of a pickled job over; raises BrokenProcessPool where a process died."""
        with _starting_processes():
            return self._executor.submit(handle, job, serial, task)

    def pids(self) -> list[int]:
        """Return the numbers of the processes."""
        return [process.pid for process in self._processes if process.pid is not None]

    def crumbs(self) -> list[Crumb]:
        """Return what each process has in hand, or had when it died."""
        return self._board.crumbs()

    def kill(self, pids: Container[int]) -> None:
        """Kill some of the processes."""
        for process in self._processes:
            if process.pid in pids:
                process.kill()

    def deaths(self) -> dict[int, int]:
        """Return the exit code of each process that died by itself, once the pool is broken.

        When one dies, the executor ends all others by SIGTERM; those are not told.
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

    def end(self, grace_s: float) -> None:
        """End the processes: they are asked first, and killed after the grace."""
        self._board.stop()
        # In a thread of its own: it waits for the processes, and for all futures to be told.
        ending = threading.Thread(
            target=self._executor.shutdown, kwargs={"wait": True, "cancel_futures": True}
        )
        ending.start()
        deadline = time.monotonic() + grace_s
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
        ending.join()


def death_text(code: int | None) -> str:
    """Return how a worker process ended, given its exit code; None where SIGTERM took all."""
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
    """Start workers without the caller's main module, and deaf to signals to the process group.

    spawn imports the main module into every worker: that takes time, and it runs a script that
    has no ``if __name__ == "__main__"`` again. The tasks need nothing of it.
    """
    with _SPAWNING:
        yield from _without_main()


def _without_main() -> Iterator[None]:
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
