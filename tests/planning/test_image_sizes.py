"""Sizes of some images of a plan: bounded in number and time, whatever the files are."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.drawing import encoded, photo, save
from helpers.packing import members, pack

from batchify.planning import image_sizes
from batchify.planning.planner import plan_build


def test_sizes_of_some_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread over all images, of a folder or an archive; what is no image is passed over."""
    for i in range(9):
        save(tmp_path / "d" / "cat" / f"{i}.png", encoded(photo(8 + i // 6, 6), "PNG"))
    save(tmp_path / "d" / "cat" / "9.png", b"no image")
    pack(tmp_path / "d.zip", members(tmp_path / "d"))
    for dataset in ("d", "d.zip"):
        plan = plan_build(tmp_path / dataset)
        assert image_sizes.sample_sizes(plan) == {(6, 8): 6, (6, 9): 3}
    monkeypatch.setattr(image_sizes, "MOST_IMAGES", 3)  # 0, 4 and 9
    assert image_sizes.sample_sizes(plan) == {(6, 8): 2}
    monkeypatch.setattr(image_sizes, "MOST_SECONDS", -1)
    assert image_sizes.sample_sizes(plan) == {(6, 8): 1}
    save(tmp_path / "d" / "cat" / "0.png", b"no image")
    assert image_sizes.sample_sizes(plan_build(tmp_path / "d")) == {(6, 8): 1}
