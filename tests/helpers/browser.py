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


CONTRAST = """
() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith("color(") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
  };
  const luminance = ([r, g, b]) => {
    const [R, G, B] = [r, g, b].map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * R + 0.7152 * G + 0.0722 * B;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = parse(getComputedStyle(each).backgroundColor);
      if (color[3] === 1) return color;
      if (color[3] !== 0) throw new Error("a background that is seen through");
    }
    throw new Error("no background");
  };
  const ratio = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const text = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (element.tagName === "rect") {
      found.push([ratio(parse(getComputedStyle(element).fill), behind(element)), 3, "bar"]);
    } else if (text) {
      const color = parse(getComputedStyle(element).color);
      found.push([ratio(color, behind(element)), 4.5, element.textContent.trim().slice(0, 40)]);
    }
  }
  return found;
}
"""
"""In a page, returns of each text and bar its contrast, the least contrast, and what it is."""


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
