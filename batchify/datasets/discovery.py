"""Find the images of class folders, as Keras does, and make them a Dataset.

The rules are those of ``flow_from_directory`` (Keras-Preprocessing 1.1.2,
``keras_preprocessing/image/utils.py``), except for hidden files, which are ignored by default,
and links that lead out of the dataset folder.
"""

from __future__ import annotations

import os

import numpy as np

from batchify.common.paths import is_url, local_path, secrets_of
from batchify.common.text import counts_text, plural, printable, shown_names
from batchify.dataset_options import DiscoverOptions
from batchify.datasets.classes import number_warnings, similar_names, similar_warnings
from batchify.datasets.dataset import Dataset
from batchify.datasets.doubts import FLAT_ADVICE, exclude_images, exclude_option, first_image
from batchify.datasets.ignored import ignored_text, taking_advice
from batchify.datasets.keras_utils import check_keras_utils
from batchify.datasets.layout import Layout, find_layout
from batchify.datasets.packed import PackedTree
from batchify.datasets.packed_formats import open_packed, packed_kind, unread_advice
from batchify.datasets.sampling import FoundSamples, find_samples
from batchify.datasets.walk import Walk
from batchify.errors import (
    BatchifyWarning,
    DatasetError,
    DatasetNotFoundError,
    FileAccessError,
    FileMissingError,
)
from batchify.format.shard_index import INDEX_NAME, is_shard_folder
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.storage.archive import archive_kind, list_archive
from batchify.storage.patterns import PathFilter
from batchify.storage.tree import FOLLOW_LINKS, FolderTree, Tree


def open_tree(
    directory: str | os.PathLike[str],
    options: DiscoverOptions,
    *,
    timeout_s: float = IMAGE_TIMEOUT_S,
    patterns: PathFilter | None = None,
) -> Tree:
    """Open the tree of a dataset: a folder, an archive, a URL, or images packed with labels.

    Parameters
    ----------
    patterns : PathFilter, optional
        They help to decide which folder of an archive is the dataset.
    timeout_s : float
        How long reading a file may take; see `batchify.storage.remote_source.RemoteSource`.

    Raises
    ------
    DatasetNotFoundError
        If there is no such dataset.
    DatasetError
        If it is an archive that cannot be read.
    """
    if is_url(directory):
        from batchify.storage.remote_source import list_remote  # imports asyncio

        return list_remote(os.fsdecode(directory), options, timeout_s)
    if packed := packed_kind(directory):
        return open_packed(directory, packed, options, timeout_s)
    path = local_path(directory)
    if kind := archive_kind(path):
        return list_archive(path, kind, options, patterns, timeout_s=timeout_s)
    return FolderTree(path, follow_links=options.follow_links, timeout_s=timeout_s)


def is_dataset(location: str | os.PathLike[str]) -> bool:
    """Return whether a path or a URL is that of a dataset, and not of a built file."""
    if is_url(location):
        from batchify.storage.remote_source import is_remote_folder  # imports asyncio

        return is_remote_folder(os.fsdecode(location)) and not holds_shards(location)
    path = local_path(location)
    if os.path.isdir(path):
        return not holds_shards(path)
    return archive_kind(path) is not None or packed_kind(path) is not None


def holds_shards(location: str | os.PathLike[str]) -> bool:
    """Return whether a path or a URL is that of a folder with a shard index.

    Raises
    ------
    RemoteError
        If a store does not answer.
    """
    if not is_url(location):
        return is_shard_folder(local_path(location))
    url = os.fsdecode(location)
    if any(each.startswith("?") for each in secrets_of(url)):  # a signed URL is that of a file
        return False
    from batchify.storage.remote_file import RemoteFile, url_below  # imports asyncio

    try:
        found = RemoteFile(url_below(url, os.fsdecode(INDEX_NAME)))
        return found.nbytes > 0
    except (FileMissingError, FileAccessError):  # some stores deny access to what is not there
        return False


def discover(
    directory: str | os.PathLike[str],
    options: DiscoverOptions | None = None,
    *,
    needs_labels: bool = True,
    timeout_s: float = IMAGE_TIMEOUT_S,
) -> Dataset:
    """Return the classes and samples of a dataset.

    Parameters
    ----------
    directory : path
        ``directory/class/…/image``, or ``directory/train/class/…/image`` next to ``val`` and
        ``test``; which of them it is, `batchify.datasets.layout` decides. Also a ``.zip`` or
        ``.tar`` of such a folder (see `batchify.storage.archive.list_archive`), or its URL.
    options : DiscoverOptions, optional
    needs_labels : bool
        Every image needs a class, so that a folder without class folders is an error.
    timeout_s : float
        How long reading one file from a store may take.

    Returns
    -------
    Dataset
        Memory: the bytes of all paths and 12 more per file; while a folder is listed, one
        ``bytes`` object for each of its files.

    Raises
    ------
    DatasetNotFoundError
        If `directory` is neither a folder nor an archive.
    RemoteError
        If a store does not answer.
    DatasetError
        If it has no images, or it is not clear which folders are its classes; if a folder in it
        cannot be listed; or if it is an archive that is damaged or not supported.
    """
    try:
        return _discover(
            directory, options or DiscoverOptions(), needs_labels=needs_labels, timeout_s=timeout_s
        )
    except (DatasetError, DatasetNotFoundError) as error:
        if (advice := unread_advice(directory)) is not None:
            raise DatasetError(advice) from error
        raise


def _discover(
    directory: str | os.PathLike[str],
    options: DiscoverOptions,
    *,
    needs_labels: bool,
    timeout_s: float,
) -> Dataset:
    patterns = PathFilter(options) if options.has_patterns else None
    tree = open_tree(directory, options, timeout_s=timeout_s, patterns=patterns)
    if isinstance(tree, PackedTree):
        raise DatasetError(
            f"dataset {printable(tree.source.location)} has labels of its own, and no folders of "
            "classes; batchify.plan_build reads it"
        )
    base = tree.entered + b"/" if tree.entered else b""
    walk = Walk(tree, options, patterns, skipped=list(tree.refused), base=base)
    layout = find_layout(walk, needs_labels=needs_labels)
    found = find_samples(walk, layout, needs_labels=needs_labels)
    if not len(found.samples):
        raise DatasetError(_no_images(walk))
    if options.as_keras_utils:
        check_keras_utils(walk, layout, found.samples, walk.base[len(base) : -1])
    if options.layout == "auto":
        _check_loose(walk, layout, found, asks=needs_labels)
        if needs_labels:
            _check_shared(walk, layout, found)
    walk.warnings += _link_warnings(walk)
    _warn_empty(walk, layout, found)
    walk.warnings += similar_warnings(found.classes)
    walk.warnings += number_warnings(found.classes, options)
    if patterns:
        walk.warnings += patterns.warnings()
    other = dict(sorted(walk.other.items(), key=lambda item: (-item[1], item[0])))
    found_endings = walk.ignored.image_endings()
    endings = {each: found_endings[each] for each in other if each in found_endings}
    if endings:
        walk.warn("ignored", ignored_text({each: other[each] for each in endings}, options))
    return Dataset(
        source=tree.source,
        layout=layout.name,
        classes=found.classes,
        samples=found.samples,
        splits=found.splits if layout.name == "splits" else None,
        skipped=tuple(walk.skipped),
        hidden=walk.hidden,
        excluded=walk.excluded,
        loose=walk.loose,
        other=other,
        warnings=tuple(walk.warnings),
        unlabelled=found.unlabelled,
        entered=tree.entered,
        linked=tuple(walk.linked),
        image_endings=endings,
        short=tuple(
            (each.path, each.taken, images)
            for each in walk.short
            if (images := {name: n for name, n in each.ignored.items() if name in endings})
            and sum(images.values()) > each.taken
        ),
    )


def _warn_empty(walk: Walk, layout: Layout, found: FoundSamples) -> None:
    """Warn of splits whose folders have no images."""
    for part in layout.parts:
        if not part.folders:
            message = f"the {part.split} split is empty: it has no class that --classes lists"
            walk.warn("empty-split", message)
        elif part.split and not len(found.splits[part.split]):
            option = "" if part.split == "train" else f" --{part.split}-split 0.2"
            taken = ", and takes one from train" if option else ""
            walk.warn(
                "empty-split",
                f"the {part.split} split is empty: {printable(part.folder)} holds no images; "
                f"{exclude_option([part.folder])}{option} ignores it{taken}",
            )


def _check_loose(walk: Walk, layout: Layout, found: FoundSamples, *, asks: bool) -> None:
    """Refuse a dataset, or a split, with more images next to its class folders than in them.

    If there are fewer, warn.

    Parameters
    ----------
    asks : bool
        Refuse it, and not only warn.
    """
    loose = walk.loose_images
    total = sum(each.image_count for each in loose)
    counts = [("", loose, len(found.samples))]
    parts = [part for part in layout.parts if part.split and part.folders]
    for part in parts:
        some = [each for each in loose if each.path.partition(b"/")[0] == part.folder]
        counts.append((printable(part.folder), some, len(found.splits[part.split])))
    for where, some, taken in counts if asks else ():
        if (count := sum(each.image_count for each in some)) > taken:
            raise DatasetError(
                f"dataset {walk.name} has {plural(count, 'image')} next to its class folders"
                f"{' in ' + where if where else ''}, such as {first_image(some)}, and only "
                f"{taken:,} in them; move them into class folders, pass --layout {layout.name} or "
                f"{exclude_images(some)} to ignore them, or --layout flat to take all images: "
                f"{FLAT_ADVICE}"
            )
    if total:
        flat = "--layout flat --label-from REGEX takes all images, with classes from their paths"
        walk.warn(
            "loose",
            f"ignored {plural(total, 'image')} next to the class folders, such as "
            f"{first_image(loose)}: move them into class folders; --layout {layout.name} or "
            f"{exclude_images(loose)} ignores them without a warning; {flat}",
        )


def _check_shared(walk: Walk, layout: Layout, found: FoundSamples) -> None:
    """Refuse a split that shares no class with train: its folders are probably no classes."""
    if len(found.splits) < 2:
        return
    labels = found.samples.labels
    classes = {
        split: [found.classes[i] for i in np.unique(labels[rows]).tolist() if i >= 0]
        for split, rows in found.splits.items()
    }
    folders = {part.split: part.folder for part in layout.parts if part.folders}
    train = classes.pop("train", [])
    for split, names in classes.items():
        if not train or not names or set(names).intersection(train):
            continue
        one, other = printable(folders["train"]), printable(folders[split])
        alike = ", which differ by case, spaces or Unicode form only"
        raise DatasetError(
            f"dataset {walk.name}: {other} shares no class with {one}: {one} has "
            f"{shown_names(train, 'and')}, {other} has {shown_names(names, 'and')}"
            f"{alike if similar_names([*train, *names]) else ''}; rename or move its folders, take "
            f"the labels from a table with --manifest FILE, ignore it with "
            f"{exclude_option([folders[split]])}, or take all of these as classes with --layout "
            "splits"
        )


def _link_warnings(walk: Walk) -> list[BatchifyWarning]:
    """Warn of links in class folders that are not followed; for a class, there is an error."""
    links = [
        each
        for each in walk.skipped
        if each.reason.endswith(FOLLOW_LINKS) and each.path not in walk.linked
    ]
    if not links:
        return []
    verb = "leads" if len(links) == 1 else "lead"
    message = (
        f"ignored {plural(len(links), 'link')} that {verb} out of the dataset folder or to another "
        f"folder, such as {printable(links[0].path)}: --follow-links reads what they lead to"
    )
    return [BatchifyWarning("links", message)]


def _no_images(walk: Walk) -> str:
    message = f"dataset {walk.name} has class folders but no images in them"
    if loose := sum(each.image_count for each in walk.loose_images):
        message = (
            f"dataset {walk.name} has {plural(loose, 'image')}, but none in a class "
            f"folder; put the images of each class into their own folder, or {FLAT_ADVICE}"
        )
    if walk.other:
        counts = dict(walk.other.most_common())
        message += f"; ignored because of their ending: {counts_text(counts, 5)}"
        if endings := walk.ignored.image_endings():
            message += f"; {taking_advice(endings, walk.options.extensions)}"
    return message + walk.skipped_text
