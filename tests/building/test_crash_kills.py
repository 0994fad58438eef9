"""kill -9 at random moments: whatever it hits, the same command ends in the same bytes."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers.drawing import draw_dataset

pytestmark = pytest.mark.skipif(
    not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists(),
    reason="no kill -9 or no /proc with the children of a process",
)


KILLS = 1
"""That landed, in each of the chains."""

LONG_KILLS = 260
"""The same with --long."""

COMMITS = 60
WORKER_DEATH_S = 60.0
"""How long a command may take to end after its worker was killed; and a worker, its parent. On a
machine that is not busy it is a moment; what hangs would do so for two minutes."""

WRAPPER = """
import sys
from batchify.building import jobs, workfile
from batchify.cli import main
from batchify.storage import stamps
stamps.SETTLED_NS = 0
jobs.TASK_ROWS, workfile.COMMIT_NBYTES = 2, 2 * 64 * 64 * 3
main(sys.argv[1:])
"""


@dataclass(frozen=True)
class Process:
    """A process, distinguished from a later one with the same number."""

    pid: int
    started: str

    @staticmethod
    def find(pid: int) -> Process | None:
        """Return the process that runs under a number; None if none does."""
        try:
            state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if state in "ZX" else Process(pid, others[18])

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return Process.find(self.pid) == self

    def kill(self) -> bool:
        """Kill it; tell whether it was there to be killed."""
        if not self.is_alive:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
            return True
        return False


def workers_of(pid: int) -> list[Process]:
    """Return the worker processes of a build, without Python's resource tracker."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                with contextlib.suppress(OSError):
                    if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                        found.append(Process.find(int(child)))
    return [process for process in found if process is not None]


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for a condition; tell whether it came true in time."""
    ends = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.001)
    return True


@dataclass
class Chain:
    """Builds of one target, killed again and again."""

    folder: Path
    options: tuple[str, ...]
    before: bytes | None
    random: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    orphans: list[Process] = field(default_factory=list)
    expected: bytes = b""
    seal_s: float = 0.0

    @property
    def out(self) -> Path:
        """The target."""
        return self.folder / "out.h5"

    @property
    def landed(self) -> int:
        """How many kills hit a build that had a work file already."""
        return sum(self.kills.values()) - self.kills["before the work file"]

    def beside(self, suffix: str) -> Path:
        """Return a file that a build keeps next to its target."""
        return self.folder / f"out.h5.partial{suffix}"

    def is_sealing(self, name: str = "out.h5") -> bool:
        """Tell whether a file that is complete is made from the work file.

        One that is allocated has the same name, before there is a work file.
        """
        work = self.folder / f"{name}.partial"
        return work.exists() and work.with_name(f"{work.name}.sealing").exists()

    def records(self) -> int:
        """Return how many whole records the journal has."""
        try:
            return self.beside(".journal").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def command(self, name: str = "out.h5") -> list[str]:
        """Return the command that builds."""
        return [
            sys.executable, "-c", WRAPPER, "build", "data", name, "--target-size", "64",
            "--interpolation", "lanczos", "--batch-size", "2", "--workers", "2", *self.options,
        ]  # fmt: skip

    def target(self) -> bytes | None:
        """Return what is under the name of the target."""
        try:
            return self.out.read_bytes()
        except FileNotFoundError:
            return None

    def begin(self) -> None:
        """Put the folder into the state before the first build."""
        if self.before is None:
            self.out.unlink(missing_ok=True)
        else:
            self.out.write_bytes(self.before)

    def wait_for_moment(self, process: subprocess.Popen[bytes], *, all_landed: bool) -> None:
        """Wait until a drawn moment of a build: at its start, at a commit, in the seal.

        A moment in the fill is a number of commits from now and some ms after the last of them,
        for what lies between two commits takes some ms.
        """
        kind = self.random.choices(("fill", "start", "seal"), (75, 8, 17))[0]
        if all_landed:
            kind = "seal"  # rare, where it takes a few ms
        elif kind == "seal" and not self.seal_s:
            kind = "fill"  # the work file itself is renamed
        if kind == "start":
            wait_until(lambda: process.poll() is not None, self.random.uniform(0.1, 0.5))
            return
        late: Callable[[], bool]
        if kind == "seal":
            late = self.is_sealing
        elif not self.records() and self.random.random() < 0.3:
            late = self.beside("").exists
        else:
            records = self.records() + self.random.randint(1, 5)

            def late() -> bool:
                return self.records() >= records

        wait_until(lambda: process.poll() is not None or late() or self.is_sealing(), 60)
        longest = self.seal_s if kind == "seal" else 0.01
        time.sleep(self.random.choice((0.0, self.random.uniform(0, longest))))

    def stage(self) -> str:
        """Return the stage of a build, by the files next to its target."""
        if self.target() not in (self.before, None):
            return "after the rename"
        if self.is_sealing():
            return "seal"
        if not self.beside("").exists():
            return "before the work file"
        return "fill" if self.records() else "allocation"

    def disturb(self, *, all_landed: bool) -> bool:
        """Run the command once and kill some of it; tell whether it completed."""
        # a file rather than a pipe: the end of a pipe would be that of the last orphan
        with (
            (self.folder / "stderr").open("w+") as output,
            subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=output,
                process_group=0,
            ) as process,
        ):
            self.wait_for_moment(process, all_landed=all_landed)
            whom = self.random.choice(("parent", "worker", "all"))
            workers = workers_of(process.pid)
            parent = Process.find(process.pid)
            hit = False
            if whom == "worker" and workers and process.poll() is None:
                hit = self.random.choice(workers).kill()
            elif whom == "parent" and parent is not None:
                hit = parent.kill()
            elif whom == "all" and parent is not None:
                hit = parent.is_alive
                os.killpg(process.pid, signal.SIGKILL)
            stage = self.stage()
            self.orphans += workers
            try:
                process.wait(timeout=WORKER_DEATH_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise AssertionError(f"{whom} killed in {stage}: it does not end") from None
            output.seek(0)
            stderr = output.read()
        assert self.target() in (self.before, self.expected), f"{whom} killed in {stage}"
        assert "Traceback" not in stderr, f"{whom} killed in {stage}: {stderr}"
        if process.returncode == 0:
            if whom == "worker" and hit:
                self.kills[stage] += 1  # which accuses nobody, and others go on
            return True
        assert hit, stderr
        assert process.returncode == -signal.SIGKILL, (process.returncode, stderr)
        self.kills[stage] += 1
        return False

    def check_no_orphans(self) -> None:
        """Assert that no worker outlived its parent; the next build may have begun already."""
        gone = wait_until(lambda: not any(o.is_alive for o in self.orphans), WORKER_DEATH_S)
        assert gone, [o for o in self.orphans if o.is_alive]
        self.orphans.clear()

    def build_fresh(self) -> None:
        """Build once undisturbed: the bytes to expect, and how long the streaming pass takes."""
        with subprocess.Popen(
            self.command("fresh.h5"), cwd=self.folder, stdout=subprocess.DEVNULL
        ) as process:
            wait_until(lambda: process.poll() is not None or self.is_sealing("fresh.h5"), 60)
            began = time.monotonic()
            if process.poll() is None:
                wait_until(lambda: not self.is_sealing("fresh.h5"), 60)
                self.seal_s = time.monotonic() - began
        assert process.returncode == 0
        self.expected = (self.folder / "fresh.h5").read_bytes()

    def run(self, kills: int, seal_kills: int) -> None:
        """Build until so many kills have landed, some in the seal, and the last build is whole."""
        self.begin()
        while True:
            enough = self.landed >= kills
            if not enough or self.kills["seal"] < seal_kills:
                completed = self.disturb(all_landed=enough)
            else:
                done = subprocess.run(
                    self.command(), cwd=self.folder, capture_output=True, text=True, check=False,
                    timeout=60,
                )  # fmt: skip
                assert done.returncode == 0, done.stderr
                completed = True
            if self.random.random() < 0.5:
                self.check_no_orphans()
            if not completed and self.before is None and self.target() is not None:
                # killed between the rename and the end: the file is there, which is said
                self.finish_after_the_rename()
                completed = True
            if completed:
                assert self.target() == self.expected
                assert not list(self.folder.glob("*.partial*"))
                if self.landed >= kills and self.kills["seal"] >= seal_kills:
                    break
                self.begin()
        self.check_no_orphans()

    def finish_after_the_rename(self) -> None:
        """Resume after a kill that came when the target was complete."""
        assert self.target() == self.expected
        done = subprocess.run(
            self.command(), cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert "is up to date" in done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Draw photos that take some ms each, two for each commit."""
    root = tmp_path_factory.mktemp("kills") / "data"
    yield draw_dataset(root, {"a": COMMITS, "b": COMMITS}, size=(500, 400))
    shutil.rmtree(root)


@pytest.mark.parametrize(
    "chain",
    [
        *("plain", "gzip", "skip", "overwrite", "encoded"),
        pytest.param("jpeg", marks=pytest.mark.long),
    ],
)
def test_random_kills_change_no_byte(
    chain: str,
    root: Path,
    tmp_path: Path,
    long: bool,
    record_property: Callable[[str, object], None],
) -> None:
    """Parent, worker or all, at any moment: in the end the file is that of a fresh build."""
    shutil.copytree(root, tmp_path / "data")
    options: dict[str, tuple[str, ...]] = {
        "plain": (),
        "gzip": ("--compression", "gzip"),
        "skip": ("--on-error", "skip"),
        "overwrite": ("--overwrite",),
        "encoded": ("--store", "encoded", "--on-error", "skip"),
        "jpeg": ("--store", "jpeg", "--on-error", "skip"),
    }
    if chain in ("skip", "encoded", "jpeg"):
        for number in (3, 4, 50):
            (tmp_path / "data" / "a" / f"img_{number:03}.jpg").write_bytes(b"not an image")
    builds = Chain(
        tmp_path,
        options[chain],
        b"an older file" if chain == "overwrite" else None,
        random.Random(chain),
    )
    builds.build_fresh()
    kills = LONG_KILLS if long else KILLS
    builds.run(kills, max(kills // 10, 1) if chain in ("gzip", "skip", "jpeg") else 0)
    record_property("crash: random kill -9", builds.landed)
    assert builds.landed >= kills
    assert builds.kills["fill"] >= kills // 4
