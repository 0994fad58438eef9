"""Files of a test: make empty ones, read a folder, damage a byte."""

from __future__ import annotations

import os
from pathlib import Path

from batchify.datasets.dataset import Dataset


def touch(root: Path, *names: str) -> Path:
    """Make empty files, and the folders above them; a name with a final slash is a folder."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def paths(dataset: Dataset) -> list[str]:
    """Return the paths of all samples."""
    return [os.fsdecode(dataset.samples.path(i)) for i in range(len(dataset.samples))]


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def flip(path: Path, offset: int, mask: int = 1) -> None:
    """Flip bits of a byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))
