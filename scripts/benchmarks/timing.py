"""Time whole processes, two programs in turn."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RUN_COMMAND = str(Path(__file__).parent / "run_command.py")


def seconds(*command: str) -> float:
    """Return the wall time of a whole process; its output is shown only if it fails."""
    return taken(*command)[0]


def taken(*command: str) -> tuple[float, float]:
    """Return the wall time of a whole process, and the CPU time of it and its children."""
    os.sync()  # so that this run does not wait for the writes of the one before
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, RUN_COMMAND, *command], capture_output=True, check=False)
    took = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr.decode()}")
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@dataclass(frozen=True)
class Ratio:
    """Two programs that ran in turn: medians of their times, and of their ratios.

    Attributes
    ----------
    ratio, least, most : float
        Wall time of the first as a share of the second's: the median, and the range.
    cpu : float
        The same for CPU time, of all processes: the median. On a machine that others use, wall time
        is noise.
    """

    name: str
    a: str
    b: str
    a_s: float
    b_s: float
    ratio: float
    least: float
    most: float
    target: str
    cpu: float


def in_turn(
    name: str,
    a: list[str],
    b: list[str],
    *,
    runs: int,
    target: str = "",
    prepare: Callable[[], object] = lambda: None,
) -> Ratio:
    """Run two programs in turn, and return a's time as a share of b's.

    `prepare` runs before each of a's.
    """
    pairs = []
    for _ in range(runs):
        prepare()
        pairs.append((taken(*a), taken(*b)))
    ratios = [first[0] / second[0] for first, second in pairs]
    return Ratio(
        name=name,
        a=" ".join(a[:1]),
        b=" ".join(b[:1]),
        a_s=statistics.median(pair[0][0] for pair in pairs),
        b_s=statistics.median(pair[1][0] for pair in pairs),
        ratio=statistics.median(ratios),
        least=min(ratios),
        most=max(ratios),
        target=target,
        cpu=statistics.median(first[1] / second[1] for first, second in pairs),
    )


def compare(
    name: str,
    a: list[str],
    b: list[str],
    *,
    runs: int,
    target: str,
    prepare: Callable[[], object] = lambda: None,
) -> Ratio:
    """Do the same as `in_turn`, and print a line about it."""
    found = in_turn(name, a, b, runs=runs, target=target, prepare=prepare)
    print(
        f"{found.name:44} {found.a_s:8.2f} s {found.b_s:8.2f} s   {found.ratio:6.3f} "
        f"({found.least:.3f} to {found.most:.3f})   {found.cpu:6.3f}   {found.target}",
        flush=True,
    )
    return found
