"""Helpers for this process: its CPUs, memory, signals, standard files, threads, extras."""

from __future__ import annotations

import contextlib
import errno
import gc
import math
import os
import signal
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, TypeVar

from batchify.common.cgroups import cpu_quota, memory_limit
from batchify.errors import ExtraMissingError


def missing_extra(needs: str, extra: str, error: ImportError, also: str = "") -> ExtraMissingError:
    """Return the error for a missing extra; `needs` is like "X needs Y, which"."""
    return ExtraMissingError(
        f"{needs} cannot be imported ({error}); pip install 'batchify-h5[{extra}]'{also}"
    )


class ThreadTask(threading.local):
    """Tells code that waits whether the result of its thread's task is still wanted."""

    def __init__(self) -> None:
        self.is_stopped: Callable[[], bool] = lambda: False


TASK = ThreadTask()


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


_OPEN_FILES = (b"/dev", b"/dev/fd", b"/proc/self/fd")
"""Folders with the files that this process has open."""


def open_regular(path: str | bytes | os.PathLike[str]) -> BinaryIO:
    """Open a file that a user names, for reading; never wait.

    It is a regular file, or a pipe that this process has open, such as a shell's ``<(command)``. A
    FIFO would wait for its writer, and a device may never end.

    Raises
    ------
    OSError
        If it is neither, or cannot be opened.
    ValueError
        If no file can have the name.
    """
    mode = os.stat(path).st_mode
    is_pipe = stat.S_ISFIFO(mode) and os.path.dirname(os.fsencode(path)) in _OPEN_FILES
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or is_pipe):
        raise OSError(errno.EINVAL, "it is not a regular file")
    return open(path, "rb")  # a folder is an error of its own


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


_paused = threading.Event()


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Let Python not look for garbage meanwhile, in any thread, unless it never does."""
    if not gc.isenabled():
        yield
        return
    _paused.set()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        _paused.clear()


def _end_pause() -> None:
    """Look for garbage in a process that was forked during a pause, which ends in its parent."""
    if _paused.is_set():
        gc.enable()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_pause)


def usable_cpus() -> int:
    """Return how many CPUs this process may use: its affinity, or the quota of its container."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    return max(1, min(count, math.ceil(cpu_quota() or count)))


def usable_memory() -> int | None:
    """Return how many bytes of memory this process and its workers may use; None if unknown.

    The least of what the machine has, of the limit of the container and of ``ulimit -v``. The last
    one holds for each process, but batch systems set it to what they grant to all of them.
    """
    found = _memory(memory_limit())
    if sys.platform != "win32":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            found = soft if found is None else min(found, soft)
    return found


def all_memory() -> int | None:
    """Return how many bytes of memory and swap there are; None if unknown, as on macOS."""
    memory = _memory(memory_limit(hard=True))
    if memory is None or sys.platform != "linux":
        return None
    return memory + 1024 * _count("/proc/meminfo", "SwapTotal:")


def _memory(limit: int | None) -> int | None:
    """Return the memory of the machine, or the limit of the container if that is less."""
    limits = [limit]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((limit for limit in limits if limit is not None), default=None)


def oom_kills() -> int:
    """Return how many processes the kernel has ended so far because it was out of memory."""
    return _count("/proc/vmstat", "oom_kill")


def _count(path: str, name: str) -> int:
    """Return the number after a name in a file of the kernel; 0 if there is none."""
    with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
        for line in file:
            if line.split()[0] == name:
                return int(line.split()[1])
    return 0


def offer_memory() -> None:
    """Ask a kernel that is out of memory to end this process rather than its parent."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
        score = max(int(file.read()), 500)  # of 1000
        file.seek(0)
        file.write(str(score))


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


def cache_folder() -> str:
    """Return the folder for this user's caches."""
    if sys.platform == "win32":
        return os.environ.get("LOCALAPPDATA") or os.path.expanduser("~\\AppData\\Local")
    return os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
