"""Text on a picture, with the font that Pillow carries: the same on every machine.

That font has little but ASCII, and draws all else as one and the same box. So other characters
are told by their code (``\\u732b``): names that differ must look different.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from PIL import ImageDraw, ImageFont, features

from batchify.names import printable

ELISION = "..."
_SEPARATORS = "/_- "
_BITMAP = 11
"""The height of the only size there is without FreeType."""


class Lettering:
    """Text of one size.

    Parameters
    ----------
    size : int
        Height of a line in pixels, about; without FreeType there is one size alone.
    bold : bool
    """

    def __init__(self, size: int, *, bold: bool = False) -> None:
        scalable = features.check("freetype2")
        self._font = ImageFont.load_default(size) if scalable else ImageFont.load_default()
        self._bold = bold
        self.line_height = round((size if scalable else _BITMAP) * 1.3)

    def width(self, text: str) -> int:
        """Return how many pixels a text takes."""
        return int(-(-self._font.getlength(text) // 1)) + self._bold

    def draw(self, draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, fill: str) -> None:
        """Draw a line of text, its upper left corner at (x, y)."""
        draw.text(at, text, fill, self._font)
        if self._bold:  # there is no such font: struck twice, as on a typewriter
            draw.text((at[0] + 0.6, at[1]), text, fill, self._font)

    def lines(self, name: bytes | str, width: int, *, most: int) -> list[str]:
        """Return a name as lines of at most `width` pixels, broken at words where that is easy.

        Parameters
        ----------
        name : bytes or str
            Whatever does not print, or has no glyph, is escaped.
        width : int
            Pixels.
        most : int
            Lines; in what does not fit into them, the middle is left out.

        Returns
        -------
        list of str
            At least one line.
        """
        text = os.fsdecode(name)
        text = text if text.strip() else f"'{text}'"  # or a class of spaces would have no name
        units = list(map(_legible, text))
        lines: list[str] = []
        while units and len(lines) + 1 < most:
            fitting = self._fitting(units, width)
            if fitting == len(units):
                break
            lines.append("".join(units[:fitting]).rstrip(" "))
            units = units[fitting:]
        return [*lines, self._elided(units, width)]

    def _fitting(self, units: list[str], width: int) -> int:
        """Return how many units a line takes, ending at a separator if one is near its end."""
        count = _longest(len(units), lambda n: self.width("".join(units[:n])) <= width)
        count = max(1, count)
        if count < len(units):
            for end in range(count, count // 3, -1):
                if units[end - 1] in _SEPARATORS:
                    return end
        return count

    def _elided(self, units: list[str], width: int) -> str:
        """Return one line, its middle left out if it is too long."""
        text = "".join(units)
        if self.width(text) <= width or len(units) < 2:
            return text

        def without_middle(kept: int) -> str:
            head, tail = units[: kept // 2], units[len(units) - (kept - kept // 2) :]
            return "".join([*head, ELISION, *tail])

        kept = _longest(len(units) - 1, lambda n: self.width(without_middle(n)) <= width)
        return without_middle(max(1, kept))


def _longest(most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `most` that fits, given that all smaller ones do then."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _legible(char: str) -> str:
    """Return a character, or what stands for it where it does not print or has no glyph."""
    code = ord(char)
    if char.isascii() or 0xDC80 <= code <= 0xDCFF:  # the latter: a byte that is not UTF-8
        return printable(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
