"""Draw the images that the benchmarks read, once per folder."""

from __future__ import annotations

import io
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 36
"""The most classes; each has at least ten images, so that a fifth of them is not empty."""


def images_folder(root: Path, count: int, width: int, height: int) -> Path:
    """Return where `draw` puts a dataset."""
    return root / f"{width}x{height}-{count}" / "images"


def draw(root: Path, count: int, width: int, height: int) -> Path:
    """Return a class folder dataset of `count` JPEG photos, drawn if it does not exist."""
    folder = images_folder(root, count, width, height).parent
    if (folder / "done").is_file():
        return folder / "images"
    classes = max(1, min(CLASSES, count // 10))
    for index in range(classes):
        (folder / "images" / f"class_{index:02}").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        pieces = [
            (folder, first, min(first + 500, count), width, height, classes)
            for first in range(0, count, 500)
        ]
        list(pool.map(_draw_piece, pieces))
    (folder / "done").touch()
    return folder / "images"


def _draw_piece(piece: tuple[Path, int, int, int, int, int]) -> None:
    folder, first, last, width, height, classes = piece
    random = np.random.default_rng(first)
    for i in range(first, last):
        # Coarse colors and fine grain: about as many bytes per pixel as a camera's JPEG.
        coarse = random.integers(0, 256, (max(2, height // 40), max(2, width // 40), 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        grain = random.integers(-12, 13, (height, width, 1), np.int16)
        pixels = np.clip(np.asarray(image).astype(np.int16) + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
        name = f"class_{i % classes:02}/photo_{i:06}.jpg"
        (folder / "images" / name).write_bytes(buffer.getvalue())


LINKS = 60_000
"""Links to one file; ext4 allows 65,000."""


def link(root: Path, count: int, classes: int = 1000) -> Path:
    """Return a dataset of `count` hard links to small images, named like ImageNet's files."""
    folder = root / f"links-{count}"
    if (folder / "done").is_file():
        return folder / "images"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    made = 0
    for index in range(classes):
        name = f"n{1440764 + 13 * index:08}"
        (folder / "images" / name).mkdir(exist_ok=True)
        for i in range(count * index // classes, count * (index + 1) // classes):
            source = folder / f"source-{made // LINKS}.jpg"
            if made % LINKS == 0:
                color = (made // LINKS * 9 % 256, 30, 40)
                Image.new("RGB", (8, 8), color).save(source, "JPEG")
            number = 7 * (i - count * index // classes) + 3
            os.link(source, folder / "images" / name / f"{name}_{number}.JPEG")
            made += 1
    (folder / "done").touch()
    return folder / "images"
