"""Lay out the contact sheet: position text and tiles in pixels.

Characters that no font has are shown by their code (``\u732b``): a font draws one and the same box
for all of them, and names that differ must look different.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import ImageDraw, ImageFont

from batchify.common.text import escape_code, printable_characters
from batchify.reporting.fonts import Fonts, extends


@dataclass(frozen=True, slots=True)
class Tile:
    """A row of a split with the lines of its caption."""

    row: int
    caption: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Tiles under one heading.

    Parameters
    ----------
    heading : tuple of str
        The lines of the name.
    note : str
        Next to or below the name.
    tiles : tuple of Tile
        At least one.
    """

    heading: tuple[str, ...]
    note: str
    tiles: tuple[Tile, ...]


def flow(blocks: Sequence[Block], columns: int) -> Iterator[list[tuple[int, Block]]]:
    """Yield lines, each a list of (first column, block), in order.

    A block that does not fit into the rest of a line begins a new one. A block longer than a line
    continues on the next ones, without a heading.
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
    """Return how many images per class, and how many classes, fit on `lines` lines.

    Few classes get several lines each; more of them one line, half a line, a third, down to a
    single image; if there are still more, not all are shown.
    """
    classes = max(1, classes)
    if 2 * classes <= lines:
        return min(3, lines // (2 * classes)) * columns, classes
    for beside in range(1, columns + 1):
        if -(-classes // beside) <= lines:
            return columns // beside, classes
    return 1, columns * lines


ELISION = "..."
_SEPARATORS = "/_- "


class Lettering:
    """Text of one size."""

    def __init__(self, fonts: Fonts, size: int, *, bold: bool = False) -> None:
        self._fonts = fonts
        self._size = size
        self._bold = bold
        height = fonts.main.fixed_height or size
        self.line_height = round(height * 1.3)
        self._baseline = round(height * 0.95)

    def width(self, text: str) -> int:
        """Return the width of a text in pixels."""
        runs = self._fonts.runs(text)
        length = sum(face.sized(self._size).getlength(run) for face, run in runs)
        return int(-(-length // 1)) + self._bold

    def draw(self, draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, fill: str) -> None:
        """Draw a line of text, its upper left corner at (x, y)."""
        x: float = at[0]
        for face, run in self._fonts.runs(text):
            font = face.sized(self._size)
            scalable = isinstance(font, ImageFont.FreeTypeFont)
            y, anchor = (at[1] + self._baseline, "ls") if scalable else (at[1], None)
            for shift in (0, 0.6) if self._bold else (0,):  # there is no bold font: print twice
                draw.text((x + shift, y), run, fill, font, anchor)
            x += font.getlength(run)

    def lines(self, name: bytes | str, width: int, *, most: int) -> list[str]:
        """Return a name as 1 to `most` lines of at most `width` pixels, broken between words.

        Characters that do not print, or have no glyph, are escaped. If the rest does not fit into
        the last line, its middle is cut.
        """
        text = os.fsdecode(name)
        text = text if text.strip() else f"'{text}'"  # a class of spaces must show as well
        units = self._legible(unicodedata.normalize("NFC", text))
        lines: list[str] = []
        while units and len(lines) + 1 < most:
            fitting = self._fitting(units, width)
            if fitting == len(units):
                break
            lines.append("".join(units[:fitting]).rstrip(" "))
            units = units[fitting:]
        return [*lines, self._elided(units, width)]

    def _legible(self, text: str) -> list[str]:
        """Return letters with their marks, escaped if they do not print or no font has them."""
        units: list[str] = []
        for char, shown in zip(text, printable_characters(text), strict=True):
            if units and shown == char and extends(char):
                units[-1] += char
            else:
                units.append(shown)
        return [
            unit
            if self._fonts.face(unit)
            else "".join(char if char.isascii() else escape_code(char) for char in unit)
            for unit in units
        ]

    def _fitting(self, units: list[str], width: int) -> int:
        """Return how many units fit into a line, ending at a separator if one is near its end."""
        count = _longest(len(units), lambda n: self.width("".join(units[:n])) <= width)
        count = max(1, count)
        if count < len(units):
            for end in range(count, count // 3, -1):
                if units[end - 1] in _SEPARATORS:
                    return end
        return count

    def _elided(self, units: list[str], width: int) -> str:
        """Return one line, without its middle if it is too long."""
        text = "".join(units)
        if self.width(text) <= width or len(units) < 2:
            return text

        def without_middle(kept: int) -> str:
            head, tail = units[: kept // 2], units[len(units) - (kept - kept // 2) :]
            return "".join([*head, ELISION, *tail])

        kept = _longest(len(units) - 1, lambda n: self.width(without_middle(n)) <= width)
        return without_middle(max(1, kept))


def _longest(most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `most` that fits; all smaller ones must fit as well."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


MARGIN = 32
INK, GREY, ACCENT, FRAME = "#16181d", "#555b66", "#1f5fbf", "#c9ced6"

_WIDTH = 1246
"""The most pixels of a line; its columns fill a little less."""

_LEAST_WIDTH = 512

_CELL = 96
"""The least width of a column: a caption needs it."""

_SHORT = 100
"""The most pixels of a name within a line of text."""

_GAP, _PAD = 14, 6
_NAME_LINES, _CAPTION_LINES = 3, 2


class Words(NamedTuple):
    """A line of text and its upper left corner."""

    lettering: Lettering
    x: int
    y: int
    text: str
    fill: str


class Rule(NamedTuple):
    """A filled bar: (left, top, right, bottom), inclusive."""

    corners: tuple[int, int, int, int]
    fill: str


class Box(NamedTuple):
    """The position of a row's picture."""

    split: str
    row: int
    x: int
    y: int


class Layout:
    """A sheet, laid out from top to bottom.

    Parameters
    ----------
    tile : tuple of int
        (width, height) of every tile.
    fonts : Fonts
        For all text of the sheet.

    Attributes
    ----------
    words, rules, boxes : list
        Everything to draw so far.
    columns : int
        Tiles next to each other.
    """

    def __init__(self, tile: tuple[int, int], fonts: Fonts) -> None:
        self.words: list[Words] = []
        self.rules: list[Rule] = []
        self.boxes: list[Box] = []
        self._title = Lettering(fonts, 30, bold=True)
        self._text = Lettering(fonts, 15)
        self._name = Lettering(fonts, 15, bold=True)
        self._note = Lettering(fonts, 12)
        self._caption = Lettering(fonts, 12)
        self._tile = tile
        self._cell = max(_CELL, tile[0])
        self.columns = (_WIDTH + _GAP) // (self._cell + _GAP)
        self._y = MARGIN

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the sheet, in Pillow's order."""
        right = max(
            _LEAST_WIDTH,
            *(words.x + words.lettering.width(words.text) for words in self.words),
            *(rule.corners[2] + 1 for rule in self.rules),
            *(box.x + self._tile[0] for box in self.boxes),
        )
        return right + MARGIN, self._y + MARGIN

    def title(self, text: str) -> None:
        """Add the title of a split."""
        if self.words:
            self._y += 2 * MARGIN
        self._add(self._title, MARGIN, self._y, text, INK)
        self._y += self._title.line_height + _PAD

    def text(self, text: str) -> None:
        """Add a line of text; pass names in it through `short` first."""
        self._add(self._text, MARGIN, self._y, text, GREY)
        self._y += self._text.line_height

    def space(self) -> None:
        """Leave a gap."""
        self._y += _GAP

    def short(self, name: bytes) -> str:
        """Return a name for a line of text."""
        return self._text.lines(name, _SHORT, most=1)[0]

    def caption(self, name: bytes) -> tuple[str, ...]:
        """Return the lines of a caption."""
        return tuple(self._caption.lines(name, self._cell, most=_CAPTION_LINES))

    def heading(self, name: bytes, tiles: int) -> tuple[str, ...]:
        """Return the lines of a heading, wrapped to the width of the tiles below it."""
        width = self._span(min(tiles, self.columns))
        return tuple(self._name.lines(name, width, most=_NAME_LINES))

    def line(self, split: str, blocks: Sequence[tuple[int, Block]]) -> None:
        """Add one line of blocks; each comes with the column where it starts."""
        tiles_y = self._y + max(self._heading_height(block) for _, block in blocks)
        for column, block in blocks:
            x = MARGIN + column * (self._cell + _GAP)
            self._add_heading(block, x, self._y)
            for tile in block.tiles:
                self.boxes.append(Box(split, tile.row, x, tiles_y))
                for i, text in enumerate(tile.caption):
                    y = tiles_y + self._tile[1] + _PAD + i * self._caption.line_height
                    self._add(self._caption, x, y, text, GREY)
                x += self._cell + _GAP
        captions = max(len(tile.caption) for _, block in blocks for tile in block.tiles)
        self._y = tiles_y + self._tile[1] + _PAD + captions * self._caption.line_height + _GAP

    def _span(self, tiles: int) -> int:
        return tiles * (self._cell + _GAP) - _GAP

    def _heading_height(self, block: Block) -> int:
        if not block.heading:
            return 0
        own_line = not self._note_fits(block)
        names = len(block.heading) * self._name.line_height
        return 2 * _PAD + names + own_line * self._note.line_height

    def _note_fits(self, block: Block) -> bool:
        """Return whether the note fits next to the last line of the name."""
        used = self._name.width(block.heading[-1]) + _GAP + self._note.width(block.note)
        return used <= self._span(len(block.tiles))

    def _add_heading(self, block: Block, x: int, y: int) -> None:
        if not block.heading:
            return
        right = x + self._span(len(block.tiles)) - 1
        self.rules.append(Rule((x, y, right, y + 1), ACCENT))
        y += _PAD
        for text in block.heading:
            self._add(self._name, x, y, text, INK)
            y += self._name.line_height
        if self._note_fits(block):
            x += self._name.width(block.heading[-1]) + _GAP
            y -= self._note.line_height + 2  # on the line of the larger name
        self._add(self._note, x, y, block.note, GREY)

    def _add(self, lettering: Lettering, x: int, y: int, text: str, fill: str) -> None:
        self.words.append(Words(lettering, x, y, text, fill))
