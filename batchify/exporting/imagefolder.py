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
from batchify.exporting.layout import Format, Piece, WrittenFile
from batchify.exporting.rows import ENDINGS, Contents, Sample, class_numbers
from batchify.loading.split import Split

_UNFIT = re.compile(r"[/\0]|^\.|%(?=[0-9A-Fa-f]{2})" + (r'|[\\:*?"<>|]' if os.sep == "\\" else ""))
_AT_ONCE = 4096


def folder_name(name: str) -> str:
    """Return the name of a folder or file for any text: what no name may have becomes %XX."""
    return _UNFIT.sub(lambda found: f"%{ord(found[0]):02X}", name) or "%"


def file_name(path: str, ending: str) -> str:
    """Return the name of the image of a row: that of its path, with another ending if given."""
    name = path.rpartition("/")[2]
    if name in ("", ".", ".."):
        name = folder_name(name)
    if os.sep == "\\":
        name = folder_name(name)
    name = name.replace("\0", "%00")
    if not ending:
        return name
    stem, dot, last = name.rpartition(".")
    return (stem if dot and stem and f".{last.lower()}" in _IMAGE_ENDINGS else name) + ending


_IMAGE_ENDINGS = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".ppm", ".pgm", ".pnm", ".tif", ".tiff",
    ".gif", ".webp", ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2",
})  # fmt: skip
"""Endings that are replaced when pixels are written as image files."""


class ImageFolder(Format):
    """A folder per split with a folder per class.

    Parameters
    ----------
    link : str
        What a file is, if it is taken from the dataset: a copy or a link.
    root : bytes
        The dataset folder, for links.
    image_format : str
        What pixels are written as; empty if files keep their endings.
    """

    has_shards = False

    def __init__(
        self, contents: Contents, link: Link = "copy", root: bytes = b"", image_format: str = ""
    ) -> None:
        super().__init__(contents)
        if contents.label not in ("", "class"):
            raise OptionError(
                "folders have no place for labels that are not classes; use --format webdataset, "
                "mds, parquet, tfrecord, npz or arrow"
            )
        self._link = link
        self._root = root
        self._ending = ENDINGS[image_format] if image_format else ""
        self._folders = [folder_name(name) for name in contents.classes]

    def changed_names(self, split: Split) -> dict[int, str]:
        """Return the names of files that two rows of a class would have, by row.

        The first of them keeps its name. File systems may not distinguish letters by case, nor
        forms of Unicode, so those are the same name here.

        Notes
        -----
        Memory: 17 bytes per row.
        """
        keys = np.empty(len(split), np.uint64)
        for row, class_folder, name in self._names(split):
            keys[row] = _key(class_folder, name)
        order = np.argsort(keys, kind="stable")
        repeats = np.sort(order[1:][keys[order[1:]] == keys[order[:-1]]])
        if not len(repeats):
            return {}
        found: dict[int, str] = {}
        taken = set(keys[repeats].tolist())
        wanted = set(repeats.tolist())
        for row, class_folder, name in self._names(split):
            if row in wanted:
                stem, dot, ending = name.rpartition(".")
                if not stem:
                    stem, dot, ending = name, "", ""
                mark = f"-row{row}"
                while (key := _key(class_folder, f"{stem}{mark}{dot}{ending}")) in taken or (
                    np.any(keys == np.uint64(key))
                ):
                    mark += "-"
                taken.add(key)
                found[row] = f"{stem}{mark}{dot}{ending}"
        return found

    def _names(self, split: Split) -> Iterator[tuple[int, str, str]]:
        """Yield the number, the folder of the class and the name of each row."""
        for start in range(0, len(split), _AT_ONCE):
            stop = min(start + _AT_ONCE, len(split))
            numbers: NDArray[np.intp] | None = None
            if split.labels is not None:
                numbers = class_numbers(split, start, stop)
            for i, path in enumerate(split.paths[start:stop]):
                where = "" if numbers is None else self._folders[numbers[i]]
                yield start + i, where, file_name(path, self._ending)

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
            name = piece.names.get(sample.row) or file_name(sample.path, self._ending)
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
        original = os.path.realpath(os.path.join(self._root, os.fsencode(sample.path)))
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
        folder: bytes,  # noqa: ARG002
        written: Mapping[str, list[list[WrittenFile]]],  # noqa: ARG002
        rows: Mapping[str, list[int]],  # noqa: ARG002
    ) -> None:
        """Make all files durable at once: to sync each of a million takes an hour."""
        if hasattr(os, "sync"):
            os.sync()


def _key(class_folder: str, name: str) -> int:
    same = unicodedata.normalize("NFC", f"{class_folder}/{name}").casefold()
    digest = blake2b(same.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
