"""Build shards with the workers of an executor or a Dask cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import replace
from itertools import islice

from batchify.common.system import missing_extra
from batchify.errors import OptionError
from batchify.sharding.folder import Ticket
from batchify.sharding.shards import Shard, ShardOutcome, Steps
from batchify.sharding.task import (
    ShardWorkers,
    TaskMaker,
    build_shard_elsewhere,
    read_breadcrumb,
)

POLL_S = 0.5


@contextlib.contextmanager
def connect_workers(
    executor: Executor | None, scheduler: str | None
) -> Iterator[ShardWorkers | None]:
    """Connect to the workers that build shards; None for this machine."""
    if scheduler is None:
        yield None if executor is None else ShardWorkers(executor)
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
