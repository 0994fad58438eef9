"""Reads the rows of files and of their exports, with what the tests have for each format."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

Row = tuple[bytes | NDArray[Any], Any, str]
"""An image file or its pixels, the label, the path."""

MARKER = ".batchify-export.json"
SUFFIXES = {"npz": ".npz"}


def stored_rows(path: Path, split: str) -> list[Row]:
    """Read the rows of a file with h5py."""
    with h5py.File(path) as file:
        group = file[split]
        paths = [os.fsdecode(each) for each in group["paths"][()]]
        labels = group["labels"][()].tolist() if "labels" in group else [None] * len(paths)
        if "images" in group:
            images: list[Any] = list(group["images"][()])
        else:
            data = group["encoded"][()].tobytes()
            images = [data[start : start + n] for start, n in group["image_extents"][()].tolist()]
    return list(zip(images, labels, paths, strict=True))


def assert_rows(found: list[Row], expected: list[Row]) -> None:
    """Compare image files byte for byte, or pixel for pixel."""
    assert len(found) == len(expected)
    for (image, *rest), (stored, *wanted) in zip(found, expected, strict=True):
        assert rest == wanted
        if isinstance(stored, bytes):
            assert image == stored
        else:
            pixels = np.asarray(Image.open(io.BytesIO(image))) if type(image) is bytes else image
            np.testing.assert_array_equal(np.reshape(pixels, stored.shape), stored)


def read_tars(folder: Path, split: str) -> Iterator[tuple[bytes, dict[str, bytes]]]:
    """Yield the image, and the other members, of each key in tar shards."""
    for path in sorted(folder.glob(f"{split}-*.tar")):
        keys: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                assert (member.mtime, member.uid, member.uname) == (0, 0, "")
                keys.setdefault(key, {})[ending] = file.read()
        for found in keys.values():
            image = found.pop("png", None) or found.pop("jpg")
            yield image, found


def read_back(name: str, target: Path, split: str) -> list[Row]:
    """Read the rows of an export with what the tests have for its format."""
    if name == "webdataset":
        return [
            (image, int(more["cls"]), json.loads(more["json"])["path"])
            for image, more in read_tars(target, split)
        ]
    if name == "npz":
        with np.load(target) as file:
            names = (f"{each}_{split}" for each in ("X", "y", "paths"))
            images, labels, paths = (file[each] for each in names)
            return list(zip(images, labels.tolist(), paths.tolist(), strict=True))
    rows: list[Any] = []
    if name == "parquet":
        for path in sorted(target.glob(f"{split}-*.parquet")):
            rows += parquet.read_table(path).to_pylist()
    else:
        state = json.loads((target / split / "state.json").read_text())
        for file in state["_data_files"]:
            with pa.ipc.open_stream(target / split / file["filename"]) as stream:
                rows += stream.read_all().to_pylist()
    return [(row["image"]["bytes"], row["label"], row["path"]) for row in rows]


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder, by path, without the marker of an export."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
