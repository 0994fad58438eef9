"""Chunks: kept within a bound, each inflated once, and again where that failed."""

from __future__ import annotations

import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchify.loading.chunks import ChunkCache, gather_chunks


class Inflating:
    """Chunks of three rows that hold their own numbers, the last of two; counts what is asked."""

    def __init__(self) -> None:
        self.starts = np.arange(0, 29, 3)
        self.asked: Counter[int] = Counter()
        self.failing: list[BaseException] = []
        self.gate: threading.Event | None = None

    def __call__(self, index: int) -> NDArray[Any]:
        """Return the rows of a chunk."""
        self.asked[index] += 1
        if self.gate:
            self.gate.wait(30)
        if self.failing:
            raise self.failing.pop()
        return np.arange(29)[3 * index : 3 * index + 3]


@given(st.lists(st.integers(0, 28), max_size=60))
def test_rows_are_gathered_in_their_order(rows: list[int]) -> None:
    """Each chunk asked once for all of its rows."""
    chunks = Inflating()
    out = np.empty(len(rows), int)
    gather_chunks(chunks, chunks.starts, np.array(rows, np.intp), out)
    assert out.tolist() == rows
    assert chunks.asked == Counter({row // 3 for row in rows})


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(3, 40))
def test_no_more_rows_are_kept_than_said(indices: list[int], most: int) -> None:
    """Those used last; what is asked again while it is kept is not inflated again."""
    chunks = Inflating()
    cache = ChunkCache(chunks, chunks.starts, 29, most)
    for index in indices:
        assert cache(index).tolist() == np.arange(29)[3 * index : 3 * index + 3].tolist()
        assert cache.cached_rows <= most
        assert cache(index) is cache(index)
    if most >= 29:
        assert set(chunks.asked.values()) <= {1}


@pytest.mark.parametrize("error", [OSError(5, "failed"), KeyboardInterrupt()])
def test_what_failed_is_tried_again(error: BaseException) -> None:
    """Also what was interrupted; nobody waits for it for ever."""
    chunks = Inflating()
    chunks.failing.append(error)
    cache = ChunkCache(chunks, chunks.starts, 29, 40)
    with pytest.raises(type(error)):
        cache(4)
    assert cache.cached_rows == 0
    assert cache(4).tolist() == [12, 13, 14]


def test_chunks_in_memory_are_copied_by_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads take longer to start than to copy; they inflate the others."""
    chunks = Inflating()
    cache = ChunkCache(chunks, chunks.starts, 29, 40)
    out = np.empty(29, int)
    gather_chunks(cache, chunks.starts, np.arange(29), out)
    monkeypatch.setattr("batchify.loading.chunks._pool", None)
    gather_chunks(cache, chunks.starts, np.arange(29)[::-1], out)
    assert out.tolist() == list(range(29))[::-1]
    assert set(chunks.asked.values()) == {1}


def test_a_chunk_is_inflated_by_one_thread() -> None:
    """While the others wait for it."""
    chunks = Inflating()
    cache = ChunkCache(chunks, chunks.starts, 29, 40)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(cache, [2, 7] * 40))
    assert chunks.asked == {2: 1, 7: 1}
    assert found[1].tolist() == [21, 22, 23]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_does_not_wait_for_threads_of_its_parent() -> None:
    """What they were inflating, it inflates itself."""
    chunks = Inflating()
    cache = ChunkCache(chunks, chunks.starts, 29, 40)
    chunks.gate = threading.Event()
    thread = threading.Thread(target=cache, args=(3,))
    thread.start()
    while not chunks.asked:
        pass
    pid = os.fork()
    if not pid:
        chunks.gate = None
        os._exit(0 if cache(3).tolist() == [9, 10, 11] else 1)
    chunks.gate.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
