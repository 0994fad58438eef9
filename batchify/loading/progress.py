"""Where an epoch is, as a small dict of JSON values, to resume it there.

A position counts rows of the order that all ranks share: it is the same on every rank, and another
number of ranks, or another batch size, continues at the same row.
"""

from __future__ import annotations

import hashlib
import operator
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from batchify.choices import check_at_least
from batchify.errors import OptionError
from batchify.loading.indexing import Rows
from batchify.loading.origin import Origin, ViewOrigin

VERSION = 1
"""That of the states that are saved, and the only one that is read."""

_NAMES = {
    "batch_size": "the batch size",
    "content": "the content of the file",
    "files": "the checksum of the files",
    "order": "the checksum of the order",
    "rows": "the number of rows",
    "split": "the split",
}
"""What the keys of a state are called in messages."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Position:
    """A position in an epoch.

    Parameters
    ----------
    row : int
        How many rows of the epoch's order were served, by all ranks together.
    """

    epoch: int
    row: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.epoch, np.integer):  # JSON has no numbers of NumPy
            object.__setattr__(self, "epoch", int(self.epoch))
        check_at_least("epoch", self.epoch, 0)


class Progress:
    """How far one iteration over an epoch is; batches that were only read ahead do not count.

    Attributes
    ----------
    start : Position
        Where it began.
    served : int
        How many batches the caller got.
    finished : bool
        Whether the caller asked for another one after the last.
    """

    def __init__(self, start: Position, ends: Rows) -> None:
        self.start = start
        self.served = 0
        self.finished = False
        self._ends = ends

    def count(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield batches, and count them."""
        for batch in batches:
            self.served += 1
            yield batch
            del batch  # its memory may be free for the next one
        self.finished = True

    def at(self, served: int | None = None) -> Position:
        """Return the position after some batches, by default after those that were served.

        Raises
        ------
        OptionError
            If there are not so many.
        """
        if served is None:
            if self.finished:
                return Position(self.start.epoch + 1)
            served = self.served
        served = operator.index(served)
        if not 0 <= served < len(self._ends):
            raise OptionError(
                f"{served} batches cannot have been used: there are {len(self._ends) - 1}"
            )
        return Position(self.start.epoch, int(self._ends[served]))


def fingerprint(origin: Origin) -> str:
    """Return 16 hexadecimal digits that identify the rows of a split, wherever the file is."""
    parts: list[object] = [origin.split, origin.rows, *origin.digests]
    if isinstance(origin, ViewOrigin):
        parts += [origin.sha256, *map(fingerprint, origin.parts)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def order_checksum(order: Rows) -> int:
    """Return the CRC-32 of an order; it differs if another version draws another order."""
    return zlib.crc32(order.astype("<i8", copy=False).data)


def make_state(position: Position, described: Mapping[str, Any]) -> dict[str, Any]:
    """Return a position and what it is of as JSON values."""
    return {"version": VERSION, "epoch": position.epoch, "row": position.row, **described}


def read_state(state: Any, described: Callable[[int], Mapping[str, Any]]) -> Position:
    """Return the position that a state has, if it matches the rows and their order.

    Parameters
    ----------
    state : dict
        As `make_state` returned it, also after JSON.
    described : callable
        Returns what the state of an epoch must be of.

    Raises
    ------
    OptionError
        If it is not a state, or of something else; the message names what differs.
    """
    check_state(state, {"epoch", "row"})
    epoch, row = state["epoch"], state["row"]
    if not all(type(number) is int and number >= 0 for number in (epoch, row)):
        raise OptionError(f"this state is damaged: epoch {epoch!r}, row {row!r}")
    wanted = described(epoch)
    check_same(state, wanted)
    if row > wanted["rows"]:
        raise OptionError(f"this state is damaged: row {row} of {wanted['rows']}")
    return Position(epoch, row)


def check_state(state: Any, keys: set[str]) -> None:
    """Refuse what is not a state of this version with these keys."""
    if not isinstance(state, Mapping) or not {"version", *keys} <= state.keys():
        raise OptionError("this is not a state that state_dict() returned")
    if state["version"] != VERSION:
        raise OptionError(
            f"this state has version {state['version']!r}; this batchify reads version {VERSION}"
        )


def check_same(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse a state of other rows or of another order; the message names what differs."""
    for keys in (wanted.keys() - {"seed", "order"}, {"seed"}, {"order"}):
        different = [
            f"{_NAMES.get(key, key)} was {state.get(key)!r}, not {value!r}"
            for key, value in wanted.items()
            if key in keys and state.get(key) != value
        ]
        if different:
            raise OptionError(f"this state is of other batches: {', '.join(different)}")
