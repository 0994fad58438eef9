"""The pictures of a page: a bounded number of them, of a bounded size."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from batchify.pictures import Pictures
from batchify.reader import Reader
from batchify.sampling import sample_rows

ALBUM_NBYTES = 1_500_000
"""Of all pictures of a page; those that would be more are left out. Photos take a fifth of it."""
SIDE = 128
"""Pixels of the longer side of a picture, at most."""
_EXACT_SIDE = 80
"""Images up to this are shown exactly; more pixels than that are only worth their look."""
SHOWN = {"train": 36, "validation": 16, "test": 16}
"""Pictures of each split."""
_PER_CLASS = 6


@dataclass(frozen=True, slots=True)
class Picture:
    """A stored image as a page shows it.

    Parameters
    ----------
    split : str
    row : int
    path : bytes
        Of its source, relative to the dataset folder.
    class_name : bytes or None
        None where there are no labels.
    uri : str
        A ``data:`` address; empty where the page has no room for it.
    damaged : bool
        The stored row is not what was written, and the picture says so.
    """

    split: str
    row: int
    path: bytes
    class_name: bytes | None
    uri: str
    damaged: bool


@dataclass(frozen=True, slots=True)
class Gallery:
    """Images of one split, drawn by seed.

    Parameters
    ----------
    split : str
    rows : int
        Of the split.
    classes : int or None
        That the split has images of; None where there are no labels.
    shown_classes : int
    pictures : tuple of Picture
        Class by class.
    """

    split: str
    rows: int
    classes: int | None
    shown_classes: int
    pictures: tuple[Picture, ...]


class Album:
    """Makes the pictures of a page, until there is no more room for them.

    Parameters
    ----------
    reader : Reader
        Open while this is used.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._left = ALBUM_NBYTES
        self._closing = contextlib.ExitStack()
        self._pictures = {
            split: self._closing.enter_context(Pictures(reader, split)) for split in reader.splits
        }

    def path(self, split: str, row: int) -> bytes:
        """Return where the image of a row came from.

        Raises
        ------
        FileFormatError
        """
        return self._pictures[split].path(row)

    def picture(self, split: str, row: int, class_index: int | None) -> Picture:
        """Return the picture of a row.

        Raises
        ------
        FileFormatError
        """
        pictures = self._pictures[split]
        longest = max(pictures.size)
        # A stored image that needs no reduction is shown without loss, and large as a file.
        side = longest - 1 if _EXACT_SIDE < longest <= SIDE else SIDE
        uri = pictures.data_uri(row, side)
        if len(uri) > self._left:
            uri = ""
        self._left -= len(uri)
        classes = self._reader.header.classes
        return Picture(
            split=split,
            row=row,
            path=self.path(split, row),
            class_name=None if class_index is None else classes[class_index],
            uri=uri,
            damaged=row in pictures.damaged,
        )

    def gallery(self, split: str, classes: int | None, seed: int) -> Gallery:
        """Return images of a split: some of each class, of as many classes as there is room for.

        Parameters
        ----------
        split : str
        classes : int or None
            That the split has images of; None where there are no labels.
        seed : int

        Raises
        ------
        FileFormatError
        """
        most = SHOWN[split]
        per_class = most if classes is None else max(1, min(_PER_CLASS, most // max(classes, 1)))
        drawn = sample_rows(
            self._reader, split, per_class=per_class, most_classes=most // per_class, seed=seed
        )
        return Gallery(
            split=split,
            rows=len(self._pictures[split]),
            classes=classes,
            shown_classes=len(drawn),
            pictures=tuple(
                self.picture(split, row, shown.class_index) for shown in drawn for row in shown.rows
            ),
        )

    def __enter__(self) -> Album:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()
