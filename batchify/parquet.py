"""The rows of a Parquet table, a record batch at a time; the only importer of pyarrow here.

https://arrow.apache.org/docs/python/parquet.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any

from batchify.errors import ExtraMissingError
from batchify.faults import Faults
from batchify.names import printable
from batchify.tabular import Row, as_text

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as error:
    raise ExtraMissingError(
        f"a manifest of Parquet needs pyarrow, which cannot be imported ({error}); "
        "pip install 'batchify-h5[parquet]'"
    ) from error

_ROWS_AT_ONCE = 4096


class ParquetTable:
    """A Parquet file; rows are counted from 1.

    Raises
    ------
    ManifestError
        If it is none.
    """

    def __init__(self, file: IO[bytes], faults: Faults) -> None:
        faults.unit = "row"
        try:
            self._file = parquet.ParquetFile(file)
            self._schema = self._file.schema_arrow
        except (pa.ArrowException, OSError, ValueError) as error:
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
            if not _is_plain(kind):
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
        except (pa.ArrowException, OSError, ValueError) as error:
            faults.add(row, f"from here on it cannot be read: {_told(error)}")


def _is_plain(kind: Any) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    checks = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer,
              types.is_floating, types.is_boolean, types.is_null)  # fmt: skip
    return any(check(kind) for check in checks)


def _told(error: Exception) -> str:
    return printable(str(error).splitlines()[0] if str(error) else type(error).__name__)[:200]
