"""Build shards with the workers of an executor or a Dask cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import replace
from itertools import islice
from typing import Protocol

from batchify.common.system import missing_extra
from batchify.errors import BatchifyError, OptionError, WorkerDiedError
from batchify.sharding.folder import Ticket
from batchify.sharding.shards import Shard, ShardOutcome, Steps
from batchify.sharding.task import Link, TaskMaker, build_shard_elsewhere, read_breadcrumb

IN_FLIGHT = 1024
"""Shards in progress on an executor, for any number of workers.

Their plans take memory while they wait: together no more than the plan of the whole dataset.
"""

POLL_S = 0.5


class ShardWorkers(Protocol):
    """Workers that build one shard at a time each, maybe on other machines."""

    executor: Executor
    link: Link | None

    @property
    def at_once(self) -> int:
        """How many shards keep them busy; their plans take memory while they wait."""
        ...

    def rows_done(self) -> Mapping[str, tuple[int, int]]:
        """Return how many rows of each shard are done, and how many of those failed.

        Raises
        ------
        ClusterError
            If no worker is left.
        """
        ...

    def explain(self, error: BaseException, name: str) -> BatchifyError:
        """Return the error of a shard that was not built."""
        ...


class _ExecutorWorkers:
    """The workers of any executor, which report nothing before a shard is done."""

    link: Link | None = None
    at_once = IN_FLIGHT

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def rows_done(self) -> dict[str, tuple[int, int]]:
        """Return nothing."""
        return {}

    def explain(self, error: BaseException, name: str) -> BatchifyError:
        """Return the error of a shard that was not built."""
        if isinstance(error, BatchifyError):
            return error
        return WorkerDiedError(f"{name}: {type(error).__name__}: {error}")


@contextlib.contextmanager
def connect_workers(
    executor: Executor | None, scheduler: str | None
) -> Iterator[ShardWorkers | None]:
    """Connect to the workers that build shards; None for this machine."""
    if scheduler is None:
        yield None if executor is None else _ExecutorWorkers(executor)
        return
    if executor is not None:
        raise OptionError("an executor and a scheduler are given; give one")
    try:
        from batchify.sharding.cluster import connected
    except ImportError as error:
        raise missing_extra("a scheduler needs Dask, which", "dask", error) from error
    with connected(scheduler) as workers:
        yield workers


def build_elsewhere(
    workers: ShardWorkers,
    parts: Sequence[Shard],
    make: TaskMaker,
    ticket: Ticket | None,
    steps: Steps,
) -> Iterator[ShardOutcome]:
    """Build shards; yield the outcome of each when it is done.

    At the end, and on an error, waiting shards are cancelled; those in progress stop with the
    ticket.
    """
    waiting = iter(parts)
    running: dict[Future[ShardOutcome], Shard] = {}
    try:
        while True:
            for part in islice(waiting, max(0, workers.at_once - len(running))):
                task = replace(make(part), ticket=ticket, link=workers.link)
                running[workers.executor.submit(build_shard_elsewhere, task)] = part
            if not running:
                return
            done = wait(running, POLL_S, FIRST_COMPLETED).done
            here = {part.name for part in running.values()}
            for name, (rows, bad) in workers.rows_done().items():
                if name in here:
                    steps.note(name, rows, bad)
            steps.tick()
            for future in done:
                part = running.pop(future)
                try:
                    outcome = future.result()
                except (Exception, CancelledError) as error:
                    image = read_breadcrumb(make.folder.locate(part.name))
                    where = f"{part.name}, processing {image}" if image else part.name
                    raise workers.explain(error, where) from error
                steps.set(part.name, len(part), len(outcome.skipped) + len(outcome.bad))
                yield outcome
    finally:
        for future in running:
            future.cancel()
