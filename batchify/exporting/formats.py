"""The table of the formats that ``batchify export`` writes."""

from __future__ import annotations

import importlib

from batchify.exporting.layout import Format
from batchify.exporting.rows import Contents

FORMATS = {
    "imagefolder": "ImageFolder",
    "webdataset": "WebDataset",
    "mds": "Mds",
    "parquet": "Parquet",
    "tfrecord": "TFRecord",
    "arrow": "Arrow",
}
"""Format -> its class, in the module of this name; ``npz`` is one file, which `write_npz` makes."""

SHARDED = frozenset(FORMATS) - {"imagefolder"}
"""The formats with shards."""


def make_format(name: str, contents: Contents) -> Format:
    """Return a format of shards for what a file holds.

    Raises
    ------
    OptionError
        If it has no place for it.
    ExtraMissingError
        If its library is not installed.
    """
    module = importlib.import_module(f"batchify.exporting.{name}")
    made: Format = getattr(module, FORMATS[name])(contents)
    return made
