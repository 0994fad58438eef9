"""Progress, the value that progress callbacks receive, and the bar that shows it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

COUNTED = ("check", "fill", "seal", "verify", "hash", "decode", "merge", "export")
"""The stages that count images."""

SENT = ("download", "upload")
"""The stages that count bytes."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a build, a verification or a check.

    Parameters
    ----------
    stage : str
        In a build: ``scan``, ``hash`` (if identical files stay together), ``allocate``,
        ``check`` (the rows of an earlier build), ``fill`` or ``seal``. In a verification:
        ``verify``, ``hash`` or ``decode``. In a check: ``scan`` or ``decode``.
        In an export: ``export``.
    done, total : int
        Images; 0 before the check.
    bad : int
        Images that could not be read or decoded so far.
    split : str
        The current split, while images are decoded.
    """

    stage: str
    done: int = 0
    total: int = 0
    bad: int = 0
    split: str = ""


ProgressCallback = Callable[[Progress], None]
"""Called with the progress after every stage and every task; it may raise to end the run."""


class ProgressBar:
    """Shows progress on stderr as a tqdm bar, in a notebook as a widget."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __call__(self, progress: Progress) -> None:
        """Show how far the run is."""
        if progress.stage != self._stage:
            self.close()
            self._stage = progress.stage
        if progress.stage not in (*COUNTED, *SENT) or not progress.total:
            return
        if self._bar is None:
            sent = progress.stage in SENT
            self._bar = _tqdm()(
                total=progress.total, unit="B" if sent else "image", unit_scale=sent,
                file=sys.stderr, leave=False,
            )  # fmt: skip
        self._bar.set_description(progress.split or progress.stage, refresh=False)
        if progress.bad:
            self._bar.set_postfix(failed=progress.bad, refresh=False)
        self._bar.update(progress.done - self._bar.n)

    def close(self) -> None:
        """Remove the bar from the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _tqdm() -> Any:
    """Return tqdm's class for where this runs."""
    if "ipykernel" in sys.modules:
        from tqdm.auto import tqdm as notebook_bar

        return notebook_bar
    from tqdm import tqdm as bar  # without asyncio, which tqdm.auto imports

    return bar


@contextmanager
def reporting(progress: ProgressCallback | bool | None) -> Iterator[ProgressCallback]:
    """Yield the callback for the `progress` of a public function: True shows a bar meanwhile."""
    if progress is True:
        bar = ProgressBar()
        try:
            yield bar
        finally:
            bar.close()
    elif progress is None or progress is False:
        yield lambda _: None
    elif callable(progress):
        yield progress
    else:
        raise TypeError(f"progress must be True, False or a function, not {progress!r}")
