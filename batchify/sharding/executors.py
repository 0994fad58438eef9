"""Shards made elsewhere: any executor, or Dask."""

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
from batchify.sharding.task import Link, TaskMaker, last_in_hand, run_elsewhere

IN_FLIGHT = 1024
"""Shards that an executor of any number of workers is given at once.

Their plans take memory while they wait: all together no more than that of the whole dataset.
"""


POLL_S = 0.5


class Others(Protocol):
    """Who makes shards elsewhere."""

    executor: Executor
    link: Link | None

    @property
    def at_once(self) -> int:
        """How many shards keep its workers busy; their plans take memory while they wait."""
        ...

    def news(self) -> Mapping[str, tuple[int, int]]:
        """Return how many rows of each shard are done, and how many of those are bad.

        Raises
        ------
        ClusterError
            If nobody is at work any more.
        """
        ...

    def explained(self, error: BaseException, name: str) -> BatchifyError:
        """Return the error of a shard that was not made."""
        ...


class _Pool:
    """Any executor: it tells nothing before a shard is done."""

    link: Link | None = None
    at_once = IN_FLIGHT

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def news(self) -> dict[str, tuple[int, int]]:
        """Return nothing."""
        return {}

    def explained(self, error: BaseException, name: str) -> BatchifyError:
        """Return the error of a shard that was not made."""
        if isinstance(error, BatchifyError):
            return error
        return WorkerDiedError(f"{name}: {type(error).__name__}: {error}")


@contextlib.contextmanager
def others_of(executor: Executor | None, scheduler: str | None) -> Iterator[Others | None]:
    """Return who makes shards elsewhere; None for this machine.

    Raises
    ------
    ClusterError, ExtraMissingError, OptionError
    """
    if scheduler is None:
        yield None if executor is None else _Pool(executor)
        return
    if executor is not None:
        raise OptionError("an executor and a scheduler are given; give one")
    try:
        from batchify.sharding.cluster import connected
    except ImportError as error:
        raise missing_extra("a scheduler needs Dask, which", "dask", error) from error
    with connected(scheduler) as crew:
        yield crew


def made_elsewhere(
    others: Others, parts: Sequence[Shard], make: TaskMaker, ticket: Ticket | None, steps: Steps
) -> Iterator[ShardOutcome]:
    """Yield the outcomes of shards that are made elsewhere, as they come.

    At the end, and on an error, none is left waiting; those in hand stop with the ticket.
    """
    waiting = iter(parts)
    running: dict[Future[ShardOutcome], Shard] = {}
    try:
        while True:
            for part in islice(waiting, max(0, others.at_once - len(running))):
                task = replace(make(part), ticket=ticket, link=others.link)
                running[others.executor.submit(run_elsewhere, task)] = part
            if not running:
                return
            done = wait(running, POLL_S, FIRST_COMPLETED).done
            here = {part.name for part in running.values()}
            for name, (rows, bad) in others.news().items():
                if name in here:
                    steps.note(name, rows, bad)
            steps.tick()
            for future in done:
                part = running.pop(future)
                try:
                    outcome = future.result()
                except (Exception, CancelledError) as error:
                    image = last_in_hand(make.folder.place(part.name))
                    where = f"{part.name}, {image} in hand" if image else part.name
                    raise others.explained(error, where) from error
                steps.set(part.name, len(part), len(outcome.skipped) + len(outcome.bad))
                yield outcome
    finally:
        for future in running:
            future.cancel()
