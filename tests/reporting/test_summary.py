"""The summary: what is inside, as Python values and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.drawing import draw_zoo, encoded, photo, save

from batchify.building.build import build
from batchify.dataset_options import DiscoverOptions, SplitOptions
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.reporting.summary import summarize

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)


@pytest.mark.parametrize("class_mode", ["sparse", "categorical", "none"])
def test_classes_are_counted(photos: Path, tmp_path: Path, class_mode: Any) -> None:
    """Rows of each class, for every kind of label; none where there are none."""
    build(photos, tmp_path / "out.h5", replace(SMALL, store=StoreOptions(class_mode=class_mode)))
    found = summarize(tmp_path / "out.h5")
    counts = [split.class_counts for split in found.splits]
    assert counts == ([None, None] if class_mode == "none" else [(4, 8), (1, 2)])
    assert [split.rows for split in found.splits] == [12, 3]


def test_special_sources_are_counted(tmp_path: Path) -> None:
    """The flags of the rows add up to what was drawn."""
    options = BuildOptions(discover=DiscoverOptions(hidden=True), split=SplitOptions(validation=0))
    report = build(draw_zoo(tmp_path / "zoo"), tmp_path / "out.h5", options)
    flags = summarize(tmp_path / "out.h5").splits[0].flags
    assert flags == report.flags
    assert flags == {
        "animated": 0, "mpo": 0, "exif_rotated": 0, "alpha": 3, "cmyk": 1, "sixteen_bit": 2,
        "palette": 2, "grayscale": 6, "pages": 0, "extra_bands": 0, "thirty_two_bit": 0,
        "clipped": 2, "cut": 0, "truncated": 0,
    }  # fmt: skip


def test_the_json_has_a_stable_schema(photos: Path, tmp_path: Path) -> None:
    """The keys that the README documents, and values that survive JSON."""
    save(photos / "cat" / "bad\n.jpg", b"bad")
    save(photos / "cat" / "rgba.png", encoded(photo(mode="RGBA"), "PNG"))
    build(photos, tmp_path / "out.h5", SMALL, on_error="skip")
    found = json.loads(json.dumps(summarize(tmp_path / "out.h5").as_json()))
    assert set(found) == {
        "json_version", "path", "bytes", "schema_version", "creator", "decoder", "classes",
        "config", "splits", "skipped", "ignored", "columns",
    }  # fmt: skip
    assert set(found["splits"]["train"]) == {
        "rows", "shape", "dtype", "bytes", "chunk_rows", "class_counts", "sources", "mean",
        "std", "store", "labels", "weights",
    }  # fmt: skip
    assert found["json_version"] == 1
    assert found["bytes"] == (tmp_path / "out.h5").stat().st_size
    assert found["splits"]["train"]["shape"] == [found["splits"]["train"]["rows"], 20, 16, 3]
    assert found["skipped"][0]["path"] == "cat/bad\\n.jpg"
    assert found["config"]["rescale"] == "1/255"
