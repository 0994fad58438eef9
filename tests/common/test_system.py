"""How many CPUs and how much memory this process may use: its affinity, and that of containers."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.containers import can_limit, limited
from helpers.running import Run

from batchify.common import cgroups, system
from batchify.common.system import open_regular
from batchify.workers import capacity, engine


@contextmanager
def fresh_limits() -> Iterator[None]:
    """Forget what the groups were asked, before and after."""
    limits = (cgroups.cpu_quota, cgroups.memory_limit)
    for limit in limits:
        limit.cache_clear()
    yield
    for limit in limits:
        limit.cache_clear()


def write_groups(folder: Path, version: int, group: str, root: str, files: dict[str, str]) -> str:
    """Write a tree of groups, and what the kernel says of a process in it; return where."""
    process = folder / "proc"
    process.mkdir()
    top = folder / "cgroup fs"
    mounted = str(top).replace(" ", r"\040")
    if version == 2:
        (process / "cgroup").write_text(f"0::{group}\n")
        mounts = f"31 23 0:28 {root} {mounted} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
    else:
        lines = (f"4:memory:{group}", f"3:cpu,cpuacct:{group}", "1:name=systemd:/", "0::/")
        (process / "cgroup").write_text("\n".join(lines))
        mounts = "".join(
            f"3{i} 23 0:3{i} {root} {mounted}/{name} rw - cgroup cgroup rw,{name}\n"
            for i, name in enumerate(("cpu,cpuacct", "memory"))
        )
    (process / "mountinfo").write_text("22 1 254:0 / / rw - ext4 /dev/vda rw\n" + mounts)
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text + "\n")
    return str(process)


@pytest.mark.parametrize(
    ("version", "group", "root", "files", "cpus", "memory"),
    [
        pytest.param(2, "/", "/", {"cpu.max": "50000 100000", "memory.max": "512"}, 1, 512, id="2"),
        pytest.param(
            2, "/job/step", "/",
            {"job/cpu.max": "250000 100000", "job/step/cpu.max": "max 100000",
             "job/memory.max": "900", "job/memory.high": "800", "job/step/memory.max": "max"},
            3, 800, id="2, of the group around it",
        ),
        pytest.param(
            1, "/docker/1f", "/docker/1f",
            {"cpu,cpuacct/cpu.cfs_quota_us": "150000", "cpu,cpuacct/cpu.cfs_period_us": "100000",
             "memory/memory.limit_in_bytes": "700"},
            2, 700, id="1, a container that sees its group as the root",
        ),
        pytest.param(
            1, "/docker/1f", "/",
            {"cpu,cpuacct/docker/1f/cpu.cfs_quota_us": "-1", "memory/docker/1f/other": ""},
            8, 1000, id="1, without limits",
        ),
        pytest.param(2, "/../elsewhere", "/", {"memory.max": "600"}, 8, 600, id="outside"),
        pytest.param(2, "/", "/", {"cpu.max": "what 0"}, 8, 1000, id="nonsense"),
    ],
)  # fmt: skip
def test_limits_of_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    version: int, group: str, root: str, files: dict[str, str], cpus: int, memory: int,
) -> None:  # fmt: skip
    """A quota is rounded up; the least limit of a group and of those around it holds."""
    process = write_groups(tmp_path, version, group, root, files)
    monkeypatch.setattr(cgroups, "PROCESS", process)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(system, "_count", lambda *_: 3)  # of swap
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 100}.get)
    with fresh_limits():
        assert system.usable_cpus() == cpus
        assert system.usable_memory() == memory
        slowed = 100 if "job/memory.high" in files else 0
        assert system.all_memory() == memory + slowed + 3 * 1024


def test_without_groups_the_affinity_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS and Windows."""
    monkeypatch.setattr(cgroups, "PROCESS", str(tmp_path))
    with fresh_limits():
        assert cgroups.memory_limit() is None
        count = os.cpu_count() or 1
        if hasattr(os, "sched_getaffinity"):
            count = len(os.sched_getaffinity(0))
        assert system.usable_cpus() == count


def test_a_build_says_that_memory_limits_its_workers(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its output and that of --dry-run; not if --workers is given, or nothing is to be done."""
    monkeypatch.setattr(capacity, "usable_cpus", lambda: 8)
    monkeypatch.setattr(capacity, "usable_memory", lambda: 620_000_000)
    said = "3 workers instead of 8: memory is limited to 620.0 MB; pass --workers"
    assert said in run("build", photos, "out.h5", "--dry-run").stdout
    assert said not in run("build", photos, "out.h5", "--workers", "1", "--dry-run").stdout
    assert said in run("build", photos, "out.h5", "--target-size", "20").stdout
    assert (
        "little-memory"
        not in run("build", photos, "out.h5", "--target-size", "20", "--json").stdout
    )
    with engine.Workers(None, batch_nbytes=300_000_000) as workers:
        assert (workers.count, workers.has_room) == (1, True)
    with engine.Workers(None, batch_nbytes=500_000_000) as workers:
        assert (workers.count, workers.has_room) == (1, False)


@pytest.mark.skipif(not can_limit(), reason="no groups may be made here")
def test_limits_of_real_groups() -> None:
    """Half a CPU is one worker; the memory of a group is that of all its processes."""
    code = "from batchify.common import system as s; print(s.usable_cpus(), s.usable_memory())"
    with limited(memory=200 << 20, cpus=0.5) as command:
        done = subprocess.run(
            [*command, sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
    assert done.stdout.split() == ["1", str(200 << 20)]


def test_garbage_collection_is_paused_and_goes_on() -> None:
    """Nested as well; what is off stays off."""
    assert gc.isenabled()
    with system.collection_paused():
        with system.collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with system.collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_process_that_is_forked_in_a_pause_looks_for_garbage() -> None:
    """Nobody would end the pause there."""
    with system.collection_paused():
        child = os.fork()
        if not child:
            os._exit(gc.isenabled())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_more_workers_than_anyone_needs_are_told(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are used all the same, as far as the system allows."""
    monkeypatch.setattr(capacity, "usable_cpus", lambda: 2)
    assert (
        "workers for 2 CPUs"
        not in run("build", photos, "o.h5", "--workers", "16", "--dry-run").stdout
    )
    said = run("build", photos, "o.h5", "--workers", "300", "--dry-run").stdout
    assert "300 workers for 2 CPUs" in said
    assert "--workers 2 is the default" in said
    monkeypatch.setattr(capacity, "MOST", 61)
    with engine.Workers(300) as workers:
        assert "61 workers instead of 300" in str(workers.warnings[0])


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs of POSIX")
def test_only_regular_files_and_open_pipes_are_opened(tmp_path: Path) -> None:
    """A FIFO would wait for its writer; a pipe of a shell has one. Others name what is wrong."""
    (tmp_path / "list.txt").write_bytes(b"a\n")
    with open_regular(tmp_path / "list.txt") as file:
        assert file.read() == b"a\n"
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", os.devnull):
        with pytest.raises(OSError, match="it is not a regular file"):
            open_regular(path)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    reading, writing = os.pipe()
    os.write(writing, b"b\n")
    os.close(writing)
    with open_regular(f"/dev/fd/{reading}") as file:
        assert file.read() == b"b\n"
    os.close(reading)
