"""Work in threads whose results come in order, a few ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from batchify.processes import usable_cpus

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
AHEAD = 3
"""Items for each thread that are begun before their results are wanted."""


def in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    threads: int = 0,
) -> Iterator[ResultT]:
    """Yield the results of `work` in the order of `items`; memory is that of a few of them.

    Parameters
    ----------
    pool : ThreadPoolExecutor
    work : callable
    items : iterable
    threads : int
        Of the pool; as many as there are CPUs by default.
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
