"""Build shards on a Dask cluster; the only importer of `distributed`."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import distributed
from distributed import Client, KilledWorker
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.comm.registry import get_backend

from batchify.common.text import printable
from batchify.errors import BatchifyError, ClusterError, WorkerDiedError
from batchify.sharding.task import ShardWorkers

CONNECT_S = 15.0
CLOSE_S = 2.0

NO_WORKERS_S = 60.0
"""How long a cluster may be without workers."""

CHECK_S = 2.0

AT_ONCE = 256
"""Shards in progress on a cluster; five per four threads, if that is more."""

REPORT_S = 0.5
ADVICE = "finished shards are kept: run the same command again to continue"


@dataclass
class DaskLink:
    """Reports the progress of a shard as an event of the cluster, at most twice a second."""

    topic: str
    _reported_s: float = field(default=0.0, compare=False)

    def report(self, name: str, done: int, bad: int) -> None:
        """Report how many rows of a shard are done, and how many of them failed."""
        now = time.monotonic()
        if now - self._reported_s >= REPORT_S:
            self._reported_s = now
            distributed.get_worker().log_event(self.topic, [name, done, bad])


class DaskWorkers(ShardWorkers):
    """The workers of a Dask cluster."""

    def __init__(self, client: Any) -> None:
        self._client = client
        topic = f"batchify-{secrets.token_hex(8)}"
        self._rows_done: dict[str, tuple[int, int]] = {}
        client.subscribe_topic(topic, self._take_event)
        # If a worker is lost, the scheduler retries its task on another one
        # (distributed.scheduler.allowed-failures); a task that raised is not retried.
        super().__init__(client.get_executor(pure=False, retries=0))
        self.link = DaskLink(topic)
        self.at_once = AT_ONCE
        self._deserted_since: float | None = None
        self._checked_s = 0.0

    def _take_event(self, event: tuple[float, Any]) -> None:
        name, done, bad = event[1]
        self._rows_done[name] = (done, bad)

    def rows_done(self) -> dict[str, tuple[int, int]]:
        """Return how many rows of each shard are done, and how many of those failed.

        Raises
        ------
        ClusterError
            If the scheduler cannot be reached, or has had no worker for a minute.
        """
        now = time.monotonic()
        if now - self._checked_s > CHECK_S:
            self._checked_s = now
            self._check(now)
        return dict(self._rows_done)

    def _check(self, now: float) -> None:
        address = self._client.scheduler.address
        try:
            workers = self._client.scheduler_info(n_workers=0) and self._client.nthreads()
        except (OSError, TypeError, ValueError, AttributeError) as error:
            raise ClusterError(f"the scheduler at {address} is gone ({error}); {ADVICE}") from error
        if workers:
            self.at_once = max(AT_ONCE, 5 * sum(workers.values()) // 4)
            self._deserted_since = None
            return
        self._deserted_since = self._deserted_since or now
        if now - self._deserted_since > NO_WORKERS_S:
            raise ClusterError(
                f"the scheduler at {address} has had no worker for {NO_WORKERS_S:.0f} s; start "
                f"some (dask worker {address}); {ADVICE}"
            )

    def explain(self, error: BaseException, name: str) -> BatchifyError:
        """Return the error of a shard that was not built."""
        if isinstance(error, BatchifyError):
            return error
        if isinstance(error, KilledWorker):
            return WorkerDiedError(
                f"{name}: {error.allowed_failures + 1} workers died while they built it, the last "
                f"at {error.last_worker.address}; {ADVICE}"
            )
        if isinstance(error, CancelledError):
            return ClusterError(f"the scheduler lost {name}, as it does when it restarts; {ADVICE}")
        return ClusterError(f"{name}: {type(error).__name__}: {error}; {ADVICE}")


@contextlib.contextmanager
def connected(address: str) -> Iterator[DaskWorkers]:
    """Connect to a scheduler; unfinished tasks are cancelled at the end.

    Raises
    ------
    ClusterError
        If it cannot be reached.
    """
    with _quiet():
        try:
            _check_address(address)
            client = Client(address, timeout=CONNECT_S, set_as_default=False, name="batchify")
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"there is no Dask scheduler at {printable(address)} ({error}); start one with "
                "dask scheduler, or fix the address"
            ) from error
        try:
            yield DaskWorkers(client)
        finally:
            client.close(timeout=CLOSE_S)


def _check_address(address: str) -> None:
    """Refuse anything but an address: a client that is passed in would never be closed."""
    scheme, place = parse_address(address)
    get_backend(scheme)
    parse_host_port(place)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client's log off the console: important errors are raised."""
    handlers = {
        handler
        for name in logging.root.manager.loggerDict
        if name.startswith(("distributed", "tornado"))
        for handler in logging.getLogger(name).handlers
    }
    for handler in handlers:
        handler.addFilter(_nothing)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_nothing)


def _nothing(_record: logging.LogRecord) -> bool:
    return False
