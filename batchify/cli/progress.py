"""Show progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from batchify.cli.verbosity import is_quiet
from batchify.common.progress import COUNTED, SENT, Progress, ProgressBar, ProgressCallback

LINE_S = 5.0


class ProgressLines:
    """Shows progress as lines, one every few seconds."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self._stage = ""

    def __call__(self, progress: Progress) -> None:
        """Print how far a stage is, some seconds after its start and after the last line."""
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._started, self._last = progress.stage, now, now
        if progress.stage not in (*COUNTED, *SENT) or now - self._last < LINE_S:
            return
        self._last = now
        rate = progress.done / max(now - self._started, 0.001)
        if progress.stage in SENT:
            from batchify.common.text import size_text

            done, total = size_text(progress.done), size_text(progress.total)
            click.echo(f"{progress.stage}: {done} of {total}, {size_text(rate)}/s", err=True)
            return
        bad = f", {progress.bad:,} failed" if progress.bad else ""
        click.echo(
            f"{progress.split or progress.stage}: {progress.done:,} of {progress.total:,} images, "
            f"{rate:,.0f} images/s{bad}",
            err=True,
        )

    def close(self) -> None:
        """Nothing is open."""


def make_progress() -> ProgressBar | ProgressLines:
    """Return a bar for a terminal, lines for a file or a pipe."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    return ProgressBar() if on_terminal else ProgressLines()


@contextmanager
def shown_progress(check_signals: Callable[[], None]) -> Iterator[ProgressCallback]:
    """Show progress while a library call runs, unless --quiet; the value is its callback."""
    progress = make_progress()
    quiet = is_quiet()

    def step(state: Progress) -> None:
        check_signals()
        if not quiet:
            progress(state)

    try:
        yield step
    finally:
        progress.close()
