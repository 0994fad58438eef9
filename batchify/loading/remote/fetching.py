"""Fetch and open the files of a URL when their rows are read, some of them ahead."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.loading.dataset_file import DatasetFile
from batchify.loading.indexing import Chain, Rows
from batchify.loading.origin import closed
from batchify.loading.remote.cache import Need, NoNeedError
from batchify.loading.remote.providers import Opened, Provider
from batchify.storage.remote_file import cancel_reads

AHEAD = 4
"""Files that are fetched ahead, or at the same time."""

_KEPT_OPEN, _KEPT_OF_FEW = 256, 2
"""Files that stay open although no epoch needs them: without a limit of the cache, or with one."""

_KEPT_HEADS = 16
"""Files that stay open for their columns."""

_SLACK = 8
"""Batches after which a file is released: threads may still read rows of earlier ones."""

_END_S, _POLL_S = 5.0, 1.0

Array = NDArray[Any]


class ShardFiles:
    """The files of an open dataset: fetched, opened, and released, in each process by itself.

    Parameters
    ----------
    shown : tuple of bytes
        Their URLs, for messages.
    """

    def __init__(self, provider: Provider, shown: tuple[bytes, ...]) -> None:
        self.provider = provider
        self._shown = shown
        self._kept_open = _KEPT_OF_FEW if provider.is_limited else _KEPT_OPEN
        self._state: _State | None = _State()

    @property
    def _here(self) -> _State:
        """What is open in this process: the threads of its parent do not survive a fork."""
        if self._state is None:
            raise closed(self._shown)
        if self._state.pid != os.getpid():
            self._state = self._state.forked()
        return self._state

    def close(self) -> None:
        """Release all files."""
        self.release_idle()
        self._state = None

    def whole(self, number: int) -> DatasetFile:
        """Return a file with its images; wait until it is fetched."""
        here = self._here
        if (ready := here.ready.get(number)) is not None:
            here.note_use(number)
            return ready.file
        while True:
            try:
                future = self._whole(number, fetch_here=True)
                while not future.done():  # on Windows, a wait without timeout ignores Ctrl-C
                    futures.wait([future], _POLL_S)
                return future.result().file
            except NoNeedError:  # an epoch ended that would have needed it
                continue

    def has_open(self, numbers: Iterable[int]) -> bool:
        """Return whether files are open with their images."""
        ready = self._here.ready
        return all(number in ready for number in numbers)

    def column(self, number: int, name: str, column: Callable[[DatasetFile], Array]) -> Array:
        """Return a small column of a file, of which everything but the images is fetched.

        Parameters
        ----------
        name : str
            Of the split and the column.
        """
        here = self._here
        found = here.columns.get((number, name))
        if found is not None:
            return found
        if (ready := here.ready.get(number)) is not None:
            return column(ready.file)  # mapped
        found = np.array(column(self.head(number)))  # the file may be evicted
        with here.lock:
            return here.columns.setdefault((number, name), found)

    def head(self, number: int) -> DatasetFile:
        """Return a file for everything but its images."""
        here = self._here
        with here.lock:
            opened = here.heads.get(number)
        if opened is None:
            opened = self.provider.head(number)
            with here.lock:
                here.heads[number] = opened
                while len(here.heads) > _KEPT_HEADS:
                    here.heads.popitem(last=False)
        return opened.file

    def fetch_columns(self, numbers: Iterable[int], fetch: Callable[[int], object]) -> None:
        """Fetch columns of some files, several at a time, if there are many."""
        begun = self._here.open
        missing = [each for each in numbers if each not in begun]
        if len(missing) > 1:
            with ThreadPoolExecutor(2 * AHEAD) as pool:
                for _ in pool.map(fetch, missing):
                    pass

    @contextlib.contextmanager
    def started(self, numbers: Sequence[int]) -> Iterator[None]:
        """Fetch some files at the same time, in threads."""
        here = self._here
        for number in numbers:
            here.hold(number)
            self._whole(number, fetch_here=False)
        try:
            yield
        finally:
            for number in numbers:
                here.drop(number, self._kept_open)

    def release_idle(self) -> None:
        """Release the files that no epoch needs, and then those that epochs need again."""
        here = self._state
        if here is not None and here.pid == os.getpid():
            with here.lock:
                here.close([each for each, future in here.open.items() if future.done()])

    def ahead(
        self, batches: Iterable[Rows], chain: Chain, numbers: Sequence[int]
    ) -> Iterator[Rows]:
        """Yield the rows of batches; fetch files before they are needed, release them after.

        Parameters
        ----------
        chain : Chain
            Which file each row is in, as a position in `numbers`.
        """
        batches = list(batches)
        here = self._here
        order, first, last = _uses(batches, chain)
        needed = [numbers[position] for position in order]
        ending: dict[int, list[int]] = {}
        for number, batch in zip(needed, last, strict=True):
            ending.setdefault(batch + _SLACK, []).append(number)
        begun = 0
        held: Counter[int] = Counter()
        try:
            for count, rows in enumerate(batches):
                reached = int(np.searchsorted(first, count, side="right"))
                ahead = AHEAD if count else 0  # the first batch does not share the network
                while begun < min(reached + ahead, len(needed)):
                    here.hold(needed[begun])
                    held[needed[begun]] += 1
                    self._whole(needed[begun], fetch_here=False)
                    begun += 1
                yield rows
                for number in ending.pop(count, ()):
                    held[number] -= 1
                    here.drop(number, self._kept_open)
        finally:
            for number in held.elements():
                here.drop(number, self._kept_open)

    def _whole(self, number: int, *, fetch_here: bool) -> Future[Opened]:
        """Return a file that is open, or being fetched by this or another thread."""
        here = self._here
        with here.lock:
            if fetch_here:
                here.urgent.add(number)
            future = here.open.get(number)
            if future is not None and future.done() and future.exception():
                future = None  # it is tried again
            is_mine = future is None
            if future is None:
                here.close_idle(self._kept_open)
                future = here.open[number] = Future()
            elif future.done():
                here.open.move_to_end(number)
        if is_mine and fetch_here:
            self._load(here, number, future)
        elif is_mine:
            thread = threading.Thread(
                target=self._load, args=(here, number, future), name="batchify", daemon=True
            )
            thread.start()
            _fetching.add(thread)
        return future

    def _load(self, here: _State, number: int, future: Future[Opened]) -> None:
        try:
            found = self.provider.whole(number, lambda: here.need(number))
        except BaseException as error:
            with here.lock:
                if here.open.get(number) is future and isinstance(error, NoNeedError):
                    del here.open[number]
            future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            here.ready[number] = found
            future.set_result(found)


_fetching: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


@atexit.register
def _end_fetching() -> None:
    """End all threads: NumPy and HDF5 must not be used after the interpreter ends."""
    cancel_reads()
    for thread in list(_fetching):
        thread.join(_END_S)


class _State:
    """The files that one process has open."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.open: OrderedDict[int, Future[Opened]] = OrderedDict()
        self.ready: dict[int, Opened] = {}
        """Those that are fetched: to ask the futures takes longer, for every batch."""
        self.heads: OrderedDict[int, Opened] = OrderedDict()
        self.columns: dict[tuple[int, str], Array] = {}
        self.urgent: set[int] = set()
        self._holds: Counter[int] = Counter()
        self._latest = -1

    def forked(self) -> _State:
        """Return the state of a process that was forked: what is complete stays open."""
        state = _State()
        for number, future in list(self.open.items()):
            if future.done() and not future.exception():
                state.open[number] = future
                state.ready[number] = future.result()
        state.heads.update(self.heads)
        state.columns.update(self.columns)
        return state

    def note_use(self, number: int) -> None:
        """Note that a file was used: those that were not used for longest are closed first."""
        if number != self._latest:
            self._latest = number
            with self.lock:
                if number in self.open:
                    self.open.move_to_end(number)

    def need(self, number: int) -> Need:
        """Return how much a file is needed."""
        if number in self.urgent:
            return Need.NOW
        return Need.SOON if self._holds[number] else Need.NO_MORE

    def hold(self, number: int) -> None:
        """Note that an epoch needs a file."""
        with self.lock:
            self._holds[number] += 1

    def drop(self, number: int, kept_open: int) -> None:
        """Note that an epoch needs a file no more."""
        with self.lock:
            self._holds[number] -= 1
            self.urgent.discard(number)
            self.close_idle(kept_open)

    def close_idle(self, most: int) -> None:
        """Close files that no epoch needs, except the most recent ones; `lock` is held."""
        idle = [each for each, future in self.open.items() if future.done()]
        idle = [each for each in idle if not self._holds[each]]
        self.close(idle[: max(0, len(idle) - most)])

    def close(self, numbers: Sequence[int]) -> None:
        """Close files; who reads rows of them still can. `lock` is held."""
        for number in numbers:
            future = self.open.pop(number)
            self.ready.pop(number, None)
            if not future.exception() and (held := future.result().held) is not None:
                held.release()


def _uses(batches: Sequence[Rows], chain: Chain) -> tuple[Rows, Rows, Rows]:
    """Return the parts that batches need in their order, and the first and last batch of each."""
    rows = np.concatenate([np.empty(0, np.intp), *batches])
    number = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
    owners = chain.owners(rows)
    parts, firsts = np.unique(owners, return_index=True)
    _, lasts = np.unique(owners[::-1], return_index=True)
    first, last = number[firsts], number[len(rows) - 1 - lasts]
    order = np.argsort(firsts, kind="stable")
    return parts[order], first[order], last[order]
