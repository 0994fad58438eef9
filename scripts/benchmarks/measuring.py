"""Runs a program as a whole process, and says how long it took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = str(Path(__file__).parent / "programs.py")


def seconds(*command: str) -> float:
    """Return the wall time of a whole process; its output is dropped unless it fails."""
    os.sync()  # the writes of the run before are not billed to this one
    started = time.perf_counter()
    done = subprocess.run([sys.executable, PROGRAMS, *command], capture_output=True, check=False)
    took = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr.decode()}")
    return took
