"""Helpers for this process: CPUs, signals, standard files, ordered threads, missing extras."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from batchify.errors import ExtraMissingError


def missing_extra(needs: str, extra: str, error: ImportError, also: str = "") -> ExtraMissingError:
    """Return the error of what needs an extra that cannot be imported: "X needs Y, which"."""
    return ExtraMissingError(
        f"{needs} cannot be imported ({error}); pip install 'batchify-h5[{extra}]'{also}"
    )


def fill_standard_files() -> None:
    """Open the null device in place of a standard file that is closed.

    Otherwise the next file gets its number, and what a C library prints is written to that file;
    also in a worker process, which opens files before any of our code runs.
    """
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)


@contextlib.contextmanager
def signals_blocked(*names: str) -> Iterator[None]:
    """Hold back signals, given by name; processes started within never see them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    numbers = [getattr(signal, name) for name in names]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def most_processes() -> int:
    """Return how many processes a pool may have: Windows waits on at most 63 handles."""
    return 61 if sys.platform == "win32" else 1 << 16


ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

AHEAD = 3
"""Items per thread that are started before their results are needed."""


def in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    threads: int = 0,
) -> Iterator[ResultT]:
    """Yield the results of `work` in the order of `items`; only a few are in memory.

    Parameters
    ----------
    threads : int
        Threads of the pool; by default one for each CPU.
    """
    most = AHEAD * (threads or usable_cpus())
    waiting: deque[Future[ResultT]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
