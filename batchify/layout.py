"""Where everything on a sheet goes: texts, rules and tiles, each at its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from batchify.flow import Block
from batchify.lettering import Lettering

MARGIN = 32
INK, GREY, ACCENT, FRAME = "#16181d", "#555b66", "#1f5fbf", "#c9ced6"
_WIDTH = 1246
"""Of a line, at most; a little less, so that its columns fill it."""
_LEAST_WIDTH = 512
_CELL = 96
"""The least width of a column: a caption needs it."""
_SHORT = 100
"""The most that a name within a line of text takes."""
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
    """A filled bar: (left, top, right, bottom), all within."""

    box: tuple[int, int, int, int]
    fill: str


class Place(NamedTuple):
    """Where the picture of a row goes."""

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

    Attributes
    ----------
    words, rules, places : list
        What there is to draw so far.
    columns : int
        Tiles beside each other.
    """

    def __init__(self, tile: tuple[int, int]) -> None:
        self.words: list[Words] = []
        self.rules: list[Rule] = []
        self.places: list[Place] = []
        self._title = Lettering(30, bold=True)
        self._text = Lettering(15)
        self._name = Lettering(15, bold=True)
        self._note = Lettering(13)
        self._caption = Lettering(12)
        self._tile = tile
        self._cell = max(_CELL, tile[0])
        self.columns = (_WIDTH + _GAP) // (self._cell + _GAP)
        self._y = MARGIN

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the sheet, as Pillow has it."""
        right = max(
            _LEAST_WIDTH,
            *(words.x + words.lettering.width(words.text) for words in self.words),
            *(rule.box[2] + 1 for rule in self.rules),
            *(place.x + self._tile[0] for place in self.places),
        )
        return right + MARGIN, self._y + MARGIN

    def title(self, text: str) -> None:
        """Add the title of a split."""
        if self.words:
            self._y += 2 * MARGIN
        self._add(self._title, MARGIN, self._y, text, INK)
        self._y += self._title.line_height + _PAD

    def text(self, text: str) -> None:
        """Add a line of text; the names in it are those that `short` returned."""
        self._add(self._text, MARGIN, self._y, text, GREY)
        self._y += self._text.line_height

    def space(self) -> None:
        """Leave some paper free."""
        self._y += _GAP

    def short(self, name: bytes) -> str:
        """Return a name for a line of text."""
        return self._text.lines(name, _SHORT, most=1)[0]

    def caption(self, name: bytes) -> tuple[str, ...]:
        """Return the lines of a caption."""
        return tuple(self._caption.lines(name, self._cell, most=_CAPTION_LINES))

    def heading(self, name: bytes, tiles: int) -> tuple[str, ...]:
        """Return the lines of the name over so many tiles."""
        width = self._span(min(tiles, self.columns))
        return tuple(self._name.lines(name, width, most=_NAME_LINES))

    def line(self, split: str, blocks: Sequence[tuple[int, Block]]) -> None:
        """Add blocks beside each other, each with the column that it begins in."""
        tiles_y = self._y + max(self._heading_height(block) for _, block in blocks)
        for column, block in blocks:
            x = MARGIN + column * (self._cell + _GAP)
            self._add_heading(block, x, self._y)
            for tile in block.tiles:
                self.places.append(Place(split, tile.row, x, tiles_y))
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
        """Tell whether the note fits beside the last line of the name."""
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
