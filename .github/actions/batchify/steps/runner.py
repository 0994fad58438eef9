"""What a step and the runner tell each other: inputs, outputs, the log, commands.

Nothing that a dataset or a user names can become a command to the runner: free text is printed
while the runner takes none, outputs have delimiters that nobody knows beforehand.
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
"""Of what a command said before it failed, for the summary."""
LINE_CHARS = 2000
"""A longer line is cut in that tail, not in the log."""


class StepError(Exception):
    """What ends a step, in words for its user.

    Parameters
    ----------
    message : str
    exit_code : int
        Of the step.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def get(name: str) -> str:
    """Return what `env` of the step gives; empty where a step before did not come to give it."""
    return os.environ.get(name, "")


def one_of(name: str, *choices: str) -> str:
    """Return an input that is one of some words.

    Raises
    ------
    StepError
        It is another.
    """
    value = get(name)
    if value not in choices:
        raise StepError(f"{_input(name)} is {value!r}, but must be {' or '.join(choices)}")
    return value


def arguments(name: str, *, refused: tuple[str, ...] = ()) -> list[str]:
    """Return the arguments that an input holds, parted as a shell would, nothing expanded.

    Raises
    ------
    StepError
        A quotation does not end, or one of `refused` is among them.
    """
    try:
        parts = shlex.split(get(name))
    except ValueError as error:
        raise StepError(f"{_input(name)} is not quoted as for a shell: {error}") from error
    for part in parts:
        if "\0" in part:
            raise StepError(f"{_input(name)} has a NUL character")
        if part.split("=")[0] in refused:
            raise StepError(f"{_input(name)} has {part}, which is not for the action; leave it out")
    return parts


def _input(name: str) -> str:
    return f"input {name.removeprefix('INPUT_').lower().replace('_', '-')}"


def shown(text: str) -> str:
    """Return `text` on one line, with all that does not print escaped."""
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
    """Have the runner show an error, a warning or a notice beside the log.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
    """
    title = _escaped(shown(title)).replace(":", "%3A").replace(",", "%2C")
    say(f"::{kind} title={title}::{_escaped(shown(message))}")


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def fail(error: StepError) -> NoReturn:
    """End the step."""
    annotate("error", "batchify", str(error))
    sys.exit(error.exit_code)


def put(**outputs: str) -> None:
    """Give outputs of the step; an underscore in a name stands for a hyphen."""
    with open(os.environ["GITHUB_OUTPUT"], "a", encoding="utf-8", newline="\n") as file:
        for name, value in outputs.items():
            mark = f"end_{secrets.token_hex(16)}"
            file.write(f"{name.replace('_', '-')}<<{mark}\n{value}\n{mark}\n")


def run(command: list[str], *, stdout: Path | None = None, tail: Path | None = None) -> int:
    """Run a command, with all that it says in the log, where none of it is a command.

    Parameters
    ----------
    command : list of str
        Program and arguments; no shell is between.
    stdout : Path, optional
        Takes stdout, which is not in the log then.
    tail : Path, optional
        Takes the command and the end of what was in the log, if it fails.

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
