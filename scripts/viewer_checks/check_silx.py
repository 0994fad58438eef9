"""Open files in silx, without a screen, and check what it shows: check_silx.py SHOTS FILE...

Each split must be valid NXdata, and the first must be the default of the file. The viewer of
`silx view` is given the group train: RGB and RGBA images must be drawn as such, as they are stored.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import h5py
import numpy as np
from match_rows import MAX_DIFFERENCE, cut, nearest, stored

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import silx
from silx.gui import qt
from silx.gui.data.DataViewer import DataViewer
from silx.gui.plot import PlotWidget
from silx.gui.widgets.FrameBrowser import HorizontalSliderWithBrowser
from silx.io.nxdata import NXdata, get_default

ANOTHER_ROW = 7


def check_groups(name: str, file: h5py.File) -> bool:
    """Print whether the splits are NXdata, and the default; return it."""
    splits = [split for split in ("train", "validation", "test") if split in file]
    found = {split: NXdata(file[split]) for split in splits}
    issues = [issue for nxdata in found.values() for issue in nxdata.issues]
    default = get_default(file)
    good = not issues and default is not None and default.group.name == f"/{splits[0]}"
    good = good and all(nxdata.signal.name.endswith("/images") for nxdata in found.values())
    said = f"{', '.join(splits)}: NXdata, interpretation {default and default.interpretation}"
    print(f"{'ok   ' if good else 'WRONG'} silx   {name}, {said} {'; '.join(issues)}".rstrip())
    return good


def check_view(application: qt.QApplication, name: str, file: h5py.File, png: Path) -> bool:
    """Print what the viewer draws of train, and keep a picture of it; return whether it is right.

    Two kinds are not compared, but described: with 16 bits, silx takes 65,535 for white; with one
    channel, it plots the last two axes.
    """
    viewer = DataViewer()
    viewer.resize(700, 600)
    viewer.setData(file["train"])
    viewer.show()
    application.processEvents()
    sliders = viewer.findChildren(HorizontalSliderWithBrowser)
    next(slider for slider in sliders if slider.isVisible()).setValue(ANOTHER_ROW)
    application.processEvents()
    viewer.grab().save(str(png))
    label = viewer.displayedView().label()
    images = file["train/images"]
    _, height, width, channels = images.shape
    said, good = "its last two axes, in false colors", False
    if label == "RGB":
        plot = next(plot for plot in viewer.findChildren(PlotWidget) if plot.isVisible())
        handle = plot.getWidgetHandle()
        corners = [plot.dataToPixel(*corner) for corner in ((0, 0), (width, height))]
        points = [handle.mapTo(viewer, qt.QPoint(round(x), round(y))) for x, y in corners]
        box = (points[0].x(), points[0].y(), points[1].x(), points[1].y())
        rows = stored(Path(file.filename))[..., :3]
        form, row, difference = nearest(cut(png, box, (height, width)), rows)
        said = f"shows row {row} {form}, {difference:.1f} levels from what is stored"
        good = (form, row) == ("upright", ANOTHER_ROW) and difference <= MAX_DIFFERENCE
    checked = channels in (3, 4) and images.dtype != np.uint16
    mark = ("ok   " if good else "WRONG") if checked else "     "
    print(f"{mark} silx   {name}, row {ANOTHER_ROW} of train ({label}): {said}")
    return good or not checked


def main() -> int:
    """Check all files."""
    shots = Path(sys.argv[1])
    qt.qInstallMessageHandler(lambda *_: None)  # the offscreen platform says what it cannot do
    application = qt.QApplication([])
    # The user's own choice, in the menu Options of silx view; as it comes, y axes point upwards.
    silx.config.DEFAULT_PLOT_IMAGE_Y_AXIS_ORIENTATION = "downward"
    wrong = 0
    for path in map(Path, sys.argv[2:]):
        with h5py.File(path) as file:
            wrong += not check_groups(path.stem, file)
            wrong += not check_view(application, path.stem, file, shots / f"silx-{path.stem}.png")
    print(f"silx is {silx.version}, on {qt.BINDING}")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
