"""Fixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.drawing import draw_dataset
from helpers.remote_shards import KINDS, SHARDS, shard_files
from helpers.s3server import S3Server

import batchify
from batchify.loading.split import Split


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build 12 shards of 6 rows of 12 kB, and of each other kind 3."""
    folder = tmp_path_factory.mktemp("made")
    photos = draw_dataset(folder / "photos", {"cat": 30, "dog": 42})
    size: dict[str, Any] = {"target_size": (64, 64), "validation_split": 0.0}
    for kind, options in KINDS.items():
        shards = SHARDS if kind == "none" else 3
        batchify.build_shards(photos, folder / kind, shards=shards, **size, **options)
    batchify.build(photos, folder / "one.h5", target_size=(64, 64))
    return folder


@pytest.fixture
def local(s3: S3Server, made: Path) -> Split:
    """Upload the shards; return their rows in the folder."""
    s3.put("bucket", {f"shards/{path.name}": path.read_bytes() for path in shard_files(made)})
    return batchify.open(made / "none")["train"]
