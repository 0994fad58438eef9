"""Serve the page on this machine, until a signal ends it."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from batchify.common.system import missing_extra
from batchify.common.text import printable
from batchify.errors import OptionError

try:
    from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

    from batchify.viewing.app import App
except ImportError as error:
    raise missing_extra("batchify view needs Werkzeug, which", "view", error) from error

from batchify.viewing.catalog import Catalog
from batchify.viewing.images import Images

HOST = "127.0.0.1"

_FIRST_PORT, _PORTS = 20_000, 10_000


@dataclass(frozen=True)
class View:
    """A page that is being served.

    Parameters
    ----------
    url : str
        Its address, with the token.
    url_once : str
        An address that opens it once.
    name : bytes
        The name of the file.
    is_usual : bool
        The port is the usual one of this file, under which the browser keeps its marks.
    """

    url: str
    url_once: str
    name: bytes
    port: int
    is_usual: bool
    server: BaseWSGIServer

    def serve(self) -> None:
        """Answer requests, until an exception ends it."""
        self.server.serve_forever()


class _QuietHandler(WSGIRequestHandler):
    """Answers requests without a line in the terminal for each."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Print errors alone."""
        if type == "error":
            super().log(type, message, *args)


@contextmanager
def view(
    location: str | os.PathLike[str], *, port: int | None = None, trusted: bool = False
) -> Iterator[View]:
    """Open a page about a file for the block; call `View.serve` to answer requests.

    Parameters
    ----------
    location : path or URL
        A file that `batchify.build` made, or a folder of shards.
    port : int, optional
        Of 127.0.0.1. By default one that depends on the content of the file, so that the browser
        finds its marks again; or any, if that is taken.
    trusted : bool
        As for `batchify.open`.

    Raises
    ------
    OptionError
        If the port is in use or not allowed.
    ExtraMissingError
        If Werkzeug cannot be imported.
    FileMissingError, FileAccessError, FileFormatError, RemoteError
        As `batchify.viewing.catalog.Catalog`.
    """
    with Catalog(location) as catalog, Images(catalog, trusted=trusted) as images:
        usual = _FIRST_PORT + int(catalog.identity[:8], 16) % _PORTS
        with _bound(port, usual) as bound:
            number = bound.getsockname()[1]
            token, once = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
            with App(catalog, images, token, once, number) as app:
                server = make_server(
                    HOST, number, app, threaded=True, request_handler=_QuietHandler,
                    fd=bound.fileno(),
                )  # fmt: skip
                try:
                    url, url_once = (f"http://{HOST}:{number}/{each}/" for each in (token, once))
                    yield View(url, url_once, catalog.name, number, number == usual, server)
                finally:
                    server.server_close()


def _bound(port: int | None, usual: int) -> socket.socket:
    """Return a socket that listens on a port of this machine."""
    try:
        return _listen(usual if port is None else port)
    except OSError as error:
        if port is None:
            return _listen(0)
        reason = "in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise OptionError(
            f"port {port} of {HOST} is not free: {printable(reason)}; choose another --port"
        ) from error


def _listen(port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would share a port that is in use
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
        found.listen(64)
    except BaseException:
        found.close()
        raise
    return found
