"""Compute and write the checksums of a file: ``record_crc32`` and ``content_sha256``.

``row_crc32`` covers a stored image; ``record_crc32`` the rest of its row, including ``row_crc32``;
``content_sha256`` everything but the images, including names, attributes, types and shapes. It
digests what HDF5 reads, not the bytes of the file: HDF5 protects its own metadata with checksums
(superblock 2 and later, object headers 2), and bytes that are never read, such as the rest of the
metadata block, do not count.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5o
from numpy.typing import NDArray

from batchify.choices import canonical_json
from batchify.common.text import printable
from batchify.errors import FileFormatError, OutputIOError
from batchify.format import schema, strict
from batchify.format.reader import Reader
from batchify.format.rows import RowWriter

Records = Mapping[str, NDArray[Any]]
"""Some rows of all columns except the images."""


def record_sums(records: Records) -> NDArray[np.uint32]:
    """Return the CRC-32 of each row of some records, shape (n,).

    It covers the bytes of all columns except ``record_crc32``, in the order of schema 1.
    """
    columns = [
        np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
        for name, values in records.items()
        if name != "record_crc32"
    ]
    joined = np.concatenate(columns, axis=1)
    data, nbytes = joined.tobytes(), joined.shape[1]
    sums = [zlib.crc32(data[start : start + nbytes]) for start in range(0, len(data), nbytes)]
    return np.array(sums, "<u4")


def content_digest(
    reader: Reader, look: Callable[[str, int, Records], None] = lambda *_: None
) -> bytes:
    """Return the SHA-256 of everything in a file except the images and this digest.

    Parameters
    ----------
    look : callable
        Called with (split, first row, records) for each piece as it is read.

    Raises
    ------
    FileFormatError
        If there is anything that schema 1 does not have.
    """
    with reader.refusing():
        root = reader.root
        digest = hashlib.sha256()
        homes = _homes(reader)
        _add(digest, ["root", _links(root, homes), *_attributes(root)])
        for split, columns in reader.splits.items():
            group = strict.open_group(root, split)
            _add(digest, ["split", split, _links(group, homes), *_attributes(group)])
            records = set(columns).difference(schema.IMAGE_COLUMNS)
            hashes = {name: hashlib.sha256() for name in records}
            for start, some in reader.records(split):
                look(split, start, some)
                for name, values in some.items():
                    hashes[name].update(np.ascontiguousarray(values).data)
            for name, dataset in columns.items():
                data = hashes[name].hexdigest() if name in hashes else ""
                _add(digest, ["column", name, data, *_dataset(dataset.id)])
        group = strict.open_group(root, schema.STATISTICS)
        _add(digest, [schema.STATISTICS, _links(group, homes), *_attributes(group)])
        for name, dataset in reader.statistics.items():
            data = dataset[()].tobytes().hex()
            _add(digest, [schema.STATISTICS, name, data, *_dataset(dataset.id)])
        if reader.skipped_table is not None:
            data = hashlib.sha256(reader.skipped_table[()].tobytes()).hexdigest()
            _add(digest, ["skipped", data, *_dataset(reader.skipped_table.id)])
        _add(digest, [schema.DIGEST, *_dataset(reader.digest_dataset.id)])
        return digest.digest()


def link_faults(reader: Reader) -> list[str]:
    """Return what the groups of a file lack, or have in addition to schema 1."""
    with reader.refusing():
        root = reader.root
        homes = _homes(reader)
        expected = {schema.DIGEST, schema.STATISTICS, *reader.splits}
        if reader.skipped_table is not None:
            expected.add(schema.SKIPPED)
        aliases = {}
        faults = []
        for split, columns in reader.splits.items():
            expected_columns = set(columns)
            found = strict.hard_links(strict.open_group(root, split), split)
            faults += _differences(found, expected_columns, f"{split}/")
            for name in columns:
                if prefix := schema.HARD_LINKS.get(name):
                    aliases[f"{prefix}_{split}"] = f"{split}/{name}"
        found = strict.hard_links(strict.open_group(root, schema.STATISTICS), schema.STATISTICS)
        faults += _differences(found, set(reader.statistics), f"{schema.STATISTICS}/")
        found = strict.hard_links(root, "/")
        faults += _differences(found, expected | set(aliases), "")
        for alias, home in aliases.items():
            if alias in found and homes.get(h5o.get_info(root, alias.encode()).addr) != home:
                faults.append(f"{alias} is not {home}")
        return faults


def _homes(reader: Reader) -> dict[int, str]:
    """Return the name ``split/column`` of each column, by its address in the file."""
    return {
        h5o.get_info(dataset.id).addr: f"{split}/{name}"
        for split, columns in reader.splits.items()
        for name, dataset in columns.items()
    }


def _differences(found: frozenset[str], expected: set[str], where: str) -> list[str]:
    return [f"there is no {where}{name}" for name in sorted(expected - found)] + [
        f"there is a {where}{printable(name)} that is not part of schema 1"
        for name in sorted(found - expected)
    ]


def write_checksums(path: bytes, writer: RowWriter) -> None:
    """Write the checksums of all records, and the digest, once all rows are written."""
    try:
        with Reader(path) as reader:
            for split in reader.splits:
                for start, records in reader.records(split):
                    writer.put(split, start, {"record_crc32": record_sums(records)})
            digest = np.frombuffer(content_digest(reader), np.uint8)
    except FileFormatError as error:
        raise OutputIOError(f"the new file cannot be read back: {error}") from error
    writer.put("", 0, {schema.DIGEST: digest})


def _add(digest: Any, record: list[Any]) -> None:
    digest.update(canonical_json(record).encode("utf-8", "surrogateescape") + b"\n")


def _links(group: h5g.GroupID, homes: Mapping[int, str]) -> list[list[str]]:
    """Return the names in a group, each with the ``split/column`` that it links to, or ""."""
    h5o.get_info(group)  # reads all indexes of its links, like h5py's visititems
    names = sorted(strict.hard_links(group, "a group"))
    return [[name, homes.get(h5o.get_info(group, name.encode()).addr, "")] for name in names]


def _attributes(owner: h5g.GroupID | h5d.DatasetID) -> list[list[Any]]:
    found = []
    for name in strict.attribute_names(owner):
        value = strict.attribute(owner, name)
        found.append([name, value.dtype.str, list(value.shape), value.tobytes().hex()])
    return found


def _dataset(dataset: h5d.DatasetID) -> list[Any]:
    """Return the storage properties and attributes of a dataset."""
    creation = dataset.get_create_plist()
    space = dataset.get_space()
    filters = [list(creation.get_filter(i)[:3]) for i in range(creation.get_nfilters())]
    maxshape = [
        None if side == h5py.h5s.UNLIMITED else side for side in space.get_simple_extent_dims(1)
    ]
    dtype = dataset.dtype
    return [
        str(dtype.descr) if dtype.names else dtype.str,
        list(dataset.shape),
        maxshape,
        list(creation.get_chunk()),
        filters,
        _attributes(dataset),
    ]
