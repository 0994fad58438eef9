"""Find the files of a dataset in shards, and the split that each is named after."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from batchify import choices
from batchify.common.split_names import split_of_name
from batchify.common.text import printable
from batchify.dataset_options import file_ending
from batchify.datasets.columns import split_number
from batchify.datasets.ignored import is_image_ending
from batchify.errors import DatasetError, OptionError
from batchify.storage.hidden import is_hidden
from batchify.storage.outage import wait_out
from batchify.storage.patterns import PathFilter


class ShardFile(NamedTuple):
    """A file of a dataset in shards.

    Parameters
    ----------
    path : bytes
        Absolute.
    name : str
        Relative to the dataset.
    split : str
        Empty if the dataset has no splits.
    """

    path: bytes
    name: str
    split: str


def names_in(path: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield each name in a folder that is not hidden, and whether it is a folder; in any order."""
    with wait_out(lambda: os.scandir(path), path) as entries:
        for entry in entries:
            if not is_hidden(entry.name):
                yield entry.name, entry.is_dir()


def is_image_name(name: bytes) -> bool:
    """Return whether a name has an ending of images."""
    ending = file_ending(name)
    return ending[1:] in choices.KERAS_EXTENSIONS or (ending != "" and is_image_ending(ending))


def split_of(name: str) -> str:
    """Return the split that a shard is named after, such as ``train-00000``; empty if none."""
    return split_of_name(name)[0] or ""


_OTHER_SHARD = re.compile(rb"\.(tar(\.\w+)?|tgz|tbz2?|txz|npz|parquet|arrow)$", re.IGNORECASE)
"""The names of files that hold images as well."""


def find_shards(
    root: bytes, endings: tuple[bytes, ...], patterns: PathFilter | None
) -> list[ShardFile]:
    """Return the shards of a dataset, a file or a folder, in the order of their names.

    They are in the folder, or in folders in it. The name of its folder, or its own, says to which
    split a shard belongs.

    Raises
    ------
    DatasetError
        If only some belong to a split, they have several formats, some are compressed, or the
        patterns ignore all.
    """
    if not os.path.isdir(root):
        refuse_include(patterns, "DATASET is one file")
        return [ShardFile(root, os.fsdecode(os.path.basename(root)), "")]
    found = []
    for folder in (b"", *sorted(name for name, is_folder in names_in(root) if is_folder)):
        by_folder = split_of(os.fsdecode(folder))
        for file, is_folder in sorted(names_in(os.path.join(root, folder))):
            path = os.path.join(folder, file)
            is_shard = file.lower().endswith(endings)
            if is_folder or not (is_shard or _OTHER_SHARD.search(file)):
                continue
            if patterns is None or patterns.takes(path, is_folder=False):
                if not is_shard:
                    raise DatasetError(
                        f"dataset {printable(root)}: {printable(path)} is not read next to "
                        f"{endings[0].decode()} files; convert or decompress it, or ignore it with "
                        "--exclude"
                    )
                split = by_folder or split_of(os.fsdecode(file))
                found.append(ShardFile(os.path.join(root, path), os.fsdecode(path), split))
    where = f"dataset {printable(root)}"
    if not found:
        raise DatasetError(f"{where}: --include and --exclude ignore all of its files")
    kinds = {os.path.splitext(shard.name)[1].lower(): printable(shard.name) for shard in found}
    if len(kinds) > 1:
        raise DatasetError(
            f"{where} has {' and '.join(sorted(kinds.values()))}, which may hold the same images: "
            "ignore one kind of files with --exclude"
        )
    check_splits(where, [(shard.name, shard.split) for shard in found])
    return found


def refuse_include(patterns: PathFilter | None, why: str) -> None:
    """Refuse --include for a dataset of which it can choose no files."""
    if patterns is not None and patterns.includes:
        raise OptionError(f"--include chooses files, and {why}; remove it")


def check_splits(where: str, named: Sequence[tuple[str, str]]) -> None:
    """Refuse names of which only some belong to a split."""
    others = [name for name, split in named if not split]
    if others and len(others) < len(named):
        name, split = next(each for each in named if each[1])
        raise DatasetError(
            f"{where}: {printable(name)} is in the split {split}, and {printable(others[0])} in "
            "none, by their names; rename it, or ignore it with --exclude"
        )


def check_split(shard: ShardFile, text: object, what: str, where: str) -> None:
    """Refuse a sample that belongs to another split than its shard; `text` is what it says."""
    number = split_number(text) if isinstance(text, str) else None
    if number is not None and choices.SPLITS[number] != shard.split:
        raise DatasetError(
            f"{where}: {what} is in the split {printable(str(text))} by its own value, and "
            f"in {shard.split} by the name of {printable(shard.name)}; rename the file"
        )
