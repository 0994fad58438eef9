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


MIXED = 2_000
"""How many different photos `draw_mixed` draws; more are links to them."""


def draw_mixed(root: Path, count: int) -> Path:
    """Return a dataset of `count` photos of mixed sizes: 300 to 2,000 pixels, as people have them.

    The longer side is distributed as in ImageNet: half of the photos have 500 pixels or fewer,
    and a tenth more than 1,200.
    """
    folder = root / f"mixed-{count}"
    if (folder / "done").is_file():
        return folder / "images"
    classes = max(1, min(CLASSES, count // 10))
    for index in range(classes):
        (folder / "images" / f"class_{index:02}").mkdir(parents=True, exist_ok=True)
    drawn = min(count, MIXED)
    with ProcessPoolExecutor() as pool:
        pieces = [
            (folder, first, min(first + 50, drawn), 0, 0, classes) for first in range(0, drawn, 50)
        ]
        list(pool.map(_draw_piece, pieces))
    for i in range(drawn, count):
        os.link(_photo(folder, i % drawn, classes), _photo(folder, i, classes))
    (folder / "done").touch()
    return folder / "images"


ASPECTS = (4 / 3, 4 / 3, 4 / 3, 3 / 2, 16 / 9, 1, 3 / 4, 3 / 4, 2 / 3)
"""Width by height, as often as people have them."""


def _mixed_size(random: np.random.Generator) -> tuple[int, int]:
    longer = int(np.clip(random.lognormal(np.log(520), 0.65), 300, 2000))
    aspect = random.choice(ASPECTS)
    return (longer, int(longer / aspect)) if aspect >= 1 else (int(longer * aspect), longer)


def _photo(folder: Path, number: int, classes: int) -> Path:
    return folder / "images" / f"class_{number % classes:02}" / f"photo_{number:06}.jpg"


def _draw_piece(piece: tuple[Path, int, int, int, int, int]) -> None:
    """Draw some photos, of mixed sizes if the width is 0."""
    folder, first, last, wide, high, classes = piece
    random = np.random.default_rng(first)
    for i in range(first, last):
        width, height = (wide, high) if wide else _mixed_size(random)
        # Coarse colors and fine grain: about as many bytes per pixel as a camera's JPEG.
        coarse = random.integers(0, 256, (max(2, height // 40), max(2, width // 40), 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        grain = random.integers(-12, 13, (height, width, 1), np.int16)
        pixels = np.clip(np.asarray(image).astype(np.int16) + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
        _photo(folder, i, classes).write_bytes(buffer.getvalue())


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
