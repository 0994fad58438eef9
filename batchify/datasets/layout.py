"""Decide which folders of a dataset are classes and which are splits, or ask.

Nothing is guessed: if a dataset could be several things, an error shows its folders and the
options that settle it. Each folder is listed once.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from batchify import choices
from batchify.common.split_names import named_split, split_of_name
from batchify.common.text import plural, printable, shown_names
from batchify.datasets.doubts import (
    FLAT_ADVICE,
    check_kinds,
    check_nested,
    check_only_folder,
    doubt,
    exclude_option,
    first_image,
    verb,
)
from batchify.datasets.neighbors import (
    check_doubled,
    check_neighbors,
    check_only_class,
    has_table,
    holds_parts,
    innermost,
    warn_linked,
)
from batchify.datasets.walk import ClassFolder, Listing, Walk
from batchify.errors import DatasetError


@dataclass(frozen=True)
class Part:
    """A split of a dataset, or all of a dataset that is not split.

    Parameters
    ----------
    split : str
        Empty if the dataset is not split.
    folders : list of ClassFolder
        The folders to read; a single one without a name if it has no class folders.
    is_labelled : bool
        Its images have a class.
    """

    split: str
    folders: list[ClassFolder]
    is_labelled: bool = True

    @property
    def folder(self) -> bytes:
        """The folder of the split."""
        return self.folders[0].path.partition(b"/")[0]


@dataclass(frozen=True)
class Layout:
    """The roles of a dataset's folders.

    Parameters
    ----------
    name : str
        ``classes``, ``splits`` or ``flat``.
    """

    name: str
    parts: list[Part]


def find_layout(walk: Walk, *, needs_labels: bool) -> Layout:
    """Return the role of each folder.

    Parameters
    ----------
    needs_labels : bool
        Every image needs a class.

    Raises
    ------
    DatasetError
        If it is not clear what the folders are and ``--layout`` is ``auto``.
    """
    options = walk.options
    is_flat = options.layout == "flat"
    if options.layout == "auto" and options.label_from:
        root = walk.look(_wrapper(walk))
        is_flat = not _named_splits(root.subfolders)
        if is_flat:
            check_kinds(walk, root, needs_classes=False)
    if is_flat:
        return _flat(walk, needs_labels=needs_labels)
    has_labels = False
    for name in filter(None, _wrapper(walk).split(b"/")):
        has_labels |= has_table(walk.look(b""))
        walk.enter(name)
    return _Judge(walk, needs_labels=needs_labels, has_labels=has_labels).layout()


def _wrapper(walk: Walk) -> bytes:
    """Return the path of the only folder of the dataset, or of the only one in it, and so on.

    It holds folders and no images; other files may be next to it. A folder of images is
    a class, and one that is named like a split is a split, even if there is only one.
    """
    path = b""
    while True:
        outer = walk.look(path)
        folders = outer.subfolders
        if len(folders) != 1 or named_split(os.fsdecode(folders[0])):
            return path
        if outer.images.blob and walk.options.layout != "splits":
            return path
        inside = outer.inside(folders[0])
        if walk.tree.folder_reason(inside):
            return path
        inner = walk.look(inside)
        if not inner.subfolders or inner.images.blob:
            return path
        path = inside


def _flat(walk: Walk, *, needs_labels: bool) -> Layout:
    if needs_labels and not walk.options.label_from:
        raise DatasetError(
            f"dataset {walk.name}: a flat layout has no class folders; {FLAT_ADVICE}"
        )
    return Layout("flat", [Part("", [ClassFolder(b"", b"")])])


def _named_splits(names: Iterable[bytes]) -> dict[bytes, str]:
    """Return the folders that are named like splits, with the split of each.

    Other words are allowed if folders of several splits have them: ``seg_train`` and
    ``seg_test``.
    """
    found: dict[bytes, str] = {}
    alike: dict[str, dict[bytes, str]] = defaultdict(dict)
    for name in names:
        split, others = split_of_name(os.fsdecode(name))
        if split:
            alike[others][name] = split
    for others, folders in alike.items():
        if not others or len(set(folders.values())) > 1:
            found |= folders
    return found


class _Judge:
    """Decides what the folders of a dataset are, once the root is known.

    Parameters
    ----------
    has_labels : bool
        There is a table in a folder above the root.
    """

    def __init__(self, walk: Walk, *, needs_labels: bool, has_labels: bool) -> None:
        self._walk = walk
        self._has_labels = has_labels
        self._root = walk.look(b"")
        self._tops = self._root.subfolders
        self._named = _named_splits(self._tops)
        self._chosen = walk.options.layout
        self._needs_classes = needs_labels and not walk.options.label_from

    def layout(self) -> Layout:
        """Return what the folders are."""
        if self._chosen == "splits" or (self._chosen == "auto" and self._is_split()):
            return self._splits()
        return self._classes()

    @property
    def _asks(self) -> bool:
        """Whether to ask the user about doubtful class folders."""
        return self._chosen == "auto" and self._needs_classes

    def _look(self, name: bytes) -> Listing:
        return self._walk.look(self._root.inside(name))

    def _holds(self, name: bytes) -> bool:
        """Return whether a folder holds images or folders."""
        found = self._look(name)
        return bool(found.subfolders or found.images.blob)

    def _is_split(self) -> bool:
        """Return whether the folders are splits; refuse a dataset where only some are."""
        if not self._named:
            return False
        others = [name for name in self._tops if name not in self._named and self._holds(name)]
        if not others:
            return True
        is_lone = len(self._named) == 1 and not any(self._look(n).subfolders for n in self._tops)
        # a class may be called train or test: only one is, and the others look the same
        is_class = is_lone and ("train" not in self._named.values() or len(others) > 1)
        if is_class and not holds_parts(others):
            return False
        raise self._mixed(list(self._named), others)

    def _mixed(self, splits: list[bytes], others: list[bytes]) -> DatasetError:
        """Return the error of folders of which some are named like splits."""
        walk = self._walk
        kept, dropped = (splits, others) if "train" in self._named.values() else (others, splits)
        ignored, option = f"ignore {shown_names(dropped, 'and')}", exclude_option(dropped)
        ways = [
            ("--manifest FILE", "take the labels from a table"),
            (f"{option} --label-from REGEX", f"{ignored}, and take classes from names of files"),
            (f"{option} --class-mode none", f"{ignored}, and store no labels"),
        ]
        if any(innermost(walk, self._look(name)).subfolders for name in kept):
            ways = [(option, ignored)]
        if kept is splits:
            ways.append(("--layout splits", "take the splits, and ignore the other folders"))
        return doubt(
            walk,
            self._root,
            f"{verb(splits, 'is named like a split', 'are named like splits')}, "
            f"{verb(others, 'is', 'are')} not",
            *ways,
            ("--layout classes", f"take all {len(self._tops)} folders as classes"),
        )

    def _classes(self) -> Layout:
        """Return the layout of class folders."""
        root = self._root
        if self._chosen == "auto" and not any(map(self._holds, self._tops)):
            if root.images.blob and not self._needs_classes:
                return _flat(self._walk, needs_labels=False)
            if root.images.blob or not self._tops:
                raise DatasetError(self._no_class_folders())
        elif not self._tops:
            raise DatasetError(self._no_class_folders())
        if self._asks:
            check_only_folder(self._walk)
            check_kinds(self._walk, root)
            check_only_class(self._walk, has_labels=self._has_labels)
            check_neighbors(self._walk, root)
        elif self._chosen == "auto":
            check_kinds(self._walk, root, needs_classes=False)
        self._check_nested(root)
        self._walk.pass_by(b"")
        return Layout("classes", [Part("", [ClassFolder(name, name) for name in self._tops])])

    def _check_nested(self, parent: Listing) -> None:
        if self._needs_classes:
            warn_linked(self._walk, parent)
        if self._needs_classes and self._walk.options.class_from == "top":
            check_nested(self._walk, parent, asks=self._asks)

    def _no_class_folders(self) -> str:
        images = self._root.images
        if not images.blob:
            files = self._root.other.total()
            found = f" ({plural(files, 'file')} of other kinds in it)" if files else ""
            return (
                f"dataset {self._walk.name} has no class folders{found}; put the images of each "
                f"class into their own folder{self._walk.skipped_text}"
            )
        first = first_image([self._root])
        empty = f" ({shown_names(self._tops, 'and')} hold none)" if self._tops else ""
        return (
            f"dataset {self._walk.name} has {plural(len(images.lengths), 'image')}, such as "
            f"{first}, but no class folders with images{empty}; put the images of each class into "
            f"their own folder, or {FLAT_ADVICE}"
        )

    def _splits(self) -> Layout:
        """Return the layout of split folders."""
        walk, folder_of = self._walk, {split: name for name, split in self._named.items()}
        for split, count in Counter(self._named.values()).items():
            if count > 1:
                names = shown_names([n for n, each in self._named.items() if each == split])
                raise DatasetError(
                    f"dataset {walk.name}: folders {names} are all the {split} split; keep one of "
                    "them, or pass --exclude NAME; with --layout classes all folders are classes"
                )
        if not folder_of:
            raise DatasetError(
                f"dataset {walk.name}: --layout splits needs folders that are named like splits "
                f"(train, val, test), it has {shown_names(self._tops) or 'no folders'}"
            )
        ignored = [name for name in self._tops if name not in self._named and self._holds(name)]
        if ignored:
            walk.warn("ignored-folders", f"ignored {shown_names(ignored, 'and')}: not splits")
        walk.pass_by(b"")
        parts: list[Part] = []
        for split in choices.SPLITS:
            if split in folder_of:
                part = self._part(split, folder_of[split], parts[0] if parts else None)
                parts += [part] if part.folders else []
        if not parts:
            raise DatasetError(
                f"dataset {walk.name} has no images: "
                f"{verb(self._named, 'holds', 'hold')} neither images nor class folders"
            )
        return Layout("splits", parts)

    def _part(self, split: str, path: bytes, first: Part | None) -> Part:
        """Return the folders to read for a split.

        Parameters
        ----------
        first : Part or None
            The first split: train, if there is one.
        """
        walk = self._walk
        if walk.refuses(path):
            return Part(split, [])
        listing = walk.look(path)
        while inner := self._inner(listing):
            walk.pass_by(listing.path)
            listing = walk.look(inner)
        if self._chosen == "auto" and not self._needs_classes:
            check_kinds(walk, listing, needs_classes=False, is_split=True)
        if self._asks:
            check_doubled(walk, listing, self._tops)
        whole = [ClassFolder(b"", listing.path)]
        if walk.options.label_from:
            return Part(split, whole)
        names = listing.subfolders
        if not names and listing.images.blob:
            if self._needs_classes:
                return Part(split, whole, self._check_flat(split, listing, first))
            return Part(split, whole)
        if self._needs_classes and split == "test" and first is not None:
            only = walk.look(listing.inside(names[0])) if len(names) == 1 else None
            if only is not None and self._is_unlabelled(names[0], only, first):
                self._warn_unlabelled(split, only)
                walk.pass_by(listing.path)
                return Part(split, [ClassFolder(b"", only.path)], is_labelled=False)
        if self._asks:
            check_kinds(walk, listing, is_first=first is None, is_split=True)
            check_neighbors(walk, listing)
        if split == "train":
            self._check_nested(listing)
        walk.pass_by(listing.path)
        return Part(split, [ClassFolder(name, listing.inside(name)) for name in names])

    def _inner(self, listing: Listing) -> bytes | None:
        """Return the only folder of a split if it holds the class folders: ``train/train/cat``."""
        names = listing.subfolders
        if len(names) != 1 or listing.images.blob:
            return None
        inside = listing.inside(names[0])
        inner = self._walk.look(inside)
        if not inner.subfolders or inner.images.blob:
            return None
        is_split = named_split(os.fsdecode(names[0])) or names[0] in self._tops
        return inside if is_split or len(inner.subfolders) > 1 else None

    def _check_flat(self, split: str, listing: Listing, first: Part | None) -> bool:
        """Return False for a split that has no labels; refuse one that should have some."""
        walk, name = self._walk, printable(listing.path)
        images = plural(len(listing.images.lengths), "image")
        is_asked = self._chosen == "splits" or split == "test"
        if is_asked and first is not None and first.split == "train":
            self._warn_unlabelled(split, listing)
            return False
        ways = [
            ("--manifest FILE", "take the labels from a table"),
            ("--label-from REGEX", "take classes from the names of the files"),
            ("--layout classes", f"take {shown_names(self._tops, 'and')} as classes"),
            ("--class-mode none", "store no labels"),
            ("or move", f"the images of {name} into one folder per class"),
        ]
        if split != "train" and first is not None:
            ways.insert(0, ("--layout splits", f"store {name} without labels"))
            ways.insert(0, (exclude_option([listing.path]), f"ignore {name}"))
        reason = f"{name} has {images} but no class folders"
        raise doubt(walk, self._root, reason, *ways)

    def _is_unlabelled(self, name: bytes, only: Listing, first: Part) -> bool:
        """Return whether the only folder of a test split is not a class of train."""
        known = {os.fsdecode(folder.name).casefold() for folder in first.folders}
        is_flat = bool(only.images.blob) and not only.subfolders
        is_train = first.split == "train" and first.is_labelled
        return is_flat and is_train and os.fsdecode(name).casefold() not in known

    def _warn_unlabelled(self, split: str, listing: Listing) -> None:
        self._walk.warn(
            "unlabelled",
            f"{printable(listing.path)} has {plural(len(listing.images.lengths), 'image')} but no "
            f"class folders: the images of the {split} split are stored without labels",
        )
