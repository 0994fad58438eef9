"""Progress, the value that progress callbacks receive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a build or a verification is.

    Parameters
    ----------
    stage : str
        In a build: ``scan``, ``hash`` (where files of the same bytes stay together), ``allocate``,
        ``check`` (the rows of an earlier build), ``fill`` or ``seal``. In a verification:
        ``verify``, ``hash`` or ``decode``. In a check: ``scan`` or ``decode``.
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
"""Called with how far a run is, for every stage and every task; it may raise to end the run."""
