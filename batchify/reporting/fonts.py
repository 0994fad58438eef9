"""Find a font for every character: the bundled one, the caller's, then the system's.

The bundled font has Latin, Greek and Cyrillic. Text that it can show looks the same on every
machine; only other characters make a picture depend on the fonts of the system.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import chain, groupby, islice, pairwise
from operator import itemgetter
from typing import BinaryIO

from PIL import ImageFont, features

from batchify.common.system import open_regular
from batchify.common.text import printable
from batchify.errors import OptionError

Sized = ImageFont.FreeTypeFont | ImageFont.ImageFont

_PROBE = 16


_IGNORABLE = dict.fromkeys(range(0xFE00, 0xFE10))
_JOINERS = dict.fromkeys((0x200C, 0x200D))


class Face:
    """A font file, and the characters that it has.

    Raises
    ------
    OSError, ValueError, struct.error
        If the file is not a TrueType or OpenType font.
    """

    fixed_height = 0
    """The height of the only size; 0 if there is every size."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._sizes: dict[int, Sized] = {}
        with self._opened() as stream:
            self._ranges = read_characters(stream)
        self.is_shaped = features.check("raqm")

    def _opened(self) -> BinaryIO:
        return open_regular(self._file)

    def has(self, text: str) -> bool:
        """Return whether the font has every character of a text."""
        return all(map(self._has, self.drawn(text)))

    def _has(self, char: str) -> bool:
        code = ord(char)
        index = bisect_right(self._ranges, (code, sys.maxunicode)) - 1
        return code in _JOINERS or (index >= 0 and self._ranges[index][1] >= code)

    def shows(self, text: str) -> bool:
        """Return whether the font has a text, can be opened, and draws something for it."""
        if not self.has(text):
            return False
        try:
            return (
                text.isspace() or self.sized(_PROBE).getmask(self.drawn(text)).getbbox() is not None
            )
        except OSError:  # a font of pictures in one size, for example
            self._ranges = []
            return False

    def sized(self, size: int) -> Sized:
        """Return the font in a size."""
        if size not in self._sizes:
            self._sizes[size] = self._open(size)
        return self._sizes[size]

    def _open(self, size: int) -> Sized:
        return ImageFont.truetype(self._file, size)

    def letters(self) -> frozenset[str]:
        """Return the characters of the font that can be drawn alone."""
        codes = chain.from_iterable(range(first, last + 1) for first, last in self._ranges)
        return frozenset(char for char in map(chr, codes) if not extends(char))

    def drawn(self, text: str) -> str:
        """Return a text without characters that only a shaping library understands."""
        text = text.translate(_IGNORABLE)
        return text if self.is_shaped else text.translate(_JOINERS)


class BundledFace(Face):
    """The font that comes with batchify.

    It is never shaped: libraqm, which is not everywhere, would move its letters a little.
    """

    def __init__(self) -> None:
        super().__init__("NotoSans-subset.ttf")
        self.is_shaped = False

    def _opened(self) -> BinaryIO:
        return io.BytesIO(files("batchify.reporting").joinpath(self._file).read_bytes())

    def _open(self, size: int) -> Sized:
        return ImageFont.truetype(self._opened(), size, layout_engine=ImageFont.Layout.BASIC)


class BitmapFace(Face):
    """The font of a Pillow without FreeType: ASCII in one size."""

    fixed_height = 11

    def __init__(self) -> None:
        self._sizes = {}
        self._ranges = [(0x20, 0x7E)]
        self.is_shaped = False

    def _open(self, _size: int) -> Sized:
        return ImageFont.load_default()


class Fonts:
    """The fonts for all text of a picture.

    Parameters
    ----------
    font : path, optional
        A font file for characters that the bundled font lacks.

    Raises
    ------
    OptionError
        If that is not a font.
    """

    def __init__(self, font: str | os.PathLike[str] | None = None) -> None:
        scalable = features.check("freetype2")
        self.main: Face = BundledFace() if scalable else BitmapFace()
        self._plain = self.main.letters()
        self._others: list[Face] = [] if font is None else [_chosen(os.fspath(font))]
        self._system = _system_faces() if scalable else iter(())
        self._found: dict[str, Face | None] = {}

    def face(self, cluster: str) -> Face | None:
        """Return the font for a letter with its marks; None if no font has them all."""
        if self.main.has(cluster):
            return self.main
        if cluster not in self._found:
            candidates = chain(self._others, self._next_faces())
            self._found[cluster] = next((face for face in candidates if face.shows(cluster)), None)
        return self._found[cluster]

    def _next_faces(self) -> Iterator[Face]:
        """Yield fonts of the system that were not searched before."""
        for face in self._system:
            self._others.append(face)
            yield face

    def runs(self, text: str) -> list[tuple[Face, str]]:
        """Return a text in pieces, each with its font.

        Spaces, digits and punctuation between letters of one font are taken from that font, if it
        has them: words of a right-to-left script then follow each other from right to left.
        """
        if self._plain.issuperset(text):  # most text, and much faster
            return [(self.main, text)]
        units = clusters(text)
        faces = [self.face(unit) or self.main for unit in units]
        special = [i for i, face in enumerate(faces) if face is not self.main]
        for left, right in pairwise(special):
            between, face = units[left + 1 : right], faces[left]
            is_joined = face is faces[right] and not any(map(str.isalpha, between))
            if is_joined and face.has("".join(between)):
                faces[left + 1 : right] = [face] * len(between)
        return [
            (face, face.drawn("".join(unit for _, unit in run)))
            for face, run in groupby(zip(faces, units, strict=True), key=itemgetter(0))
        ]


def _chosen(path: str) -> Face:
    """Return the font that the caller names."""
    if not features.check("freetype2"):
        raise OptionError("this Pillow was built without FreeType, so it can use no font files")
    try:
        face = Face(path)
        face.sized(_PROBE)
    except (OSError, ValueError, struct.error) as error:
        reason = getattr(error, "strerror", None) or "not a .ttf, .otf or .ttc font"
        raise OptionError(f"cannot use the font {printable(path)}: {reason}") from error
    return face


def clusters(text: str) -> list[str]:
    """Return the letters of a text, each with its accents, vowel signs and joiners."""
    units: list[str] = []
    for char in text:
        if units and extends(char):
            units[-1] += char
        else:
            units.append(char)
    return units


def extends(char: str) -> bool:
    """Return whether a character belongs to the one before it."""
    return ord(char) in _JOINERS or unicodedata.category(char)[0] == "M"


def read_characters(stream: BinaryIO) -> list[tuple[int, int]]:
    """Return the characters of a font as sorted ranges (first, last), from its ``cmap`` table.

    If it is a collection, of its first font. Pillow cannot list them, and draws boxes for others.
    https://learn.microsoft.com/typography/opentype/spec/cmap
    """
    start = 0
    if stream.read(4) == b"ttcf":
        stream.seek(12)
        (start,) = struct.unpack(">I", stream.read(4))
    stream.seek(start + 4)
    (tables,) = struct.unpack(">H6x", stream.read(8))
    directory = stream.read(16 * min(tables, 256))
    entries = {entry[0]: entry[2:] for entry in struct.iter_unpack(">4s3I", directory)}
    if b"cmap" not in entries:
        raise ValueError("the font has no table of characters")
    offset, length = entries[b"cmap"]
    stream.seek(offset)
    cmap = stream.read(length)
    (count,) = struct.unpack_from(">2xH", cmap)
    ranges: list[tuple[int, int]] = []
    for platform, encoding, at in struct.iter_unpack(">HHI", cmap[4 : 4 + 8 * count]):
        (kind,) = struct.unpack_from(">H", cmap, at)
        if (platform, encoding) == (3, 0):  # symbols, at codes of their own
            continue
        if kind == 12:
            (groups,) = struct.unpack_from(">12xI", cmap, at)
            found = struct.iter_unpack(">III", cmap[at + 16 : at + 16 + 12 * groups])
            return sorted((first, last) for first, last, _ in found)
        if kind == 4 and platform in (0, 3):
            ranges = _read_segments(cmap[at:])
    return ranges


def _read_segments(table: bytes) -> list[tuple[int, int]]:
    """Return the ranges of a subtable of format 4, without characters that have no glyph."""
    (twice,) = struct.unpack_from(">6xH", table)
    ends = struct.unpack_from(f">{twice // 2}H", table, 14)
    starts, _, offsets = (
        struct.unpack_from(f">{twice // 2}H", table, 16 + n * twice) for n in (1, 2, 3)
    )
    ranges = []
    for i, (first, last) in enumerate(zip(starts, ends, strict=True)):
        if not offsets[i]:
            ranges.append((first, last))
            continue
        at = 16 + 3 * twice + 2 * i + offsets[i]
        glyphs = struct.unpack_from(f">{last - first + 1}H", table, at)
        ranges += [(first + n, first + n) for n, glyph in enumerate(glyphs) if glyph]
    return [each for each in ranges if each[0] != 0xFFFF]


_MOST_FILES, _MOST_FACES = 5000, 500
"""How many files are listed, and how many of them are opened; a folder of TeX may have more."""

_PREFERRED = (
    *("notosanscjk", "notosanssc", "notosansjp", "sourcehansans", "pingfang", "hiragino", "msyh"),
    *("yugoth", "meiryo", "malgun", "applesdgothic", "stheiti", "wqy", "droidsansfallback"),
    *("notosans", "segoeui", "nirmala", "leelaw", "arial", "dejavusans", "freesans"),
)
_STYLES = (
    *("bold", "black", "heavy", "medium", "light", "thin", "italic", "oblique", "cond", "semi"),
    *("extra", "mono", "serif", "display"),
)


def _system_faces() -> Iterator[Face]:
    """Yield the fonts of the system, plain ones with many characters first."""
    for path in islice(system_fonts(), _MOST_FACES):
        with contextlib.suppress(OSError, ValueError, struct.error):
            yield Face(path)


def system_fonts() -> list[str]:
    """Return the font files of the system in the order in which they are tried."""
    found: list[str] = []
    for folder in font_folders():
        for parent, folders, names in os.walk(folder):
            folders.sort()
            found += [
                os.path.join(parent, name)
                for name in sorted(names)
                if name.lower().endswith((".ttf", ".otf", ".ttc")) and "LastResort" not in name
            ]
            if len(found) >= _MOST_FILES:
                return sorted(found[:_MOST_FILES], key=_rank)
    return sorted(found, key=_rank)


def font_folders() -> Sequence[str]:
    """Return the font folders of the system and the user; not all of them exist."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", rf"{home}\AppData\Local")
        windows = os.environ.get("WINDIR", r"C:\Windows")
        return [rf"{windows}\Fonts", rf"{local}\Microsoft\Windows\Fonts"]
    if sys.platform == "darwin":
        return ["/System/Library/Fonts", "/Library/Fonts", f"{home}/Library/Fonts"]
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    own = os.environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    folders = [f"{folder}/fonts" for folder in [*shared.split(":"), own] if folder]
    return [*folders, f"{home}/.fonts"]


def _rank(path: str) -> tuple[int, int, str, str]:
    """Return the key by which fonts are sorted."""
    name = os.path.basename(path).lower().translate(dict.fromkeys(map(ord, " -_")))
    place = next((i for i, start in enumerate(_PREFERRED) if name.startswith(start)), 99)
    return sum(style in name for style in _STYLES), place, name, path
