"""Read CSV, JSON Lines and Parquet tables as rows of text with line numbers.

To add a format, write a class like `CsvTable` and add it to `READERS`.

References: RFC 4180 for CSV; https://arrow.apache.org/docs/python/parquet.html
"""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import math
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import IO, Any, Protocol

from batchify.common.paths import is_url, shown_url
from batchify.common.system import missing_extra
from batchify.common.text import printable
from batchify.dataset_options import OPTIONAL_COLUMNS
from batchify.datasets.manifest_errors import ManifestErrors
from batchify.errors import OptionError

_LINE_NBYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"

Row = tuple[int, Sequence[str]]
"""The line on which a row begins, and the text of some of its columns."""


class Table(Protocol):
    """An open table.

    Attributes
    ----------
    columns : sequence of str
        The names of all columns.
    plain_columns : sequence of str
        Columns whose values are texts, numbers or truth values.
    text_columns : collection of str
        Columns whose values are texts, even if they look like numbers; empty if not known.
    """

    columns: Sequence[str]
    plain_columns: Sequence[str]
    text_columns: Collection[str]

    def rows(self, names: Sequence[str], errors: ManifestErrors) -> Iterator[Row]:
        """Yield the named columns of each row; add an error for a row that is not valid.

        A missing value is an empty text.
        """
        ...


class _Lines:
    """The numbered lines of a UTF-8 file; reading stops at a line that is not valid."""

    def __init__(self, file: IO[bytes], errors: ManifestErrors) -> None:
        self._file = file
        self._errors = errors
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
            self._errors.add(self.count, f"it is not UTF-8 ({at}); save the table as UTF-8")
        except ValueError as error:
            self._errors.add(self.count, str(error))
        raise StopIteration


_DELIMITERS = ",;\t"
_TOLD = re.compile('"?sep=([,;\t])"?', re.IGNORECASE)
_SAMPLED_NBYTES = 1 << 16


def _delimiter(file: IO[bytes]) -> tuple[str, bool]:
    """Return the delimiter of a table, and whether the first line only declares it.

    It is the comma, semicolon or tab of the header, or the one that a line ``sep=;`` declares for
    Excel.
    """
    lines = file.read(_SAMPLED_NBYTES).removeprefix(_BOM).decode("utf-8", "replace").splitlines()
    file.seek(0)
    lines = [line for line in lines if line][:_SAMPLED_LINES]
    if lines and (told := _TOLD.fullmatch(lines[0])):
        return told[1], True
    found = [mark for mark in _DELIMITERS if lines and mark in lines[0]]
    if len(found) > 1:
        with contextlib.suppress(csv.Error):
            return csv.Sniffer().sniff("\n".join(lines), "".join(found)).delimiter, False
    return (found[0] if found else ","), False


_SAMPLED_LINES = 20


class CsvTable:
    """A table of values separated by commas, semicolons or tabs, with a header.

    Spaces after the delimiter are ignored.

    Raises
    ------
    ManifestError
        If there is no header.
    """

    def __init__(self, file: IO[bytes], errors: ManifestErrors) -> None:
        delimiter, is_told = _delimiter(file)
        self._lines = _Lines(file, errors)
        self._reader = csv.reader(
            self._lines, delimiter=delimiter, strict=True, skipinitialspace=True
        )
        self.columns: Sequence[str] = ()
        for _, fields in self._records(errors):
            if not is_told:
                self.columns = [name.strip() for name in fields]
                break
            is_told = False
        errors.raise_if_any("the first line must name the columns")
        if not self.columns:
            raise errors.error("is empty; its first line must name the columns")
        self.plain_columns: Sequence[str] = self.columns
        self.text_columns: Collection[str] = ()

    def rows(self, names: Sequence[str], errors: ManifestErrors) -> Iterator[Row]:
        """Yield the rows."""
        numbers = [self.columns.index(name) for name in names]
        count = len(self.columns)
        for line, fields in self._records(errors):
            if len(fields) != count:
                errors.add(line, f"it has {len(fields)} fields, the header {count}")
                continue
            yield line, [fields[number] for number in numbers]

    def _records(self, errors: ManifestErrors) -> Iterator[tuple[int, list[str]]]:
        """Yield the records that are not empty, each with the number of its first line."""
        line = self._lines.count + 1
        try:
            for fields in self._reader:
                if fields:
                    yield line, fields
                line = self._lines.count + 1
        except csv.Error as error:
            errors.add(line, f"it is not CSV: {error}")


class JsonTable:
    """A table with a JSON object on each line; the columns are the names in the first.

    Raises
    ------
    ManifestError
        If there is no object.
    """

    def __init__(self, file: IO[bytes], errors: ManifestErrors) -> None:
        self._lines = _Lines(file, errors)
        self._objects = self._parsed(errors)
        self._first = next(self._objects, None)
        if self._first is None:
            errors.raise_if_any("every line must be a JSON object")
            raise errors.error("is empty; every line must be a JSON object")
        first = self._first[1]
        self.columns: Sequence[str] = list(first)
        self.plain_columns: Sequence[str] = [
            name for name in first if not isinstance(first[name], list | dict)
        ]
        self.text_columns: Collection[str] = [n for n in first if isinstance(first[n], str)]

    def rows(self, names: Sequence[str], errors: ManifestErrors) -> Iterator[Row]:
        """Yield the rows; each must have the columns of the first."""
        assert self._first is not None
        optional = set(OPTIONAL_COLUMNS).difference(self.columns)
        yield from self._texts(*self._first, names, optional, errors)
        for line, found in self._objects:
            yield from self._texts(line, found, names, optional, errors)

    def _texts(
        self, line: int, found: dict[str, Any], names: Sequence[str], others: set[str],
        errors: ManifestErrors,
    ) -> Iterator[Row]:  # fmt: skip
        try:
            for name in others.intersection(found):
                raise ValueError(f"it has {name}, which the first row does not have")
            yield line, [_text(name, found[name]) for name in names]
        except KeyError as error:
            errors.add(line, f"it has no {printable(error.args[0])}, which the first row has")
        except ValueError as error:
            errors.add(line, str(error))

    def _parsed(self, errors: ManifestErrors) -> Iterator[tuple[int, dict[str, Any]]]:
        for text in self._lines:
            if not text.strip():
                continue
            try:
                found = json.loads(text, object_pairs_hook=_object)
            except json.JSONDecodeError as error:
                errors.add(self._lines.count, f"it is not JSON: {error.msg} (column {error.colno})")
            except (ValueError, RecursionError) as error:
                errors.add(self._lines.count, f"it is not JSON: {error}")
            else:
                if isinstance(found, dict):
                    yield self._lines.count, found
                else:
                    errors.add(self._lines.count, "it is not a JSON object")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{printable(twice)} is there twice")
    return found


def _text(name: str, value: Any) -> str:
    """Return a value as in a CSV file; refuse a list or an object."""
    if isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "an object"
        raise ValueError(f"{printable(name)} is {kind}; it must be a text or a number")
    return plain_text(value)


def plain_text(value: Any) -> str:
    """Return a plain value as in a CSV file; None and NaN are empty."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def load_pyarrow(needs: str = "a Parquet manifest needs pyarrow, which") -> tuple[Any, Any]:
    """Return pyarrow and pyarrow.parquet; `needs` begins the error if it is not installed."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra(needs, "parquet", error) from error
    return pa, parquet


_ROWS_AT_ONCE = 4096


class ParquetTable:
    """A Parquet file; rows are counted from 1.

    Raises
    ------
    ManifestError
        If the file is not Parquet.
    """

    def __init__(self, file: IO[bytes], errors: ManifestErrors) -> None:
        self._arrow, parquet = load_pyarrow()
        errors.unit = "row"
        try:
            self._file = parquet.ParquetFile(file)
            self._schema = self._file.schema_arrow
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise errors.error(f"is not a valid Parquet file: {first_line(error)}") from error
        self.columns: Sequence[str] = self._schema.names
        self.plain_columns: Sequence[str] = [
            each.name for each in self._schema if self._is_plain(each.type)
        ]
        self.text_columns: Collection[str] = [
            each.name for each in self._schema if self._is_text(each.type)
        ]

    def rows(self, names: Sequence[str], errors: ManifestErrors) -> Iterator[Row]:
        """Yield the rows.

        Raises
        ------
        ManifestError
            If a column has values other than texts, numbers and truth values.
        """
        for name in names:
            kind = self._schema.field(name).type
            if not self._is_plain(kind):
                raise errors.error(
                    f"has a column {printable(name)} of type {kind}; it must contain texts, "
                    "numbers or truth values"
                )
        row = 1
        try:
            for batch in self._file.iter_batches(_ROWS_AT_ONCE, columns=list(dict.fromkeys(names))):
                columns = [map(plain_text, batch.column(name).to_pylist()) for name in names]
                for texts in zip(*columns, strict=True):
                    yield row, texts
                    row += 1
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            errors.add(row, f"it cannot be read from here on: {first_line(error)}")

    def _is_plain(self, kind: Any) -> bool:
        types = self._arrow.types
        if types.is_dictionary(kind):
            kind = kind.value_type
        checks = (types.is_integer, types.is_floating, types.is_boolean, types.is_null)
        return any(check(kind) for check in checks) or self._is_text(kind)

    def _is_text(self, kind: Any) -> bool:
        types = self._arrow.types
        if types.is_dictionary(kind):
            kind = kind.value_type
        return any(
            check(kind) for check in (types.is_string, types.is_large_string, types.is_string_view)
        )


def first_line(error: Exception) -> str:
    """Return the first line of an error of pyarrow, at most 200 characters."""
    return printable(str(error).splitlines()[0] if str(error) else type(error).__name__)[:200]


READERS: Mapping[str, Callable[[IO[bytes], ManifestErrors], Table]] = {
    ".csv": CsvTable,
    ".tsv": CsvTable,
    ".jsonl": JsonTable,
    ".parquet": ParquetTable,
}
"""The reader of a table, by the ending of its name in lower case."""


@contextlib.contextmanager
def open_table(path: str, errors: ManifestErrors) -> Iterator[Table]:
    """Open a table with the reader for the ending of its name.

    Raises
    ------
    OptionError
        If there is no reader for the ending, or the path is a URL.
    ManifestError
        If the table cannot be read.
    ExtraMissingError
        If the reader needs a library that cannot be imported.
    """
    if is_url(path):
        raise OptionError(f"manifest {shown_url(path)} is not a local file; download it")
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in READERS:
        *most, last = READERS
        raise OptionError(f"manifest {printable(path)} must end in {', '.join(most)} or {last}")
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOENT:
            raise errors.missing() from error
        reason = getattr(error, "strerror", None) or str(error)
        raise errors.error(f"cannot be opened: {reason}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise errors.error("is not a regular file")
    with open(fd, "rb") as file:
        yield READERS[suffix](file, errors)
