"""Exchange inputs, outputs, the log and commands with GitHub's runner.

No text of a dataset or a user can become a command to the runner: text is printed while the runner
accepts no commands, and outputs have random delimiters.
"""

from __future__ import annotations

import collections
import os
import secrets
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

TAIL_LINES = 40
"""Lines of a failed command's output for the summary."""
LINE_CHARS = 2000
"""Longer lines are cut in the summary, not in the log."""


class StepError(Exception):
    """The failure of a step, with a message for the user.

    Parameters
    ----------
    message : str
    exit_code : int
        The exit code of the step.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def get(name: str) -> str:
    """Return a variable of the step's `env`; empty if an earlier step did not set it."""
    return os.environ.get(name, "")


def one_of(name: str, *choices: str) -> str:
    """Return an input that must be one of some words.

    Raises
    ------
    StepError
        If it is another word.
    """
    value = get(name)
    if value not in choices:
        raise StepError(f"{_input(name)} is {value!r}, but must be {' or '.join(choices)}")
    return value


def arguments(name: str, *, refused: tuple[str, ...] = ()) -> list[str]:
    """Return the arguments in an input, split as by a shell but without expansion.

    Raises
    ------
    StepError
        If a quotation is not closed, or one of `refused` is among the arguments.
    """
    try:
        parts = shlex.split(get(name))
    except ValueError as error:
        raise StepError(f"{_input(name)} is not quoted as for a shell: {error}") from error
    for part in parts:
        if "\0" in part:
            raise StepError(f"{_input(name)} has a NUL character")
        if part.split("=")[0] in refused:
            raise StepError(f"{_input(name)} has {part}, which is not for the action; remove it")
    return parts


def _input(name: str) -> str:
    return f"input {name.removeprefix('INPUT_').lower().replace('_', '-')}"


def shown(text: str) -> str:
    """Return `text` on one line, with unprintable characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def say(text: str) -> None:
    """Write a line into the log, in UTF-8 wherever the runner is."""
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def tell(*lines: str) -> None:
    """Write lines into the log that hold free text: the runner takes none of them for a command."""
    mark = secrets.token_hex(16)
    say(f"::stop-commands::{mark}")
    for line in lines:
        say(shown(line))
    say(f"::{mark}::")


def annotate(kind: str, title: str, message: str) -> None:
    """Make the runner show an error, a warning or a notice next to the log.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
    """
    title = _escaped(shown(title)).replace(":", "%3A").replace(",", "%2C")
    say(f"::{kind} title={title}::{_escaped(shown(message))}")


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def fail(error: StepError) -> NoReturn:
    """End the step with an error."""
    annotate("error", "batchify", str(error))
    sys.exit(error.exit_code)


def put(**outputs: str) -> None:
    """Set outputs of the step; underscores in names become hyphens."""
    with open(os.environ["GITHUB_OUTPUT"], "a", encoding="utf-8", newline="\n") as file:
        for name, value in outputs.items():
            mark = f"end_{secrets.token_hex(16)}"
            file.write(f"{name.replace('_', '-')}<<{mark}\n{value}\n{mark}\n")


def run(command: list[str], *, stdout: Path | None = None, tail: Path | None = None) -> int:
    """Run a command, with its output in the log, where the runner accepts no commands.

    Parameters
    ----------
    command : list of str
        Program and arguments; no shell is involved.
    stdout : Path, optional
        Receives stdout, instead of the log.
    tail : Path, optional
        Receives the command and the end of its output, if it fails.

    Returns
    -------
    int
        The exit code.
    """
    line = shlex.join(command[:1] and [Path(command[0]).stem, *command[1:]])
    mark = secrets.token_hex(16)
    say(f"::stop-commands::{mark}")
    try:
        say(f"$ {shown(line)}")
        last: collections.deque[bytes] = collections.deque(maxlen=TAIL_LINES)
        with open(stdout or os.devnull, "wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file if stdout else subprocess.PIPE,
                stderr=subprocess.PIPE if stdout else subprocess.STDOUT,
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            )
            said = process.stderr if stdout else process.stdout
            for each in said or ():
                sys.stdout.buffer.write(each)
                sys.stdout.buffer.flush()
                last.append(each[:LINE_CHARS])
            code = process.wait()
        if last and not last[-1].endswith(b"\n"):
            say("")
    except OSError as error:
        say(str(error))
        last, code = collections.deque([str(error).encode()]), 127
    finally:
        say(f"::{mark}::")
    if code and tail:
        text = b"".join([f"$ {shown(line)}\n".encode(), *last]).decode("utf-8", "replace")
        tail.write_text(f"{text.rstrip()}\n(exit code {code})\n", encoding="utf-8")
    return code
