"""Writes the manifests that the tests read, in every format."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from batchify import choices
from batchify.dataset_options import ManifestOptions, SplitOptions
from batchify.datasets.tables import READERS
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions

SUFFIXES = tuple(READERS)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows by the ending of the name."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def listed(root: Path) -> list[str]:
    """Return the paths of the files of a dataset of class folders, in Keras' order."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def options_of(
    manifest: Path,
    class_mode: choices.ClassMode = "sparse",
    columns: Sequence[str] = ("label",),
    **split: Any,
) -> BuildOptions:
    """Return options of a small build."""
    return BuildOptions(
        decode=DecodeOptions(target_size=(8, 10)),
        store=StoreOptions(class_mode=class_mode),
        split=SplitOptions(**split),
        manifest=ManifestOptions(str(manifest), tuple(columns)),
    )
