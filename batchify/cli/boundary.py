"""The one place where errors and signals become messages and exit codes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click

from batchify.errors import BatchifyError, OptionError

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class _SignalledError(BaseException):
    """A signal asked this process to end; not an error that any library may handle."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Failure(click.ClickException):
    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        vars(self)["exit_code"] = exit_code  # click declares it of the class


@contextmanager
def boundary() -> Iterator[Callable[[], None]]:
    """Turn what is raised within into ``Error: …`` on stderr and the exit code it stands for.

    The first signal unwinds the command, which closes its files; a second one ends the process
    at once.

    Yields
    ------
    callable
        Raises for a signal whose exception was lost on the way, as it is where it comes while a
        callback of C code or a finalizer runs; to be called now and then.
    """
    received: list[int] = []

    def unwind(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for each in _SIGNALS:
            signal.signal(each, _end_at_once)
        raise _SignalledError(number)

    def check() -> None:
        if received:
            raise _SignalledError(received[0])

    kept = {number: signal.signal(number, unwind) for number in _SIGNALS}
    try:
        yield check
    except OptionError as error:
        raise click.UsageError(str(error)) from error
    except BatchifyError as error:
        raise _Failure(str(error), error.exit_code) from error
    except _SignalledError as error:
        name = signal.Signals(error.number).name
        raise _Failure(
            f"stopped by {name}; the target is as it was. Run the same command again to build it",
            128 + error.number,
        ) from error
    except MemoryError as error:
        raise _Failure("out of memory; try fewer --workers or a smaller --batch-size", 1) from error
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)
