"""The shard index, ``manifest.json``: which shards a build consists of."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batchify import choices
from batchify.common.paths import DownloadedPath
from batchify.common.system import open_regular
from batchify.common.text import printable
from batchify.errors import FileAccessError, FileFormatError, FileMissingError
from batchify.format import schema

INDEX_NAME = b"manifest.json"
FORMAT = "batchify-shards"
VERSION = 1
_MAX_NBYTES = 256 << 20
_SHARD_NAME = re.compile(r"(train|validation|test)-(\d{5,})-of-(\d{5,})\.h5")


@dataclass(frozen=True, slots=True)
class ShardFile:
    """The entry of a shard in the index.

    Parameters
    ----------
    name : str
        Its file name in the folder.
    digest : str
        Its ``content_sha256``, in hex.
    """

    name: str
    rows: int
    nbytes: int
    digest: str

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; see the page `json` of the documentation."""
        return {
            "file": self.name,
            "rows": self.rows,
            "bytes": self.nbytes,
            "content_sha256": self.digest,
        }


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The shard index of a build.

    Parameters
    ----------
    creator, decoder : str
        The software that made them, with versions.
    config : Mapping
        The options of the build, as recorded in a single file.
    splits : Mapping of str to tuple of ShardFile
        In the order of the rows.
    skipped : int
        How many files were skipped; the shards list them.
    """

    creator: str
    decoder: str
    config: Mapping[str, Any]
    classes: tuple[bytes, ...]
    splits: Mapping[str, tuple[ShardFile, ...]]
    skipped: int

    @property
    def files(self) -> list[ShardFile]:
        """All shards, in the order of the rows of a single file."""
        return [file for files in self.splits.values() for file in files]

    @property
    def rows(self) -> dict[str, int]:
        """The number of rows of each split."""
        return {name: sum(file.rows for file in files) for name, files in self.splits.items()}

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; see the page `json` of the documentation."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "schema_version": schema.SCHEMA_VERSION,
            "creator": self.creator,
            "decoder": self.decoder,
            "config": dict(self.config),
            "classes": [os.fsdecode(name) for name in self.classes],
            "splits": {
                name: {"rows": self.rows[name], "shards": [file.as_json() for file in files]}
                for name, files in self.splits.items()
            },
            "skipped": self.skipped,
        }

    def text(self) -> bytes:
        """Return the content of the file: ASCII; names that are not UTF-8 as surrogate escapes."""
        return json.dumps(self.as_json(), indent=1).encode("ascii") + b"\n"


@dataclass(frozen=True, slots=True)
class ShardPath:
    """A shard in a folder, with its entry in the index.

    Parameters
    ----------
    path : bytes
        Where it is, for messages; `here` is what to open.
    """

    path: bytes
    split: str
    file: ShardFile

    @property
    def name(self) -> str:
        """Its name in findings."""
        return self.file.name

    @contextlib.contextmanager
    def here(self, *, images: bool = False) -> Iterator[bytes | DownloadedPath]:  # noqa: ARG002
        """Yield its path on this machine, which is valid until the end of the block.

        Parameters
        ----------
        images : bool
            They are read, too; a shard at a URL is fetched without them otherwise.
        """
        yield self.path

    def missing(self, more: int = 0) -> FileMissingError:
        """Return the error for a missing shard, and for more of them."""
        others = f" and {more:,} more" if more else ""
        return FileMissingError(
            f"there is no {printable(self.path)}{others}; run batchify build again"
        )

    def damaged(self, reason: str) -> FileFormatError:
        """Return the error for a damaged shard."""
        return FileFormatError(
            f"{printable(self.path)} is damaged: {reason}; run batchify build again to rebuild it"
        )


def shard_paths(folder: bytes, index: ShardIndex, *, is_partial: bool = False) -> list[ShardPath]:
    """Return all shards of a folder, in the order of the rows of a single file.

    Parameters
    ----------
    is_partial : bool
        Shards may be missing.

    Raises
    ------
    FileMissingError
        If a shard is missing.
    """
    found = [
        ShardPath(os.path.join(folder, os.fsencode(file.name)), split, file)
        for split, files in index.splits.items()
        for file in files
    ]
    missing = [shard for shard in found if not (is_partial or os.path.exists(shard.path))]
    if missing:
        raise missing[0].missing(len(missing) - 1)
    return found


def shard_name(split: str, index: int, count: int) -> str:
    """Return the file name of a shard: ``train-00000-of-00064.h5``."""
    return f"{split}-{index:05d}-of-{count:05d}.h5"


def is_shard_name(name: str) -> bool:
    """Return whether a file name is the name of a shard."""
    return _SHARD_NAME.fullmatch(name) is not None


def is_shard_folder(path: str | bytes | os.PathLike[str]) -> bool:
    """Return whether a path is a folder with a shard index, so that all shards are built."""
    return os.path.isfile(os.path.join(os.fsencode(path), INDEX_NAME))


def read_index(folder: bytes) -> ShardIndex:
    """Read the shard index of a folder.

    Raises
    ------
    FileMissingError
        If there is none, because the build is not finished.
    """
    path = os.path.join(folder, INDEX_NAME)
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_NBYTES + 1)
    except FileNotFoundError:
        if not os.path.isdir(folder):
            raise FileMissingError(
                f"there is no folder {printable(folder)}; make it with batchify build --shards"
            ) from None
        raise FileMissingError(
            f"{printable(folder)} is a folder without {INDEX_NAME.decode()}: name what batchify "
            "build made, or if it holds shards, run batchify build again to finish them"
        ) from None
    except OSError as error:
        raise FileAccessError(f"{printable(path)} cannot be read: {error.strerror}") from error
    return parse_index(data, path)


def parse_index(data: bytes, path: bytes) -> ShardIndex:
    """Return the shard index with the content `data`; `path` is its name in errors."""
    try:
        if len(data) > _MAX_NBYTES:
            raise ValueError(f"it is larger than {_MAX_NBYTES:,} bytes")
        found = json.loads(data)
        if found["format"] != FORMAT or found["version"] != VERSION:
            raise ValueError("its format or version does not match")
        splits = {
            name: tuple(map(_file, found["splits"][name]["shards"]))
            for name in choices.SPLITS
            if name in found["splits"]
        }
        index = ShardIndex(
            str(found["creator"]),
            str(found["decoder"]),
            dict(found["config"]),
            tuple(map(os.fsencode, found["classes"])),
            splits,
            int(found["skipped"]),
        )
        if len(splits) != len(found["splits"]) or not index.files:
            raise ValueError("it has other splits")
        for split, files in splits.items():
            names = [shard_name(split, i, len(files)) for i in range(len(files))]
            if not files or [file.name for file in files] != names:
                raise ValueError(f"its shards of {split} are not all of them, in their order")
    except (
        ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError
    ) as error:  # fmt: skip
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise FileFormatError(
            f"{printable(path)} is not a valid shard index: {printable(reason)}"
        ) from error
    return index


def _file(found: Mapping[str, Any]) -> ShardFile:
    file = ShardFile(
        found["file"], int(found["rows"]), int(found["bytes"]), found["content_sha256"]
    )
    if not isinstance(file.name, str) or not is_shard_name(file.name):  # it could be any path
        raise ValueError(f"{file.name!r} is not the name of a shard")
    if file.rows < 0 or file.nbytes < 0:
        raise ValueError(f"{file.name} has a negative number of rows or bytes")
    bytes.fromhex(file.digest)
    return file
