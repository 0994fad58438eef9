"""A place in a remote store: the one module that imports fsspec."""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent import futures
from typing import Any, TypeVar

from batchify.errors import BatchifyError, ExtraMissingError, OptionError, RemoteError
from batchify.remote.faults import is_settled, told
from batchify.urls import scheme_of, secrets_of, shown_url

T = TypeVar("T")

PATIENCE_S = 60.0
"""How long a store may take to answer what is not an image."""
WAITS_S = (0.5, 2.0)
"""Before each further try. The libraries try several times themselves, where they know when."""

_POLL_S = 1.0

_LOGGERS = ("aiobotocore", "asyncio", "botocore", "fsspec", "gcsfs", "google", "s3fs", "urllib3")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


class Store:
    """A URL, and the file system that serves it; of the process that made it.

    Parameters
    ----------
    url : str

    Raises
    ------
    ExtraMissingError
        If what serves such URLs is not installed.
    OptionError
        If nothing does, or it cannot be meant.
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
        """Whether it is a bucket, and nothing in one."""
        return self.is_s3 and "/" not in self.root

    @property
    def is_web(self) -> bool:
        """Whether it is a web server."""
        return "http" in _protocols(self.fs)

    def path(self, name: bytes) -> str:
        """Return the path of a name below the URL."""
        return f"{self.root}/{name.decode('utf-8', 'surrogateescape')}"

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Await a method of the file system: in fsspec's loop, one at a time where it has to be."""
        if self.fs.async_impl:
            return await getattr(self.fs, f"_{method}")(*args, **kwargs)
        async with self._turn:  # FTP, for one, has one connection
            return await asyncio.to_thread(getattr(self.fs, method), *args, **kwargs)

    async def persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Await an attempt, and try again what may have been a moment.

        Raises
        ------
        OSError, or another
            What the store answered.
        RemoteError
            If it does not answer.
        """
        for wait_s in (*WAITS_S, None):
            try:
                return await attempt()
            except Exception as error:
                if isinstance(error, BatchifyError) or is_settled(error):
                    raise
                if wait_s is None:
                    raise self.outage(error) from error
            await asyncio.sleep(wait_s)
        raise AssertionError

    def ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the file system, and again; see `persist`."""
        return self.wait(self._asked(method, args, kwargs))

    def size(self, path: str) -> int | None:
        """Return the bytes of a file; None where there is none.

        Raises
        ------
        OSError, or another
            What the store answered.
        RemoteError
        """
        try:
            known = self.ask("info", path)
        except FileNotFoundError:
            return None
        return int(known["size"]) if known["type"] == "file" else None

    async def _asked(self, method: str, args: Any, kwargs: Any) -> Any:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.persist(lambda: self.call(method, *args, **kwargs))
        except TimeoutError as error:
            raise self.outage(error) from error

    def insist(self, attempt: Callable[[], T]) -> T:
        """Run an attempt of a longer transfer, and try again; see `persist`."""
        for wait_s in (*WAITS_S, None):
            try:
                return attempt()
            except Exception as error:
                if isinstance(error, BatchifyError) or is_settled(error):
                    raise
                if wait_s is None:
                    raise self.outage(error) from error
            time.sleep(wait_s)
        raise AssertionError

    def start(self, work: Coroutine[Any, Any, T]) -> futures.Future[T]:
        """Begin work in fsspec's loop; the future can be waited for in any thread."""
        from fsspec.asyn import get_loop

        return asyncio.run_coroutine_threadsafe(work, get_loop())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what work in fsspec's loop comes to; gives it up where this thread is ended."""
        future = self.start(work)
        try:
            while not futures.wait([future], _POLL_S).done:
                pass  # on Windows, a wait without end would hear no Ctrl-C
            result: T = future.result()
        finally:
            future.cancel()
        return result

    def outage(self, error: BaseException) -> RemoteError:
        """Return the error of a store that does not answer."""
        return RemoteError(f"{self.shown} cannot be reached: {self.told(error)}")

    def told(self, error: BaseException) -> str:
        """Return an error for people."""
        return told(error, self._secrets)


def _connected(url: str, shown: str, secrets: list[str]) -> tuple[Any, str]:
    scheme = scheme_of(url)
    if "::" in url:
        raise OptionError(f"{shown}: chained URLs (::) are not read; name the store alone")
    extra = _EXTRAS.get(scheme, "remote")
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not logger.hasHandlers():  # then Python prints their tracebacks
            logger.addHandler(logging.NullHandler())
    try:
        core = importlib.import_module("fsspec.core")
        # A listing that fsspec keeps would grow with the dataset, and be old when it is used.
        fs, root = core.url_to_fs(
            scheme + url[len(scheme) :], use_listings_cache=False, skip_instance_cache=True
        )
    except ImportError as error:
        raise ExtraMissingError(
            f"{shown} needs what cannot be imported ({error}); pip install 'batchify-h5[{extra}]'"
        ) from error
    except ValueError as error:
        raise OptionError(f"{shown} cannot be meant: {told(error, secrets)}") from error
    except Exception as error:  # some connect at once
        raise RemoteError(f"{shown} cannot be reached: {told(error, secrets)}") from error
    if extra != "remote" and not root.strip("/"):
        raise OptionError(f"{shown} names no bucket")
    return fs, root


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
