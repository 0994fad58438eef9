"""Run a process in control groups that limit its CPUs and memory, as a container does."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from batchify.common.cgroups import _folders

PERIOD_US = 100_000


def can_limit() -> bool:
    """Return whether this process may make groups that limit CPUs and memory."""
    try:
        with limited(memory=1 << 30, cpus=1.0):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def limited(*, memory: int | None = None, cpus: float | None = None) -> Iterator[list[str]]:
    """Make groups; yield the first words of a command whose process is in them, with its children.

    Raises
    ------
    OSError
        If groups cannot be made here.
    """
    limits: dict[str, list[tuple[str, str]]] = {}
    if memory is not None:
        limits["memory"] = [("memory.max", str(memory)), ("memory.limit_in_bytes", str(memory))]
    if cpus is not None:
        quota = int(cpus * PERIOD_US)
        limits["cpu"] = [("cpu.max", f"{quota} {PERIOD_US}"), ("cpu.cfs_quota_us", str(quota))]
    made: set[Path] = set()
    try:
        for controller, files in limits.items():
            made.add(_limit(controller, files))
        entries = " ".join(str(group / "cgroup.procs") for group in made)
        script = f'for each in {entries}; do echo $$ > "$each" || exit 125; done; exec "$@"'
        yield ["sh", "-c", script, "sh"]
    finally:
        for group in made:
            _remove(group)


def _limit(controller: str, files: list[tuple[str, str]]) -> Path:
    """Make a group, or find the one made already, and limit it by the file that it has."""
    for folder in _folders(controller):
        group = Path(folder) / f"batchify-test-{os.getpid()}"
        group.mkdir(exist_ok=True)
        for name, text in files:
            if (group / name).exists():
                (group / name).write_text(text)
                return group
        _remove(group)
    raise OSError(f"no group with the controller {controller}")


def _remove(group: Path) -> None:
    """Remove a group as soon as its last process has ended."""
    for _ in range(100):
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)
