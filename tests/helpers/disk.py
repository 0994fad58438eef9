"""What a folder may hold after a kill or a power loss, from the operations of a trace.

The model is stricter than ext4, XFS and btrfs are:

- Files are numbered, and a name is an entry of the folder that leads to a number: a rename that is
  lost leaves the content under the old name.
- A kill loses nothing: the page cache outlives the process.
- A power loss keeps, of what was done to a file's content since the last fsync of *that* file, any
  subset, in the order it was done: writes, changes of size, reservations. A write may be torn: of
  the sectors of 512 bytes that it touches any subset arrives, and the size may have grown past
  those that did not, which then read as zeros. What grows otherwise reads as zeros too.
- A power loss keeps, of what was done to names since the last fsync of the *folder*, any subset.
  An fsync of a new file does not make its name durable, and names are no barrier for content:
  a new name may lead to an empty file, a name that was made later may stay while an earlier does
  not. A rename is atomic: both names or neither. A file whose number lost its last name is gone.
- What an fsync made durable stays as it is: no bits rot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from helpers.operations import Operation, Trace

SECTOR_NBYTES = 512
Folder = dict[str, bytes]
"""The content of each file by its name."""


@dataclass
class Disk:
    """What is durable, and what was done since.

    Parameters
    ----------
    names : dict of str to int
    contents : dict of int to bytes
    """

    names: dict[str, int]
    contents: dict[int, bytes]
    _naming: list[Operation] = field(default_factory=list)
    _writing: dict[int, list[Operation]] = field(default_factory=dict)

    @classmethod
    def before(cls, trace: Trace) -> Disk:
        """Return the disk as a trace found it; what it found is durable."""
        return cls(dict(trace.files), dict(trace.contents))

    def do(self, operation: Operation) -> None:
        """Take the next operation of a trace."""
        if operation.kind == "sync folder":
            for each in self._naming:
                _rename(self.names, each)
            self._naming.clear()
        elif operation.kind == "sync":
            for each in self._writing.pop(operation.file, ()):
                self.contents[operation.file] = _written(self.contents[operation.file], each)
        elif operation.kind in ("create", "rename", "unlink"):
            self._naming.append(operation)
        else:
            self._writing.setdefault(operation.file, []).append(operation)

    @property
    def pending(self) -> int:
        """How many operations a power loss may undo."""
        return len(self._naming) + sum(map(len, self._writing.values()))

    def after_kill(self) -> Folder:
        """Return the folder with all that was done."""
        return self._folder(lambda _: True, lambda _: True, _written)

    def after_power_loss(self, random: Random | None = None) -> Folder:
        """Return a folder that a power loss may leave.

        Parameters
        ----------
        random : Random, optional
            Chooses what stays. Without it nothing does that was not synced.
        """
        if random is None:
            return self._folder(lambda _: False, lambda _: False, _written)
        odds = {file: random.choice((0, 0.3, 0.7, 1)) for file in sorted(self.contents)}
        name_odds = random.choice((0, 0.3, 0.7, 1))
        torn = random.choice((0, 0.5))

        def written(content: bytes, operation: Operation) -> bytes:
            if operation.kind == "write" and random.random() < torn:
                return _torn(content, operation, random)
            return _written(content, operation)

        return self._folder(
            lambda _: random.random() < name_odds,
            lambda operation: random.random() < odds[operation.file],
            written,
        )

    def _folder(
        self,
        keeps_name: Callable[[Operation], bool],
        keeps: Callable[[Operation], bool],
        written: Callable[[bytes, Operation], bytes],
    ) -> Folder:
        names, contents = dict(self.names), dict(self.contents)
        for operation in self._naming:
            if keeps_name(operation):
                _rename(names, operation)
        for file, operations in self._writing.items():
            for operation in operations:
                if keeps(operation):
                    contents[file] = written(contents[file], operation)
        return {name: contents[file] for name, file in names.items()}


def _rename(names: dict[str, int], operation: Operation) -> None:
    """Change the entries of a folder; an earlier change may be missing."""
    if operation.kind == "create":
        names[operation.name] = operation.file
        return
    if names.get(operation.name) == operation.file:
        del names[operation.name]
    if operation.kind == "rename":
        names[operation.new_name] = operation.file


def _written(content: bytes, operation: Operation) -> bytes:
    """Return a content after a write, a change of its size, or a reservation."""
    if operation.kind == "truncate":
        return content[: operation.nbytes].ljust(operation.nbytes, b"\0")
    stop = operation.offset + operation.nbytes
    if operation.kind == "allocate":
        return content.ljust(stop, b"\0")
    head = content[: operation.offset].ljust(operation.offset, b"\0")
    return head + operation.data + content[stop:]


def _torn(content: bytes, operation: Operation, random: Random) -> bytes:
    """Return a content after a write of which only some sectors arrived."""
    start, stop = operation.offset, operation.offset + operation.nbytes
    if random.random() < 0.5:
        content = content.ljust(stop, b"\0")  # the size is kept with the names, and was in time
    first = start // SECTOR_NBYTES * SECTOR_NBYTES
    for sector in range(first, stop, SECTOR_NBYTES):
        if random.random() < 0.5:
            low, high = max(start, sector), min(stop, sector + SECTOR_NBYTES)
            data = operation.data[low - start : high - start]
            piece = Operation("write", offset=low, nbytes=high - low, data=data)
            content = _written(content, piece)
    return content
