"""A disk that is really full: a small tmpfs, mounted in a namespace that ends with the test.

The namespace lives as long as its first process, so each scenario is a process: this file, run as
a script with the name of the scenario and a folder. What it asserts there fails the test here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.drawing import draw_dataset

IMAGES = 120
ROW_NBYTES = 100 * 100 * 3  # 3.6 MB of rows
DISK_NBYTES = 9 << 20  # room for two such files

WRAPPER = """
import json, os, resource, sys
from pathlib import Path
from batchify.common import durable
from batchify.building import jobs, workfile
from batchify.cli import main

plot = json.loads(sys.argv[1])
jobs.TASK_ROWS = workfile.COMMIT_NBYTES = 1
if not plot["check"]:
    durable.check_room = lambda path, nbytes: None
if not plot["reserve"]:
    durable.reserve = lambda fd, path, nbytes: None

def children():
    for task in Path("/proc/self/task").iterdir():
        yield from map(int, (task / "children").read_text().split())

def strike():
    if plot["limit"]:
        for pid in (os.getpid(), *children()):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (plot["limit"], resource.RLIM_INFINITY))
        return
    with open("ballast", "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass

class Watch:
    def __init__(self):
        self.struck = False

    def __call__(self, state):
        if not self.struck and state.stage == plot["stage"] and state.done >= plot["done"]:
            self.struck = True
            strike()

    def close(self):
        pass

sys.modules["batchify.cli.progress"].make_progress = Watch
main(sys.argv[2:])
"""
"""Runs the command, and at one point of it something else fills the disk, or lowers a limit."""


def main_options(*more: str) -> list[str]:
    """Return the arguments of a build of the dataset next to the disk."""
    size = () if "--target-size" in more else ("--target-size", "100")
    return ["build", "../data", "out.h5", "--batch-size", "1", *size, *more]


def batchify(
    *more: str,
    stage: str = "",
    done: int = 0,
    check: bool = True,
    reserve: bool = True,
    limit: int = 0,
) -> subprocess.CompletedProcess[str]:
    """Run a build on the disk; at image `done` of a stage, fill the disk or limit file sizes."""
    plot = {"stage": stage, "done": done, "check": check, "reserve": reserve, "limit": limit}
    return subprocess.run(
        [sys.executable, "-c", WRAPPER, json.dumps(plot), *main_options(*more)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def failed(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Assert that a build ended with exit code 4 and one message that has all parts."""
    assert done.returncode == 4, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.startswith("Error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert part in done.stderr, (part, done.stderr)
    assert not os.path.exists("out.h5")


def needed_and_free(stderr: str) -> tuple[int, int]:
    """Return the two figures of a message."""
    figures = [
        int(word.strip("(").replace(",", ""))
        for word in stderr.split()
        if word.strip("(").replace(",", "").isdigit()
    ]
    assert len(figures) == 2, stderr
    return figures[0], figures[1]


def continued(*more: str, at_least: int, at_most: int = IMAGES) -> None:
    """Assert that the same command, with room, keeps rows and makes the bytes of a fresh build."""
    Path("ballast").unlink(missing_ok=True)
    done = batchify(*more, "--json")
    assert done.returncode == 0, (done.returncode, done.stderr)
    kept = json.loads(done.stdout)["kept"]
    assert at_least <= kept <= at_most, kept
    same_as_fresh(*more)


def same_as_fresh(*more: str) -> None:
    """Assert that the result is that of a build that nothing disturbed, and all that is left."""
    assert os.listdir() == ["out.h5"], os.listdir()
    found = Path("out.h5").read_bytes()
    Path("out.h5").unlink()
    assert batchify(*more).returncode == 0
    assert found == Path("out.h5").read_bytes()


def scenario_from_the_start() -> None:
    """Offer too little from the start: said before a decode (all are bad), and nothing is left."""
    for image in Path("../data").glob("*/*.jpg"):
        image.write_bytes(b"not an image")
    done = batchify("--target-size", "300")
    failed(done, "make room, or name a target on another disk")
    needed, free = needed_and_free(done.stderr)
    assert needed > IMAGES * 300 * 300 * 3
    assert free == shutil.disk_usage(".").free
    assert os.listdir() == []


def scenario_reservation() -> None:
    """Take space after it was compared: it cannot be reserved, which is said before a decode."""
    for image in Path("../data").glob("*/*.jpg"):
        image.write_bytes(b"not an image")
    Path("ballast").write_bytes(bytes(DISK_NBYTES - IMAGES * ROW_NBYTES // 2))
    done = batchify(check=False)
    failed(done, "No space left on device; make room, or name a target on another disk")
    needed, free = needed_and_free(done.stderr)
    assert needed > IMAGES * ROW_NBYTES > 2 * free > 0
    assert os.listdir() == ["ballast"]


def late(*more: str) -> None:
    """Fill the disk in the middle of a fill that could reserve nothing."""
    done = batchify(*more, stage="fill", done=30, reserve=False)
    failed(done, "out.h5.partial failed: No space left on device", "free some space and run")
    needed, free = needed_and_free(done.stderr)
    assert free == 0
    # what is missing at the end of the fill's first part: neither nothing nor all
    assert 8 * ROW_NBYTES < needed < (IMAGES - 24) * ROW_NBYTES, needed
    assert sorted(os.listdir()) == ["ballast", "out.h5.partial", "out.h5.partial.journal"]
    again = batchify(*more, reserve=False)
    failed(again, "No space left on device")
    continued(*more, at_least=30)


def scenario_late_one_process() -> None:
    """Fill the disk in the middle of a fill by one process."""
    late("--workers", "1")


def scenario_late_workers() -> None:
    """Fill the disk in the middle of a fill by two workers."""
    late("--workers", "2")


def scenario_journal() -> None:
    """Let the journal need a block, where the rows have theirs."""
    more = ("--workers", "1")
    failed(
        batchify(*more, stage="fill", done=4),
        "out.h5.partial.journal failed: No space left on device (4,096 bytes are still needed, "
        "0 bytes are free); free some space and run the command again",
    )
    continued(*more, at_least=30)


def scenario_sealing_gzip() -> None:
    """Leave no room for the second file, of compressed images: nothing decoded is lost."""
    more = ("--workers", "2", "--compression", "gzip")
    done = batchify(*more, stage="seal", done=20)
    failed(
        done, "out.h5.partial.sealing failed: No space left on device", "free some space and run"
    )
    assert sorted(os.listdir()) == ["ballast", "out.h5.partial", "out.h5.partial.journal"]
    continued(*more, at_least=IMAGES)


def scenario_sealing_skipped() -> None:
    """Leave no room for the second file, without the bad image: nothing decoded is lost."""
    bad = Path("../data/a/img_007.jpg")
    bad.write_bytes(b"not an image")
    more = ("--workers", "1", "--on-error", "skip", "--target-size", "80")
    done = batchify(*more, stage="seal", done=0)
    failed(done, "out.h5.partial.sealing", "bytes", "free")
    assert sorted(os.listdir()) == ["ballast", "out.h5.partial", "out.h5.partial.journal"]
    continued(*more, at_least=IMAGES - 1)


def limited(*more: str) -> None:
    """Lower the limit on file sizes in the middle of a fill, in all processes."""
    limit = IMAGES * ROW_NBYTES // 2
    done = batchify(*more, stage="fill", done=30, limit=limit)
    failed(done, "File too large", f"is {limit:,} bytes", "raise the limit and run the command")
    continued(*more, at_least=30, at_most=60)


def scenario_limit_one_process() -> None:
    """Meet a file-size limit in the middle of a fill by one process."""
    limited("--workers", "1")


def scenario_limit_workers() -> None:
    """Meet a file-size limit in the middle of a fill by two workers."""
    limited("--workers", "2")


def scenario_limit_sealing() -> None:
    """Meet a file-size limit in the streaming pass."""
    more = ("--workers", "1", "--compression", "gzip")
    limit = IMAGES * ROW_NBYTES // 4
    failed(batchify(*more, stage="seal", done=1, limit=limit), "File too large", f"{limit:,}")
    continued(*more, at_least=IMAGES)


SCENARIOS: dict[str, Callable[[], None]] = {
    name.removeprefix("scenario_"): value
    for name, value in list(globals().items())
    if name.startswith("scenario_")
}


LONG_SCENARIOS = ("late_one_process", "limit_workers", "limit_sealing", "sealing_skipped")
"""What another scenario shows of workers, of one process, or of sealing."""


def mounted(command: list[str], disk: Path) -> list[str]:
    """Return a command that runs another in a namespace of its own, with a small disk there."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = f'mount -t tmpfs -o size={DISK_NBYTES} tmpfs "$0" && cd "$0" && exec "$@"'
    return ["unshare", *user, "--mount", "sh", "-c", mount, str(disk), *command]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Return a folder on which a small disk can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        tried = subprocess.run(
            mounted(["true"], folder), capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("no unshare on this platform")
    if tried.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {tried.stderr.strip()}")
    return folder


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(name, marks=[pytest.mark.long] if name in LONG_SCENARIOS else [])
        for name in SCENARIOS
    ],
)
def test_a_full_disk_is_an_error_and_no_more(scenario: str, disk: Path) -> None:
    """Exit 4 with bytes needed and free; with room the same command gives the same bytes."""
    draw_dataset(disk.parent / "data", {"a": IMAGES // 2, "b": IMAGES // 2}, size=(110, 110))
    done = subprocess.run(
        mounted([sys.executable, __file__, scenario], disk),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # this file imports helpers
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    SCENARIOS[sys.argv[1]]()
