"""Connect to a remote store through fsspec, and retry transient failures.

Each kind of store has its own exceptions. What matters is whether the store has answered: if it
has, it would answer the same again. If not, the failure may be transient, or an outage.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import importlib
import itertools
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent import futures
from typing import Any, Self, TypeVar

from batchify.common.paths import scheme_of, secrets_of, shown_url
from batchify.common.system import collection_paused, missing_extra
from batchify.common.text import printable
from batchify.errors import BatchifyError, OptionError, RemoteError

_SETTLED = frozenset(
    {
        errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EINVAL,
        errno.ENAMETOOLONG, errno.ENOSYS,
    }
)  # fmt: skip
"""Error numbers with which s3fs reports an answer (``s3fs/errors.py``)."""

_LENGTH = 300

_MAY_PASS = (
    "HTTPClientError", "ConnectionError", "IncompleteReadError", "ChecksumError",
    "FlexibleChecksumError", "CredentialRetrievalError", "MetadataRetrievalError",
    "TokenRetrievalError",
)  # fmt: skip
"""Errors of botocore that are no answers, and may pass."""

_AGAIN = (408, 425, 429)
"""HTTP statuses below 500 that mean: try later."""


def is_settled(error: Exception) -> bool:
    """Return whether a store has answered, and would answer the same again."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, OSError):
        return is_settled(cause)  # fsspec's HTTP also raises it when nothing answers
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
    """Return whether an answer says that access is denied."""
    if isinstance(error, PermissionError):
        return True
    status = _status(error)
    plain = type(error) is OSError and error.errno is None
    return status in (401, 403) or plain or getattr(error, "errno", None) == errno.EACCES


def local_reason(error: Exception) -> str:
    """Return an answer in our own words, for HDF5 files, which must not name a server."""
    if isinstance(error, FileNotFoundError):
        return os.strerror(errno.ENOENT)
    if is_denied(error):
        return os.strerror(errno.EACCES)
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) else "the store refuses it"


def error_text(error: BaseException, secrets: Iterable[str] = ()) -> str:
    """Return an error as one line of text, without the secrets that it may contain."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TimeoutError):
        text = "it does not answer in time"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    for secret in secrets:
        text = text.replace(secret, "")
    return text if len(text) <= _LENGTH else text[:_LENGTH] + " …"


T = TypeVar("T")

PATIENCE_S = 60.0
"""How long a store may stay away before that is an error."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 8.0
"""Waits before retries: each is twice the one before. The libraries also retry some failures."""

_TRIES = 3
"""How often a transfer is tried at least, and a request that a library refuses to send at most."""

_POLL_S = 1.0
_LOGGERS = ("aiobotocore", "asyncio", "botocore", "fsspec", "gcsfs", "google", "s3fs", "urllib3")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


class Store:
    """A URL and the file system that serves it, in the process that created it.

    Raises
    ------
    ExtraMissingError
        If the package for such URLs is not installed.
    OptionError
        If no store supports such URLs, or the URL is not valid.
    """

    def __init__(self, url: str) -> None:
        self.shown = shown_url(url)
        self._secrets = secrets_of(url)
        self.fs, root = _connected(url, self.shown, self._secrets)
        self.root = root.rstrip("/")
        self._turn = asyncio.Lock()

    @property
    def is_s3(self) -> bool:
        """Whether it speaks S3."""
        return "s3" in _protocols(self.fs)

    @property
    def is_bucket(self) -> bool:
        """Whether it is a bucket itself."""
        return self.is_s3 and "/" not in self.root

    @property
    def is_web(self) -> bool:
        """Whether it is a web server."""
        return "http" in _protocols(self.fs)

    def path_of(self, name: bytes) -> str:
        """Return the path of a name below the URL."""
        return f"{self.root}/{name.decode('utf-8', 'surrogateescape')}"

    def below(self, name: bytes) -> Self:
        """Return the URL of a name below it."""
        found = copy.copy(self)
        found.root, found.shown = self.path_of(name), f"{self.shown}/{printable(name)}"
        return found

    async def call_async(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Await a method of the file system in fsspec's loop, one at a time if needed."""
        if self.is_s3:
            with collection_paused():  # so many objects that all of the process would be searched
                await self.fs.set_session()
        if self.fs.async_impl:
            return await getattr(self.fs, f"_{method}")(*args, **kwargs)
        async with self._turn:  # FTP, for one, has one connection
            return await asyncio.to_thread(getattr(self.fs, method), *args, **kwargs)

    async def retry_async(
        self, attempt: Callable[[], Awaitable[T]], patience_s: float | None = None
    ) -> T:
        """Await an attempt, and repeat it while the store does not answer.

        Parameters
        ----------
        patience_s : float, optional
            How long it may not answer; `PATIENCE_S` by default.

        Raises
        ------
        OSError, or another
            What the store answered.
        RemoteError
            If it does not answer.
        """
        patience_s = PATIENCE_S if patience_s is None else patience_s
        waits = _waits(time.monotonic() + patience_s)
        for tried in itertools.count(1):
            try:
                async with asyncio.timeout(patience_s):
                    return await attempt()
            except Exception as error:
                if isinstance(error, BatchifyError) or is_settled(error):
                    raise
                wait_s = next(waits, None)
                if wait_s is None or (tried >= _TRIES and _is_unsent(error)):
                    raise self.unreachable(error) from self.cause(error)
            await asyncio.sleep(wait_s)
        raise AssertionError

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the file system, with retries; see `retry_async`."""
        return self.run_in_loop(self.retry_async(lambda: self.call_async(method, *args, **kwargs)))

    def file_size(self, path: str) -> int | None:
        """Return the size of a file in bytes; None if there is no such file.

        Raises
        ------
        OSError, or another
            What the store answered.
        """
        try:
            info = self.call("info", path)
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def retry(self, attempt: Callable[[], T]) -> T:
        """Run a longer transfer, with retries; see `retry_async`.

        It may take any time: the patience begins when it fails.
        """
        waits: Iterator[float] | None = None
        for tried in itertools.count(1):
            try:
                return attempt()
            except Exception as error:
                if isinstance(error, BatchifyError) or is_settled(error):
                    raise
                waits = waits or _waits(time.monotonic() + PATIENCE_S)
                wait_s = next(waits, 0.0 if tried < _TRIES else None)
                if wait_s is None or (tried >= _TRIES and _is_unsent(error)):
                    raise self.unreachable(error) from self.cause(error)
            time.sleep(wait_s)
        raise AssertionError

    def start_in_loop(self, work: Coroutine[Any, Any, T]) -> futures.Future[T]:
        """Start work in fsspec's loop; any thread can wait for the future."""
        from fsspec.asyn import get_loop

        return asyncio.run_coroutine_threadsafe(work, get_loop())

    def run_in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of work in fsspec's loop; cancel it if this thread is interrupted."""
        future = self.start_in_loop(work)
        try:
            while not futures.wait([future], _POLL_S).done:
                pass  # on Windows, a wait without timeout would not notice Ctrl-C
            result: T = future.result()
        finally:
            future.cancel()
        return result

    def unreachable(self, error: BaseException) -> RemoteError:
        """Return the error of a store that does not answer."""
        return RemoteError(f"{self.shown} cannot be reached: {self.error_text(error)}")

    def error_text(self, error: BaseException) -> str:
        """Return an error as one line of text, without secrets."""
        return error_text(error, self._secrets)

    def cause(self, error: BaseException) -> BaseException | None:
        """Return what to raise an error from: None, if a traceback could show secrets of a URL."""
        return None if self._secrets else error


def _waits(end: float) -> Iterator[float]:
    """Yield how long to wait before each retry, until that time of the monotonic clock."""
    wait_s = _FIRST_WAIT_S
    while time.monotonic() + wait_s <= end:
        yield wait_s
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _is_unsent(error: Exception) -> bool:
    """Return whether botocore did not send a request: without credentials, to a wrong name."""
    errors: Any = sys.modules.get("botocore.exceptions")
    if errors is None or not isinstance(error, errors.BotoCoreError):
        return False
    return not isinstance(error, tuple(getattr(errors, name, ()) for name in _MAY_PASS))


def _connected(url: str, shown: str, secrets: list[str]) -> tuple[Any, str]:
    scheme = scheme_of(url)
    if "::" in url:
        raise OptionError(f"{shown}: chained URLs (::) are not supported; name the store only")
    extra = _EXTRAS.get(scheme, "remote")
    if extra != "remote" and "@" in url.partition("://")[2].partition("/")[0]:
        raise OptionError(
            f"{shown}: the URL of a bucket has no user and no password; give credentials as the "
            "tools of the store expect them, in the environment or a configuration file"
        )
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not logger.hasHandlers():  # otherwise Python prints their tracebacks
            logger.addHandler(logging.NullHandler())
    try:
        core = importlib.import_module("fsspec.core")
        # A listing cached by fsspec would grow with the dataset, and be out of date when used.
        fs, root = core.url_to_fs(scheme + url[len(scheme) :], use_listings_cache=False)
    except ImportError as error:
        raise missing_extra(f"{shown} needs what", extra, error) from error
    except ValueError as error:
        raise OptionError(f"{shown} is not valid: {error_text(error, secrets)}") from (
            None if secrets else error
        )
    except Exception as error:  # noqa: BLE001 - some connect right away
        raise RemoteError(f"{shown} cannot be reached: {error_text(error, secrets)}") from (
            None if secrets else error
        )
    if extra != "remote" and not root.strip("/"):
        raise OptionError(f"{shown} names no bucket")
    return fs, root


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
