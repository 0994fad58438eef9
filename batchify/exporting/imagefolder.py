"""Export to a folder per split with a folder per class, as split-folders makes them."""

from __future__ import annotations

import errno
import os
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from batchify.choices import Link
from batchify.common import durable
from batchify.common.text import printable
from batchify.errors import OptionError, OutputPathError
from batchify.exporting.endings import ending_of, with_ending, without_ending
from batchify.exporting.formats import Format, Piece, WrittenFile, write_text
from batchify.exporting.rows import Contents, Sample, class_numbers
from batchify.loading.split import Split

_UNFIT = re.compile(r"[/\0]|^\.|%(?=[0-9A-Fa-f]{2})" + (r'|[\\:*?"<>|]' if os.sep == "\\" else ""))
_AT_ONCE = 4096
_EMPTY = ".batchify-empty"
_MOST_NBYTES = 255
"""The longest name on nearly all file systems."""
_OF_ENDING = 16
"""What is longer is no ending."""


def folder_name(name: str) -> str:
    """Return the name of a folder or file for any text: what no name may have becomes %XX."""
    return _UNFIT.sub(lambda found: f"%{ord(found[0]):02X}", name) or "%"


def no_place() -> OptionError:
    """Return the error for labels that are not classes."""
    return OptionError(
        "folders have no place for labels that are not classes; use another --format, "
        "such as webdataset"
    )


def file_name(path: str) -> str:
    """Return the name of the image file of a path, without what no name may have.

    It is not hidden, whatever the path is: readers ignore hidden files.
    """
    name = path.rpartition("/")[2]
    if not name or name.startswith(".") or os.sep == "\\":
        name = folder_name(name)
    return name.replace("\0", "%00")


class ImageFolder(Format):
    """A folder per split with a folder per class.

    Parameters
    ----------
    ending : str
        That of files of pixels; empty for stored image files, whose bytes decide.
    originals : bytes, optional
        The dataset folder, if its files are taken: they keep their names.
    link : str
        What such a file is: a copy or a link.
    """

    has_shards = False

    def __init__(
        self,
        contents: Contents,
        ending: str = "",
        originals: bytes | None = None,
        link: Link = "copy",
    ) -> None:
        super().__init__(contents)
        if contents.label not in ("", "class"):
            raise no_place()
        self._ending = ending
        self._originals = originals
        self._link = link
        self._folders = [folder_name(name) for name in contents.classes]
        for name, class_folder in zip(contents.classes, self._folders, strict=True):
            if _nbytes(class_folder) > _MOST_NBYTES:
                raise OptionError(
                    f"the name of the class {printable(name)[:40]}… is too long for a folder; use "
                    "another --format"
                )

    def changed_names(self, split: Split) -> dict[int, str]:
        """Return other names for rows, by row: if an earlier row has the name, or it is too long.

        File systems may not distinguish letters by case, nor forms of Unicode, so those are the
        same name here. Only rows whose names are the same without their endings are looked at.

        Notes
        -----
        Memory: 25 bytes per row.
        """
        keys = np.empty(len(split), np.uint64)
        too_long = set()
        for row, class_folder, name in self._names(split):
            keys[row] = _key(class_folder, self._stem(name))
            is_long = _nbytes(name) > _MOST_NBYTES - _OF_ENDING
            if is_long and _nbytes(self._final_name(name, split, row)) > _MOST_NBYTES:
                too_long.add(row)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        same = np.flatnonzero(keys[1:] == keys[:-1])
        repeats = np.zeros(len(split), bool)
        repeats[order[same]] = repeats[order[same + 1]] = True
        del order
        found: dict[int, str] = {}
        taken: set[int] = set()
        for row, class_folder, name in self._names(split) if len(same) or too_long else ():
            if not repeats[row] and row not in too_long:
                continue
            key = _key(class_folder, name)
            if row not in too_long and key not in taken:  # else its file need not be read
                taken.add(key)
                final = _key(class_folder, self._final_name(name, split, row))
                if final == key or final not in taken:
                    taken.add(final)
                    continue
            mark = f"-row{row}"
            while _holds(keys, _key(class_folder, self._stem(_marked(name, mark)))):
                mark += "-"
            found[row] = _marked(name, mark)
        return found

    def _stem(self, name: str) -> str:
        """Return what two rows with the same name have in common, whatever their files hold."""
        return name if self._originals is not None else without_ending(name)

    def _final_name(self, name: str, split: Split, row: int) -> str:
        if self._originals is not None:
            return name
        return with_ending(name, self._ending or ending_of(split.encoded(row), split.paths[row]))

    def _names(self, split: Split) -> Iterator[tuple[int, str, str]]:
        """Yield the number, the folder of the class and the name of each row."""
        for start in range(0, len(split), _AT_ONCE):
            stop = min(start + _AT_ONCE, len(split))
            numbers: NDArray[np.intp] | None = None
            if split.labels is not None:
                numbers = class_numbers(split, start, stop)
            for i, path in enumerate(split.paths[start:stop]):
                where = "" if numbers is None else self._folders[numbers[i]]
                yield start + i, where, file_name(path)

    def begin(self, folder: bytes, splits: Iterable[str]) -> None:
        """Make the folders of all classes, also of those that have no rows in a split.

        Readers number the folders that they find: without an empty one, a split would have other
        numbers than the rest.

        Raises
        ------
        OutputPathError
            If the file system does not distinguish two of their names.
        """
        made: dict[tuple[int, int], str] = {}
        for split in splits:
            names = () if split in self.contents.unlabelled else self.contents.classes
            for name, class_folder in [("", ""), *zip(names, self._folders, strict=False)]:
                path = os.path.join(folder, os.fsencode(split), os.fsencode(class_folder))
                try:
                    os.makedirs(path, exist_ok=True)
                    status = os.stat(path)
                except OSError as error:
                    raise durable.io_error("making", path, error) from error
                other = made.setdefault((status.st_dev, status.st_ino), name)
                if other != name:
                    raise OutputPathError(
                        f"the classes {printable(other)} and {printable(name)} have the same "
                        "folder on this file system; rename one of them, or use another --format"
                    )

    def write(self, folder: bytes, piece: Piece, samples: Iterable[Sample]) -> list[WrittenFile]:
        """Write the image files of a piece."""
        written = []
        for sample in samples:
            name = piece.names.get(sample.row) or file_name(sample.path)
            if self._originals is None:
                name = with_ending(name, sample.ending)
            parts = [piece.split, name]
            if sample.label is not None:
                assert isinstance(sample.label, int)
                parts.insert(1, self._folders[sample.label])
            path = os.path.join(folder, *map(os.fsencode, parts))
            try:
                self._put(path, sample)
            except OSError as error:
                raise self._error(path, error) from error
            nbytes, crc32 = len(sample.image), zlib.crc32(sample.image)
            written.append(WrittenFile("/".join(parts), nbytes, crc32))
        return written

    def _put(self, path: bytes, sample: Sample) -> None:
        if self._link == "copy":
            with open(path, "wb") as file:
                file.write(sample.image)
            return
        original = os.path.realpath(os.path.join(self._originals or b"", os.fsencode(sample.path)))
        durable.remove(path)  # which an earlier, interrupted run may have made
        if self._link == "hard":
            os.link(original, path)
        else:
            os.symlink(original, path)

    def _error(self, path: bytes, error: OSError) -> Exception:
        if self._link != "copy" and error.errno in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP):
            reason = error.strerror
            return OutputPathError(
                f"{printable(path)} cannot be a {self._link} link to its original ({reason}); use "
                "--link copy, or a target on the same disk"
            )
        return durable.io_error("writing", path, error)

    def finish(
        self,
        folder: bytes,
        written: Mapping[str, list[list[WrittenFile]]],
        rows: Mapping[str, list[int]],  # noqa: ARG002
    ) -> None:
        """Make all files durable at once: to sync each of a million takes an hour.

        Empty folders get a hidden file: stores and archives have no folders without files.
        """
        for split, pieces in written.items():
            if split not in self.contents.unlabelled:
                used = {file.name.split("/")[1] for files in pieces for file in files}
                for class_folder in sorted({*self._folders} - used):
                    write_text(folder, f"{split}/{class_folder}/{_EMPTY}", "")
        if hasattr(os, "sync"):
            os.sync()


def _key(class_folder: str, name: str) -> int:
    same = unicodedata.normalize("NFC", f"{class_folder}/{name}").casefold()
    digest = blake2b(same.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _marked(name: str, mark: str) -> str:
    """Return a name with a mark before its ending, cut so that another ending still fits."""
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending) > _OF_ENDING:
        stem, dot, ending = name, "", ""
    room = _MOST_NBYTES - _OF_ENDING - _nbytes(mark + dot + ending)
    while _nbytes(stem) > room:
        stem = stem[:-1]
    return f"{stem}{mark}{dot}{ending}"


def _nbytes(name: str) -> int:
    return len(os.fsencode(name))


def _holds(keys: NDArray[np.uint64], key: int) -> bool:
    """Return whether a sorted array has a value."""
    place = int(np.searchsorted(keys, np.uint64(key)))
    return place < len(keys) and int(keys[place]) == key
