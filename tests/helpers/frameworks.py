"""What the tests that train share: frameworks where they install, and something to learn."""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import batchify
from batchify.building.build import build
from batchify.dataset_options import SplitOptions
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.loading.split import Split
from batchify.options import BuildOptions

os.environ.setdefault("KERAS_BACKEND", "torch")

ROWS = 150
SHAPE = (20, 16, 3)


def framework(name: str) -> Any:
    """Import a framework; skip the tests where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it says of itself is not ours
        try:
            return importlib.import_module(name)
        except ImportError as error:
            pytest.skip(f"{name} is not installed here ({error})", allow_module_level=True)


def make_splits(folder: Path, **store: Any) -> dict[str, Split]:
    """Build dark and bright images, three to two, and open the one split.

    Keys are compressions, and ``encoded`` where the files' own bytes are stored.

    A chunk holds 68 of them.
    """
    random = np.random.default_rng(3)
    for i in range(ROWS):
        name = "bright" if i % 5 < 2 else "dark"
        low = 128 if name == "bright" else 0
        path = folder / "data" / name / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(low, low + 128, SHAPE).astype(np.uint8)).save(path)
    splits = {}
    kinds: dict[str, Any] = {
        "none": {},
        "gzip": {"compression": "gzip"},
        "encoded": {"store": "encoded"},
    }
    for kind, how in kinds.items():
        options = BuildOptions(
            decode=DecodeOptions(SHAPE[:2]),
            split=SplitOptions(validation=0),
            store=StoreOptions(**store, **how),
        )
        out = folder / f"{kind}.h5"
        build(folder / "data", out, options)
        splits[kind] = batchify.open(out)["train"]
    return splits
