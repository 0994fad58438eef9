"""Detect doubtful class folders; show what they hold and which options settle it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterable, Sequence

from batchify.common.split_names import named_split
from batchify.common.text import columns_of, plural, printable, shown_names
from batchify.datasets.walk import Listing, Walk
from batchify.errors import DatasetError
from batchify.storage.patterns import escaped, exclude_options

_SHOWN_FOLDERS = 8
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_IMAGE_FOLDERS = frozenset((
    "image", "images", "img", "imgs", "input", "inputs", "jpegimages", "original", "originals",
    "photo", "photos", "picture", "pictures", "rawimages", "rgb",
))  # fmt: skip
_ANNOTATION_FOLDERS = frozenset((
    "alpha", "ann", "annotation", "annotations", "annots", "anns", "bbox", "bboxes", "boxes",
    "contours", "depth", "depthmaps", "depths", "edge", "edges", "groundtruth", "groundtruths",
    "gt", "gts", "heatmaps", "imagesets", "instances", "keypoints", "label", "labelmaps", "labels",
    "landmarks", "maps", "mask", "masks", "mattes", "normals", "seg", "segmentation",
    "segmentationclass", "segmentationmasks", "segmentationobject", "segmentations", "segs",
    "semantic", "target", "targets", "trimap", "trimaps",
))  # fmt: skip
"""Names of folders that denote kinds of files, not classes."""

FLAT_ADVICE = (
    "take labels from the names of the files with --label-from REGEX, or from a table with "
    "--manifest FILE; or store no labels with --class-mode none"
)


def doubt(walk: Walk, parent: Listing, reason: str, *ways: tuple[str, str]) -> DatasetError:
    """Return the error of a dataset that could be several things.

    Parameters
    ----------
    parent : Listing
        The folder whose folders are shown.
    ways : (str, str)
        Options that settle it, each with what it does; or another way, without an option.
    """
    folders = parent.subfolders
    rows = [
        (printable(name) + "/", _content(walk.look(parent.inside(name))))
        for name in folders[:_SHOWN_FOLDERS]
    ]
    if len(folders) > _SHOWN_FOLDERS:
        rows.append(("…", f"and {plural(len(folders) - _SHOWN_FOLDERS, 'folder')} more"))
    if count := len(parent.images.lengths):
        rows.append(("(next to them)", plural(count, "image")))
    where = f" in {printable(parent.path)}" if parent.path else ""
    lines = [f"dataset {walk.name}: {reason}", f"Found{where}:", *_aligned(rows)]
    lines += ["Choose what it is:", *_aligned(list(ways))]
    return DatasetError("\n".join(lines))


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    width = max(columns_of(first) for first, _ in rows)
    return [f"  {first}{' ' * (width - columns_of(first))}  {second}" for first, second in rows]


def _content(listing: Listing) -> str:
    """Describe what a folder holds."""
    found = []
    if listing.subfolders:
        names = shown_names(listing.subfolders)
        found.append(f"{plural(len(listing.subfolders), 'folder')} ({names})")
    if count := len(listing.images.lengths):
        found.append(plural(count, "image"))
    if not found and (count := listing.other.total()):
        found.append(f"{plural(count, 'file')} of other kinds")
    return ", ".join(found) or "nothing"


def verb(names: Collection[bytes], one: str, many: str) -> str:
    """Return names with the matching verb: ``val is``, ``a and b are``."""
    return f"{shown_names(names, 'and')} {one if len(names) == 1 else many}"


def exclude_option(names: Collection[bytes]) -> str:
    """Return the options that exclude some folders."""
    return exclude_options(map(escaped, names))


def exclude_images(folders: Iterable[Listing]) -> str:
    """Return the options that exclude the images of some folders, but not deeper ones."""
    patterns = set()
    for folder in folders:
        top = f"/{escaped(folder.path)}/" if folder.path else "/"
        for path in folder.images.paths():
            name = os.path.basename(path)
            ending = os.path.splitext(name)[1]
            patterns.add(top + ("*" + escaped(ending) if ending else escaped(name)))
    return exclude_options(sorted(patterns))


def first_image(folders: Sequence[Listing]) -> str:
    """Return the path of the first image of some folders, for messages."""
    images = next(each.images for each in folders if each.images.blob)
    return printable(bytes(images.blob[: images.lengths[0]]))


def _plain(name: bytes) -> str:
    """Return a name in lower case, without separators of words."""
    return "".join(filter(str.isalnum, os.fsdecode(name).lower()))


def _kinds(name: bytes, names: list[bytes]) -> set[str]:
    """Return a name in lower case, and the part of it that is not in the other names."""
    words = [_WORD.findall(os.fsdecode(each)) for each in names[:_SHOWN_FOLDERS]]
    common = set(words[0]).intersection(*words[1:])
    own = [word for word in _WORD.findall(os.fsdecode(name)) if word not in common]
    return {_plain(name), "".join(own).lower() if common else ""}


def check_only_folder(walk: Walk) -> None:
    """Refuse a single folder that may be a class or hold classes: images are in or next to it."""
    root = walk.look(b"")
    if len(root.subfolders) != 1:
        return
    name = root.subfolders[0]
    inner = walk.look(name)
    if root.images.blob and inner.subfolders and not inner.images.blob:
        reason = f"{printable(name)} is the only folder, but there are images next to it"
    elif inner.images.blob and len(inner.subfolders) > 1:
        reason = f"{printable(name)} is the only folder, and holds both folders and images"
    else:
        return
    source = walk.tree.source
    full = source.below(name).location
    ways = [
        ("--layout classes", f"{printable(name)} is the only class"),
        ("--layout flat --label-from REGEX", "take classes from the names of all files"),
    ]
    if full != source.location:  # not in an archive
        build = f"batchify build {shlex.quote(printable(full))}"
        ways.append((build, "take its folders, and not the loose images"))
    raise doubt(walk, root, reason, *ways)


def check_kinds(
    walk: Walk,
    parent: Listing,
    *,
    is_first: bool = True,
    needs_classes: bool = True,
    is_split: bool = False,
) -> None:
    """Refuse class folders that are named after kinds of files, such as images and labels.

    Parameters
    ----------
    is_first : bool
        No earlier split has class folders.
    needs_classes : bool
        The folders are to be classes; otherwise they matter if annotations would be images.
    is_split : bool
        They belong to a split.
    """
    names = parent.subfolders
    images = [name for name in names if _kinds(name, names) & _IMAGE_FOLDERS]
    others = [name for name in names if _kinds(name, names) & _ANNOTATION_FOLDERS]
    if len(names) == 2 and (images or others) and _are_paired(walk, parent):
        if not images and not _contain(names, others[0]):
            images = [name for name in names if name not in others]
        elif not others:
            others = [name for name in names if name not in images]
    where = f" in {printable(parent.path)}" if parent.path else ""
    kept = "splits" if is_split else "classes"
    if images and others:
        reason = (
            f"{shown_names([*images, *others], 'and')}{where} look like images and their "
            "annotations, not like classes"
        )
        without = exclude_option(others) + " "
        found = [walk.look(parent.inside(name)) for name in names]
        if not needs_classes and not _mixes(walk, found, others):
            return
        if any(len(each.subfolders) > 1 for each in found if each.name in images):
            ways = [(without.strip(), f"ignore {shown_names(others, 'and')}")]
        else:
            ways = []
    elif needs_classes and images and len(images) == len(names) and is_first:
        reason = f"{shown_names(images)}{where} has images, but its name is not that of a class"
        without, ways = "", []
    else:
        if needs_classes and images and is_first:
            walk.warn(
                "kinds",
                f"{shown_names(images, 'and')}{where} became a class, but the name is not that of "
                f"a class: {exclude_option(images)} ignores it, --manifest FILE takes the labels "
                f"from a table, and --layout {kept} takes it as a class",
            )
        return
    taken = f"take {shown_names(names, 'and')} as classes"
    if not needs_classes:
        kept, taken = "splits" if is_split else "flat", "take the images of all folders"
    raise doubt(
        walk,
        parent,
        reason,
        ("--manifest FILE", "take the labels from a table (masks: with --class-mode mask)"),
        (f"{without}--label-from REGEX", "take classes from the names of the files"),
        *ways,
        (f"--layout {kept}", taken),
        (f"{without}--class-mode none", "store no labels"),
    )


def _mixes(walk: Walk, folders: list[Listing], others: list[bytes]) -> bool:
    """Return whether annotations are images, or folders of images are splits."""
    return any(
        has_images(walk, each)
        if each.name in others
        else any(named_split(os.fsdecode(name)) for name in each.subfolders)
        for each in folders
    )


def has_images(walk: Walk, listing: Listing) -> bool:
    """Return whether there are images in a folder, or below it."""
    pending = [listing]
    while pending:
        found = pending.pop()
        if found.images.blob:
            return True
        pending += [walk.look(found.inside(name)) for name in found.folders]
    return False


def _are_paired(walk: Walk, parent: Listing) -> bool:
    """Return whether the images of two folders have mostly the same names, except for the ending.

    One of them may add a word: ``1_mask.png`` goes with ``1.jpg``.
    """
    one, other = (
        {os.path.splitext(os.path.basename(path))[0] for path in found.images.paths()}
        for found in (walk.look(parent.inside(name)) for name in parent.subfolders)
    )
    both = len(one & other)
    for some, rest in ((one, other), (other, one)):
        shorter = {stem.replace(b"-", b"_").rpartition(b"_")[0] for stem in some}
        both = max(both, len(shorter & rest))
    return both * 2 > max(len(one), len(other))


def _contain(names: Collection[bytes], word: bytes) -> bool:
    """Return whether all names contain a word: ``mask`` and ``no_mask`` are classes."""
    return all(_plain(word) in _plain(name) for name in names)


def check_nested(walk: Walk, parent: Listing, *, asks: bool) -> None:
    """Warn of class folders that hold only folders; refuse them if all hold the same ones.

    They may differ in some folders, and a few images may be next to them.

    Parameters
    ----------
    asks : bool
        Refuse them, and not only warn.
    """
    inner = [walk.look(parent.inside(name)) for name in parent.subfolders]
    full = [each for each in inner if each.subfolders]
    several = [each for each in full if len(each.subfolders) > 1]
    if not several:
        return
    own = sum(each.image_count for each in inner)
    common = [
        name for name in full[0].subfolders if all(name in each.subfolders for each in full[1:])
    ]
    if asks and len(full) > 1 and len(common) > 1 and _is_small(own, walk, full, common):
        kept = "splits" if parent.path else "classes"
        every = "both" if len(full) == 2 else f"all {len(full):,}"
        inner_names, outer_names = (shown_names(each.subfolders) for each in (full[0], parent))
        leaf, held = "--class-from leaf", "no images of their own"
        if own:
            leaf += f" {exclude_images(inner)}"
            held = f"few images of their own ({own:,}, such as {first_image(inner)})"
        is_same = all(each.subfolders == full[0].subfolders for each in full)
        what = "the same folders" if is_same else f"folders {shown_names(common, 'and')}"
        raise doubt(
            walk,
            parent,
            f"{every} folders hold {what} and {held}: either the outer or the inner ones "
            "are the classes",
            (leaf, f"take the inner folders as classes: {inner_names}"),
            (f"--layout {kept}", f"take the outer folders as classes: {outer_names}"),
            ("or rename", "the folders of splits to train, val and test"),
        )
    if own:
        return
    first = several[0]
    walk.warn(
        "nested-classes",
        "no class folder has images of its own, and they hold several folders: "
        f"{printable(first.path)} holds {shown_names(first.subfolders, 'and')}; the outer "
        "folders are the classes, --class-from leaf or path takes the inner ones",
    )


def _is_small(own: int, walk: Walk, outer: list[Listing], names: list[bytes]) -> bool:
    """Return whether `own` images are few, compared with those in the folders of others."""
    if not own:
        return True
    deep = sum(walk.look(each.inside(name)).image_count for each in outer for name in names)
    return own * 5 <= deep
