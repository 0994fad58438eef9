"""Recognize datasets that hold images and labels together, and open them.

To add a format, write a module with a function that returns a `PackedTree`, and add it here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from batchify.common.paths import is_url, local_path
from batchify.common.split_names import named_split
from batchify.common.text import printable
from batchify.dataset_options import DiscoverOptions
from batchify.datasets.packed import PackedTree
from batchify.datasets.shard_files import is_image_name, names_in
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.storage.archive import archive_kind
from batchify.storage.patterns import PathFilter
from batchify.storage.source import is_folder_at

PackedKind = Literal["npz", "webdataset", "huggingface"]

_ENDINGS: dict[bytes, PackedKind] = {
    b".tar": "webdataset",
    b".parquet": "huggingface",
    b".arrow": "huggingface",
}
"""Ending of a shard -> kind of the dataset."""


_REWRITE = "write its images and labels as WebDataset tars, Parquet or .npz, which are read"
_UNREAD = (
    (r"\.(tar\.\w+|tgz|tbz2?|txz)", "a compressed tar, whose images cannot be read in place; "
     "decompress it to a plain .tar (gzip -d, for example)"),
    (r"\.mds(\.\w+)?", f"a shard of MosaicML (MDS), which is not read; {_REWRITE}"),
    (r"\.tfrecords?(-\d+-of-\d+)?(\.\w+)?", f"a file of TFRecord, which is not read; {_REWRITE}"),
    (r"\.(beton|ffcv)", "a file of FFCV, which is not read; build from the dataset that it was "
     "written from, and pass its class numbers to --classes"),
    (r"-idx\d-ubyte(\.gz)?", "a file of arrays (IDX), which is not read; save images and labels in "
     "one file: numpy.savez('out.npz', x_train=…, y_train=…)"),
    (r"\.npy", "an array without labels; save images and labels in one file: "
     "numpy.savez('out.npz', x=…, y=…)"),
    (r"\.npz", "a file of arrays; name it as the dataset, instead of its folder"),
)  # fmt: skip
"""Names of files of other formats, and what to do with them."""


def unread_advice(location: str | os.PathLike[str]) -> str | None:
    """Return what to do with a dataset that has no images, but files of other formats.

    They are in the folder, or in a folder in it.
    """
    if is_url(location):
        return None
    path = os.path.abspath(os.fsencode(local_path(location)))
    try:
        names = [b""] if os.path.isfile(path) else _two_levels(path)
    except OSError:
        return None
    if any(map(is_image_name, names)):
        return None
    for pattern, advice in _UNREAD if names[:1] != [b""] else _UNREAD[1:-1]:
        is_one = re.compile(pattern.encode() + rb"\Z", re.IGNORECASE).search
        for name in names:
            if is_one(name or path):
                what = f"has no images; {printable(name)} is" if name else "is"
                return f"dataset {printable(path)} {what} {advice}"
    return None


def _two_levels(path: bytes) -> list[bytes]:
    """Return the files in a folder and in its folders, up to the first image, by name.

    No file if there are more levels: what is there is not known.
    """
    files = []
    for folder in (b"", *sorted(name for name, is_folder in names_in(path) if is_folder)):
        for name, is_folder in sorted(names_in(os.path.join(path, folder))):
            if is_folder and folder:
                return []
            if not is_folder:
                files.append(os.path.join(folder, name))
                if is_image_name(name):
                    return files
    return files


def packed_kind(location: str | os.PathLike[str]) -> PackedKind | None:
    """Return the kind of a dataset that holds images and labels together; None for others.

    Raises
    ------
    DatasetIOError
        If its drive fails.
    """
    if is_url(location):
        return None
    path = os.fsencode(local_path(location))
    if is_folder_at(path):
        try:
            return _folder_kind(path)
        except OSError:  # the error of listing it says why
            return None
    ending = os.path.splitext(path)[1].lower()
    if ending in (b".npz", b".parquet", b".arrow") and os.path.isfile(path):
        return "npz" if ending == b".npz" else "huggingface"
    if archive_kind(local_path(location)) == "tar":
        from batchify.datasets.webdataset import looks_like_webdataset

        return "webdataset" if looks_like_webdataset(local_path(location)) else None
    return None


def _folder_kind(path: bytes) -> PackedKind | None:
    """Return the kind of a folder that holds shards and no images.

    The shards may also be in its only folder, or in folders that are named after splits.
    """
    if os.path.isfile(os.path.join(path, b"dataset_dict.json")):
        return "huggingface"
    found = _scan(path)
    if found is None or (found.kinds and found.folders):
        return None
    kinds = found.kinds
    for folder in found.folders:
        inside = _scan(os.path.join(path, folder))
        if inside is None or not inside.kinds or inside.folders:
            return None
        kinds |= inside.kinds
    return next(iter(kinds)) if len(kinds) == 1 else None


class _Scan(NamedTuple):
    kinds: set[PackedKind]
    folders: list[bytes]


def _scan(path: bytes) -> _Scan | None:
    """Return the kinds of the shards in a folder, and its folders.

    None at the first image, and at the first of several folders that is no split: a folder of
    images is not read to its end.
    """
    found = _Scan(set(), [])
    for name, is_folder in names_in(path):
        if is_folder:
            found.folders.append(name)
            named = [named_split(os.fsdecode(folder)) for folder in found.folders[-2:]]
            if len(found.folders) > 1 and not all(named):
                return None
            continue
        ending = os.path.splitext(name)[1].lower()
        if ending in _ENDINGS:
            found.kinds.add(_ENDINGS[ending])
        elif is_image_name(name):
            return None
    return found


def open_packed(
    location: str | os.PathLike[str],
    kind: PackedKind,
    options: DiscoverOptions,
    timeout_s: float = IMAGE_TIMEOUT_S,
) -> PackedTree:
    """Return the images of such a dataset, and its table.

    Parameters
    ----------
    timeout_s : float
        See `batchify.storage.source.FolderSource`.

    Raises
    ------
    DatasetError
        If it is damaged, or not clear.
    """
    path = os.path.abspath(os.fsencode(local_path(location)))
    patterns = PathFilter(options) if options.has_patterns else None
    tree = _opener(kind)(path, patterns, timeout_s)
    if patterns is not None:
        tree.table.exclude(patterns)
    return tree


def _opener(kind: PackedKind) -> Callable[[bytes, PathFilter | None, float], PackedTree]:
    """Return the function that opens a kind; only its own libraries are imported."""
    if kind == "npz":
        from batchify.datasets.npz import open_npz

        return open_npz
    if kind == "webdataset":
        from batchify.datasets.webdataset import open_webdataset

        return open_webdataset
    from batchify.datasets.huggingface import open_huggingface

    return open_huggingface
