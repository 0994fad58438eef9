"""Detect folders that do not fit next to class folders, or next to the folder that holds them."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Collection

from batchify.common.split_names import named_split
from batchify.common.text import printable, shown_names
from batchify.datasets.doubts import doubt, exclude_images, exclude_option, has_images, verb
from batchify.datasets.walk import Listing, Walk

_HOLDERS = frozenset((
    "data", "dataset", "datasets", "image", "images", "img", "imgs", "input", "inputs", "photos",
    "pictures", "processed", "raw",
))  # fmt: skip
_WORK_FOLDERS = frozenset((
    "annotations", "checkpoints", "code", "docs", "figures", "logs", "meta", "metadata",
    "notebooks", "output", "outputs", "plots", "predictions", "results", "runs", "screenshots",
    "scripts", "src", "weights",
))  # fmt: skip
"""Names of folders that hold classes, and of folders that are often next to them."""

_PARTS = frozenset(("all", "extra", "other", "unlabeled", "unlabelled", "unsup"))
_TABLES = frozenset((".csv", ".json", ".jsonl", ".parquet", ".tsv", ".xls", ".xlsx"))
_NUMBERED_CLASSES = frozenset((
    "c", "cat", "category", "class", "cls", "grade", "group", "id", "label", "level", "n", "person",
    "s", "score", "stage", "subject", "type",
))  # fmt: skip


def check_neighbors(walk: Walk, parent: Listing) -> None:
    """Refuse class folders of which one holds a copy of the others, or all of the classes."""
    folders = {name: walk.look(parent.inside(name)) for name in parent.subfolders}
    _check_parts(walk, parent, folders)
    holders = {}
    for name, found in folders.items():
        inner = innermost(walk, found)
        if inner.subfolders and not inner.images.blob:
            holders[name] = inner
    if len(folders) > 1 and holders:
        _check_copies(walk, parent, holders)
        if walk.options.class_from == "top":
            _check_repeated(walk, parent, list(folders.values()))
            _check_splits_inside(walk, parent, holders)
            _check_holders(walk, parent, holders)


def warn_linked(walk: Walk, parent: Listing) -> None:
    """Warn of class folders that are links to others: their images have two classes."""
    if not parent.links:
        return
    real = {
        name: os.path.realpath(walk.tree.source.below(parent.inside(name)).location)
        for name in parent.subfolders
    }
    names = {path: name for name, path in real.items() if name not in parent.links}
    for link in parent.links:
        if (name := names.get(real[link])) is not None:
            walk.warn(
                "repeated-class",
                f"{printable(parent.inside(link))} is a link to {printable(name)}, so the same "
                f"images have two classes; {_excluding(walk, parent, [link], [])} ignores it",
            )


def innermost(walk: Walk, listing: Listing) -> Listing:
    """Return a folder, or the only folder in it, and so on down."""
    while len(listing.subfolders) == 1 and not listing.images.blob:
        listing = walk.look(listing.inside(listing.subfolders[0]))
    return listing


def has_table(listing: Listing) -> bool:
    """Return whether a folder holds what may be a table of labels."""
    return any(ending in _TABLES for ending in listing.other)


def check_only_class(walk: Walk, *, has_labels: bool) -> None:
    """Refuse a single folder of images with a table, or in a folder of the same name.

    Parameters
    ----------
    has_labels : bool
        There is a table in a folder above.
    """
    root = walk.look(b"")
    if len(root.subfolders) != 1:
        return
    name = root.subfolders[0]
    found = walk.look(name)
    if found.subfolders or not found.images.blob:
        return
    above = walk.tree.entered.rpartition(b"/")[2]
    if has_labels or has_table(root) or has_table(found):
        reason = f"{printable(name)} is the only folder, and there is a table of labels with it"
    elif above == name:
        reason = f"{printable(name)} is the only folder, in a folder of the same name"
    else:
        return
    raise doubt(
        walk,
        root,
        reason,
        ("--manifest FILE", "take the labels from a table"),
        ("--label-from REGEX", "take classes from the names of the files"),
        ("--class-mode none", "store no labels"),
        ("--layout classes", f"{printable(name)} is the only class"),
    )


def check_doubled(walk: Walk, split: Listing, tops: Collection[bytes]) -> None:
    """Refuse a split whose only folder has its name and holds both class folders and images."""
    names = split.subfolders
    if len(names) != 1 or split.images.blob:
        return
    inner = walk.look(split.inside(names[0]))
    is_split = named_split(os.fsdecode(names[0])) or names[0] in tops
    if is_split and inner.subfolders and inner.images.blob:
        raise doubt(
            walk,
            split,
            f"{printable(inner.path)} holds both folders and images",
            (
                exclude_images([inner]),
                "take its folders as classes, and not the loose images",
            ),
            ("--layout splits", f"take {printable(names[0])} as a class"),
        )


def holds_parts(names: Collection[bytes]) -> bool:
    """Return whether folders are named like things that are neither splits nor classes."""
    return all(_folded(name) in _HOLDERS | _PARTS for name in names)


def _folded(name: bytes) -> str:
    return os.fsdecode(name).casefold()


def _kept(walk: Walk, parent: Listing, names: list[bytes]) -> tuple[str, str]:
    """Return the option that takes all folders as classes."""
    chosen = "splits" if parent.path and not walk.options.label_from else "classes"
    return (f"--layout {chosen}", f"take {shown_names(names, 'and')} as classes")


def _excluding(walk: Walk, parent: Listing, names: list[bytes], others: list[bytes]) -> str:
    """Return options that exclude some folders, and nothing in the others."""
    above = walk.base.split(b"/") + parent.path.split(b"/")
    if set(names).intersection([*above, *others]):
        names = [walk.base + parent.inside(name) for name in names]
    return exclude_option(names)


def _check_copies(walk: Walk, parent: Listing, holders: dict[bytes, Listing]) -> None:
    """Refuse a folder that holds folders that are named like those next to it."""
    neighbors = {_folded(name) for name in parent.subfolders}
    for name, inner in holders.items():
        same = [each for each in inner.subfolders if _folded(each) in neighbors - {_folded(name)}]
        if len(same) < min(2, len(inner.subfolders)):
            continue
        raise doubt(
            walk,
            parent,
            f"{printable(name)} holds folders that are named like those next to it "
            f"({shown_names(same, 'and')}): it may be a copy of them",
            (_excluding(walk, parent, [name], inner.subfolders), f"ignore {printable(name)}"),
            _kept(walk, parent, parent.subfolders),
        )


def _check_repeated(walk: Walk, parent: Listing, folders: list[Listing]) -> None:
    """Refuse folders of which several hold folders of the same names, though not all the same.

    Those that share at least two in all folders are left to `check_nested`.
    """
    inner = [set(each.subfolders) for each in folders if each.subfolders]
    if any(each.images.blob for each in folders) or max(map(len, inner)) < 2:
        return
    counts = Counter(name for names in inner for name in names)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if len(repeated) * 2 < len(counts) or len(set.intersection(*inner)) > 1:
        return
    raise doubt(
        walk,
        parent,
        f"several folders hold {shown_names(repeated, 'and')}, and none has images of its own: "
        "either the outer or the inner ones are the classes",
        ("--class-from leaf", f"take the inner folders as classes: {shown_names(sorted(counts))}"),
        _kept(walk, parent, parent.subfolders),
        ("or move", "splits to the top: train/CLASS, val/CLASS and test/CLASS"),
    )


def _check_splits_inside(walk: Walk, parent: Listing, holders: dict[bytes, Listing]) -> None:
    """Refuse a folder of splits next to folders without them."""
    found = {}
    for name, inner in holders.items():
        names = inner.subfolders
        splits = [each for each in names if named_split(os.fsdecode(each))]
        if len(splits) > 1 or splits == names or (splits and _folded(name) in _HOLDERS):
            found[name] = splits
    if len(found) == 1:
        name, splits = found.popitem()
        raise _unlike(
            walk, parent, name, holders[name], f"{printable(name)} holds folders that are named "
            f"like splits ({shown_names(splits, 'and')})",
        )  # fmt: skip


def _check_holders(walk: Walk, parent: Listing, holders: dict[bytes, Listing]) -> None:
    """Refuse a folder that holds several folders of images next to folders that do not."""
    several = [
        name
        for name, inner in holders.items()
        if len(inner.subfolders) > 1 and has_images(walk, inner)
    ]
    folders = {name: walk.look(parent.inside(name)) for name in parent.subfolders}
    filled = [name for name, found in folders.items() if has_images(walk, found)]
    names = set(map(_folded, filled))
    for name in several:
        others = [each for each in filled if each != name]
        alone = len(several) == 1
        is_named = alone and _folded(name) in _HOLDERS
        is_lone = alone and len(others) < 2 and not any(folders[each].subfolders for each in others)
        if is_lone or is_named or (len(others) < 4 and names - {_folded(name)} <= _WORK_FOLDERS):
            raise _unlike(
                walk, parent, name, holders[name],
                f"{printable(name)} holds several folders and no images of its own",
            )  # fmt: skip


def _unlike(walk: Walk, parent: Listing, name: bytes, inner: Listing, reason: str) -> Exception:
    """Return the error of a folder that may be the dataset, and others next to it."""
    others = [each for each in parent.subfolders if each != name]
    named = shown_names(inner.subfolders, "and")
    ways = [
        (
            _excluding(walk, parent, others, inner.subfolders),
            f"take {named} of {printable(name)}, and ignore {shown_names(others, 'and')}",
        )
    ]
    source = walk.tree.source
    path = source.below(parent.inside(name)).location
    if path != source.location:  # not in an archive
        ways.append((f"batchify build {shlex.quote(printable(path))}", "the same"))
    if any(has_images(walk, walk.look(parent.inside(each))) for each in others):
        ways.append(("--class-from leaf", f"take {named} as classes, and those next to them"))
    ways.append(_kept(walk, parent, parent.subfolders))
    contrast = verb(others, "is next to it and does not", "are next to it and do not")
    return doubt(walk, parent, f"{reason}; {contrast}", *ways)


def _check_parts(walk: Walk, parent: Listing, folders: dict[bytes, Listing]) -> None:
    """Refuse folders that are parts of one: their names differ by a number only."""
    stems = Counter(re.sub(r"\d+", "#", _folded(name)) for name in folders)
    stem = next(iter(stems), "")
    words = re.findall(r"[^\W\d_]+", stem)
    if len(folders) < 2 or len(stems) > 1 or not words or "#" not in stem:
        return
    inner = {name for found in folders.values() for name in found.subfolders}
    is_deep = not any(found.images.blob for found in folders.values()) and len(inner) == 1
    if words[-1] in _NUMBERED_CLASSES:
        return
    is_image = is_deep and _folded(inner.pop()) in {*_HOLDERS, "jpegimages", "pngimages"}
    if is_image or has_table(parent):
        table = ", and there is a table next to them" if has_table(parent) else ""
        names = list(folders)
        raise doubt(
            walk,
            parent,
            f"{shown_names(names, 'and')} have names that differ by a number only{table}: they "
            "may be parts of one dataset",
            ("--manifest FILE", "take the labels from a table"),
            ("--layout flat --label-from REGEX", "take classes from the names of the files"),
            ("--layout flat --class-mode none", "store no labels"),
            _kept(walk, parent, names),
        )
