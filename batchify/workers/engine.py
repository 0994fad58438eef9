"""Run a job's tasks in order, and recover when a worker dies or hangs.

Tasks are sent as workers need them; results are returned in the order of the tasks. A worker that
dies, or shows no sign of life for the image timeout, is detected: its breadcrumb names the item it
was processing. The item is not blamed yet, since a kernel that is out of memory kills any process:
the task is retried in a single process while no other runs. If the item kills this process, too,
the run ends or, if the job allows, continues without the item. Otherwise, it continues with fewer
processes.
"""

from __future__ import annotations

import math
import multiprocessing
import pickle
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from batchify.errors import BatchifyWarning, WorkerDiedError, WorkersKilledError
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.workers.capacity import MOST, find_capacity, many_workers
from batchify.workers.pool import KILLED_ADVICE, NOTHING, Crumb, Job, Pool, WorkerThread, death_text
from batchify.workers.watch import Watch

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

IN_FLIGHT = 6
"""Tasks submitted per worker, so that the others have work during a slow task."""

START_S = 0.5
"""Remaining work, in seconds, that is worth starting processes (``scripts/bench start``)."""

ACCIDENTS = 3
"""How often in a row processes may die while no item is in progress to blame."""

KILLED = -9
"""The exit code after SIGKILL, by which the kernel ends processes when it is out of memory."""

HUNG = "took too long (see --image-timeout)"
"""Without the time: a file that lists it must not depend on the timeout."""

IDLE_TIMEOUT_S = 30.0
"""How long processes may take to start, or to fetch a task."""

GRACE_S = 10.0
"""How long a worker may take to stop at its current item when the run ends."""


@dataclass
class _Flight(Generic[TaskT, ResultT]):
    """A task that was sent to a worker.

    Attributes
    ----------
    is_suspect : bool
        Its worker died: it is to run while no other does.
    failures : Counter
        How often each item hung, or ended a process that was the only one.
    """

    task: TaskT
    future: Future[ResultT] | None = None
    serial: int = NOTHING
    is_suspect: bool = False
    failures: Counter[int] = field(default_factory=Counter)

    @property
    def is_lost(self) -> bool:
        """Whether its worker, or the pool, ended before the task was done."""
        if self.future is None or not self.future.done() or self.future.cancelled():
            return True
        return isinstance(self.future.exception(), BrokenProcessPool)


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
        Called in the thread of this process with the name of each item before it is processed.
    imports : str
        The module that processes started early import first; by default that of the first job.
    batch_nbytes : int
        What a process holds in addition to the image it decodes.

    Attributes
    ----------
    has_room : bool
        There is memory for a process in addition to this one.
    """

    def __init__(
        self,
        workers: int | None,
        image_timeout_s: float = IMAGE_TIMEOUT_S,
        trace: Callable[[str], None] | None = None,
        imports: str = __name__,
        batch_nbytes: int = 0,
    ) -> None:
        self._imports, self._trace = imports, trace
        self._alone = multiprocessing.current_process().daemon
        self._given = 1 if self._alone else workers
        self.chosen = (self._given or 1) > 1
        self.timeout_s = image_timeout_s
        self._pool: Pool | None = None
        self._serial = self._accidents = 0
        self._on_trial = False
        self.fit(batch_nbytes)

    def fit(self, batch_nbytes: int) -> None:
        """Use as many processes as there is memory for, unless their number was given."""
        capacity = find_capacity(batch_nbytes)
        self.has_room = capacity.processes > 0
        self._limit = many_workers(self._given) if self._given else capacity.warning
        self._asked = self.count = min(self._given or capacity.count, MOST)
        if self._pool is not None:  # lest an image ends this process
            self._end_pool()
            self.start()

    @property
    def warnings(self) -> list[BatchifyWarning]:
        """Why there are fewer processes than CPUs, or than were asked for, or too many."""
        found = [self._limit] if self._limit else []
        if self.count < self._asked:
            message = (
                f"workers were killed (out of memory, or kill -9), and {self.count} of "
                f"{self._asked} went on; next time, pass --workers {self.count}"
            )
            found.append(BatchifyWarning("workers-killed", message))
        return found

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
            Consumed as needed, so that waiting tasks take no memory.
        total : int
            How many there are.

        Raises
        ------
        WorkerDiedError
            If a worker crashed in a decoder, was killed, or hung while it processed an item that
            may not be skipped, also when no other worker ran; or several times between items.
        WorkersKilledError
            If workers are killed again and again, whatever they process.
        """
        waiting = iter(tasks)
        if self._imports == __name__:
            self._imports = type(job).__module__
        hung = None
        if self._pool is None and not self.chosen:
            patience_s = START_S if self.count > 1 else math.inf
            hung, total = yield from self._run_here(job, waiting, total, patience_s)
        if total:
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
                            self._blame_item(job, flight, thread.item, HUNG)
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
        """Yield every task with its result, in order, from the processes.

        While there are suspects, they run, one after another, and nothing else does.
        """
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
            suspects = [flight for flight in in_flight if flight.is_suspect]
            flights = suspects[:1] or in_flight
            try:
                self._submit(pickled, flights, alone=bool(suspects))
                awaited = flights[0].future
                assert awaited is not None
                if not wait([awaited], watch.poll_s).done:
                    killed = self._kill_hung(watch, idle)
                    hung |= killed
                    if not killed or wait([awaited], GRACE_S).done:
                        continue
                    raise BrokenProcessPool("the executor does not see that its workers are dead")
                result = awaited.result()
            except BrokenProcessPool as error:
                self._recover(job, in_flight, hung, error)
                continue
            self._accidents = 0
            if suspects:
                flights[0].is_suspect = False
                if len(suspects) == 1:
                    self._end_trial()
                continue
            yield in_flight.popleft().task, result

    def _submit(
        self, pickled: bytes, flights: Iterable[_Flight[TaskT, ResultT]], *, alone: bool
    ) -> None:
        """Submit the tasks that wait; start the processes first, or only one if `alone`."""
        if self._pool is None:
            self._pool = Pool(1 if alone else self.count, self._imports)
        for flight in flights:
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
        """Decide what becomes of the tasks whose worker died; or raise if nothing can."""
        assert self._pool is not None
        deaths = self._pool.deaths()
        crumbs = self._pool.crumbs()
        starved = self._pool.is_starved()
        self._pool.end(grace_s=0.0)
        self._pool = None
        lost = {flight.serial: flight for flight in in_flight if flight.is_lost}
        ended = [
            crumb
            for crumb in crumbs
            if crumb.serial in lost and (crumb.pid in deaths or not deaths)
        ]
        if all(crumb.item == NOTHING for crumb in ended):
            codes = [code for pid, code in deaths.items() if pid not in hung]
            self._count_accident(job, lost, ended, codes[0] if codes else None, error)
        for crumb in ended:
            flight, code = lost[crumb.serial], deaths.get(crumb.pid)
            if crumb.pid in hung:
                if crumb.item != NOTHING:
                    self._blame_item(job, flight, crumb.item, HUNG)
            elif not flight.is_suspect:
                flight.is_suspect = self._on_trial = True
            elif crumb.item != NOTHING and code is not None:
                self._on_trial = False
                killed = code == KILLED
                self._blame_item(
                    job, flight, crumb.item, death_text(code), killed=killed, starved=starved
                )
        for flight in lost.values():
            flight.future = None

    def _count_accident(
        self,
        job: Job[TaskT, ResultT],
        lost: Mapping[int, _Flight[TaskT, ResultT]],
        ended: Sequence[Crumb],
        code: int | None,
        error: BrokenProcessPool,
    ) -> None:
        """Note that a process died with no item in progress; raise if that happens all the time."""
        if code == KILLED and self.count > 1:
            self.count //= 2
            return
        self._accidents += 1
        if self._accidents <= ACCIDENTS:
            return
        if code == KILLED:
            raise WorkersKilledError(
                f"{death_text(code)}, again and again; {KILLED_ADVICE}"
            ) from error
        if not ended:
            raise WorkerDiedError(
                f"worker processes die before they read a file: {death_text(code)}"
            ) from error
        named = job.describe(lost[ended[0].serial].task, NOTHING)
        reason = HUNG if code is None else death_text(code)
        raise WorkerDiedError(f"{named}: {reason}; {job.advice}") from error

    def _end_trial(self) -> None:
        """Let all processes work again; half as many if the last trial found no item to blame."""
        if self._on_trial:
            self.count = max(1, self.count // 2)
        if self.count > 1:
            self._end_pool()

    def _blame_item(
        self,
        job: Job[TaskT, ResultT],
        flight: _Flight[TaskT, ResultT],
        item: int,
        reason: str,
        *,
        killed: bool = False,
        starved: bool = False,
    ) -> None:
        """Skip an item that ended a process while no other ran, or raise if it may not be skipped.

        An item that hung, or whose process was killed, has one more chance: it may have been the
        load of the machine, or somebody else. If the system was out of memory, it is no fault of
        the item, which may be fine with one process less, or on another machine.
        """
        flight.failures[item] += 1
        is_last = flight.failures[item] > 1 or not (killed or reason == HUNG)
        if killed and is_last and starved:
            raise WorkersKilledError(
                f"{job.describe(flight.task, item)}: {reason}, though no other worker ran; "
                f"{KILLED_ADVICE}"
            )
        rest = job.without_item(flight.task, item, reason)
        if rest is None and (is_last or not killed):
            raise WorkerDiedError(f"{job.describe(flight.task, item)}: {reason}; {job.advice}")
        if rest is not None and is_last:
            flight.task = rest

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_pool()

    def _end_pool(self) -> None:
        if self._pool is not None:
            self._pool.end(GRACE_S)
            self._pool = None
