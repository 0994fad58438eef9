"""Finds a browser that the tests may open pages in; run as a script, prints it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FETCHED = Path(__file__).parents[2] / ".venv-browser"
"""Where scripts/setup.sh puts one."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MISSING = (
    "no Chromium or Chrome that starts: install one, or run scripts/test, which fetches one "
    "where npm or playwright's own downloads can be reached (rm -r .venv-browser tries again)"
)


@functools.cache
def find_browser() -> Path | None:
    """Return the first browser that tells its version; None if there is none."""
    return next(filter(_starts, _candidates()), None)


def _candidates() -> Iterator[Path]:
    if named := os.environ.get("BATCHIFY_BROWSER"):
        yield Path(named)
    for name in NAMES:
        if found := shutil.which(name):
            yield Path(found)
    for folder in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
        if folder in os.environ:
            yield Path(os.environ[folder], "Google", "Chrome", "Application", "chrome.exe")
    for name in ("Google Chrome", "Chromium"):
        yield Path(f"/Applications/{name}.app/Contents/MacOS/{name}")
    yield FETCHED / "run"
    for name in ("chrome-headless-shell", "headless_shell"):
        yield from sorted(FETCHED.glob(f"chromium_headless_shell-*/*/{name}*"))


def _starts(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix == ".exe":  # which opens a window rather than tell its version
        return True
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.stdout.write(f"{find_browser() or MISSING}\n")
    sys.exit(find_browser() is None)
