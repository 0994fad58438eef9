"""Draws a small class folder dataset: draw_shapes.py FOLDER."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = (240, 180)
COUNTS = {"circle": 60, "square": 45, "triangle": 30}


def draw(shape: str) -> Image.Image:
    """Return a picture of one shape, in random colors, size and place."""
    image = Image.new("RGB", SIZE, tuple(random.randrange(256) for _ in range(3)))
    radius = random.randrange(20, 70)
    x, y = random.randrange(radius, SIZE[0] - radius), random.randrange(radius, SIZE[1] - radius)
    colour = tuple(random.randrange(256) for _ in range(3))
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
    else:
        sides = {"square": 4, "triangle": 3}[shape]
        pen.regular_polygon((x, y, radius), sides, random.randrange(90), colour)
    return image


def main() -> None:
    """Draw the folders."""
    random.seed(0)
    for shape, count in COUNTS.items():
        folder = Path(sys.argv[1]) / shape
        folder.mkdir(parents=True)
        for i in range(count):
            draw(shape).save(folder / f"{shape}_{i:03}.jpg", quality=90)


if __name__ == "__main__":
    main()
