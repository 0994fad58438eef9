"""Wait while a drive or a network mount does not answer."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import TypeVar

from batchify.common.system import TASK
from batchify.common.text import printable
from batchify.errors import BatchifyError, DatasetIOError

_NAMES = (
    "EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN",
    "ENETUNREACH", "ECONNRESET", "ECONNABORTED", "EREMOTEIO",
)  # fmt: skip
_OUTAGES = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))

PATIENCE_S = 60.0
"""How long a drive or a network mount may fail."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.002, 2.0
_GROWTH = 8
_LOOK_S = 0.2

T = TypeVar("T")


def is_outage(error: OSError) -> bool:
    """Tell whether an error is that of a drive or a mount, which may pass, and not of a file."""
    return error.errno in _OUTAGES and not isinstance(error, BatchifyError)


def wait_out(attempt: Callable[[], T], path: bytes, patience_s: float = PATIENCE_S) -> T:
    """Return the result of an attempt, which is repeated while the drive or the mount fails.

    Each wait is an eighth of the time waited so far, and at most two seconds: many short outages
    cost little, and a long one does not keep the drive busy.

    Parameters
    ----------
    path : bytes
        What is read.

    Raises
    ------
    DatasetIOError
        If it still fails when the patience is over.
    OSError, or another
        What the attempt raises otherwise.
    """
    started = time.monotonic()
    while True:
        try:
            return attempt()
        except OSError as error:
            if not is_outage(error):
                raise
            waited_s = time.monotonic() - started
            if waited_s >= patience_s or TASK.is_stopped():
                raise outage_error(error, path, waited_s) from error
        _pause(min(max(waited_s / _GROWTH, _FIRST_WAIT_S), _LONGEST_WAIT_S))


def _pause(wait_s: float) -> None:
    """Wait; shorter if the run ends meanwhile, because of Ctrl-C say."""
    end = time.monotonic() + wait_s
    while (left_s := end - time.monotonic()) > 0 and not TASK.is_stopped():
        time.sleep(min(left_s, _LOOK_S))


def outage_error(error: OSError, path: bytes, waited_s: float) -> DatasetIOError:
    """Return the error of an outage that lasts: what, where, and what to do."""
    return DatasetIOError(
        f"{printable(path)} cannot be read: {os.strerror(error.errno or 0)} (retried for "
        f"{waited_s:.0f} s); check the drive or the network mount, and if it is this file alone, "
        "replace or remove it"
    )
