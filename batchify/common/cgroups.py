"""CPU quota and memory limit of the control groups of this process: containers and batch jobs.

Versions 1 and 2 of cgroups; see cgroups(7), and cgroup-v1 and cgroup-v2 in the kernel's
Documentation/admin-guide.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache

PROCESS = "/proc/self"
"""Where the kernel describes this process."""


@cache
def cpu_quota() -> float | None:
    """Return how many CPUs the groups of this process may use in all; None without a limit."""
    quotas = []
    for folder in _folders("cpu"):
        number, _, period = _read(folder, "cpu.max").partition(" ")  # version 2
        if not number:
            number = _read(folder, "cpu.cfs_quota_us")
            period = _read(folder, "cpu.cfs_period_us")
        if number.isdecimal() and period.isdecimal() and int(period):
            quotas.append(int(number) / int(period))  # "max" and -1 are no limit
    return min(quotas, default=None)


@cache
def memory_limit(*, hard: bool = False) -> int | None:
    """Return how many bytes of memory the groups of this process may use; None without a limit.

    Version 1 has a huge number for no limit.

    Parameters
    ----------
    hard : bool
        Leave out the limit from which processes are only slowed down.
    """
    names = ["memory.max", "memory.limit_in_bytes"] + ([] if hard else ["memory.high"])
    texts = [_read(folder, name) for folder in _folders("memory") for name in names]
    return min((int(text) for text in texts if text.isdecimal()), default=None)


def _folders(controller: str) -> Iterator[str]:
    """Yield the folders of the groups that limit this process, with those that contain them."""
    groups = {}
    for line in _read(PROCESS, "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            groups["cgroup" if controllers else "cgroup2"] = path
    for line in _read(PROCESS, "mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        kind, _, settings = system.split(" ")[:3]
        if kind not in groups or (kind == "cgroup" and controller not in settings.split(",")):
            continue
        root, top = map(_unescaped, mount.split(" ")[3:5])
        inner = os.path.relpath(groups[kind], root)
        if inner == ".." or inner.startswith("../"):  # a container without its own view of groups
            inner = "."
        folder = os.path.normpath(os.path.join(top, inner))
        yield folder
        while folder != os.path.normpath(top):
            folder = os.path.dirname(folder)
            yield folder


def _unescaped(path: str) -> str:
    r"""Return a path of mountinfo, in which a space is ``\040``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _read(folder: str, name: str) -> str:
    """Return the text of a file; empty if it cannot be read."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return ""
