"""Draw a contact sheet: images of every split with class and path, as one picture."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, features

from batchify.common.durable import check_output_path, write_atomically
from batchify.common.paths import within_class
from batchify.common.text import plural, printable
from batchify.errors import OptionError
from batchify.format.class_labels import class_counts
from batchify.format.reader import Reader
from batchify.loading.origin import DecodeOverrides
from batchify.reporting.fonts import Fonts
from batchify.reporting.pictures import Pictures, fit_size
from batchify.reporting.sampling import Shown, check_seed, sample_rows
from batchify.reporting.typesetting import FRAME, Block, Layout, Tile, flow, shares
from batchify.storage.transfer import local_copy

SUFFIXES = (".png", ".webp")

SIDE = 112
"""The most pixels of a tile's longer side."""

_LINES, _FEWER_LINES = 16, 8
"""Lines of tiles of the first split, and of each other one: a bound of the sheet's height."""

_UNLABELLED_LINES = 5

_NAMED = 8
"""How many classes without an image are named."""

_SHOWN = 20
"""How many damaged images are named."""

_PAPER = "#ffffff"
_WEBP_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Sheet:
    """A contact sheet that was written.

    Parameters
    ----------
    path : bytes
        As the caller gave it.
    width, height : int
        Pixels.
    images : int
        How many it shows.
    damaged : tuple of str
        ``split, row n`` of each image that could not be read; a crossed tile is in its place.
    seed : int
    undecoded : tuple of str
        The same for those that are intact, but could not be decoded.
    """

    path: bytes
    width: int
    height: int
    images: int
    damaged: tuple[str, ...]
    seed: int
    undecoded: tuple[str, ...] = ()

    def __repr__(self) -> str:
        images, size = plural(self.images, "image"), f"{self.width}×{self.height}"
        return f"<batchify sheet {printable(self.path)}: {images}, {size} pixels>"

    def __str__(self) -> str:
        lines = [
            f"sheet: {printable(self.path)}, {self.width:,}×{self.height:,} pixels, "
            f"{self.images:,} image{'s' * (self.images != 1)}, seed {self.seed}"
        ]
        for found, what in (
            (self.damaged, "damaged; `batchify verify` lists all damage"),
            (
                self.undecoded,
                "not decoded: beyond the limits for images (--trusted), or no plugin for it",
            ),
        ):
            if found:
                lines.append(f"  {len(found):,} of them {what}")
                lines += [f"  - {where}" for where in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"  … and {len(found) - _SHOWN:,} more")
        return "\n".join(lines)


def write_sheet(
    path: str | os.PathLike[str],
    sheet_path: str | bytes | os.PathLike[str],
    *,
    seed: int = 0,
    font: str | os.PathLike[str] | None = None,
    trusted: bool = False,
) -> Sheet:
    """Draw images of every split of a file, with their labels and paths, as one picture.

    The same file and seed give the same picture, unless a name needs a font of the system. If there
    are many classes, or many images of a class, `batchify.reporting.sampling.sample_rows` draws
    some, and the sheet says so.

    Parameters
    ----------
    path : path
        A file that `batchify.build` made.
    sheet_path : path
        ``.png`` or ``.webp``; an existing file is replaced when the picture is complete.
    seed : int
        Draws which images are shown; 0 to 2**32 - 1.
    font : path, optional
        A .ttf, .otf or .ttc file for names in scripts other than Latin, Greek and Cyrillic. Without
        it, a font of the system is used if it has the characters.
    trusted : bool
        As for `batchify.open`.

    Returns
    -------
    Sheet

    Raises
    ------
    FileMissingError, FileAccessError, FileFormatError
        As `batchify.format.reader.Reader`.
    OptionError, OutputPathError, OutputIOError
        If the sheet cannot be written there, or the seed or the font is not valid.

    Notes
    -----
    Memory: 30 bytes per row of the largest split, the picture (at most 1,310 by 8,800 pixels),
    and one image of the file.
    """
    check_seed(seed)
    target, fonts = check_sheet_path(sheet_path, path), Fonts(font)
    with local_copy(path) as copy, Reader(copy).finished() as reader:
        sheet, data = draw_sheet(reader, sheet_path, fonts, seed=seed, trusted=trusted)
    write_atomically(target, data)
    return sheet


def check_sheet_path(
    sheet_path: str | bytes | os.PathLike[str], source: str | os.PathLike[str]
) -> bytes:
    """Refuse a path where no sheet can be written, before any work; return where to write it."""
    target = check_output_path(sheet_path, SUFFIXES, source)
    if _is_webp(sheet_path) and not features.check("webp"):
        raise OptionError("this Pillow was built without WebP; name a .png")
    return target


def draw_sheet(
    reader: Reader,
    sheet_path: str | bytes | os.PathLike[str],
    fonts: Fonts,
    *,
    seed: int,
    trusted: bool = False,
) -> tuple[Sheet, bytes]:
    """Draw the contact sheet of an open file; return its description and its bytes."""
    with contextlib.ExitStack() as stack:
        overrides = DecodeOverrides(trusted=trusted)
        pictures = {
            name: stack.enter_context(Pictures(reader, name, overrides=overrides))
            for name in reader.splits
        }
        layout = Layout(fit_size(next(iter(pictures.values())).size, SIDE), fonts)
        for index, name in enumerate(pictures):
            most = _FEWER_LINES if index else _LINES
            _lay_out(layout, reader, pictures[name], most=most, seed=seed)
        picture = _drawn(layout, pictures)
    buffer = io.BytesIO()
    if _is_webp(sheet_path):
        picture.save(buffer, "WEBP", quality=_WEBP_QUALITY)
    else:
        picture.save(buffer, "PNG")
    damaged, undecoded = (
        tuple(f"{name}, row {row}" for name, rows in found for row in sorted(rows))
        for found in (
            [(name, of.damaged) for name, of in pictures.items()],
            [(name, of.undecoded) for name, of in pictures.items()],
        )
    )
    images = len(layout.boxes)
    sheet = Sheet(os.fsencode(sheet_path), *picture.size, images, damaged, seed, undecoded)
    return sheet, buffer.getvalue()


def _is_webp(sheet_path: str | bytes | os.PathLike[str]) -> bool:
    return os.fsdecode(sheet_path).lower().endswith(".webp")


def _lay_out(layout: Layout, reader: Reader, pictures: Pictures, *, most: int, seed: int) -> None:
    """Add one split, with at most `most` lines of tiles."""
    split, counts = pictures.split, class_counts(reader, pictures.split)
    if counts is None:
        per_class, classes = layout.columns * min(most, _UNLABELLED_LINES), 1
    else:
        per_class, classes = shares(int(np.count_nonzero(counts)), layout.columns, most)
    shown = sample_rows(reader, split, per_class=per_class, most_classes=classes, seed=seed)
    layout.title(split)
    layout.text(_about(reader, pictures, counts, shown, seed))
    if shown and counts is not None and not counts.all():
        layout.text(_absent(layout, reader.header.classes, counts))
    layout.space()
    for line in flow([_block(layout, reader, pictures, of) for of in shown], layout.columns):
        layout.line(split, line)
    more = 0 if counts is None else int(np.count_nonzero(counts)) - len(shown)
    if more:
        drawn = "the one shown was" if len(shown) == 1 else "those shown were"
        hidden = plural(more, "more class", "more classes")
        layout.text(f"... and {hidden}; {drawn} drawn by seed {seed}")


def _about(
    reader: Reader,
    pictures: Pictures,
    counts: NDArray[np.intp] | None,
    shown: list[Shown],
    seed: int,
) -> str:
    """Return the text below the title of a split: its size, and what is shown."""
    if not len(pictures):
        return "empty: no images"
    images = plural(len(pictures), "image")
    shape = "×".join(map(str, pictures.image_shape))
    kind = f"{shape} {pictures.dtype.name}"
    is_cut = any(of.count > len(of.rows) for of in shown)
    if counts is None:
        mode = reader.class_mode(pictures.split)
        labels = {"none": "no labels", "mask": "masks"}.get(mode, f"{mode} labels")
        text = f"{images}, {labels}, {kind}"
        return f"{text}; {len(shown[0].rows):,} of them, drawn by seed {seed}" if is_cut else text
    classes = int(np.count_nonzero(counts))
    text = f"{images} of {plural(classes, 'class', 'classes')}, {kind}"
    if len(shown) < classes:
        text += f"; {len(shown):,} of the classes are shown"
    if is_cut:
        most = max(len(of.rows) for of in shown)
        text += f"; at most {plural(most, 'image')} of each class, drawn by seed {seed}"
    return text


def _absent(layout: Layout, classes: tuple[bytes, ...], counts: NDArray[np.intp]) -> str:
    """Return the text about classes without an image in a split."""
    absent = np.flatnonzero(counts == 0).tolist()
    names = ", ".join(layout.short(classes[index]) for index in absent[:_NAMED])
    more = f" and {len(absent) - _NAMED:,} more" if len(absent) > _NAMED else ""
    return f"classes without an image here: {names}{more}"


def _block(layout: Layout, reader: Reader, pictures: Pictures, shown: Shown) -> Block:
    """Return a class as a block of the sheet; the whole split if labels are not classes."""
    name = None if shown.class_index is None else reader.header.classes[shown.class_index]
    tiles = tuple(
        Tile(row, layout.caption(within_class(pictures.path(row), name))) for row in shown.rows
    )
    if name is None:
        return Block((), "", tiles)
    return Block(layout.heading(name, len(tiles)), plural(shown.count, "image"), tiles)


def _drawn(layout: Layout, pictures: Mapping[str, Pictures]) -> Image.Image:
    """Draw the layout."""
    picture = Image.new("RGB", layout.size, _PAPER)
    draw = ImageDraw.Draw(picture)
    for rule in layout.rules:
        draw.rectangle(rule.corners, rule.fill)
    for words in layout.words:
        words.lettering.draw(draw, (words.x, words.y), words.text, words.fill)
    for box in layout.boxes:
        tile = pictures[box.split].thumbnail(box.row, SIDE)
        frame = (box.x - 1, box.y - 1, box.x + tile.width, box.y + tile.height)
        draw.rectangle(frame, outline=FRAME)  # visible around a white picture
        picture.paste(tile, (box.x, box.y))
    return picture
