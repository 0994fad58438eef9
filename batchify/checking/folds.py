"""Check that the files of a cross-validation are a partition of the same images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.checking.facts import Facts, shard_facts, stored_facts
from batchify.checking.findings import FOLD_CODES, CheckReport, Finding, Problem
from batchify.choices import canonical_json
from batchify.common.paths import shown_path
from batchify.common.text import plural, printable
from batchify.datasets.discovery import holds_shards
from batchify.errors import FileFormatError, OptionError
from batchify.format.reader import Reader
from batchify.loading.shards import open_copy, open_folder
from batchify.planning.groups import repeat_numbers

_EXAMPLES = 20
"""How many images of a problem are named."""


@dataclass(frozen=True, eq=False)
class FoldFile:
    """What a file of a cross-validation holds.

    Parameters
    ----------
    shown : str
        Its path, for messages.
    folds : int or None
        None if the fold is a column of a manifest, which may have any number of them.
    family : str
        The same for files that may be of one cross-validation: classes and all other options.
    classes : int
        How many classes it has.
    splits : dict of str to ndarray of uint8, shape (n, 16)
        For each split, a hash of the path and the content of each row.
    names, contents : ndarray of uint8, shape (n, 16) and (n, 32)
        A hash of the path, and the SHA-256 of the content, of each row of validation.
    """

    path: str | os.PathLike[str]
    shown: str
    fold: int
    folds: int | None
    family: str
    classes: int
    splits: Mapping[str, NDArray[np.uint8]]
    names: NDArray[np.uint8]
    contents: NDArray[np.uint8]

    def keys(self, *splits: str) -> NDArray[np.uint8]:
        """Return the hashes of the rows of some splits, sorted, shape (n, 16)."""
        none = np.empty((0, 16), np.uint8)
        return _sorted(np.concatenate([self.splits.get(name, none) for name in splits]))


def read_fold(path: str | os.PathLike[str]) -> FoldFile | None:
    """Read a file or a folder of shards; None if it is not of a cross-validation.

    Raises
    ------
    FileMissingError, FileAccessError, FileFormatError
        If it is not a readable file.
    """
    config: Mapping[str, Any]
    if holds_shards(path):
        with open_folder(path, keeps=True) as (index, shards):
            config = index.config
            return _fold(path, config, shard_facts(index, shards)) if "fold" in config else None
    with open_copy(path) as copy, Reader(copy).finished() as reader:
        config = reader.header.config
        return _fold(path, config, stored_facts(reader)) if "fold" in config else None


def _fold(path: str | os.PathLike[str], config: Mapping[str, Any], facts: Facts) -> FoldFile:
    if "validation" not in facts.splits:
        raise FileFormatError(f"{printable(shown_path(path))} has a fold, but no validation split")
    splits = {
        name: np.empty((len(each.flags), 16), np.uint8) for name, each in facts.splits.items()
    }
    names = np.empty_like(splits["validation"])
    for split, found in facts.splits.items():
        for start, some in found.paths(0, len(found.flags)):
            rows = slice(start, start + len(some))
            contents = map(bytes, found.digests[rows])
            splits[split][rows] = _hashes(map(b"\0".join, zip(some, contents, strict=True)))
            if split == "validation":
                names[rows] = _hashes(some)
    # the digest of a manifest covers its splits, which differ
    others = {k: v for k, v in config.items() if k not in ("fold", "manifest_sha256")}
    return FoldFile(
        path=path,
        shown=printable(shown_path(path)),
        fold=config["fold"],
        folds=config.get("folds"),
        family=canonical_json([others, list(map(os.fsdecode, facts.classes))]),
        classes=len(facts.classes),
        splits=splits,
        names=names,
        contents=facts.splits["validation"].digests,
    )


def _hashes(texts: Iterable[bytes]) -> NDArray[np.uint8]:
    data = b"".join(hashlib.blake2b(text, digest_size=16).digest() for text in texts)
    return np.frombuffer(data, np.uint8).reshape(-1, 16)


def _sorted(hashes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    words = hashes.view(np.uint64)
    return hashes[np.lexsort((words[:, 1], words[:, 0]))]


def _missing(hashes: NDArray[np.uint8], known: NDArray[np.uint8]) -> NDArray[np.void]:
    """Return the hashes that are not among `known`, both sorted, shape (n,)."""
    if np.array_equal(hashes, known):
        return np.empty(0, "V16")
    one, other = (each.view("V16").ravel() for each in (hashes, known))
    return one[~np.isin(one, other)]


def check_folds(
    paths: Iterable[str | os.PathLike[str]], *, ignore: Iterable[str] = ()
) -> CheckReport:
    """Check that the files of a cross-validation are a partition: no image is in two folds.

    The validation splits have no path and no content in common. If all folds are given, each image
    is in one of them. Train and validation together, and test, are the same images in all files.
    That no image is in two splits of one file, `check` finds.

    Parameters
    ----------
    paths : iterable of path
        Files that were built with ``--fold``, or folders of shards; two or more.
    ignore : iterable of str
        Codes, ``fold-leak`` or ``fold-mismatch``, that never fail.

    Raises
    ------
    OptionError
        If there are fewer than two files, one has no fold, or they have different options.
    FileMissingError, FileAccessError, FileFormatError
        If one is not a readable file.

    Notes
    -----
    Memory: 16 bytes per row of each file, and 50 per image.
    """
    files = []
    for path in paths:
        found = read_fold(path)
        if found is None:
            raise OptionError(f"{printable(shown_path(path))} is not built with --fold")
        files.append(found)
    families = group_folds(files)
    if len(files) < 2 or len(families) > 1:
        which = "these differ in other options, too" if len(files) > 1 else "give two or more"
        raise OptionError(f"files of one cross-validation are compared with each other: {which}")
    return compare_folds(files, ignore=ignore)


def group_folds(files: Sequence[FoldFile]) -> list[list[FoldFile]]:
    """Return the files of each cross-validation, by fold."""
    found: dict[str, list[FoldFile]] = {}
    for file in files:
        found.setdefault(file.family, []).append(file)
    return [sorted(some, key=lambda file: file.fold) for some in found.values()]


def compare_folds(files: Sequence[FoldFile], *, ignore: Iterable[str] = ()) -> CheckReport:
    """Compare the files of one cross-validation; see `check_folds`."""
    files = sorted(files, key=lambda file: file.fold)
    ignored = frozenset([ignore] if isinstance(ignore, str) else ignore)
    found = [
        *(("fold-leak", *each) for each in _find_leaks(files)),
        *(("fold-mismatch", *each) for each in _find_mismatches(files)),
    ]
    problems = tuple(
        Problem(
            code, FOLD_CODES[code].severity, message, FOLD_CODES[code].advice, count,
            tuple(examples), code in ignored,
        )
        for code, message, count, examples in found
    )  # fmt: skip
    folds = files[0].folds
    total = "" if folds is None else f" of {folds:,}"
    name = _folds_text([file.fold for file in files]) + total
    images = sum(map(len, files[0].splits.values()))
    notes = tuple(_notes(files))
    return CheckReport(name.encode(), images, files[0].classes, problems, notes=notes)


def _folds_text(folds: Sequence[int]) -> str:
    """Return the numbers of some folds as text: ``fold 0``, ``folds 0, 1, 2``."""
    more = f" and {len(folds) - _EXAMPLES:,} more" if len(folds) > _EXAMPLES else ""
    shown = ", ".join(map(str, folds[:_EXAMPLES]))
    return f"fold{'s' if len(folds) > 1 else ''} {shown}{more}"


_Found = tuple[str, int, Iterator[Finding]]


def _find_leaks(files: Sequence[FoldFile]) -> Iterator[_Found]:
    """Find images that are in the validation splits of several folds."""
    files = list({file.fold: file for file in reversed(files)}.values())[::-1]
    by_content = _shared([file.contents for file in files])
    if by_content:
        count = plural(len(by_content), "image")
        yield (
            f"{count} in the validation splits of several folds",
            len(by_content),
            _pairs(files, by_content),
        )
    by_path = [
        pair
        for pair in _shared([file.names for file in files])
        if len({files[owner].contents[row].tobytes() for owner, row in pair}) > 1
    ]
    if by_path:
        count = plural(len(by_path), "path")
        yield (
            f"{count} in the validation splits of several folds, with other content",
            len(by_path),
            _pairs(files, by_path),
        )


_Pair = tuple[tuple[int, int], tuple[int, int]]
"""The file and the row of an image, twice."""


def _shared(digests: Sequence[NDArray[np.uint8]]) -> list[_Pair]:
    """Return the images that are in several files, with a row in two of them."""
    sizes = list(map(len, digests))
    owners = np.arange(len(sizes)).repeat(sizes)
    rows = np.concatenate([np.arange(size) for size in sizes])
    numbers = repeat_numbers(np.concatenate(digests))
    order = np.lexsort((owners, numbers))
    numbers, owners, rows = numbers[order], owners[order], rows[order]
    at = np.flatnonzero((numbers[1:] == numbers[:-1]) & (owners[1:] != owners[:-1]))
    _, first = np.unique(numbers[at], return_index=True)
    return [
        ((int(owners[i]), int(rows[i])), (int(owners[i + 1]), int(rows[i + 1])))
        for i in at[first].tolist()
    ]


def _pairs(files: Sequence[FoldFile], pairs: Iterable[_Pair]) -> Iterator[Finding]:
    for (owner, row), (other, other_row) in islice(pairs, _EXAMPLES):
        path = printable(_path_of(files[other], "validation", other_row))
        yield Finding(
            "fold-leak",
            f"of {files[owner].shown}, and validation row {other_row:,} ({path}) of "
            f"{files[other].shown}",
            "validation",
            row,
            _path_of(files[owner], "validation", row),
        )


def _find_mismatches(files: Sequence[FoldFile]) -> Iterator[_Found]:
    """Find files with other images, folds that are given twice, and images in no fold."""
    first = files[0]
    for file, other in pairwise(files):
        if file.fold == other.fold:
            both = f"{file.shown} and {other.shown} are both fold {file.fold}: give each fold once"
            yield both, 1, iter(())
    for splits in (("train", "validation"), ("test",)):
        where = " and ".join(splits)
        wanted = first.keys(*splits)
        for file in files[1:]:
            found = file.keys(*splits)
            for one, other, keys, known in (
                (file, first, found, wanted),
                (first, file, wanted, found),
            ):
                if len(missing := _missing(keys, known)):
                    yield (
                        f"{plural(len(missing), 'image')} in {where} of {one.shown}, but not of "
                        f"{other.shown}",
                        len(missing),
                        _examples(one, splits, missing),
                    )
    folds = {file.fold for file in files}
    if first.folds is not None and len(folds) == first.folds:
        chosen = _sorted(np.concatenate([file.splits["validation"] for file in files]))
        if len(missing := _missing(first.keys("train", "validation"), chosen)):
            message = f"{plural(len(missing), 'image')} in the validation split of no fold"
            yield message, len(missing), _examples(first, ("train", "validation"), missing)


def _examples(file: FoldFile, splits: Sequence[str], keys: NDArray[np.void]) -> Iterator[Finding]:
    """Yield the first rows of a file that have one of some hashes."""
    some = (
        (split, row)
        for split in splits
        if split in file.splits
        for row in np.flatnonzero(np.isin(file.splits[split].view("V16").ravel(), keys)).tolist()
    )
    for split, row in islice(some, _EXAMPLES):
        path = _path_of(file, split, row)
        yield Finding("fold-mismatch", f"of {file.shown}", split, row, path)


def _path_of(file: FoldFile, split: str, row: int) -> bytes:
    """Return the path of a row: the file is opened again, since there may be many files."""
    if holds_shards(file.path):
        with open_folder(file.path, keeps=True) as (index, shards):
            return shard_facts(index, shards).splits[split].path(row)
    with open_copy(file.path) as copy, Reader(copy) as reader, reader.refusing():
        path: bytes = reader.splits[split]["paths"][row]
    return path


def _notes(files: Sequence[FoldFile]) -> Iterator[str]:
    """Say what could not be compared."""
    if len(files) == 1:
        yield f"no other fold with the same options is given: {files[0].shown} is not compared"
    elif (folds := files[0].folds) is not None:
        given = {file.fold for file in files}
        if absent := [fold for fold in range(folds) if fold not in given]:
            yield f"not given: {_folds_text(absent)}"
