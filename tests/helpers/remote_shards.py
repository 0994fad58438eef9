"""The shards of a bucket that are read in the tests, and what was fetched of them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from batchify.loading.split import Split
from helpers.s3server import S3Server

URL = "s3://bucket/shards/"
SHARDS = 12
KINDS: dict[str, dict[str, Any]] = {
    "none": {}, "few": {}, "gzip": {"compression": "gzip"}, "encoded": {"store": "encoded"},
    "jpeg": {"store": "jpeg", "max_side": 80},
}  # fmt: skip


def shard_files(made: Path) -> list[Path]:
    """Return the files of the shards, in order, and the shard index."""
    return sorted((made / "none").iterdir())


def folder_nbytes(folder: Path) -> int:
    """Return the bytes of the files in a folder, at a moment when none comes or goes."""
    before, sizes = None, _sizes(folder)
    while sizes != before:
        before, sizes = sizes, _sizes(folder)
    return sum(sizes.values())


def _sizes(folder: Path) -> dict[str, int]:
    sizes = {}
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            sizes[path.name] = path.stat().st_size
    return sizes


def sent_of_shards(s3: S3Server) -> dict[str, int]:
    """Return how many bytes of each shard were sent."""
    return {path: count for path, count in s3.sent.items() if path.endswith(".h5")}


def epoch(split: Split, seed: int = 0) -> Any:
    """Return the images, labels and rows of a shuffled epoch."""
    batches = split.batches(7, shuffle=True, seed=seed, scaled=False, with_rows=True)
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


def same_rows(local: Split, found: Any) -> bool:
    """Return whether the images and labels of an epoch are those of the folder, each row once."""
    images, labels, rows = found
    assert sorted(rows) == list(range(len(local)))
    return np.array_equal(images, local.images[rows]) and np.array_equal(
        labels, np.asarray(local.labels)[rows]
    )
