"""Jobs for workers that decode nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from batchify.workers.pool import NOTHING, Mark


@dataclass(frozen=True)
class Doubling:
    """Doubles numbers; -1 ends the worker, -2 hangs, -3 ends it with nothing in hand.

    -4 has the worker killed, and -5 has it killed with nothing in hand.
    """

    delay_s: float = 0.0
    forgiving: bool = False

    @property
    def advice(self) -> str:
        """What to do."""
        return "leave it out"

    @contextlib.contextmanager
    def open_handler(self, mark: Mark) -> Iterator[Callable[[int], tuple[int, int]]]:
        """Return the handler."""
        yield lambda task: self._double(task, mark)

    def _double(self, task: int, mark: Mark) -> tuple[int, int]:
        mark(NOTHING if task in (-3, -5) else 0)
        if task in (-1, -3):
            os._exit(9)
        if task in (-4, -5):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(1000 if task == -2 else self.delay_s * (task % 3))
        return 2 * task, os.getpid()

    def describe(self, task: int, item: int) -> str:
        """Name a task."""
        return f"item {item} of task {task}"

    def without_item(self, _task: int, item: int, _reason: str) -> int | None:
        """Give a task up: it becomes 0."""
        assert item == 0
        return 0 if self.forgiving else None
