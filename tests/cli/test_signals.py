"""Ctrl-C, SIGTERM, SIGHUP at any point of a build: a message, an exit code, and work that is kept.

A parent process imports all that a build needs, once, and forks a child for each point: the child
runs the command with a profile function that counts calls and returns and sends the signal at the
n-th. So points lie between all system calls, and are the same on every run.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers.drawing import draw_dataset, save

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals differ there")

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
Record = Callable[[str, object], None]

LONG_POINTS = 30
"""In each stage of each case, for each signal, and in each case with workers, with --long."""

HANG_S = 100

SERVER = """
import gc, json, os, signal, sys, traceback

import click  # all that a build imports is there before the first fork
from batchify.building import build as build_module, jobs, seal, workfile
from batchify import cli
from batchify.workers import engine
from batchify.format import structure
from batchify.cli import main, output

jobs.TASK_ROWS, workfile.COMMIT_NBYTES = 2, 1
engine.GRACE_S = 600  # a worker that does not end when it is asked to is found running
DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)

def build(arguments, number, n, group, counts, log):
    # Run a build in this process; at the n-th event send the signal, or only count them.
    stages, counted = [], [0]

    def event(frame, kind, argument):
        if not stages:
            return
        if (not n or counted[0] == n - 1) and signal.getsignal(number or signal.SIGINT) in DEFAULTS:
            return  # the command has ended: a signal does what it does to any Python program
        counted[0] += 1
        if counted[0] == n:
            sys.setprofile(None)
            os.write(log, json.dumps([stages[-1][0], kind, frame.f_code.co_qualname]).encode())
            (os.killpg if group else os.kill)(os.getpid(), number)

    class Watch:
        def __call__(self, state):
            if not stages or stages[-1][0] != state.stage:
                stages.append((state.stage, counted[0]))

        def close(self):
            pass

    sys.modules["batchify.cli.progress"].make_progress = Watch
    if n or counts:
        sys.setprofile(event)
    try:
        main(arguments)
    finally:
        sys.setprofile(None)
        if counts:
            os.write(log, json.dumps([stages, counted[0]]).encode())

gc.collect()
gc.freeze()  # or a collection in a fork would copy all pages of what is imported
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if not pid:
        code = 255
        signal.alarm(order["timeout_s"])
        os.setpgid(0, 0)
        os.chdir(order["folder"])
        for fd, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            build(*(order[key] for key in ("arguments", "number", "n", "group", "counts")), log)
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            traceback.print_exc()
        sys.exit(code)
    print(pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Server:
    """The process that forks builds of one dataset."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pid = 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def build(
        self,
        *options: str,
        number: int = 0,
        n: int = 0,
        workers: int = 1,
        group: bool = False,
        counts: bool = False,
    ) -> int:
        """Run a build, with a signal at the n-th event, or count them; return the exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        arguments = [
            "build", "data", "out.h5", "--target-size", "20", "--batch-size", "2",
            "--workers", str(workers), *options,
        ]  # fmt: skip
        order = {
            "folder": str(self.folder),
            "arguments": arguments,
            "number": number,
            "n": n,
            "group": group,
            "counts": counts,
            "timeout_s": HANG_S,
        }
        print(json.dumps(order), file=self.process.stdin, flush=True)
        self.pid, code = map(int, self.process.stdout.readline().split())
        return code

    def log(self) -> Any:
        """Return what the build before wrote: where it was hit, or its stages and its events."""
        text = (self.folder / "log").read_text()
        return json.loads(text) if text else None

    @property
    def stderr(self) -> str:
        """What the build before said."""
        return (self.folder / "stderr").read_text()

    def still_running(self) -> list[str]:
        """Return the processes of the build before that run, the dead ones left out."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, group, *_ = path.read_text().rpartition(")")[2].split()
                if int(group) == self.pid and state not in "ZX":
                    found.append((path.parent / "cmdline").read_text())
        return found

    def close(self) -> None:
        """End it."""
        self.process.communicate()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Start a server for a folder."""
    server = Server(folder)
    try:
        yield server
    finally:
        server.close()


@dataclass(frozen=True)
class State:
    """What is there before a build: an older target, and what an earlier build left."""

    folder: Path
    files: dict[str, bytes]

    @staticmethod
    def take(folder: Path) -> State:
        """Remember what is there."""
        return State(folder, {path.name: path.read_bytes() for path in folder.glob("out.h5*")})

    def restore(self) -> None:
        """Put it back."""
        for path in self.folder.glob("out.h5*"):
            path.unlink()
        for name, data in self.files.items():
            (self.folder / name).write_bytes(data)


CASES = {
    "plain": (),
    "gzip": ("--compression", "gzip", "--overwrite"),
    "skip": ("--on-error", "skip"),
}
"""A rename; a compressing pass, over an older file and rows of an earlier build; a copying one."""


def prepare(server: Server, case: str) -> tuple[State, bytes]:
    """Return the state to begin from and the bytes to end with."""
    folder = server.folder
    draw_dataset(folder / "data", {"cat": 4, "dog": 6})
    if case == "skip":
        save(folder / "data" / "cat" / "bad.jpg", b"not an image")
    out = folder / "out.h5"
    assert server.build(*CASES[case]) == 0, server.stderr
    expected = out.read_bytes()
    out.unlink()
    if case == "gzip":
        stages, _ = count(server, case)
        fill, seal = (first for name, first in stages if name in ("fill", "seal"))
        out.unlink()
        number = signal.SIGTERM
        assert server.build(*CASES[case], number=number, n=(fill + seal) // 2) == 128 + number
        out.write_bytes(b"an older file")
    return State.take(folder), expected


def count(server: Server, case: str, workers: int = 1) -> tuple[list[tuple[str, int]], int]:
    """Return the stages of a build, each with its first event, and the number of events."""
    assert server.build(*CASES[case], workers=workers, counts=True) == 0, server.stderr
    stages, total = server.log()
    return [(name, first) for name, first in stages], total


TRACKER = re.compile(
    r"^\S*resource_tracker\.py:\d+: UserWarning: resource_tracker: .*\n +warnings\.warn\(.*\n", re.M
)
"""What a process of Python's own says of semaphores whose owner was interrupted amid their making
or removal, or had to end at once."""
LOCKS = ("Condition", "Finalize", "Lock", "RLock", "ResourceTracker", "SemLock")
"""Classes of the standard library in which a signal may lead to that; elsewhere it is a fault."""


def strike(
    server: Server,
    case: str,
    state: State,
    expected: bytes,
    name: str,
    n: int,
    *,
    workers: int = 1,
    group: bool = False,
) -> str:
    """Send a signal at the n-th event of a build, and continue; return the stage it was in."""
    state.restore()
    out = server.folder / "out.h5"
    number = getattr(signal, name)
    code = server.build(*CASES[case], number=number, n=n, workers=workers, group=group)
    where = server.log()
    message = f"Error: stopped by {name}; run the same command again to continue\n"
    found = out.read_bytes() if out.exists() else None
    clue = (name, n, where, code, server.stderr)
    amid = where is not None and where[2].partition(".")[0] in LOCKS
    told = TRACKER.sub("", server.stderr) if amid else server.stderr
    if where is None:
        assert code == 0, clue  # the build had fewer events this time
        return "none"
    if found == expected:
        assert code in (0, 128 + number), clue
        assert told in ("", message), clue
    else:
        assert found == state.files.get("out.h5"), clue
        assert (code, told) == (128 + number, message), clue
        assert server.build(*CASES[case], workers=workers) == 0, (clue, server.stderr)
        assert out.read_bytes() == expected, clue
    assert not list(server.folder.glob("out.h5.partial*")), clue
    return str(where[0])


@dataclass
class Stage:
    """A case that is prepared: its server, what is there before, what comes of it."""

    case: str
    server: Server
    state: State
    expected: bytes
    _counts: dict[int, tuple[list[tuple[str, int]], int]] = field(default_factory=dict)

    def count(self, workers: int = 1) -> tuple[list[tuple[str, int]], int]:
        """Return what `count` does, which runs once."""
        if workers not in self._counts:
            self.state.restore()
            self._counts[workers] = count(self.server, self.case, workers)
        return self._counts[workers]


@pytest.fixture(scope="module", params=CASES)
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Prepare a case."""
    with serving(tmp_path_factory.mktemp("signals")) as server:
        yield Stage(request.param, server, *prepare(server, request.param))


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_at_any_point_loses_nothing(
    stage: Stage, name: str, long: bool, record_property: Record
) -> None:
    """128 + n and one line; the target is as it was, and the next run ends in the same bytes.

    In the short form the signals take turns: each gets a third of the stages of a case.
    """
    points = random.Random(f"{stage.case} {name}")
    stages, total = stage.count()
    wanted = {"scan", "allocate", "fill", "seal"} | ({"check"} if stage.case == "gzip" else set())
    assert wanted <= {each for each, _ in stages}
    ends = [first for _, first in stages[1:]] + [total + 1]
    ranges = list(zip(stages, ends, strict=True))
    hit: Counter[str] = Counter()
    for (each, first), end in ranges if long else ranges[SIGNALS.index(name) :: len(SIGNALS)]:
        for _ in range(LONG_POINTS):
            n = points.randrange(max(first, 1), end)
            at = strike(stage.server, stage.case, stage.state, stage.expected, name, n)
            hit[at] += 1
            if at == each and not long:  # the events of two builds are not quite the same
                break
        assert hit[each]
    record_property("crash: signals", hit.total())


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("stage", ["plain", "gzip"], indirect=True)
def test_a_signal_to_the_group_leaves_no_worker(
    stage: Stage, name: str, long: bool, record_property: Record
) -> None:
    """As a terminal's Ctrl-C: parent and two workers get it; it is the parent's to end them."""
    points = random.Random(f"{stage.case} {name} group")
    hit: Counter[str] = Counter()
    server, case = stage.server, stage.case
    _, total = stage.count(workers=2)
    for _ in range(LONG_POINTS if long else 1):
        n = points.randrange(1, total)
        at = strike(server, case, stage.state, stage.expected, name, n, workers=2, group=True)
        hit[at] += 1
        ends = time.monotonic() + HANG_S
        while server.still_running():
            assert time.monotonic() < ends, server.still_running()
            time.sleep(0.01)
    record_property("crash: signals", hit.total())


SLOW_END = """
import sys, time
from pathlib import Path
from batchify.building import workfile
from batchify.cli import main

class Watch:
    def __call__(self, state):
        if state.stage == "fill" and state.done:
            Path("filling").touch()
            time.sleep(600)

    def close(self):
        Path("ending").touch()
        time.sleep(600)

sys.modules["batchify.cli.progress"].make_progress = Watch
sys.modules["batchify.cli.boundary"].UNWIND_S = float(sys.argv[2])
main(["build", "data", "out.h5", "--workers", sys.argv[1]])
"""
"""A build that a first signal does not end soon."""


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(("first", "second"), [("SIGINT", "SIGINT"), ("SIGTERM", "SIGHUP")])
def test_a_second_signal_ends_it_at_once(
    first: str, second: str, workers: str, photos: Path, tmp_path: Path
) -> None:
    """Whatever the first is waiting for."""
    photos.rename(tmp_path / "data")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_END, workers, "600"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for name, file in ((first, "filling"), (second, "ending")):
            while not (tmp_path / file).exists():
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(getattr(signal, name))
        _, stderr = process.communicate(timeout=HANG_S)
    assert process.returncode == 128 + getattr(signal, second)
    assert "Traceback" not in stderr
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_command_that_cannot_end_is_ended(workers: str, photos: Path, tmp_path: Path) -> None:
    """It says so as any other: a signal within a lock of a library may leave the lock held."""
    photos.rename(tmp_path / "data")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_END, workers, "0.2"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not (tmp_path / "filling").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=HANG_S)
    assert process.returncode == 128 + signal.SIGTERM
    first = stderr.splitlines()[0]
    assert first == "Error: stopped by SIGTERM; run the same command again to continue"
    assert "Traceback" not in stderr
    assert not (tmp_path / "out.h5").exists()
