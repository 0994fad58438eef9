"""Starts traced processes that have their imports behind them: forks of one that only waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from helpers.operations import Fault, Trace
from helpers.tracing import Tracer

TESTS = str(Path(__file__).parents[1])

_PROGRAM = """
import fractions, gc, json, os, secrets, sys, tomllib
import numpy.random, PIL.Image
import batchify.building.build, batchify.building.seal, batchify.cli
import batchify.cli.output
import batchify.workers.engine, batchify.building.jobs, batchify.building.workfile
import batchify.storage.stamps
from helpers.ptrace import filter_syscalls

PIL.Image.init()

batchify.building.jobs.TASK_ROWS = {task_rows}
batchify.building.workfile.COMMIT_NBYTES = {commit_nbytes}
batchify.storage.stamps.SETTLED_NS = 0
batchify.workers.engine.Workers.start = lambda self: None
gc.collect()
gc.freeze()  # or a collection in a fork would copy all pages of what is imported
while line := sys.stdin.readline():
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        break
    os.setpgid(pid, pid)
    os.close(reader)
    print(pid, flush=True)
    sys.stdin.readline()
    os.close(writer)  # the child reads the end, and goes
    os.waitpid(pid, 0)
    print("ended", flush=True)
else:
    os._exit(0)
os.close(writer)
os.read(reader, 1)
filter_syscalls()
arguments, stdout, stderr = json.loads(line)
for number, path in enumerate((os.devnull, stdout, stderr)):
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(fd, number)
    os.close(fd)
batchify.cli.main(arguments, prog_name="batchify")
"""


@dataclass(frozen=True)
class Ended:
    """A command that was traced to its end."""

    trace: Trace
    stdout: str
    stderr: str


class Launcher:
    """A process with batchify imported, that forks one for each command.

    Parameters
    ----------
    scratch : Path
        A folder for what the commands print.
    task_rows, commit_nbytes : int
        Put in the place of `batchify.building.jobs.TASK_ROWS` and
        `batchify.building.workfile.COMMIT_NBYTES`.
    """

    def __init__(self, scratch: Path, *, task_rows: int, commit_nbytes: int) -> None:
        self._stdout, self._stderr = scratch / "stdout", scratch / "stderr"
        program = _PROGRAM.format(task_rows=task_rows, commit_nbytes=commit_nbytes)
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # a fork takes none of the threads of a BLAS along
            env={
                **os.environ,
                "OPENBLAS_NUM_THREADS": "1",
                "PYTHONIOENCODING": "utf-8",
                "PYTHONPATH": os.pathsep.join(filter(None, [TESTS, os.environ.get("PYTHONPATH")])),
            },
        )

    def run(self, arguments: list[str], folder: Path, fault: Fault | None = None) -> Ended:
        """Run a command under the tracer, which watches a folder."""
        self._say(json.dumps([arguments, str(self._stdout), str(self._stderr)]))
        tracer = Tracer(int(self._hear()), folder, fault)
        trace = tracer.run(lambda: self._say("go"))
        assert self._hear() == "ended"
        return Ended(trace, self._stdout.read_text("utf-8"), self._stderr.read_text("utf-8"))

    def _say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Launcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()
