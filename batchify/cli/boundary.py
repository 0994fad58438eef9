"""Turn errors and signals into messages and exit codes."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from batchify._version import JSON_VERSION
from batchify.cli.output import echo
from batchify.cli.verbosity import is_verbose
from batchify.common.text import printable
from batchify.errors import BadImagesError, BatchifyError, BatchifyWarning, OptionError

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]

UNWIND_S = 15.0
"""How long a command may take to end after a signal; workers get 10 s of it."""


class _SignalledError(BaseException):
    """A signal asked this process to end: no library may handle it as an error."""


class _Failure(click.ClickException):
    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        vars(self)["exit_code"] = exit_code  # click declares it for the class


@contextmanager
def boundary(on_signal: str = "", *, json: bool = False) -> Iterator[Callable[[], None]]:
    """Turn an exception into ``Error: …`` on stderr and its exit code.

    The first signal unwinds the command, which closes its files; a second one ends the process
    immediately.

    Parameters
    ----------
    on_signal : str
        What to say after a signal has ended the command.
    json : bool
        Print the failure to stdout as an object, too.

    Yields
    ------
    callable
        Call it now and then: it raises for a signal whose exception was lost, which happens if the
        signal comes while a callback of C code or a finalizer runs.
    """
    try:
        with failure_as_json(json), _boundary(on_signal) as check:
            yield check
    except click.ClickException as error:
        show_cause(error)
        raise


def show_cause(error: click.ClickException) -> None:
    """Print the traceback of a failure, with ``--verbose``."""
    if is_verbose() and error.__cause__ is not None:
        import traceback

        traceback.print_exception(error.__cause__)


@contextmanager
def error_messages() -> Iterator[None]:
    """Turn an exception into its message and exit code."""
    try:
        yield
    except OptionError as error:
        raise click.UsageError(str(error)) from error
    except BatchifyError as error:
        raise _Failure(str(error), error.exit_code) from error
    except BrokenPipeError:
        raise  # click ends quietly when the reader is gone
    except OSError as error:
        where = f" {printable(error.filename)}" if error.filename else ""
        raise _Failure(f"input or output failed{where}: {error.strerror or error}", 4) from error
    except MemoryError as error:
        where = f"{error}: " if error.args else ""
        advice = "out of memory; try fewer --workers or a smaller --batch-size"
        raise _Failure(where + advice, 4) from error


@contextmanager
def _boundary(on_signal: str) -> Iterator[Callable[[], None]]:
    from batchify.common.system import fill_standard_files

    # HDF5 loads no filter plugin for a file; read when the library starts.
    os.environ.setdefault("HDF5_PLUGIN_PRELOAD", "::")
    fill_standard_files()
    received: list[int] = []
    previous: dict[int, Any] = {}
    over = False

    def unwind(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for each in previous:
            signal.signal(each, _exit_now)
        if not over:  # else the command has ended already, and nothing would catch it
            with contextlib.suppress(RuntimeError):  # no thread can be started
                _thread.start_new_thread(end_late, (number,))
            raise _SignalledError

    def end_late(number: int) -> None:
        """Kill a process that does not end: an exception in a library may have left a lock held."""
        time.sleep(UNWIND_S)
        if not over:
            os.write(2, f"Error: {_stopped(number, on_signal)}\n".encode())
            os._exit(128 + number)

    def check() -> None:
        if received:
            raise _SignalledError

    def quiet(lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is not _SignalledError:  # `check` raises that one
            unraisable(lost)

    unraisable, sys.unraisablehook = sys.unraisablehook, quiet
    for number in _SIGNALS:
        # one that was ignored when we came (nohup, a shell's background job) stays ignored
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            previous[number] = signal.signal(number, unwind)
    try:
        with error_messages():
            try:
                with warnings.catch_warnings():  # the command prints them itself
                    warnings.simplefilter("ignore", BatchifyWarning)
                    yield check
            except (Exception, _SignalledError) as error:
                if not received:
                    raise
                # Whatever the error is: the exception of the signal may be lost on its way, in a
                # callback or within a lock, and leave the error of what it interrupted.
                raise _Failure(_stopped(received[0], on_signal), 128 + received[0]) from error
            finally:
                over = True
    finally:
        # After a signal the process is ending: one more ends it immediately, and the errors of
        # threads whose work the signal interrupted are not worth a message.
        sys.unraisablehook = _ignore if received else unraisable
        if not received:
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextmanager
def failure_as_json(wanted: bool) -> Iterator[None]:
    """Print the failure of a command to stdout as an object, in addition to stderr."""
    try:
        yield
    except click.ClickException as error:
        if wanted:
            with contextlib.suppress(OSError):  # the reader is gone: the exit code says it
                echo({"json_version": JSON_VERSION, **failure_json(error)})
        raise


def failure_json(error: click.ClickException) -> dict[str, Any]:
    """Return a failure as plain JSON values.

    That is ``error`` (the message), ``code`` (of the exit) and ``failed``: the images that could
    not be read or decoded, with ``path`` and ``reason``.
    """
    bad = error.__cause__.bad if isinstance(error.__cause__, BadImagesError) else ()
    failed = [{"path": printable(each.path), "reason": each.reason} for each in bad]
    return {"error": error.format_message(), "code": error.exit_code, "failed": failed}


class JsonCommand(click.Command):
    """A command with ``--json``: usage errors are printed as an object, too."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:  # fmt: skip
        """Parse the command line."""
        with failure_as_json(
            "--json" in args or self._is_in_environment("json", info_name, parent)
        ):
            return super().make_context(info_name, args, parent, **extra)

    def _is_in_environment(
        self, name: str, info_name: str | None, parent: click.Context | None
    ) -> bool:
        """Return whether the environment switches a flag on."""
        context = self.context_class(self, info_name=info_name, parent=parent)
        found = [each for each in self.params if each.name == name]
        try:
            return any(
                each.type_cast_value(context, each.value_from_envvar(context)) for each in found
            )
        except click.BadParameter:  # which parsing reports
            return False


def _ignore(_lost: sys.UnraisableHookArgs) -> None:
    pass


def _stopped(number: int, on_signal: str) -> str:
    return f"stopped by {signal.Signals(number).name}{on_signal}"


def _exit_now(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)
