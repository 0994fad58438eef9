"""Validate HDF5 objects before trusting their content.

Each function raises `FileFormatError` with a reason; the reader adds the name of the file.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t
from numpy.typing import NDArray

from batchify.common.text import printable
from batchify.errors import FileAccessError, FileFormatError, FileMissingError
from batchify.format import schema
from batchify.format.shard_index import INDEX_NAME, is_shard_folder
from batchify.format.structure import GZIP_FILTERS, filters

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_LINKS = 256
_MAX_ATTRIBUTES = 64
_MAX_ATTRIBUTE_NBYTES = 32 << 20
_MAX_SINGLE_TEXT_NBYTES = 1 << 16
_MAX_TEXT_NBYTES = 1 << 16
_NUMBERS = (h5t.INTEGER, h5t.FLOAT, h5t.ENUM)  # h5py stores truth values as an enumeration
_DEFLATE_RATIO = 1032  # the highest ratio of deflate: https://zlib.net/zlib_tech.html


def open_signed(path: bytes, name: str) -> int:
    """Open a regular file with the signature of HDF5, never blocking; return its descriptor.

    Parameters
    ----------
    name : str
        Its name in errors.
    """
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise FileMissingError(f"there is no file {name}; make it with batchify build") from None
    except OSError as error:
        raise FileAccessError(f"{name} cannot be opened: {error.strerror}") from error
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            if is_shard_folder(path):
                raise FileAccessError(
                    f"{name} is a folder of shards; name one of them, or merge them with "
                    "batchify merge"
                )
            raise FileAccessError(
                f"{name} is a folder without {INDEX_NAME.decode()}: name what batchify build "
                "made, or if it holds shards, run batchify build again to finish them"
            )
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FileAccessError(f"{name} is not a regular file")
        if os.read(fd, len(_SIGNATURE)) != _SIGNATURE:
            raise FileFormatError(f"{name} is not an HDF5 file")
    except (OSError, ValueError):
        os.close(fd)
        raise
    return fd


def hard_links(group: h5g.GroupID, where: str) -> frozenset[str]:
    """Return the names in a group; each must be a hard link."""
    if group.get_num_objs() > _MAX_LINKS:
        raise FileFormatError(f"{where} has more than {_MAX_LINKS} entries")
    names = []
    for name in group:
        if group.links.get_info(name).type != h5l.TYPE_HARD:
            raise FileFormatError(f"{where} has a link that is not a hard link: {printable(name)}")
        names.append(os.fsdecode(name))
    return frozenset(names)


def open_group(parent: h5g.GroupID, name: str) -> h5g.GroupID:
    """Open a member, which must be a group."""
    group = h5o.open(parent, name.encode())
    if not isinstance(group, h5g.GroupID):
        raise FileFormatError(f"{name} is not a group")
    return group


def open_dataset(group: h5g.GroupID, where: str, name: str, file_nbytes: int) -> h5d.DatasetID:
    """Open a member, which must be a dataset of plain chunks that fit into the file."""
    if name.encode() not in group:
        raise FileFormatError(f"{where} has no {name}")
    dataset = h5o.open(group, name.encode())
    where = f"{where}/{name}"
    if not isinstance(dataset, h5d.DatasetID):
        raise FileFormatError(f"{where} is not a dataset")
    creation = dataset.get_create_plist()
    if creation.get_layout() != h5d.CHUNKED or creation.get_external_count():
        raise FileFormatError(f"{where} is not stored in chunks of this file")
    if dataset.get_space().get_simple_extent_type() != h5s.SIMPLE or not dataset.shape:
        raise FileFormatError(f"{where} has no rows")
    used = filters(h5py.Dataset(dataset))
    if used and (used not in GZIP_FILTERS or name != "images"):
        raise FileFormatError(f"{where} has a filter that is not gzip")
    row_nbytes = dataset.get_type().get_size()
    for side in dataset.shape[1:]:
        row_nbytes *= side
    stored = dataset.get_storage_size()
    if stored > file_nbytes:
        raise FileFormatError(f"{where} claims more bytes than the file has")
    if dataset.shape[0] * row_nbytes > stored * (_DEFLATE_RATIO if used else 1):
        raise FileFormatError(f"{where} has rows without stored bytes")
    return dataset


def check_column(dataset: h5d.DatasetID, where: str, column: schema.Column) -> None:
    """Compare an open dataset with its column in schema 1."""
    type_id = dataset.get_type()
    if dataset.shape != column.shape:
        raise FileFormatError(f"{where} has shape {dataset.shape}, not {column.shape}")
    chunk = dataset.get_create_plist().get_chunk()
    if chunk[1:] != column.shape[1:]:
        raise FileFormatError(f"{where} has chunks that are not whole rows")
    if chunk[0] > max(1, column.chunk_nbytes // column.row_nbytes):
        raise FileFormatError(f"{where} has chunks that are too large")
    if column.dtype.startswith("S"):
        check_text(type_id, where)
    elif type_id.get_class() not in _NUMBERS or dataset.dtype != column.dtype:
        raise FileFormatError(f"{where} does not have type {column.dtype}")


def check_text(type_id: h5t.TypeID, where: str) -> None:
    """Refuse text whose length is not fixed, or too large."""
    if type_id.get_class() != h5t.STRING or type_id.is_variable_str():
        raise FileFormatError(f"{where} is not fixed-length text")
    if type_id.get_size() > _MAX_TEXT_NBYTES:
        raise FileFormatError(f"{where} has texts that are too long")


def attribute_names(owner: h5o.ObjectID) -> list[str]:
    """Return the names of all attributes of an object, sorted."""
    count = h5a.get_num_attrs(owner)
    if count > _MAX_ATTRIBUTES:
        raise FileFormatError(f"an object has more than {_MAX_ATTRIBUTES} attributes")
    return sorted(os.fsdecode(h5a.open(owner, index=i).name) for i in range(count))


def attribute(owner: h5o.ObjectID, name: str, kind: int | None = None) -> NDArray[Any]:
    """Return an attribute of fixed size, of one HDF5 type class or of any plain one."""
    if not h5a.exists(owner, os.fsencode(name)):
        raise FileFormatError(f"it has no attribute {printable(name)}")
    found = h5a.open(owner, os.fsencode(name))
    type_id = found.get_type()
    is_text = type_id.get_class() == h5t.STRING
    kinds = (h5t.STRING, h5t.INTEGER, h5t.FLOAT) if kind is None else (kind,)
    if type_id.get_class() not in kinds or (is_text and type_id.is_variable_str()):
        raise FileFormatError(f"attribute {name} has the wrong type")
    space = found.get_space()
    if space.get_simple_extent_type() == h5s.NULL:
        raise FileFormatError(f"attribute {name} is empty")
    if space.get_simple_extent_npoints() * type_id.get_size() > _MAX_ATTRIBUTE_NBYTES:
        raise FileFormatError(f"attribute {name} is too large")
    value = np.empty(found.shape, found.dtype)
    found.read(value)
    return value


def text(owner: h5o.ObjectID, name: str) -> str:
    """Return a scalar text attribute."""
    value = attribute(owner, name, h5t.STRING)
    if value.ndim or value.nbytes > _MAX_SINGLE_TEXT_NBYTES:
        raise FileFormatError(f"attribute {name} is not a single text, or is too long")
    return bytes(value[()]).decode("utf-8")


_MAX_CONFIG = 64

_MAX_LIST = 1 << 14
"""Longest list in a config, of label columns; the text has at most 64 KiB in any case."""


@dataclass(frozen=True, slots=True)
class Header:
    """The attributes of the root: the kind of file, and how it was built.

    Parameters
    ----------
    ignored : dict of str to int
        How many files were ignored because of their ending, by ending.
    """

    schema_version: int
    creator: str
    decoder: str
    classes: tuple[bytes, ...]
    config: dict[str, Any]
    ignored: dict[str, int] = field(default_factory=dict)


def read_header(root: h5g.GroupID) -> Header:
    """Read the header of a file from the attributes of its root."""
    if text(root, "format") != schema.FORMAT:
        raise FileFormatError("its format attribute does not match")
    version = int(attribute(root, "schema_version", h5t.INTEGER)[()])
    if version != schema.SCHEMA_VERSION:
        raise FileFormatError(
            f"its schema version is {version}, this batchify reads {schema.SCHEMA_VERSION}; "
            "install another release"
        )
    config = _config(text(root, "config"))
    classes = attribute(root, "classes", h5t.STRING)
    if classes.ndim != 1 or len(classes) > schema.MAX_CLASSES:
        raise FileFormatError("its classes are not a list, or the list is too long")
    return Header(
        version,
        text(root, "creator"),
        text(root, "decoder"),
        tuple(bytes(name) for name in classes),
        config,
        _ignored(root),
    )


def _ignored(root: h5g.GroupID) -> dict[str, int]:
    """Return how many files of each ending were ignored; most first."""
    if not h5a.exists(root, schema.IGNORED.encode()):
        return {}
    found = json.loads(text(root, schema.IGNORED))
    if not isinstance(found, dict) or not all(type(n) is int and n > 0 for n in found.values()):
        raise FileFormatError("its ignored files are not counts")
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _config(text: str) -> dict[str, Any]:
    """Parse a config: a JSON object of plain values and short lists of them."""

    def refuse(name: str) -> None:
        raise FileFormatError(f"its config holds {name}")

    config = json.loads(text, parse_constant=refuse)
    if not isinstance(config, dict) or len(config) > _MAX_CONFIG:
        raise FileFormatError("its config is not a JSON object, or is too large")
    for value in config.values():
        values = value if isinstance(value, list) else [value]
        if len(values) > _MAX_LIST or any(isinstance(v, dict | list) for v in values):
            raise FileFormatError("its config is nested")
        if any(isinstance(v, float) and not math.isfinite(v) for v in values):
            raise FileFormatError("its config holds NaN or infinity")
    return config


def open_statistics(
    root: h5g.GroupID, splits: Iterable[str], channels: int, nbytes: int
) -> dict[str, h5py.Dataset]:
    """Open the datasets with a value for each channel of a split's images."""
    where = schema.STATISTICS
    if where.encode() not in root:
        raise FileFormatError(f"it has no {where}: made by an older batchify; rebuild it")
    group = open_group(root, where)
    hard_links(group, where)
    found = {}
    for split in splits:
        for column in schema.statistics_columns(split, channels):
            dataset = open_dataset(group, where, column.name, nbytes)
            check_column(dataset, f"{where}/{column.name}", column)
            found[column.name] = h5py.Dataset(dataset)
    return found


def open_digest(root: h5g.GroupID, nbytes: int) -> h5py.Dataset:
    """Open the dataset of the digest."""
    dataset = open_dataset(root, "", schema.DIGEST, nbytes)
    check_column(dataset, schema.DIGEST, schema.digest_column())
    return h5py.Dataset(dataset)


def open_skipped(root: h5g.GroupID, nbytes: int) -> h5py.Dataset:
    """Open the table of the skipped files."""
    dataset = open_dataset(root, "", schema.SKIPPED, nbytes)
    type_id = dataset.get_type()
    if type_id.get_class() != h5t.COMPOUND or len(dataset.shape) != 1:
        raise FileFormatError("skipped is not a table")
    members = [type_id.get_member_name(i) for i in range(type_id.get_nmembers())]
    if members != [b"path", b"reason"]:
        raise FileFormatError("skipped has other columns")
    for i in range(2):
        check_text(type_id.get_member_type(i), "skipped")
    return h5py.Dataset(dataset)
