"""Show a few small images of a file or a split in a notebook.

The HTML is self-contained: the pictures are in it, styles are inline, and it loads nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from batchify import choices
from batchify.common.text import plural, printable
from batchify.errors import BatchifyError
from batchify.format.config import recorded_options
from batchify.format.reader import Reader
from batchify.loading.dataset_file import DatasetFile
from batchify.loading.split_data import SplitData, kind_text
from batchify.reporting.html import PATH_LENGTH, Html, join, named, shorten, tag, void
from batchify.reporting.pictures import (
    crossed_tile,
    data_uri,
    draw_mask,
    draw_pixels,
    fit_picture,
    fit_size,
)

_SIDE = 64
"""Most pixels of a side of a picture."""

_CLASSES, _PER_CLASS, _IN_LINE = 10, 5, 10
"""Most classes of a split, images of each, and images of a line of several classes."""

_SEARCHED = 10_000
"""Rows in which one-hot labels are read: they are as many numbers a row as there are classes."""

_NAME_LENGTH, _CAPTION_LENGTH, _CAPTION_VALUES = 32, 24, 3
_QUALITY = 80

_LINE = "display:flex;gap:6px;margin:6px 0"
_TILES = "display:flex;flex-wrap:wrap;align-items:flex-start;gap:6px"
_HEAD = "flex:none;width:9em;line-height:1.3;overflow-wrap:anywhere"
_TILE = f"flex:none;width:{_SIDE}px;line-height:1.2;overflow-wrap:anywhere;text-align:center"
_PICTURE = "display:block;margin:0 auto 2px;max-width:none;image-rendering:pixelated"
_NOTE = "opacity:0.7;font-size:smaller"


def file_html(file: DatasetFile) -> Html:
    """Return a line of images for each split of an opened file."""
    first, *others = (os.path.basename(path) for path in file.paths)
    more = f" and {plural(len(others), 'more file')}" if others else ""
    kinds = [f": {kind_text(split)}" for split in file.values()][:1]
    parts = [tag("div", tag("b", named(first)), more, *kinds)]
    for split in file.values():
        gallery = _Gallery(split)
        tiles = [gallery.tile(row, captioned=True) for row in gallery.varied_rows()]
        parts.append(_line(tag("b", split.name), plural(len(split), "image"), tiles))
    return join(parts)


def split_html(split: SplitData) -> Html:
    """Return a line of images for each class of a split, or one if labels are not classes."""
    gallery = _Gallery(split)
    parts = [
        tag("div", tag("b", split.name), f": {plural(len(split), 'image')} of {kind_text(split)}")
    ]
    if not gallery.classes:
        tiles = [gallery.tile(row, captioned=True) for row in gallery.varied_rows()]
        return join([*parts, tag("div", *tiles, style=_TILES)])
    for index, rows in gallery.classes[:_CLASSES]:
        tiles = [gallery.tile(row) for row in rows[:_PER_CLASS].tolist()]
        note = plural(len(rows), "image") if gallery.is_complete else ""
        parts.append(_line(named(split.classes[index], _NAME_LENGTH), note, tiles))
    if len(gallery.classes) > _CLASSES:
        rest = plural(len(gallery.classes) - _CLASSES, "more class", "more classes")
        parts.append(tag("div", f"… and {rest}", style=_NOTE))
    return join(parts)


def _line(name: Html, note: str, tiles: Sequence[Html]) -> Html:
    """Return pictures after their name."""
    head = tag("div", name, tag("div", note, style=_NOTE), style=_HEAD)
    return tag("div", head, tag("div", *tiles, style=_TILES), style=_LINE)


class _Gallery:
    """Images of a split as tiles, and which rows to show.

    Attributes
    ----------
    is_complete : bool
        The labels of all rows were read.
    classes : list of (int, ndarray)
        The classes that have rows, and these rows; empty if the labels are not classes.
    """

    def __init__(self, split: SplitData) -> None:
        self._split = split
        self.is_complete = True
        self.classes: list[tuple[int, NDArray[np.intp]]] = []
        labels = split.labels
        if labels is None or split.class_mode not in choices.INDEXED_MODES:
            return
        if len(labels.shape) > 1:
            self.is_complete = len(labels) <= _SEARCHED
            labels = labels[:_SEARCHED].argmax(axis=1)
        order = np.argsort(labels, kind="stable")  # within a class rows stay in order
        counts = np.bincount(labels, minlength=len(split.classes))
        parts = np.split(order, np.cumsum(counts)[:-1])
        self.classes = [(index, rows) for index, rows in enumerate(parts) if len(rows)]

    def varied_rows(self) -> list[int]:
        """Return rows of as many classes as possible, by class; the first ones without classes."""
        if not self.classes:
            return list(range(min(len(self._split), _IN_LINE)))
        each = -(-_IN_LINE // len(self.classes))
        found = [row for _, rows in self.classes[:_IN_LINE] for row in rows[:each].tolist()]
        return found[:_IN_LINE]

    def tile(self, row: int, *, captioned: bool = False) -> Html:
        """Return the picture of a row, and of its mask; a crossed tile if it cannot be read."""
        split = self._split
        title = shorten(printable(split.paths[row]), PATH_LENGTH)
        height, width = split.images.shape[1:3]
        size = fit_size((width, height), _SIDE)
        exact = max(width, height) <= _SIDE
        try:
            pixels = np.asarray(split.images[row])
            pictures = [_picture(draw_pixels(pixels, self._rescale), title, exact=exact)]
            if split.class_mode == "mask" and split.labels is not None:
                mask = draw_mask(np.asarray(split.labels[row]))
                pictures.append(_picture(mask, f"mask of {title}", exact=exact))
        except BatchifyError as error:
            title = f"{title}: {shorten(printable(str(error)), 2 * PATH_LENGTH)}"
            pictures = [_picture(crossed_tile(size), title, exact=True)]
        caption = [tag("div", self._label(row), style=_NOTE)] if captioned else []
        return tag("div", *pictures, *caption, style=_TILE)

    @cached_property
    def _rescale(self) -> float:
        """The factor that stored floats were multiplied by, from the file's records."""
        if self._split.images.dtype.kind != "f":
            return 1.0
        with Reader(self._split.origin.files[0]) as reader, reader.refusing():
            return recorded_options(reader.header.config).store.scale

    def _label(self, row: int) -> Html:
        """Return the label of a row as text: classes, or numbers."""
        split = self._split
        if split.labels is None or split.class_mode == "mask":
            return Html("")
        label: Any = split.labels[row]
        if split.class_mode in ("sparse", "binary"):
            texts = [split.classes[int(label)]]
        elif split.class_mode == "regression":
            texts = [f"{value:.4g}" for value in np.atleast_1d(label).tolist()]
        else:
            texts = [split.classes[i] for i in np.flatnonzero(label).tolist()]
        more = ["…"] if len(texts) > _CAPTION_VALUES else []
        shown = [named(text, _CAPTION_LENGTH) for text in texts[:_CAPTION_VALUES]]
        return join([*shown, *more], ", ")


def _picture(picture: Image.Image, title: str, *, exact: bool) -> Html:
    """Return a small picture: PNG if it shows every pixel, otherwise JPEG, which is smaller."""
    small = fit_picture(picture, _SIDE)
    if exact:
        uri = data_uri(small, "png", optimize=True)
    else:
        uri = data_uri(small, "jpeg", quality=_QUALITY)
    width, height = map(str, small.size)
    return void("img", src=uri, alt=title, title=title, width=width, height=height, style=_PICTURE)
