"""Compare what H5Web showed with the files: check_h5web.py SITE SHOTS.

A picture must be nearest to the row that the slider names, upright and in its own colors: nearer
than to any other row, to a flipped or mirrored one, or to one with red and blue exchanged. If
images are not RGB, H5Web draws the first channel in false colors, with the y axis upwards.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import h5py
from match_rows import MAX_DIFFERENCE, MIN_CORRELATION, cut, likest, nearest, stored

EXPECTED_TABS = {True: ("NX RGB", "NX RGB", "RGB"), False: ("NX Heatmap", "NX Heatmap", "Heatmap")}


def middle(canvas: dict[str, float], shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return where the picture is in a canvas: in its middle, as large as it can be."""
    height, width = shape
    scale = min(canvas["width"] / width, canvas["height"] / height) / 2
    x, y = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    return x - width * scale, y - height * scale, x + width * scale, y + height * scale


def check(shot: dict[str, Any], site: Path, shots: Path, tab: str) -> bool:
    """Print what one screenshot shows; return whether it is what it should be."""
    rows = stored(site / f"{shot['name']}.h5")
    _, height, width, channels = rows.shape
    size = (height, width)
    shown = cut(shots / shot["png"], middle(shot["canvas"], size), size)
    if channels == 3:
        form, row, measure = nearest(shown, rows)
        good = form == "upright" and measure <= MAX_DIFFERENCE
        said = f"{form}, {measure:.1f} levels from what is stored"
    else:
        form, row, measure = likest(shown, rows)
        good = measure >= MIN_CORRELATION
        said = f"{form}, false colors of channel 0, correlation {measure:.2f}"
    good = good and shot["tab"] == tab and row == shot["row"]
    mark = "ok   " if good else "WRONG"
    asked = f"{shot['name']}, {shot['view']} ({shot['tab']}, row {shot['row']})"
    print(f"{mark} H5Web  {asked}: shows row {row} {said}")
    return good


def main() -> int:
    """Check all screenshots."""
    site, shots = Path(sys.argv[1]), Path(sys.argv[2])
    said = json.loads((shots / "shots.json").read_text())
    wrong = 0
    for i, shot in enumerate(said["shots"]):
        with h5py.File(site / f"{shot['name']}.h5") as file:
            is_rgb = file["train/images"].shape[-1] == 3
        wrong += not check(shot, site, shots, EXPECTED_TABS[is_rgb][i % 3])
    print(f"the browser was Chromium {said['browser']}")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
