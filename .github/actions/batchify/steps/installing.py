"""Install batchify in an environment of its own, separate from that of the job."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tempfile
import venv
from pathlib import Path

from runner import StepError, arguments, get, put, run, shown

TOP = Path(__file__).resolve().parents[4]
"""The repository of the action, wherever the runner has put it."""


def install() -> None:
    """Create an environment with batchify, and a folder for what the steps pass on."""
    if sys.version_info < (3, 11):  # noqa: UP036 - whichever Python is on the PATH of the runner
        raise StepError(f"Python {platform.python_version()} is too old; set python-version")
    temporary = Path(os.environ["RUNNER_TEMP"])
    if get("INPUT_INSTALL").strip() == "false":
        found = shutil.which("batchify")
        if found is None:
            raise StepError("install is false, but there is no batchify on the PATH")
        command = Path(found)
    else:
        command = _install(arguments("INPUT_INSTALL") or [str(TOP)], temporary)
        if run([str(command), "--version"]):
            raise StepError("the batchify that was installed does not start")
    folder = Path(tempfile.mkdtemp(prefix="batchify-", dir=temporary))
    (folder / "report").mkdir()
    put(python=sys.executable, command=str(command), folder=str(folder))


def _install(wanted: list[str], temporary: Path) -> Path:
    """Install with pip and return the command; a second use in the same job reuses it."""
    identity = "\0".join([sys.version, sys.executable, *wanted])
    place = temporary / f"batchify-venv-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    scripts = place / ("Scripts" if os.name == "nt" else "bin")
    if not (place / "made").exists():
        shutil.rmtree(place, ignore_errors=True)
        venv.create(place, with_pip=True, symlinks=os.name != "nt")
        pip = [str(scripts / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
        if status := run([*pip, "--progress-bar", "off", *wanted]):
            raise StepError(f"pip could not install {shown(' '.join(wanted))}", status)
        (place / "made").touch()
    command = scripts / ("batchify.exe" if os.name == "nt" else "batchify")
    if not command.exists():
        raise StepError(f"{shown(' '.join(wanted))} has no command batchify")
    return command
