"""Notice that a worker no longer makes progress."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping

POLL_S = 0.5


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
