"""How blocks of tiles flow over the rows of a sheet: arithmetic alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tile:
    """A row of a split, as it is shown.

    Parameters
    ----------
    row : int
    caption : tuple of str
        Its lines.
    """

    row: int
    caption: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Tiles under one heading.

    Parameters
    ----------
    heading : tuple of str
        Its lines: the name.
    note : str
        Beside or below the name.
    tiles : tuple of Tile
        At least one.
    """

    heading: tuple[str, ...]
    note: str
    tiles: tuple[Tile, ...]


def flow(blocks: Sequence[Block], columns: int) -> Iterator[list[tuple[int, Block]]]:
    """Yield lines, each a list of (first column, block), in order.

    A block begins a new line where it does not fit into what is left of one. What is longer than
    a line is continued on the next ones, without a heading.
    """
    line: list[tuple[int, Block]] = []
    used = 0
    for block in blocks:
        if line and used + len(block.tiles) > columns:
            yield line
            line, used = [], 0
        for start in range(0, len(block.tiles), columns):
            if line and used == columns:
                yield line
                line, used = [], 0
            tiles = block.tiles[start : start + columns]
            head = (block.heading, block.note) if start == 0 else ((), "")
            line.append((used, Block(*head, tiles)))
            used += len(tiles)
    if line:
        yield line


def shares(classes: int, columns: int, lines: int) -> tuple[int, int]:
    """Return how many images of a class to show, and of how many classes, on so many lines.

    Few classes have some lines each; more of them a whole line, half of one, a third, down to a
    single image; of still more, not all are shown.
    """
    classes = max(1, classes)
    if 2 * classes <= lines:
        return min(3, lines // (2 * classes)) * columns, classes
    for beside in range(1, columns + 1):
        if -(-classes // beside) <= lines:
            return columns // beside, classes
    return 1, columns * lines
