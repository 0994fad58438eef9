"""Collect the content of a report: pictures, duplicates, sizes, kinds."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from itertools import islice

from batchify.checking.check import find_problems
from batchify.checking.facts import Facts, stored_facts
from batchify.checking.findings import THRESHOLDS, CheckLimits, Problem
from batchify.checking.image_stats import Kinds, Sizes, tally_kinds, tally_sizes
from batchify.checking.repeats import RepeatCounts, classes_of
from batchify.common.closing import Closing
from batchify.format.config import build_command
from batchify.format.reader import Reader
from batchify.loading.origin import DecodeOverrides
from batchify.planning.duplicates import Repeat
from batchify.reporting.contents import SplitSummary, Summary
from batchify.reporting.pictures import Pictures
from batchify.reporting.sampling import sample_rows

ALBUM_NBYTES = 1_500_000
"""Limit for the bytes of a page's pictures; the rest is not shown. Photos take a fifth of it."""

SIDE = 128
"""The most pixels of a picture's longer side."""

_EXACT_SIDE = 80
"""Images up to this side are shown without loss; larger ones only need to look the same."""

SHOWN = {"train": 36, "validation": 16, "test": 16}
"""Pictures of each split."""

_PER_CLASS = 6


@dataclass(frozen=True, slots=True)
class Picture:
    """A stored image, as shown on a page.

    Parameters
    ----------
    path : bytes
        Path of its image file, relative to the dataset folder.
    class_name : bytes or None
        None if labels are not classes.
    uri : str
        A ``data:`` address; empty if the page has no room for it.
    damaged : bool
        The stored row is not what was written; the picture is a crossed tile.
    undecoded : bool
        It is, and cannot be decoded; the same.
    """

    split: str
    row: int
    path: bytes
    class_name: bytes | None
    uri: str
    damaged: bool
    undecoded: bool = False


@dataclass(frozen=True, slots=True)
class Gallery:
    """Images of one split, drawn by seed.

    Parameters
    ----------
    rows : int
        Rows of the split.
    classes : int or None
        Classes that the split has images of; None if labels are not classes.
    pictures : tuple of Picture
        Class by class.
    """

    split: str
    rows: int
    classes: int | None
    shown_classes: int
    pictures: tuple[Picture, ...]


class Album(Closing):
    """Makes the pictures of a page until `ALBUM_NBYTES` are used; the reader must stay open."""

    def __init__(self, reader: Reader, *, trusted: bool = False) -> None:
        self._reader = reader
        self._left = ALBUM_NBYTES
        self._closing = contextlib.ExitStack()
        self._pictures = {
            split: self._closing.enter_context(
                Pictures(reader, split, overrides=DecodeOverrides(trusted=trusted))
            )
            for split in reader.splits
        }

    def path(self, split: str, row: int) -> bytes:
        """Return the path of a row's image file."""
        return self._pictures[split].path(row)

    def picture(self, split: str, row: int, class_index: int | None) -> Picture:
        """Return the picture of a row."""
        pictures = self._pictures[split]
        longest = max(pictures.size)
        # Without a reduction it would be stored without loss, which takes many bytes.
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
            undecoded=row in pictures.undecoded,
        )

    def gallery(self, split: SplitSummary, seed: int) -> Gallery:
        """Return images of a split: some of each class, for as many classes as fit."""
        name, counts = split.name, split.class_counts
        most, classes = SHOWN[name], None if counts is None else sum(map(bool, counts))
        per_class = most if classes is None else max(1, min(_PER_CLASS, most // max(classes, 1)))
        drawn = sample_rows(
            self._reader, name, per_class=per_class, most_classes=most // per_class, seed=seed
        )
        return Gallery(
            split=name,
            rows=split.rows,
            classes=classes,
            shown_classes=len(drawn),
            pictures=tuple(
                self.picture(name, row, shown.class_index) for shown in drawn for row in shown.rows
            ),
        )

    def close(self) -> None:
        """Close the pictures."""
        self._closing.close()


IMAGES_SHOWN = 12
"""How many images in several splits are shown, and how many repeated within one split."""

ROWS_SHOWN = 6

UNUSUAL_SHOWN = 6
"""How many images of a notice are shown."""

NEAR = ("near-leak", "near-duplicate")

_SECTIONS = {
    **dict.fromkeys(THRESHOLDS, "unusual"),
    **dict.fromkeys(("leak", "group-leak", "label-conflict", "duplicate"), "duplicates"),
    **dict.fromkeys(NEAR, "duplicates"),
    **dict.fromkeys(
        ("empty-class", "missing-class", "similar-classes", "tiny-class", "imbalance"), "classes"
    ),
    "empty-split": "splits",
    "skipped": "skipped",
    "ignored": "skipped",
}
"""The section of the page that a problem belongs to, by its code; the others are of sources."""


def section_of(problem: Problem) -> str:
    """Return the section of the page that a problem belongs to."""
    return _SECTIONS.get(problem.code, "sources")


def verdict_class(problem: Problem) -> str:
    """Return the CSS class for the severity of a problem."""
    return {"error": "bad", "warning": "warn", "notice": "info"}[problem.severity]


@dataclass(frozen=True, slots=True)
class RepeatedRow:
    """A row of a repeated image."""

    split: str
    row: int
    path: bytes
    class_name: bytes | None


@dataclass(frozen=True, slots=True)
class RepeatedImage:
    """An image that several rows have.

    Parameters
    ----------
    picture : Picture
        That of its first row; all have the same bytes.
    shown_rows : tuple of RepeatedRow
        The first of them.
    class_names : tuple of bytes
        Its classes; more than one is a label conflict.
    """

    picture: Picture
    rows: int
    shown_rows: tuple[RepeatedRow, ...]
    class_names: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Images with the same source bytes.

    Parameters
    ----------
    shown_leaks, shown_others : tuple of RepeatedImage
        The first images in several splits, and of those repeated within one; with pictures.
    """

    counts: RepeatCounts
    shown_leaks: tuple[RepeatedImage, ...]
    shown_others: tuple[RepeatedImage, ...]


@dataclass(frozen=True, slots=True)
class Unusual:
    """Images that a notice is about.

    Parameters
    ----------
    pictures : tuple of Picture
        Those of the first examples of the problem.
    """

    problem: Problem
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Lookalikes:
    """Images that look like others.

    Parameters
    ----------
    pairs : tuple of (Picture, Picture)
        Those of the first examples of the problem, and what they look like; each pair once.
    """

    problem: Problem
    pairs: tuple[tuple[Picture, Picture], ...]


@dataclass(frozen=True, slots=True)
class Dossier:
    """Everything that a page shows about a file.

    Parameters
    ----------
    name : bytes
        Name of the file, without its folder.
    seed : int
        Seed that the pictures were drawn with.
    kinds : dict of str to Kinds
        By split.
    command : str
        Builds the file.
    problems : tuple of Problem
        What `batchify check` finds, with few examples.
    unusual : tuple of Unusual
        Those of the problems that are about unusual images.
    near : tuple of Lookalikes
        Those of the problems that are about near duplicates.
    """

    name: bytes
    seed: int
    summary: Summary
    galleries: tuple[Gallery, ...]
    sizes: Sizes
    kinds: dict[str, Kinds]
    repeats: Repeats
    command: str
    problems: tuple[Problem, ...]
    unusual: tuple[Unusual, ...]
    near: tuple[Lookalikes, ...] = ()

    @property
    def damaged(self) -> int:
        """How many of the images that are shown are damaged."""
        repeated = (*self.repeats.shown_leaks, *self.repeats.shown_others)
        shown = [picture for gallery in self.galleries for picture in gallery.pictures]
        shown += [image.picture for image in repeated]
        shown += [picture for each in self.unusual for picture in each.pictures]
        shown += [picture for each in self.near for pair in each.pairs for picture in pair]
        return len({(picture.split, picture.row) for picture in shown if picture.damaged})


def gather(reader: Reader, summary: Summary, *, seed: int, trusted: bool = False) -> Dossier:
    """Read what a page shows about a file, in addition to its summary.

    Notes
    -----
    Memory: 80 bytes per row; 260 (measured) if every image is stored twice.
    """
    # Repeated images first: they matter more if there is no room for all pictures.
    facts = stored_facts(reader)
    problems = find_problems(facts, CheckLimits(), most=UNUSUAL_SHOWN, rows=False)
    with Album(reader, trusted=trusted) as album:
        repeats = _repeats(reader, facts, album)
        odd = [each for each in problems if section_of(each) == "unusual"]
        unusual = tuple(_unusual(each, facts, album) for each in odd)
        near = tuple(_lookalikes(each, facts, album) for each in problems if each.code in NEAR)
        galleries = tuple(album.gallery(split, seed) for split in summary.splits)
    return Dossier(
        name=os.path.basename(reader.shown),
        seed=seed,
        summary=summary,
        galleries=galleries,
        sizes=tally_sizes(reader),
        kinds={split: tally_kinds(reader, split) for split in reader.splits},
        repeats=repeats,
        command=build_command(summary.config, skipped=bool(summary.skipped)),
        problems=problems,
        unusual=unusual,
        near=near,
    )


def _unusual(problem: Problem, facts: Facts, album: Album) -> Unusual:
    rows = [(each.split, each.row) for each in problem.examples if each.row is not None]
    return Unusual(problem, tuple(album.picture(*row, facts.class_of(*row)) for row in rows))


def _lookalikes(problem: Problem, facts: Facts, album: Album) -> Lookalikes:
    def picture(split: str, row: int) -> Picture:
        return album.picture(split, row, facts.class_of(split, row))

    seen: set[frozenset[tuple[str, int]]] = set()  # two rows may be each other's nearest
    pairs = []
    for each in problem.examples:
        if each.row is not None and each.other is not None:
            row, other = (each.split, each.row), each.other
            if frozenset((row, other)) not in seen:
                seen.add(frozenset((row, other)))
                pairs.append((picture(*row), picture(*other)))
    return Lookalikes(problem, tuple(pairs))


def _repeats(reader: Reader, facts: Facts, album: Album) -> Repeats:
    found, labels, class_of = facts.repeats, facts.labels, facts.class_of

    def name_of(index: int | None) -> bytes | None:
        return None if index is None else reader.header.classes[index]

    def image(repeat: Repeat) -> RepeatedImage:
        return RepeatedImage(
            picture=album.picture(*repeat[0], class_of(*repeat[0])),
            rows=len(repeat),
            shown_rows=tuple(
                RepeatedRow(split, row, album.path(split, row), name_of(class_of(split, row)))
                for split, row in repeat[:ROWS_SHOWN]
            ),
            class_names=tuple(reader.header.classes[i] for i in classes_of(repeat, labels)),
        )

    leaks = (repeat for repeat in found if len(repeat.splits) > 1)
    others = (repeat for repeat in found if len(repeat.splits) == 1)
    return Repeats(
        counts=facts.repeat_counts,
        shown_leaks=tuple(map(image, islice(leaks, IMAGES_SHOWN))),
        shown_others=tuple(map(image, islice(others, IMAGES_SHOWN))),
    )
