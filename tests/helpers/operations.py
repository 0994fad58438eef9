"""What a traced process did to a folder, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["create", "write", "truncate", "allocate", "sync", "sync folder", "rename", "unlink"]


@dataclass(frozen=True, slots=True)
class Operation:
    """A change that a system call made; the file is a number, whatever its name is by then."""

    kind: Kind
    file: int = -1
    name: str = ""
    new_name: str = ""
    offset: int = 0
    nbytes: int = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that would change the folder, or makes it durable; also one that failed."""

    syscall: str
    name: str
    nbytes: int = 0

    def __str__(self) -> str:
        return f"{self.syscall} of {self.name or 'the folder'}"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the call of a number: an errno, or with none half of the write."""

    call: int
    errno: int = 0


@dataclass
class Trace:
    """What a process did to a folder.

    Attributes
    ----------
    files : dict of str to int
        The files that were there before, by name; `contents` holds their bytes by number.
    """

    files: dict[str, int]
    contents: dict[int, bytes]
    calls: list[Call] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    exit_code: int = -1
