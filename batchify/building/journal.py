"""The journal of a build: lock the target, list durable rows, identify the plan.

A record is a line: the CRC-32 of the JSON text in eight hex digits, a space, the text. The first
describes the plan (see `header`). Each further one says which rows became durable since the one
before:

``rows``
    [split, start, stop, CRC-32 of these rows in the columns that only decoding fills].
``stamps``
    For each of these runs, the stamps of its rows: 8 bytes each, base64. Files without a stamp are
    read again.
``bad``
    [split, row] of the rows whose file failed.
``reset``
    Earlier records are void: ``rows`` are all that a resumed build keeps.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import sys
import zlib
from collections.abc import Mapping
from typing import Any

from batchify.choices import canonical_json
from batchify.common import durable
from batchify.common.closing import Closing
from batchify.common.lock_file import LockFile
from batchify.common.text import printable
from batchify.errors import BatchifyError, BatchifyWarning, OutputLockedError, ResumeError
from batchify.planning.plan import BuildPlan

_FLAGS = (
    os.O_RDWR
    | os.O_CREAT
    | durable.O_BINARY
    | getattr(os, "O_NOFOLLOW", 0)  # a link would redirect the journal to another file
    | getattr(os, "O_NONBLOCK", 0)
)

_RECORD_START = re.compile(rb"[0-9a-f]{8} \{|\0{10}")
"""How a journal starts; a power loss may leave zeros there."""

LOCK = b".lock"
"""Ending of the lock file next to the journal, on a file system without locks."""


class Journal(Closing):
    """The locked journal of one build; only one process can hold it.

    Raises
    ------
    OutputLockedError
        If another build holds it.
    OutputIOError
        If it cannot be created.
    """

    def __init__(self, path: bytes) -> None:
        self.path = path
        self._fd = -1
        self._lock_file: LockFile | None = None
        self._warnings: dict[str, BatchifyWarning] = {}
        try:
            self._fd = self._lock()
        except BaseException:
            self._release()
            raise

    @property
    def warnings(self) -> tuple[BatchifyWarning, ...]:
        """What the file system lacks, and whose stale lock was taken over."""
        return tuple(self._warnings.values())

    def warn(self, warning: BatchifyWarning) -> None:
        """Record a warning about the file system, once for each code."""
        self._warnings[warning.code] = warning

    def _lock(self) -> int:
        while True:
            try:
                fd = os.open(self.path, _FLAGS, 0o666)
            except OSError as error:
                raise durable.io_error("making", self.path, error) from error
            try:
                mine = os.fstat(fd)
                if not stat.S_ISREG(mine.st_mode):
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
                held = durable.try_lock(fd)
                if held is None or (held and os.path.lexists(self.path + LOCK)):
                    self._take_lock_file(needed=held is None)
                    held = True
            except BatchifyError:
                os.close(fd)
                raise
            except OSError as error:
                os.close(fd)
                raise durable.io_error("locking", self.path, error) from error
            if not held:
                os.close(fd)
                raise OutputLockedError(
                    f"another build is writing this target (it holds {printable(self.path)}); "
                    "wait for it, or name another target"
                )
            # The previous holder may have removed the file between our open and our lock.
            if durable.is_named(fd, self.path):
                return fd
            os.close(fd)

    def _take_lock_file(self, *, needed: bool) -> None:
        """Take the lock of a file system without locks, which another machine may need."""
        if self._lock_file is not None:
            return
        path = self.path + LOCK
        self._lock_file = LockFile(path)
        if needed:
            message = (
                f"the file system has no file locks: {printable(path)} was the lock of this build"
            )
            self.warn(BatchifyWarning("no-locks", message))
        if stale := self._lock_file.stale:
            self.warn(BatchifyWarning("stale-lock", f"{printable(path)} was left by {stale}"))

    @property
    def is_ours(self) -> bool:
        """Whether the file is empty, or starts as a journal does."""
        start = durable.pread_all(self._fd, min(10, os.fstat(self._fd).st_size), 0)
        return len(start) < 10 or _RECORD_START.match(start) is not None

    def _release(self) -> None:
        if self._lock_file is not None:
            self._lock_file.release()
            self._lock_file = None

    def empty(self) -> None:
        """Durably remove all records before the file they describe is removed."""
        if os.fstat(self._fd).st_size:
            self._cut(0)

    def begin(self, header: dict[str, Any]) -> None:
        """Empty the journal and write its first record, which describes the plan."""
        self.empty()
        self.append(header)

    def _cut(self, nbytes: int) -> None:
        """Durably truncate: after a power loss, a new record must not follow old bytes."""
        try:
            os.ftruncate(self._fd, nbytes)
            self._sync()
        except OSError as error:
            raise durable.io_error("cutting", self.path, error) from error

    def records(self, *, trusted: bool = False) -> list[dict[str, Any]]:
        """Return the records; cut off an incomplete last one.

        Parameters
        ----------
        trusted : bool
            Cut off everything from the first damaged record on, instead of raising.

        Raises
        ------
        ResumeError
            If a record before the last is damaged: those after it cannot be trusted.
        """
        data = durable.pread_all(self._fd, os.fstat(self._fd).st_size, 0)
        lines = data.splitlines(keepends=True)
        records, nbytes = [], 0
        for number, line in enumerate(lines, 1):
            record = parse_record(line)
            if record is None and trusted:
                break
            if record is None and number < len(lines):
                raise ResumeError(
                    f"record {number} of {len(lines)} in {printable(self.path)} is damaged"
                )
            if record is not None:
                records.append(record)
                nbytes += len(line)
        if nbytes < len(data):
            self._cut(nbytes)
        return records

    def append(self, record: dict[str, Any]) -> None:
        """Write a record and make it durable."""
        text = canonical_json(record).encode()
        data = b"%08x %s\n" % (zlib.crc32(text), text)
        try:
            durable.pwrite_all(self._fd, data, os.fstat(self._fd).st_size)
            self._sync()
        except OSError as error:
            raise durable.io_error("writing", self.path, error) from error

    def _sync(self) -> None:
        if not durable.sync(self._fd):
            message = (
                "the file system cannot sync files (fsync): it decides when the file is durable, "
                "and a power loss before that may damage it"
            )
            self.warn(BatchifyWarning("no-sync", message))

    def remove(self) -> None:
        """Remove the journal and release its lock."""
        if sys.platform == "win32":  # open files cannot be removed there
            self.close()
            durable.remove(self.path)
        else:
            durable.remove(self.path)
            self.close()

    @property
    def is_named(self) -> bool:
        """Whether the journal is locked, and its name still leads to the locked file."""
        return self._fd >= 0 and durable.is_named(self._fd, self.path)

    def close(self) -> None:
        """Release the lock; keep the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._release()


def parse_record(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None if it is damaged or incomplete."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    record: dict[str, Any] = json.loads(text)
    return record


VERSION = 2


def header(plan: BuildPlan) -> dict[str, Any]:
    """Return the first record of a journal, which describes the plan."""
    return {"format": "batchify-journal", "version": VERSION, "plan": plan.identity}


def plain_config(plan: BuildPlan) -> dict[str, Any]:
    """Return the options of a plan as they are read back from JSON."""
    return plain_values(plan.config)


def plain_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as they are read back from JSON."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in config.items()
    }


def is_same_plan(found: Mapping[str, Any], plan: BuildPlan) -> bool:
    """Return whether the first record of a journal describes a plan.

    Raises
    ------
    ResumeError
        If another version of batchify wrote it.
    """
    mine = header(plan)
    if {**found, "plan": ""} != {**mine, "plan": ""}:
        raise ResumeError("it was started by another version of batchify")
    return bool(found["plan"] == mine["plan"])


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences of two mappings as text, one line each."""
    return [
        f"{printable(name)} was {_value_text(before.get(name, 'not given'))}, "
        f"now {_value_text(now.get(name, 'not given'))}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _value_text(value: object) -> str:
    """Return the value of an option on one line; a pattern keeps its backslashes as they are."""
    return "\\".join(map(printable, str(value).split("\\")))
