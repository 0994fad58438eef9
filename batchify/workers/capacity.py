"""How many worker processes there are CPUs and memory for."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from batchify.common.system import usable_cpus, usable_memory
from batchify.common.text import plural, size_text
from batchify.errors import BatchifyWarning
from batchify.options import PROCESS_NBYTES

IMAGE_NBYTES = 100_000_000
"""Memory for the image that a process decodes, where their number is ours: 33 megapixels."""

MOST = 61 if sys.platform == "win32" else 1 << 16
"""How many processes a pool may have: Windows waits on at most 63 handles."""

_MANY = 8
"""How many processes for each CPU are more than even a slow drive has use for."""


@dataclass(frozen=True)
class Capacity:
    """How many processes the CPUs allow, and the memory in addition to that of this process."""

    cpus: int
    processes: int
    memory: int | None

    @property
    def count(self) -> int:
        """How many processes to use."""
        return min(self.cpus, max(1, self.processes))

    @property
    def warning(self) -> BatchifyWarning | None:
        """That memory is the reason for the count, if it is."""
        if self.memory is None or self.count == self.cpus:
            return None
        return BatchifyWarning(
            "little-memory",
            f"{plural(self.count, 'worker')} instead of {self.cpus}: memory is limited to "
            f"{size_text(self.memory)}; pass --workers to choose the number yourself",
        )


def find_capacity(batch_nbytes: int) -> Capacity:
    """Return how many processes fit, of which each holds so many bytes and an image."""
    memory = usable_memory()
    processes = MOST
    if memory is not None:
        each = PROCESS_NBYTES + batch_nbytes + IMAGE_NBYTES
        processes = (memory - PROCESS_NBYTES) // each
    return Capacity(usable_cpus(), processes, memory)


def many_workers(workers: int) -> BatchifyWarning | None:
    """Return the warning about a number of processes that was asked for, if it is odd."""
    cpus = usable_cpus()
    if workers > MOST:
        text = f"{MOST} workers instead of {workers:,}: this system allows no more"
    elif workers > _MANY * cpus:
        text = (
            f"{workers:,} workers for {plural(cpus, 'CPU')}: they wait for each other, and each "
            f"takes time to start and memory; --workers {cpus} is the default"
        )
    else:
        return None
    return BatchifyWarning("many-workers", text)
