"""What the libraries of remote stores raise, and what it means.

Each has exceptions of its own. What counts is whether the store has answered: then asking again
gives the same; else it may be a moment, or an outage.
"""

from __future__ import annotations

import errno
import os

_SETTLED = frozenset(
    {
        errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EINVAL,
        errno.ENAMETOOLONG, errno.ENOSYS,
    }
)  # fmt: skip
"""Numbers by which s3fs tells an answer (``s3fs/errors.py``)."""
_AGAIN = (408, 425, 429)
"""HTTP answers below 500 that say: later."""


def is_settled(error: Exception) -> bool:
    """Tell whether a store has answered, and would answer the same again."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return True
    status = getattr(error, "status", getattr(error, "code", None))  # aiohttp's, gcsfs'
    if isinstance(status, int):
        return 400 <= status < 500 and status not in _AGAIN
    if type(error) is OSError and error.errno is None:
        return True  # gcsfs raises it for 403
    return isinstance(error, OSError) and error.errno in _SETTLED


def is_denied(error: Exception) -> bool:
    """Tell whether an answer is that this user may not."""
    if isinstance(error, PermissionError):
        return True
    status = getattr(error, "status", getattr(error, "code", None))
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


def told(error: BaseException, secret: str = "") -> str:
    """Return an error for people, on one line, without a secret that is in it."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TimeoutError):
        text = "it does not answer in time"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return text.replace(secret, "…") if secret else text
