"""Datasets that are made up, of any size, without files."""

from __future__ import annotations

import numpy as np

from batchify.datasets.dataset import Dataset, Samples
from batchify.storage.source import FolderSource


def made_up(counts: list[int], *, path_nbytes: int = 12) -> Dataset:
    """Return a dataset with so many samples a class, without files."""
    total = sum(counts)
    names = b"".join(b"%0*d" % (path_nbytes, i) for i in range(total))
    return Dataset(
        source=FolderSource(b"/nowhere"),
        layout="classes",
        classes=tuple(b"class%d" % i for i in range(len(counts))),
        samples=Samples(
            names,
            np.arange(1, total + 1, dtype=np.int64) * path_nbytes,
            np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        ),
        splits=None,
        skipped=(),
        hidden=0,
        loose=0,
        other={},
    )
