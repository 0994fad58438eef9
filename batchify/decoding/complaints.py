"""Catch what libtiff prints while an image is decoded.

It is the only library behind Pillow that prints to stderr (tried with 400 damaged files of each
format). Pillow reports only "decoder error -2" for an error, and nothing if libtiff continues.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from PIL import Image

from batchify.common.text import printable
from batchify.decoding.tiff import TIFF

_TEXT_NBYTES = 400
_MOST = 4
"""Messages that are kept of an image: a damaged fax has one for each line."""

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
"""TIFFErrorHandler (tiffio.h): module, format, va_list."""


class _Listener(threading.local):
    """The messages of the image that each thread decodes; None while it decodes none."""

    messages: list[str] | None = None


class _Libtiff:
    """The libtiff of Pillow; its handler is replaced while any thread decodes a TIFF."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: Any = None
        self._handler = _Handler(self._hear)
        self._pointer = ctypes.cast(self._handler, ctypes.c_void_p)
        self._set, self._format = _functions()

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Replace the handler of the process; threads that decode nothing keep the one before."""
        if self._set is None:
            yield
            return
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = self._set(self._pointer)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._set(self._before)

    def _hear(self, module: bytes | None, text: bytes | None, values: int | None) -> None:
        messages, before = _LISTENER.messages, self._before
        if messages is None:
            if before:
                ctypes.cast(before, _Handler)(module, text, values)
        elif len(messages) < _MOST:
            out = ctypes.create_string_buffer(_TEXT_NBYTES)
            self._format(out, _TEXT_NBYTES, text, values)
            said = b": ".join(part for part in (module, out.value) if part)
            messages.append(printable(said).rstrip("."))


def _functions() -> tuple[Any, Any]:
    """Return TIFFSetErrorHandler and vsnprintf; None if Pillow's libtiff does not export it."""
    try:
        # A symbol is looked up in what the extension is linked to, too.
        set_handler = ctypes.CDLL(vars(Image)["core"].__file__).TIFFSetErrorHandler
        vsnprintf = ctypes.CDLL(None).vsnprintf
    except (OSError, AttributeError, TypeError):  # Windows: linked statically
        return None, None
    set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
    vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]
    return set_handler, vsnprintf


_LISTENER = _Listener()
_made: list[_Libtiff] = []
_MAKING = threading.Lock()


def _libtiff() -> _Libtiff:
    with _MAKING:
        if not _made:
            _made.append(_Libtiff())
        return _made[0]


def heard() -> list[str]:
    """Return what libtiff said so far about the image that this thread decodes."""
    return _LISTENER.messages or []


_NOTHING_SAID: AbstractContextManager[list[str]] = nullcontext([])


def caught_complaints(data: bytes) -> AbstractContextManager[list[str]]:
    """Collect what libtiff says about the image that this thread decodes, instead of printing it.

    Where Pillow's libtiff cannot be reached (on Windows), it prints.

    Parameters
    ----------
    data : bytes
        The file; only TIFF files are decoded by libtiff.

    Returns
    -------
    context manager of list of str
        The first few messages.
    """
    return _listening() if data.startswith(TIFF) else _NOTHING_SAID


@contextmanager
def _listening() -> Iterator[list[str]]:
    with _libtiff().replaced():
        before, _LISTENER.messages = _LISTENER.messages, []
        try:
            yield _LISTENER.messages
        finally:
            _LISTENER.messages = before
