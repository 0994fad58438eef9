"""Show progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from batchify.common.progress import Progress, ProgressCallback


LINE_S = 5.0

COUNTED = ("check", "fill", "seal", "verify", "hash", "decode", "merge")
"""The stages that count images."""

SENT = ("download", "upload")
"""The stages that count bytes."""


class ProgressBar:
    """Shows progress as a tqdm bar."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __call__(self, progress: Progress) -> None:
        """Show how far the build is."""
        if progress.stage != self._stage:
            self.close()
            self._stage = progress.stage
        if progress.stage not in (*COUNTED, *SENT) or not progress.total:
            return
        if self._bar is None:
            from tqdm import tqdm

            sent = progress.stage in SENT
            self._bar = tqdm(
                total=progress.total, unit="B" if sent else "image", unit_scale=sent,
                file=sys.stderr, leave=False,
            )  # fmt: skip
        self._bar.set_description(progress.split or progress.stage, refresh=False)
        if progress.bad:
            self._bar.set_postfix(bad=progress.bad, refresh=False)
        self._bar.update(progress.done - self._bar.n)

    def close(self) -> None:
        """Remove the bar from the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ProgressLines:
    """Shows progress as lines, one every few seconds."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self._stage = ""

    def __call__(self, progress: Progress) -> None:
        """Print how far the build is, if the last line is some seconds old."""
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._started = progress.stage, now
        if progress.stage not in (*COUNTED, *SENT) or now - self._last < LINE_S:
            return
        self._last = now
        rate = progress.done / max(now - self._started, 0.001)
        if progress.stage in SENT:
            from batchify.common.text import size_text

            done, total = size_text(progress.done), size_text(progress.total)
            click.echo(f"{progress.stage}: {done} of {total}, {size_text(rate)}/s", err=True)
            return
        bad = f", {progress.bad:,} bad" if progress.bad else ""
        click.echo(
            f"{progress.split or progress.stage}: {progress.done:,} of {progress.total:,} images, "
            f"{rate:,.0f} images/s{bad}",
            err=True,
        )

    def close(self) -> None:
        """Nothing is open."""


class NoProgress:
    """Shows nothing."""

    def __call__(self, progress: Progress) -> None:
        """Ignore it."""

    def close(self) -> None:
        """Nothing is open."""


def make_progress(*, quiet: bool) -> ProgressBar | ProgressLines | NoProgress:
    """Return a bar for a terminal, lines for a file or a pipe."""
    if quiet:
        return NoProgress()
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    return ProgressBar() if on_terminal else ProgressLines()


@contextmanager
def shown_progress(check_signals: Callable[[], None], *, quiet: bool) -> Iterator[ProgressCallback]:
    """Show progress while a library call runs; the value is its callback."""
    progress = make_progress(quiet=quiet)

    def step(state: Progress) -> None:
        check_signals()
        progress(state)

    try:
        yield step
    finally:
        progress.close()
