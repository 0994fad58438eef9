"""What the libraries of remote stores raise, and what it means.

Each has exceptions of its own. What counts is whether the store has answered: then asking again
gives the same; else it may be a moment, or an outage.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

_SETTLED = frozenset(
    {
        errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EINVAL,
        errno.ENAMETOOLONG, errno.ENOSYS,
    }
)  # fmt: skip
"""Numbers by which s3fs tells an answer (``s3fs/errors.py``)."""
_LENGTH = 300
_AGAIN = (408, 425, 429)
"""HTTP answers below 500 that say: later."""


def is_settled(error: Exception) -> bool:
    """Tell whether a store has answered, and would answer the same again."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, OSError):
        return is_settled(cause)  # fsspec's HTTP says it where nobody answers, too
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return True
    status = _status(error)
    if status is not None:
        return 400 <= status < 500 and status not in _AGAIN
    if type(error) is OSError and error.errno is None:
        return True  # gcsfs raises it for 403
    return isinstance(error, OSError) and error.errno in _SETTLED


def _status(error: Exception) -> int | None:
    """Return the status of an HTTP answer."""
    for name in ("status", "code"):  # aiohttp's, gcsfs'
        if hasattr(type(error), name) or name in vars(error):
            status = getattr(error, name)
            return status if isinstance(status, int) else None
    return None


def is_denied(error: Exception) -> bool:
    """Tell whether an answer is that this user may not."""
    if isinstance(error, PermissionError):
        return True
    status = _status(error)
    plain = type(error) is OSError and error.errno is None
    return status in (401, 403) or plain or getattr(error, "errno", None) == errno.EACCES


def reason(error: Exception) -> str:
    """Return an answer in words of this machine: they go into files, which name no server."""
    if isinstance(error, FileNotFoundError):
        return os.strerror(errno.ENOENT)
    if is_denied(error):
        return os.strerror(errno.EACCES)
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) else "the store refuses it"


def told(error: BaseException, secrets: Iterable[str] = ()) -> str:
    """Return an error for people, on one line, without some secrets that it may name."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TimeoutError):
        text = "it does not answer in time"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    for secret in secrets:
        text = text.replace(secret, "")
    return text if len(text) <= _LENGTH else text[:_LENGTH] + " …"
