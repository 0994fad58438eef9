"""Run a job's tasks in order, and recover when a worker dies or hangs.

Tasks go out as they are needed, results come back in the order of the tasks. A worker that dies,
or shows no sign of life for the image timeout, is detected: its breadcrumb names the item it was
processing. That ends the run or, if the job allows, the item is skipped and the rest goes on.
"""

from __future__ import annotations

import math
import multiprocessing
import pickle
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from batchify.common.system import most_processes, usable_cpus, usable_memory
from batchify.common.text import plural, size_text
from batchify.errors import BatchifyWarning, WorkerDiedError
from batchify.options import IMAGE_TIMEOUT_S, PROCESS_NBYTES
from batchify.workers.pool import NOTHING, Job, Pool, WorkerThread, death_text

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

IN_FLIGHT = 6
"""Tasks submitted for each worker; one slow task then leaves the others work to do."""

START_S = 0.5
"""Work left, in seconds, from which worker processes pay (``scripts/bench start``)."""

IMAGE_NBYTES = 100_000_000
"""Memory for the image that a process decodes, where their number is ours: 33 megapixels."""

ACCIDENTS = 3
"""How often processes may die in one run while no item is in progress to blame."""

HUNG = "not done in time (see --image-timeout)"
"""Without the time, which changes no other byte of a file that lists it."""

IDLE_TIMEOUT_S = 30.0
"""How long processes may take to start, or to fetch a task."""

POLL_S = 0.5

GRACE_S = 10.0
"""How long a worker may take to stop at its current item when the run ends."""


@dataclass
class _Flight(Generic[TaskT, ResultT]):
    """A task that was sent to a worker, with a count of the worker deaths at each item."""

    task: TaskT
    future: Future[ResultT] | None = None
    serial: int = NOTHING
    deaths: Counter[int] = field(default_factory=Counter)

    @property
    def is_lost(self) -> bool:
        """Whether its worker, or the pool, ended before the task was done."""
        if self.future is None or not self.future.done() or self.future.cancelled():
            return True
        return isinstance(self.future.exception(), BrokenProcessPool)


class Watch:
    """A watchdog that measures how long signs of life have not changed.

    Only time between two frequent looks counts, so that a pause of the whole machine, or of this
    process, is blamed on no worker.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.poll_s = min(POLL_S, timeout_s / 4)
        self._last = time.monotonic()
        self._signs: dict[int, tuple[Hashable, float]] = {}

    def look(self, signs: Mapping[int, Hashable]) -> list[int]:
        """Return the keys whose sign has been the same for the timeout."""
        now = time.monotonic()
        step_s, self._last = min(now - self._last, 2 * self.poll_s), now
        seen = {}
        for key, sign in signs.items():
            before, still_s = self._signs.get(key, (None, 0.0))
            seen[key] = (sign, still_s + step_s if sign == before else 0.0)
        self._signs = seen
        return [key for key, (_, still_s) in seen.items() if still_s >= self._timeout_s]


class Workers:
    """The workers of a build. Processes start when they are needed, or earlier by `start`.

    Parameters
    ----------
    workers : int or None
        Number of processes. 1 means a thread of this process. None means one per CPU, as far as
        there is memory, or a thread of this process while the work left, judged by the tasks done
        so far, is too small to be worth starting them. A daemonic process, such as a worker of a
        ``multiprocessing.Pool``, may start no processes: it always uses a thread.
    image_timeout_s : float
        Seconds without a sign of life after which a worker is killed.
    trace : callable, optional
        Called in the thread of this process with the name of each item before it is worked on.
    imports : str
        The module that processes started ahead import first; else that of the first job.
    batch_nbytes : int
        What a process holds in addition to the image it decodes.

    Attributes
    ----------
    has_room : bool
        There is memory for a process in addition to this one, or `workers` was given.
    warnings : list of BatchifyWarning
        Why there are fewer processes than CPUs.
    """

    def __init__(
        self,
        workers: int | None,
        image_timeout_s: float = IMAGE_TIMEOUT_S,
        trace: Callable[[str], None] | None = None,
        imports: str = __name__,
        batch_nbytes: int = 0,
    ) -> None:
        self._imports = imports
        self._trace = trace
        self._alone = multiprocessing.current_process().daemon
        if self._alone:
            workers = 1
        self.chosen = workers is not None and workers > 1
        self.has_room = True
        self.warnings: list[BatchifyWarning] = []
        if workers is None:
            workers = self._default_count(PROCESS_NBYTES + batch_nbytes + IMAGE_NBYTES)
        self.count = min(workers, most_processes())
        self.timeout_s = image_timeout_s
        self._pool: Pool | None = None
        self._serial = 0
        self._accidents = 0

    def _default_count(self, nbytes: int) -> int:
        """Return one process per CPU, or as many as there is memory for, if each takes `nbytes`."""
        cpus, memory = usable_cpus(), usable_memory()
        if memory is None:
            return cpus
        room = (memory - PROCESS_NBYTES) // nbytes
        self.has_room = room > 0
        count = min(cpus, max(1, room))
        if count < cpus:
            message = (
                f"{plural(count, 'worker')} instead of {cpus}: memory is limited to "
                f"{size_text(memory)}; pass --workers to choose the number yourself"
            )
            self.warnings.append(BatchifyWarning("little-memory", message))
        return count

    def start(self) -> None:
        """Start the processes, at least one, without waiting for them; none if this is daemonic."""
        if self._pool is None and not self._alone:
            self._pool = Pool(self.count, self._imports)

    def run(
        self, job: Job[TaskT, ResultT], tasks: Iterable[TaskT], *, total: int
    ) -> Iterator[tuple[TaskT, ResultT]]:
        """Yield every task with its result, in order.

        A task with an item that was skipped is yielded as `Job.without_item` returned it.

        Parameters
        ----------
        tasks : iterable
            Consumed as they are needed, so that waiting tasks take no memory.
        total : int
            How many there are.

        Raises
        ------
        WorkerDiedError
            If a worker was killed, ran out of memory, crashed in a decoder, or hung while it
            processed an item that may not be skipped, or several times between items.
        """
        waiting = iter(tasks)
        if self._imports == __name__:
            self._imports = type(job).__module__
        hung = None
        if self._pool is None and not self.chosen:
            patience_s = START_S if self.count > 1 else math.inf
            hung, total = yield from self._run_here(job, waiting, total, patience_s)
        if total:
            self.start()
            yield from self._run_there(job, waiting, deque([hung] if hung else []))

    def _run_here(
        self, job: Job[TaskT, ResultT], waiting: Iterator[TaskT], total: int, patience_s: float
    ) -> Generator[tuple[TaskT, ResultT], None, tuple[_Flight[TaskT, ResultT] | None, int]]:
        """Yield tasks done in a thread, with their results, until the rest takes `patience_s`.

        Returns the task that hung, and how many tasks are left.
        """
        thread = WorkerThread(job, self._trace)
        watch = Watch(self.timeout_s)
        started = time.monotonic()
        try:
            for done in range(total):
                if done and (time.monotonic() - started) / done * (total - done) > patience_s:
                    return None, total - done
                task = next(waiting)
                thread.submit(task)
                while True:
                    try:
                        result = thread.result(watch.poll_s)
                        break
                    except queue.Empty:
                        if watch.look({0: (done, thread.item)}):
                            if self._alone:  # no other process could skip it
                                named = job.describe(task, thread.item)
                                raise WorkerDiedError(f"{named}: {HUNG}") from None
                            flight = _Flight[TaskT, ResultT](task)
                            self._blame_item(job, flight, thread.item, None)
                            return flight, total - done
                yield task, result
        finally:
            thread.close(min(GRACE_S, self.timeout_s))
        return None, 0

    def _run_there(
        self,
        job: Job[TaskT, ResultT],
        waiting: Iterator[TaskT],
        in_flight: deque[_Flight[TaskT, ResultT]],
    ) -> Iterator[tuple[TaskT, ResultT]]:
        """Yield every task with its result, in order, from the processes."""
        pickled = pickle.dumps(job)
        watch = Watch(self.timeout_s)
        idle = Watch(max(self.timeout_s, IDLE_TIMEOUT_S))
        hung: set[int] = set()
        while True:
            while len(in_flight) < self.count * IN_FLIGHT:
                task = next(waiting, None)
                if task is None:
                    break
                in_flight.append(_Flight(task))
            if not in_flight:
                return
            try:
                self._submit(pickled, in_flight)
                head = in_flight[0].future
                assert head is not None
                if not wait([head], watch.poll_s).done:
                    killed = self._kill_hung(watch, idle)
                    hung |= killed
                    if not killed or wait([head], GRACE_S).done:
                        continue
                    raise BrokenProcessPool("the executor does not see that its workers are dead")
                result = head.result()
            except BrokenProcessPool as error:
                self._recover(job, in_flight, hung, error)
                continue
            yield in_flight.popleft().task, result

    def _submit(self, pickled: bytes, in_flight: Iterable[_Flight[TaskT, ResultT]]) -> None:
        assert self._pool is not None
        for flight in in_flight:
            if flight.future is None:
                self._serial += 1
                flight.future = self._pool.submit(pickled, self._serial, flight.task)
                flight.serial = self._serial

    def _kill_hung(self, watch: Watch, idle: Watch) -> set[int]:
        """Kill the workers without a sign of life; return their process numbers.

        If no worker has taken a task for long although tasks wait, the queue to them is stuck or
        they never started, and all are killed.
        """
        assert self._pool is not None
        crumbs = self._pool.crumbs()
        busy = {crumb.pid: crumb for crumb in crumbs if crumb.serial != NOTHING}
        waiting = {} if busy else dict.fromkeys(self._pool.pids(), tuple(crumbs))
        hung = {*watch.look(busy), *idle.look(waiting)}
        self._pool.kill(hung)
        return hung

    def _recover(
        self,
        job: Job[TaskT, ResultT],
        in_flight: Iterable[_Flight[TaskT, ResultT]],
        hung: set[int],
        error: BrokenProcessPool,
    ) -> None:
        """Restart the processes after a death, without the item to blame; or raise for it."""
        assert self._pool is not None
        deaths = self._pool.deaths()
        crumbs = self._pool.crumbs()
        self._pool.end(grace_s=0.0)
        self._pool = None
        lost = {flight.serial: flight for flight in in_flight if flight.is_lost}
        blamed = [
            crumb
            for crumb in crumbs
            if crumb.serial in lost and (crumb.pid in deaths or not deaths)
        ]
        blameless = all(crumb.item == NOTHING for crumb in blamed)
        if blameless:
            self._accidents += 1
        if not blamed and self._accidents > ACCIDENTS:
            code = next(iter(deaths.values()), None)
            raise WorkerDiedError(
                f"worker processes die before they have a file in hand: {death_text(code)}"
            ) from error
        if not blameless or self._accidents > ACCIDENTS:
            for crumb in blamed:
                reason = None if crumb.pid in hung else death_text(deaths.get(crumb.pid))
                self._blame_item(job, lost[crumb.serial], crumb.item, reason)
        for flight in lost.values():
            flight.future = None
        self.start()

    def _blame_item(
        self,
        job: Job[TaskT, ResultT],
        flight: _Flight[TaskT, ResultT],
        item: int,
        death: str | None,
    ) -> None:
        """Skip an item that hung, or ended its worker, for the second time.

        The first time may have been an accident: a kernel that is out of memory kills the largest.
        """
        reason = death or HUNG
        rest = None if item == NOTHING else job.without_item(flight.task, item, reason)
        if rest is None:
            raise WorkerDiedError(f"{job.describe(flight.task, item)}: {reason}; {job.advice}")
        flight.deaths[item] += 1
        if flight.deaths[item] > 1:
            flight.task = rest

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.end(GRACE_S)
