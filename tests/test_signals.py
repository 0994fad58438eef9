"""Ctrl-C, SIGTERM, SIGHUP at any point of a build: a message, an exit code, and work that is kept.

A parent process imports all that a build needs, once, and forks a child for each point: the child
runs the command with a profile function that counts calls and returns and sends the signal at the
n-th. So points lie between all system calls, and are the same on every run.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawing import draw_dataset, save

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals differ there")

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
STAGES = ("scan", "allocate", "check", "fill", "seal")
POINTS = 14
"""Of each stage and signal; ten times as many with --long."""

HANG_S = 20
KEPT = 8
"""Images that an earlier build left, so that there is something to check."""

SERVER = """
import json, os, signal, sys, traceback

import click  # all that a build imports is there before the first fork
from batchify import builder, cli, engine, seal, structure, tasks, workfile
from batchify.cli import main, report, text

tasks.TASK_ROWS, workfile.COMMIT_NBYTES = 2, 1
SOURCES = tuple(json.loads(sys.argv[1]))

def build(arguments, number, n, log):
    # Run a build in this process; at the n-th event send the signal, or only count them.
    stages, counted = [], [0]

    def event(frame, kind, argument):
        if not stages or not frame.f_code.co_filename.startswith(SOURCES):
            return
        counted[0] += 1
        if counted[0] == n:
            sys.setprofile(None)
            os.write(log, json.dumps([stages[-1][0], kind, frame.f_code.co_qualname]).encode())
            os.kill(os.getpid(), number)

    class Watch:
        def __call__(self, state):
            if not stages or stages[-1][0] != state.stage:
                stages.append((state.stage, counted[0]))

        def close(self):
            pass

    sys.modules["batchify.cli.build"].make_progress = lambda quiet: Watch()
    sys.setprofile(event)
    try:
        main(arguments)
    finally:
        sys.setprofile(None)
        if not n:
            os.write(log, json.dumps([stages, counted[0]]).encode())

for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if not pid:
        code = 255
        signal.alarm(order["timeout_s"])
        os.chdir(order["folder"])
        for fd, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            build(order["arguments"], order["number"], order["n"], log)
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Server:
    """The process that forks builds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        import batchify

        sources = [os.path.dirname(batchify.__file__)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, json.dumps(sources)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def build(self, *options: str, number: int = 0, n: int = 0) -> int:
        """Run a build, with a signal at the n-th event; return the exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        arguments = [
            "build", "data", "out.h5", "--target-size", "20", "--batch-size", "2",
            "--workers", "1", *options,
        ]  # fmt: skip
        order = {
            "folder": str(self.folder),
            "arguments": arguments,
            "number": number,
            "n": n,
            "timeout_s": HANG_S,
        }
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def log(self) -> Any:
        """Return what the build before wrote: where it was hit, or its stages and its events."""
        text = (self.folder / "log").read_text()
        return json.loads(text) if text else None

    @property
    def stderr(self) -> str:
        """What the build before said."""
        return (self.folder / "stderr").read_text()
