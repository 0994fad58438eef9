"""What the tests of encoded files share: options, and what a file should hold."""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions

SMALL = BuildOptions(
    decode=DecodeOptions((20, 16)), store=StoreOptions(store="encoded"), batch_size=4
)


def decoded(options: BuildOptions) -> BuildOptions:
    """Return the same options for a file of pixels."""
    store = dataclasses.replace(options.store, store="decoded")
    return dataclasses.replace(options, store=store)


def columns(path: Path) -> dict[str, Any]:
    """Return all columns of all splits as h5py reads them, and the statistics."""
    found = {}
    with h5py.File(path) as file:
        for group in ("train", "validation", "test", "statistics"):
            for name, dataset in file.get(group, {}).items():
                found[f"{group}/{name}"] = dataset[()]
    return found


def check_files(root: Path, path: Path) -> int:
    """Hold every row of an encoded file against the file of its path; return how many there are."""
    rows = 0
    with h5py.File(path) as file:
        for name in ("train", "validation", "test"):
            if name not in file:
                continue
            split, end = file[name], 0
            for row, stored in enumerate(split["paths"][()]):
                data = (root / stored.decode()).read_bytes()
                start, nbytes = split["image_extents"][row].tolist()
                assert (start, nbytes) == (end, len(data))
                assert split["encoded"][start : start + nbytes].tobytes() == data
                assert split["row_crc32"][row] == zlib.crc32(data)
                assert split["source_sha256"][row].tobytes() == hashlib.sha256(data).digest()
                end += nbytes
                rows += 1
            assert split["encoded"].shape == (end,)
    return rows


def rewrite(path: Path, name: str, values: np.ndarray[Any, Any]) -> None:
    """Write other values into a dataset of a built file."""
    with h5py.File(path, "r+") as file:
        file[name][...] = values
