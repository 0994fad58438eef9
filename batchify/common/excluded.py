"""Lists of what a build excludes: paths, one per line, or rows of an earlier build."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchify.choices import refuse_set
from batchify.common.text import plural, printable
from batchify.errors import OptionError

VERSION = 1
_KEY = "batchify_rows"


class PathList(str):
    """Paths to exclude, exactly as they are in the dataset.

    As a text, it is ``@`` and the SHA-256 of the paths: what a file records.
    """

    __slots__ = ("paths", "shown")

    paths: frozenset[bytes]
    shown: str

    def __new__(cls, paths: Iterable[bytes], shown: str) -> PathList:
        """Return the list; `shown` is what messages call it."""
        found = frozenset(paths)
        digest = hashlib.sha256(b"\0".join(sorted(found))).hexdigest()
        self = super().__new__(cls, f"@{digest}")
        self.paths, self.shown = found, shown
        return self

    def __reduce__(self) -> tuple[type[PathList], tuple[frozenset[bytes], str]]:
        return type(self), (self.paths, self.shown)


def read_path_list(path: str | os.PathLike[str]) -> PathList:
    """Read a list of paths, one per line; empty lines are ignored.

    Raises
    ------
    OptionError
        If the file cannot be read, or lists nothing.
    """
    lines = _read(path, "--exclude").removeprefix(b"\xef\xbb\xbf").split(b"\n")
    names = {line.removesuffix(b"\r").removeprefix(b"./") for line in lines} - {b""}
    if not names:
        raise OptionError(f"--exclude: {printable(os.fsencode(path))} lists no paths")
    if lines[0].startswith(f'{{"{_KEY}":'.encode()):
        raise OptionError(
            f"--exclude: {printable(os.fsencode(path))} is a list of rows; pass it to "
            "--exclude-rows"
        )
    return PathList(names, printable(os.fsencode(path)))


def path_list_bytes(paths: Sequence[bytes], advice: str) -> bytes:
    """Return a list of paths, one per line, as `read_path_list` reads it.

    Raises
    ------
    OptionError
        If a path has a line break in it; with the advice.
    """
    if broken := [path for path in paths if b"\n" in path or path.endswith(b"\r")]:
        raise OptionError(
            f"{plural(len(broken), 'path')} cannot be on one line, such as "
            f"{printable(broken[0])}; {advice}"
        )
    return b"".join(path + b"\n" for path in paths)


@dataclass(frozen=True, slots=True)
class SplitRows:
    """The rows of a split, some of which a list names.

    Parameters
    ----------
    rows : int
        How many rows the split has.
    paths_sha256 : str
        Of the paths of all its rows, in order: see `paths_digest`.
    listed : dict of int to bytes
        The path of each row that is listed.
    """

    rows: int
    paths_sha256: str
    listed: Mapping[int, bytes]


class RowList(str):
    """Rows of an earlier build to exclude.

    As a text, it is the SHA-256 of its content: what a file records.

    Parameters
    ----------
    splits : dict of str to SplitRows
        All splits of the earlier build.
    skipped : frozenset of bytes
        The files that the earlier build skipped, which therefore have no rows.
    shown : str
        What messages call it.
    """

    __slots__ = ("shown", "skipped", "splits")

    splits: dict[str, SplitRows]
    skipped: frozenset[bytes]
    shown: str

    def __new__(cls, splits: dict[str, SplitRows], skipped: Iterable[bytes], shown: str) -> RowList:
        """Return the list."""
        parts = [
            [name, split.rows, split.paths_sha256, sorted(split.listed)]
            for name, split in splits.items()
        ]
        self = super().__new__(cls, hashlib.sha256(json.dumps(parts).encode()).hexdigest())
        self.splits, self.skipped, self.shown = splits, frozenset(skipped), shown
        return self

    def __reduce__(self) -> tuple[type[RowList], tuple[Any, ...]]:
        return type(self), (self.splits, self.skipped, self.shown)


def with_lists(name: str, value: Any) -> Any:
    """Return the value of an option with the lists that it names, if it is one that takes lists.

    Raises
    ------
    OptionError
        If a list cannot be read.
    """
    if name == "exclude_rows":
        refuse_set("exclude_rows", value)
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(each if isinstance(each, RowList) else read_row_list(each) for each in items)
    if name != "exclude" or isinstance(value, set | frozenset) or not isinstance(value, Iterable):
        return value
    return tuple(
        read_path_list(each[1:])
        if isinstance(each, str) and each.startswith("@") and not isinstance(each, PathList)
        else each
        for each in ([value] if isinstance(value, str) else value)
    )


def is_recorded_list(pattern: str) -> bool:
    """Return whether a pattern of a file's config stands for a list of paths."""
    return re.fullmatch("@[0-9a-f]{64}", pattern) is not None


def paths_digest(pieces: Iterable[list[bytes]]) -> str:
    """Return the SHA-256, in hex, of paths in order, each followed by a NUL."""
    digest = hashlib.sha256()
    for paths in pieces:
        digest.update(b"\0".join([*paths, b""]))
    return digest.hexdigest()


def row_list_lines(
    splits: Mapping[str, SplitRows], skipped: Iterable[bytes], name: bytes, content_sha256: str
) -> Iterator[str]:
    """Yield the lines of a list of rows: a JSON object that says of which build, and one per row.

    Parameters
    ----------
    name : bytes
        The name of the file that the rows are in.
    content_sha256 : str
        Of that file, in hex.
    """
    yield json.dumps({
        _KEY: VERSION,
        "file": os.fsdecode(name),
        "content_sha256": content_sha256,
        "splits": {
            split: {"rows": each.rows, "paths_sha256": each.paths_sha256}
            for split, each in splits.items()
        },
        "skipped": sorted(map(os.fsdecode, skipped)),
    })  # fmt: skip
    for split, each in splits.items():
        for row, path in each.listed.items():
            yield json.dumps({"split": split, "row": row, "path": os.fsdecode(path)})


def read_row_list(path: str | bytes | os.PathLike[str]) -> RowList:
    """Read a list of rows, as `row_list_lines` writes it.

    Raises
    ------
    OptionError
        If it is no path, or the file cannot be read or is not such a list; with the number of the
        line.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise OptionError(f"exclude_rows must be a list of files, not {path!r}")
    shown = printable(os.fsencode(path))
    lines = _read(path, "--exclude-rows").split(b"\n")
    rows: dict[str, dict[int, bytes]] = {}
    number = 1
    try:
        head = json.loads(lines[0])
        version = head[_KEY]
        rows = {name: {} for name in head["splits"]}
        for number in range(2, len(lines) + 1):
            if lines[number - 1].strip():
                row = json.loads(lines[number - 1])
                rows[row["split"]][_row_number(row["row"])] = os.fsencode(row["path"])
        number = 1
        splits = {
            name: SplitRows(_row_number(each["rows"]), str(each["paths_sha256"]), rows[name])
            for name, each in head["splits"].items()
        }
        skipped = [os.fsencode(each) for each in head["skipped"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise OptionError(
            f"--exclude-rows: line {number} of {shown} is not that of a list of rows, as "
            "batchify view writes it; for a list of paths, use --exclude @FILE"
        ) from error
    if version != VERSION:
        raise OptionError(
            f"--exclude-rows: {shown} has version {version}, which this batchify does not read"
        )
    if not any(each.listed for each in splits.values()):
        raise OptionError(f"--exclude-rows: {shown} lists no rows")
    return RowList(splits, skipped, shown)


def _row_number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r} is not a number of a row")
    return value


def _read(path: str | bytes | os.PathLike[str], option: str) -> bytes:
    from batchify.common.system import open_regular  # imports threads: not for --help

    try:
        with open_regular(path) as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = ""
        if option == "--exclude" and not os.path.exists(path):
            name = printable(os.fsencode(path))
            hint = f"; for the pattern @{name}, pass '[@]{name}'"
        raise OptionError(
            f"{option}: {printable(os.fsencode(path))} cannot be read: {reason}{hint}"
        ) from error
