"""What a file will be: names, types and sizes of all that is in it, without a row. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batchify import schema
from batchify.errors import Skipped
from batchify.options import StoreOptions, canonical_json


@dataclass(frozen=True, eq=False)
class SplitShape:
    """The datasets of one split.

    Parameters
    ----------
    name : str
    columns : tuple of Column
    """

    name: str
    columns: tuple[schema.Column, ...]

    @property
    def statistics(self) -> tuple[schema.Column, ...]:
        """What is stored of each channel of its images."""
        channels = next(
            column.shape[-1] for column in self.columns if column.name in ("images", "channel_sums")
        )
        return schema.statistics_columns(self.name, channels)


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A file to be.

    Parameters
    ----------
    classes : tuple of bytes
        In the order of their indices.
    config : Mapping
        The options that it records.
    decoder : str
        Names and versions of the libraries that decode; recorded, too.
    store : StoreOptions
    splits : tuple of SplitShape
    skipped : tuple of Skipped
    """

    classes: tuple[bytes, ...]
    config: Mapping[str, Any]
    decoder: str
    store: StoreOptions
    splits: tuple[SplitShape, ...]
    skipped: tuple[Skipped, ...]

    @property
    def skipped_itemsizes(self) -> tuple[int, int]:
        """Bytes of the longest path and the longest reason of ``/skipped``."""
        paths = max((len(s.path) for s in self.skipped), default=1)
        return paths, max((len(s.reason.encode()) for s in self.skipped), default=1)

    @property
    def metadata_nbytes(self) -> int:
        """Bytes of the block at the head of the file that takes all HDF5 metadata."""
        classes = self.classes
        attributes = len(classes) * max(map(len, classes)) + len(canonical_json(self.config)) * 4
        columns = (*self._columns, schema.digest_column())
        return schema.metadata_nbytes(columns, attributes)

    @property
    def _columns(self) -> Iterator[schema.Column]:
        """All datasets that are of a split."""
        for split in self.splits:
            yield from split.columns
            yield from split.statistics

    @property
    def nbytes(self) -> int:
        """Exact size of the uncompressed file; where images are dropped later, it is less."""
        data = sum(column.nbytes for column in self._columns)
        data += sum(self.skipped_itemsizes) * len(self.skipped) + schema.DIGEST_NBYTES
        return (
            self.metadata_nbytes
            + data
            + schema.classes_nbytes(len(self.classes), max(map(len, self.classes)))
        )
