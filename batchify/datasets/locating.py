"""Find the files that a manifest names, by path or by name without folder or ending."""

from __future__ import annotations

import itertools
import os
import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from batchify.common.keys import KeyIndex, join_path_keys, path_keys
from batchify.common.text import printable
from batchify.datasets.columns import clean_path
from batchify.datasets.dataset import Samples, join_samples
from batchify.datasets.ignored import ending_reason
from batchify.datasets.manifest_errors import SHOWN_ERRORS, ManifestErrors
from batchify.datasets.texts import TextColumn
from batchify.datasets.walk import Walk, list_folder
from batchify.errors import DatasetError, DatasetIOError
from batchify.storage.tree import NO_FILE

Extents = NDArray[np.int64] | None


def locate_files(
    walk: Walk,
    images: ImageNames,
    named: Samples,
    lines: NDArray[np.int64],
    what: str,
    errors: ManifestErrors,
) -> tuple[Samples, Extents]:
    """Return the files that some paths name, and their extents, if the source has any.

    A path may also have backslashes for slashes, or lack the ending, the folder, or both, if
    exactly one image of the dataset has that name.

    Parameters
    ----------
    images : ImageNames
        The names of all images; columns share it.
    named : Samples
        The paths of a column.
    lines : ndarray of int64, shape (n,)
        The line of each, for errors.
    what : str
        What the files are, for errors.

    Notes
    -----
    Memory: 16 bytes for each path that names no file, the path of the file it means, and
    `ImageNames`, if needed.
    """
    is_image = walk.options.name_test
    absent = array("q")
    pieces = []
    for start, paths in named.pieces():
        reasons, extents = walk.tree.find_files(paths)
        for i, path in enumerate(paths):
            if not is_image(path):
                reasons.setdefault(i, ending_reason(path, walk.options.extensions))
        for i, reason in sorted(reasons.items()):
            if reason == NO_FILE:
                absent.append(start + i)
            else:
                errors.add(int(lines[start + i]), f"{what}{printable(paths[i])}: {reason}")
        if extents is not None:
            pieces.append(extents)
    found = np.concatenate(pieces) if pieces else None
    if not absent:
        return named, found
    return _find_absent(
        walk, images, named, np.frombuffer(absent, np.int64), found, lines, what, errors
    )


def _find_absent(
    walk: Walk, images: ImageNames, named: Samples, rows: NDArray[np.int64], extents: Extents,
    lines: NDArray[np.int64], what: str, errors: ManifestErrors,
) -> tuple[Samples, Extents]:  # fmt: skip
    """Find the files that some paths mean, which are not files themselves."""
    wanted = TextColumn()
    is_slashed = np.zeros(len(rows), np.bool_)
    for i, path in enumerate(map(named.path, rows.tolist())):
        is_slashed[i] = b"\\" in path
        try:
            wanted.add(_slashed(path))
        except ValueError as error:
            errors.add(int(lines[rows[i]]), str(error))
            wanted.add(path)
    matches = Matches(wanted.samples())
    slashed = np.flatnonzero(is_slashed)
    matches.add_files(walk, slashed)
    if len(slashed) < len(rows) or not matches.is_found[slashed].all():
        matches.find_by_name(images)
    for i in np.flatnonzero(~matches.is_single).tolist():
        shown = printable(named.path(int(rows[i])))
        errors.add(int(lines[rows[i]]), f"{what}{shown}: {matches.reason(i, walk)}")
    if errors.count:
        return named, extents
    files = np.arange(len(named))
    files[rows] = len(named) + np.arange(len(rows))
    located = join_samples(_paths(named, matches, files), named.labels)
    return located, _extents(walk, located, rows, extents)


def _paths(named: Samples, matches: Matches, files: NDArray[np.int64]) -> Iterator[list[bytes]]:
    """Yield the paths of all rows; numbers from `len(named)` on are matches."""
    for start, paths in named.pieces():
        for i in np.flatnonzero(files[start : start + len(paths)] >= len(named)).tolist():
            paths[i] = matches.path(int(files[start + i]) - len(named))
        yield paths


def _extents(walk: Walk, located: Samples, rows: NDArray[np.int64], extents: Extents) -> Extents:
    """Return the extents of all files, given those of the rows that needed no search."""
    at_once = 4096
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        _, found = walk.tree.find_files(located.paths(some))
        if found is not None:
            if extents is None:
                extents = np.zeros((len(located), found.shape[1]), np.int64)
            extents[some] = found
    return extents


def _hint(path: bytes, walk: Walk) -> str:
    """Return which file a wrong path may mean; "" if no path is similar."""
    root = os.path.basename(walk.tree.source.location) + b"/"
    stem, ending = os.path.splitext(path)
    text = os.fsdecode(path)
    tries: dict[bytes, str] = {
        path.removeprefix(root): f"paths are relative to DATASET: leave {printable(root)} out",
    }
    tries |= dict.fromkeys(
        (path.lower(), stem + ending.lower(), stem + ending.upper()), "check upper and lower case"
    )
    forms = (os.fsencode(unicodedata.normalize(form, text)) for form in ("NFC", "NFD"))
    tries |= dict.fromkeys(forms, "its Unicode form differs")
    if stem.isdigit():
        endings = (ending,) if ending else (b".jpg", b".png", b".jpeg")
        padded = (stem.zfill(n) + each for n in range(2, 9) for each in endings)
        tries |= dict.fromkeys(padded, "zeros in front of it are lost: read the column as text")
    others = ("webp", "gif", "avif", "heic", "jfif", "jxl")
    tries |= {path + b"." + name.encode(): f"pass --extensions {name}" for name in others}
    tries.pop(path, None)
    reasons, _ = walk.tree.find_files(list(tries))
    for i, (other, advice) in enumerate(tries.items()):
        if i not in reasons:
            return f"there is {printable(other)}: {advice}"
    return ""


def _slashed(path: bytes) -> bytes:
    """Return a path with slashes for its backslashes, or raise ValueError."""
    if b"\\" not in path:
        return path
    return clean_path("path", os.fsdecode(path.replace(b"\\", b"/")))


class ImageNames:
    """The images of a dataset by their names; folders are listed when they are first needed.

    Notes
    -----
    Memory: the bytes of all paths and 40 more per file.
    """

    def __init__(self, walk: Walk) -> None:
        self._walk = walk

    @cached_property
    def _files(self) -> Samples:
        files = TextColumn()
        for paths in _images(self._walk):
            for path in paths:
                files.add(path)
        return files.samples()

    def count_others(self, listed: Sequence[Samples]) -> int:
        """Return how many images are none of some files; 0 if the dataset cannot be listed.

        Notes
        -----
        Memory: 8 bytes per listed file.
        """
        keys = [join_path_keys((paths for _, paths in each.pieces()), len(each)) for each in listed]
        known = KeyIndex(np.concatenate(keys), positions=False)
        try:
            return sum(int((~known.has(path_keys(paths))).sum()) for paths in self._pieces())
        except (DatasetError, DatasetIOError):  # of a folder that may have none of the listed files
            return 0

    def _pieces(self) -> Iterator[list[bytes]]:
        """Yield the paths of all images, which are not kept if no name was looked up."""
        if "_files" in vars(self):
            return (paths for _, paths in self._files.pieces())
        return _images(self._walk)

    @cached_property
    def _indexes(self) -> tuple[KeyIndex, KeyIndex]:
        """By name, and by name without ending."""
        files = self._files
        names = ([os.path.basename(path) for path in paths] for _, paths in files.pieces())
        stems = ([_stem(os.path.basename(path)) for path in paths] for _, paths in files.pieces())
        by_name = KeyIndex(join_path_keys(names, len(files)))
        return by_name, KeyIndex(join_path_keys(stems, len(files)))

    def find(self, wanted: bytes) -> Iterator[bytes]:
        """Yield the images whose paths end with this path, with or without their ending."""
        (key,) = path_keys([wanted.rpartition(b"/")[2]])
        for i in sorted({i for index in self._indexes for i in index.positions(key)}):
            path = self._files.path(i)
            if any(
                b"/" + wanted == (b"/" + each)[-1 - len(wanted) :] for each in (path, _stem(path))
            ):
                yield path


def _stem(path: bytes) -> bytes:
    return os.path.splitext(path)[0]


class Matches:
    """The files that some paths mean, which are not files themselves.

    Parameters
    ----------
    wanted : Samples
        The paths, with slashes.
    """

    def __init__(self, wanted: Samples) -> None:
        self._wanted = wanted
        self._files = TextColumn()
        self._first = np.full(len(wanted), -1, np.int32)
        self._second = self._first.copy()
        self._hints = 0

    @property
    def is_found(self) -> NDArray[np.bool_]:
        """Which paths have a file, shape (n,)."""
        return self._first >= 0

    @property
    def is_single(self) -> NDArray[np.bool_]:
        """Which paths have exactly one file, shape (n,)."""
        return self.is_found & (self._second < 0)

    def path(self, row: int) -> bytes:
        """Return the file of a path."""
        return self._files.path(int(self._first[row]))

    def reason(self, row: int, walk: Walk) -> str:
        """Return why a path has no file, or several."""
        if self._first[row] >= 0:
            first, second = sorted(
                printable(self._files.path(int(numbers[row])))
                for numbers in (self._first, self._second)
            )
            return (
                f"it may be {first} or {second}; give the whole path, or as DATASET the folder "
                "that has only one of them"
            )
        wanted = self._wanted.path(row)
        if self._hints < SHOWN_ERRORS and (hint := _hint(wanted, walk)):
            self._hints += 1
            return f"{NO_FILE}; {hint}"
        if walk.options.name_test(wanted):
            return NO_FILE
        return f"{NO_FILE}, and none with this name and the ending of an image"

    def add_files(self, walk: Walk, rows: NDArray[np.int64]) -> None:
        """Take the paths that are files after all, with slashes."""
        is_image = walk.options.name_test
        for start in range(0, len(rows), 4096):
            some = rows[start : start + 4096]
            paths = self._wanted.paths(some)
            reasons, _ = walk.tree.find_files(paths)
            for i, path in enumerate(paths):
                if i not in reasons and is_image(path):
                    self._first[some[i]] = self._files.add(path)

    def find_by_name(self, images: ImageNames) -> None:
        """Take the images that the other paths mean, by their names."""
        for row in np.flatnonzero(~self.is_found).tolist():
            for path in itertools.islice(images.find(self._wanted.path(row)), 2):
                self._add(row, path)

    def _add(self, row: int, path: bytes) -> None:
        if self._first[row] < 0:
            self._first[row] = self._files.add(path)
        elif self._second[row] < 0:
            self._second[row] = self._files.add(path)


def _images(walk: Walk) -> Iterator[list[bytes]]:
    """Yield the paths of the images of a dataset, folder by folder, in the order of their paths."""
    pending = [b""]
    while pending:
        listing = list_folder(walk, pending.pop(), take_extents=False)
        links = map(listing.inside, listing.links)
        folders = [link for link in links if not walk.tree.link_reason(link)]
        folders += map(listing.inside, listing.folders)
        pending += sorted(folders, reverse=True)
        yield from listing.images.pieces()
