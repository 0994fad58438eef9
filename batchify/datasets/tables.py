"""CSV, JSON lines and Parquet as rows of text, with line numbers.

https://arrow.apache.org/docs/python/parquet.html
"""

from __future__ import annotations

import bisect
import contextlib
import csv
import errno
import json
import math
import os
import stat
from collections.abc import Iterator, Sequence
from typing import IO, Any, Protocol

from batchify.common.paths import is_url, shown_url
from batchify.common.system import missing_extra
from batchify.common.text import printable
from batchify.errors import ManifestError, OptionError

NAMED = 10


class Faults:
    """Collects what is wrong, so that a user can mend it all at once.

    Parameters
    ----------
    path : path
        Of the manifest.
    unit : str
        What is counted: ``line`` or ``row``.
    """

    def __init__(self, path: str | os.PathLike[str], unit: str = "line") -> None:
        self.name = printable(os.fspath(path))
        self.unit = unit
        self.count = 0
        self._first: list[tuple[int, str]] = []

    def add(self, line: int, message: str) -> None:
        """Take note of one; lines may come in any order."""
        self.count += 1
        bisect.insort(self._first, (line, message), key=lambda fault: fault[0])
        del self._first[NAMED:]

    def error(self, message: str) -> ManifestError:
        """Return an error that is of no line."""
        return ManifestError(f"manifest {self.name} {message}")

    def check(self, advice: str) -> None:
        """Raise where there are any.

        Raises
        ------
        ManifestError
        """
        if not self.count:
            return
        many = "1 error" if self.count == 1 else f"{self.count:,} errors"
        lines = [f"  - {self.unit} {line}: {message}" for line, message in self._first]
        if self.count > len(self._first):
            lines.append(f"  … and {self.count - len(self._first):,} more")
        raise self.error("\n".join([f"has {many}:", *lines, advice]))


SUFFIXES = (".csv", ".jsonl", ".parquet")


_LINE_NBYTES = 1 << 20


_BOM = b"\xef\xbb\xbf"


Row = tuple[int, Sequence[str]]
"""The line that a row begins on, and the texts of some of its columns."""


class Table(Protocol):
    """An open table.

    Attributes
    ----------
    columns : sequence of str
        Their names.
    """

    columns: Sequence[str]

    def rows(self, names: Sequence[str], faults: Faults) -> Iterator[Row]:
        """Yield the rows, of the named columns; one that cannot be understood is a fault.

        What has no value is an empty text.
        """
        ...


@contextlib.contextmanager
def open_table(path: str, faults: Faults) -> Iterator[Table]:
    """Open a table by the ending of its name.

    Raises
    ------
    OptionError
        If the ending is none of `SUFFIXES`, or it is a URL.
    ManifestError
        If it cannot be read.
    ExtraMissingError
        If it is of Parquet, and pyarrow cannot be imported.
    """
    if is_url(path):
        raise OptionError(f"manifest {shown_url(path)} is not a file of this machine; download it")
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise OptionError(f"manifest {printable(path)} must end in {', '.join(SUFFIXES)}")
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        missing = isinstance(error, OSError) and error.errno == errno.ENOENT
        reason = getattr(error, "strerror", None) or str(error)
        raise faults.error(
            "does not exist" if missing else f"cannot be opened: {reason}"
        ) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise faults.error("is not a regular file")
    with open(fd, "rb") as file:
        if suffix == ".parquet":
            yield ParquetTable(file, faults)
        else:
            yield CsvTable(file, faults) if suffix == ".csv" else JsonTable(file, faults)


class _Lines:
    """The lines of a UTF-8 file, counted; one that is none ends it with a fault."""

    def __init__(self, file: IO[bytes], faults: Faults) -> None:
        self._file = file
        self._faults = faults
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        data = self._file.readline(_LINE_NBYTES + 1)
        if not data:
            raise StopIteration
        self.count += 1
        if self.count == 1:
            data = data.removeprefix(_BOM)
        try:
            if len(data) > _LINE_NBYTES:
                raise ValueError(f"it is longer than {_LINE_NBYTES:,} bytes")
            if b"\0" in data:
                raise ValueError("it has a NUL byte; save the table as UTF-8 text")
            return data.decode()
        except UnicodeDecodeError as error:
            at = f"byte {error.start + 1} of the line"
            self._faults.add(self.count, f"it is not UTF-8 ({at}); save the table as UTF-8")
        except ValueError as error:
            self._faults.add(self.count, str(error))
        raise StopIteration


class CsvTable:
    """A table of comma-separated values with a header: RFC 4180, spaces after commas ignored.

    Raises
    ------
    ManifestError
        If it has no header.
    """

    def __init__(self, file: IO[bytes], faults: Faults) -> None:
        self._lines = _Lines(file, faults)
        self._reader = csv.reader(self._lines, strict=True, skipinitialspace=True)
        self.columns: Sequence[str] = ()
        for _, fields in self._records(faults):
            self.columns = [name.strip() for name in fields]
            break
        faults.check("the first line must name the columns")
        if not self.columns:
            raise faults.error("is empty; its first line must name the columns")

    def rows(self, names: Sequence[str], faults: Faults) -> Iterator[Row]:
        """Yield the rows."""
        numbers = [self.columns.index(name) for name in names]
        count = len(self.columns)
        for line, fields in self._records(faults):
            if len(fields) != count:
                faults.add(line, f"it has {len(fields)} fields, the header {count}")
                continue
            yield line, [fields[number] for number in numbers]

    def _records(self, faults: Faults) -> Iterator[tuple[int, list[str]]]:
        """Yield the records that are not empty, each with its first line."""
        line = self._lines.count + 1
        try:
            for fields in self._reader:
                if fields:
                    yield line, fields
                line = self._lines.count + 1
        except csv.Error as error:
            faults.add(line, f"it is not CSV: {error}")


class JsonTable:
    """A table of one JSON object a line; the columns are the names of the first.

    Raises
    ------
    ManifestError
        If it has no line.
    """

    def __init__(self, file: IO[bytes], faults: Faults) -> None:
        self._lines = _Lines(file, faults)
        self._objects = self._parsed(faults)
        self._first = next(self._objects, None)
        if self._first is None:
            faults.check("every line must be a JSON object")
            raise faults.error("is empty; every line must be a JSON object")
        self.columns: Sequence[str] = list(self._first[1])

    def rows(self, names: Sequence[str], faults: Faults) -> Iterator[Row]:
        """Yield the rows; each has the columns that the first has."""
        assert self._first is not None
        optional = {"split", "group", "weight"}.difference(self.columns)
        yield from self._texts(*self._first, names, optional, faults)
        for line, found in self._objects:
            yield from self._texts(line, found, names, optional, faults)

    def _texts(
        self, line: int, found: dict[str, Any], names: Sequence[str], others: set[str],
        faults: Faults,
    ) -> Iterator[Row]:  # fmt: skip
        try:
            for name in others.intersection(found):
                raise ValueError(f"it has {name}, which the first row has not")
            yield line, [_text(name, found[name]) for name in names]
        except KeyError as error:
            faults.add(line, f"it has no {printable(error.args[0])}, which the first row has")
        except ValueError as error:
            faults.add(line, str(error))

    def _parsed(self, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
        for text in self._lines:
            if not text.strip():
                continue
            try:
                found = json.loads(text, object_pairs_hook=_object)
            except json.JSONDecodeError as error:
                faults.add(self._lines.count, f"it is not JSON: {error.msg} (column {error.colno})")
            except (ValueError, RecursionError) as error:
                faults.add(self._lines.count, f"it is not JSON: {error}")
            else:
                if isinstance(found, dict):
                    yield self._lines.count, found
                else:
                    faults.add(self._lines.count, "it is not a JSON object")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{printable(twice)} is there twice")
    return found


def _text(name: str, value: Any) -> str:
    """Return a value as CSV has it.

    Raises
    ------
    ValueError
        If it is a list or an object.
    """
    if isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "an object"
        raise ValueError(f"{printable(name)} is {kind}; it must be a text or a number")
    return as_text(value)


def as_text(value: Any) -> str:
    """Return a plain value as CSV has it: empty for none, and for the NaN that stands for none."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _pyarrow() -> tuple[Any, Any]:
    """Return the modules pyarrow and pyarrow.parquet.

    Raises
    ------
    ExtraMissingError
        If they cannot be imported.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        needs = "a manifest of Parquet needs pyarrow, which"
        raise missing_extra(needs, "parquet", error) from error
    return pa, parquet


_ROWS_AT_ONCE = 4096


class ParquetTable:
    """A Parquet file; rows are counted from 1.

    Raises
    ------
    ManifestError
        If it is none.
    """

    def __init__(self, file: IO[bytes], faults: Faults) -> None:
        self._arrow, parquet = _pyarrow()
        faults.unit = "row"
        try:
            self._file = parquet.ParquetFile(file)
            self._schema = self._file.schema_arrow
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise faults.error(f"is not Parquet that can be read: {_told(error)}") from error
        self.columns: Sequence[str] = self._schema.names

    def rows(self, names: Sequence[str], faults: Faults) -> Iterator[Row]:
        """Yield the rows.

        Raises
        ------
        ManifestError
            If the columns are of other types than texts, numbers and truth values.
        """
        for name in names:
            kind = self._schema.field(name).type
            if not _is_plain(kind, self._arrow.types):
                raise faults.error(
                    f"has a column {printable(name)} of type {kind}; it must be of texts, numbers "
                    "or truth values"
                )
        row = 1
        try:
            for batch in self._file.iter_batches(_ROWS_AT_ONCE, columns=list(names)):
                columns = [map(as_text, batch.column(name).to_pylist()) for name in names]
                for texts in zip(*columns, strict=True):
                    yield row, texts
                    row += 1
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            faults.add(row, f"from here on it cannot be read: {_told(error)}")


def _is_plain(kind: Any, types: Any) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    checks = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer,
              types.is_floating, types.is_boolean, types.is_null)  # fmt: skip
    return any(check(kind) for check in checks)


def _told(error: Exception) -> str:
    return printable(str(error).splitlines()[0] if str(error) else type(error).__name__)[:200]
