"""Opens what a file has beside its splits, strictly: statistics, skipped files, the digest.

Each raises `FileFormatError` with a reason; the reader adds the name of the file.
"""

from __future__ import annotations

from collections.abc import Iterable

import h5py
from h5py import h5g, h5t

from batchify import schema, strict
from batchify.errors import FileFormatError


def open_statistics(
    root: h5g.GroupID, splits: Iterable[str], channels: int, nbytes: int
) -> dict[str, h5py.Dataset]:
    """Return the datasets that have a value for each channel of a split's images."""
    where = schema.STATISTICS
    if where.encode() not in root:
        raise FileFormatError(f"it has no {where}: made by an older batchify; build it again")
    group = strict.open_group(root, where)
    strict.hard_links(group, where)
    found = {}
    for split in splits:
        for column in schema.statistics_columns(split, channels):
            dataset = strict.open_dataset(group, where, column.name, nbytes)
            strict.check_column(dataset, f"{where}/{column.name}", column)
            found[column.name] = h5py.Dataset(dataset)
    return found


def open_digest(root: h5g.GroupID, nbytes: int) -> h5py.Dataset:
    """Return the dataset that holds the digest."""
    dataset = strict.open_dataset(root, "", schema.DIGEST, nbytes)
    strict.check_column(dataset, schema.DIGEST, schema.digest_column())
    return h5py.Dataset(dataset)


def open_skipped(root: h5g.GroupID, nbytes: int) -> h5py.Dataset:
    """Return the table of the files that were left out."""
    dataset = strict.open_dataset(root, "", schema.SKIPPED, nbytes)
    type_id = dataset.get_type()
    if type_id.get_class() != h5t.COMPOUND or len(dataset.shape) != 1:
        raise FileFormatError("skipped is not a table")
    members = [type_id.get_member_name(i) for i in range(type_id.get_nmembers())]
    if members != [b"path", b"reason"]:
        raise FileFormatError("skipped has other columns")
    for i in range(2):
        strict.check_text(type_id.get_member_type(i), "skipped")
    return h5py.Dataset(dataset)
