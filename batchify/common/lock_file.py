"""The lock of a target on a file system without locks: a file that only one process can create."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import sys
import time
from typing import Any

from batchify.common import durable
from batchify.common.text import printable
from batchify.errors import OutputIOError, OutputLockedError

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | durable.O_BINARY
_MOST_PID = 1 << 31
_TRIES = 20
_TRY_S = 0.05
"""Another process may have created the file and not written it yet."""


class LockFile:
    """A lock that a process holds until it releases it; a kill leaves it behind.

    The file says who holds it. The lock of a process of this machine that has ended is taken over.
    Whether a process of another machine has ended is not known: its lock is never taken over.

    Attributes
    ----------
    stale : str
        The former holder of a lock that was taken over, as text; empty if no one held it.

    Raises
    ------
    OutputLockedError
        If another process holds it, or may hold it.
    OutputIOError
        If it cannot be created.
    """

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._token = secrets.token_hex(4)
        self._content = json.dumps({**_whoami(), "token": self._token}).encode()
        self.stale = ""
        try:
            self._take(path)
        except BaseException as error:
            with contextlib.suppress(OSError, OutputLockedError):
                self.release()
            if isinstance(error, OSError) and not isinstance(error, OutputIOError):
                raise durable.io_error("locking", path, error) from error
            raise

    def _take(self, path: bytes) -> None:
        """Create the file; replace that of a process that has ended.

        Only one process can create the file by which it claims a certain stale lock. It then
        renames its claim over that lock, which no one else can have replaced meanwhile.
        """
        while not self._create(path):
            holder = _read(path)
            if holder is None:
                continue  # it was released
            if not _has_ended(holder):
                raise _locked(path, holder)
            claim = path + b"." + os.fsencode(str(holder["token"]))
            self._take(claim)
            found = _read(path)
            if found is not None and found["token"] == holder["token"]:
                os.replace(claim, path)
                self.stale = f"process {holder['pid']} of this machine, which has ended"
                return
            durable.remove(claim)

    def _create(self, path: bytes) -> bool:
        """Create the file, with who holds it; return whether it was not there."""
        try:
            fd = os.open(path, _FLAGS, 0o666)
        except FileExistsError:
            return False
        try:  # at once: a kill in between leaves a file that does not say whose it is
            durable.pwrite_all(fd, self._content, 0)
        except BaseException:
            durable.remove(path)
            raise
        finally:
            os.close(fd)
        return True

    def release(self) -> None:
        """Remove the file, if it is still that of this lock."""
        found = _read(self._path)
        if found is not None and found["token"] == self._token:
            durable.remove(self._path)


def _locked(path: bytes, holder: dict[str, Any]) -> OutputLockedError:
    where = printable(str(holder["host"]))
    return OutputLockedError(
        f"another build is writing this target: process {holder['pid']} on {where} holds "
        f"{printable(path)}; wait for it, or name another target (or remove that file, if you know "
        "that the process has ended)"
    )


def _read(path: bytes) -> dict[str, Any] | None:
    """Return who holds a lock; None if it was released.

    Raises
    ------
    OutputLockedError
        If the file does not say who.
    """
    for _ in range(_TRIES):
        try:
            with open(path, "rb") as file:
                holder = json.loads(file.read(4096))
            if _is_holder(holder):
                return dict(holder)
        except FileNotFoundError:
            return None
        except ValueError:
            pass
        time.sleep(_TRY_S)
    raise OutputLockedError(
        f"another build may be writing this target: {printable(path)} does not say which; if none "
        "is, remove that file"
    )


def _is_holder(found: Any) -> bool:
    """Tell whether a lock file says who holds it; in a shared folder, anybody may have made it."""
    if not isinstance(found, dict) or not {*_whoami(), "token"} <= set(found):
        return False
    pid, token = found["pid"], found["token"]
    is_number = type(pid) is int and 0 < pid < _MOST_PID
    return is_number and isinstance(token, str) and re.fullmatch("[0-9a-f]{8}", token) is not None


def _whoami() -> dict[str, Any]:
    """Return what identifies this process among those of all machines."""
    return {
        "host": socket.gethostname(),
        "boot": _line("/proc/sys/kernel/random/boot_id"),
        "processes": _namespace(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _namespace() -> str:
    """Return which process numbers this process knows: those of a container are its own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _line(path: str) -> str:
    """Return the first line of a file of the system; empty where there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process started, in ticks since the boot; "ended" for one that is a zombie."""
    state, *rest = _line(f"/proc/{pid}/stat").rpartition(")")[2].split() or [""]
    return "ended" if state in ("Z", "X") else rest[18] if len(rest) > 18 else ""


def _has_ended(holder: dict[str, Any]) -> bool:
    """Tell whether the process that holds a lock is known to have ended."""
    me = _whoami()
    if holder["host"] != me["host"]:
        return False
    if holder["boot"] != me["boot"]:
        return True
    if holder["processes"] != me["processes"] or sys.platform == "win32":
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it runs, as another user
    return bool(_started(holder["pid"]) != holder["started"])
