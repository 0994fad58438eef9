"""Mean and standard deviation of the channels: exact, whoever adds up, and what NumPy says."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.properties import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from batchify.building.build import build
from batchify.decoding.channels import ChannelSums, channel_sums, mean_and_std
from batchify.errors import FileFormatError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.reporting.summary import summarize

SMALL = BuildOptions(decode=DecodeOptions((20, 16)))


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 300), st.integers(1, 9), st.integers(1, 4)),
    dtype=st.sampled_from(["uint8", "uint16"]),
    cuts=st.lists(st.integers(0, 5), max_size=3),
)
@settings(max_examples=examples(50), deadline=None)
def test_sums_are_exact_however_they_are_cut(
    shape: tuple[int, int, int, int], dtype: str, cuts: list[int]
) -> None:
    """Integers, added in any parts, are what Python adds up."""
    high = np.iinfo(dtype).max
    rows = np.random.RandomState(1).randint(high // 2, high + 1, shape).astype(dtype)
    total = ChannelSums()
    edges = [0, *sorted(min(cut, shape[0]) for cut in cuts), shape[0]]
    for start, stop in itertools.pairwise(edges):
        total += channel_sums(rows[start:stop], 1.0, images=stop - start)
    pixels = rows.reshape(-1, shape[-1]).astype(object)
    assert total == ChannelSums(shape[0], tuple(pixels.sum(0)), tuple((pixels * pixels).sum(0)))


@pytest.mark.parametrize("scale", [1 / 255, 1 / 127.5, -0.25, 3e-9])
@pytest.mark.parametrize("high", [255, 65535, 2**31 - 1])
def test_floats_are_taken_back_to_pixels(scale: float, high: int) -> None:
    """So that float32 rows have the statistics of the bytes that they were made of."""
    pixels = np.random.RandomState(2).randint(0, high, (2, 5, 7, 3), np.int64)
    if high < 2**24:
        pixels[0, 0, 0] = high
        stored = pixels.astype(np.float32) * np.float32(scale)
        found = channel_sums(stored, scale, images=2)
        assert found.sums == tuple(pixels.sum((0, 1, 2)).tolist())
        assert found.squares == tuple((pixels * pixels).sum((0, 1, 2)).tolist())
    else:  # 32-bit pixels are rounded where they are stored
        found = channel_sums(pixels.astype(np.float32) * np.float32(scale), scale, images=2)
        mean, std = mean_and_std(found, (5, 7, 3), scale)
        np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)) * scale, rtol=1e-6)
        np.testing.assert_allclose(std, pixels.std((0, 1, 2)) * abs(scale), rtol=1e-6)


def test_infinite_pixels_do_no_harm() -> None:
    """A rescale may be so large that float32 does not hold the product."""
    rows = np.array([np.inf, -np.inf], np.float32).reshape(1, 1, 2, 1)
    assert channel_sums(rows, 1e37, images=1).sums == (0,)


@pytest.mark.parametrize(
    ("decode", "store"),
    [
        ({}, {}),
        ({"color_mode": "grayscale"}, {"dtype": "uint16"}),
        ({"color_mode": "rgba"}, {"compression": "gzip"}),
        ({}, {"dtype": "float32", "rescale": "1/127.5"}),
    ],
)
def test_the_file_has_what_numpy_finds(
    tmp_path: Path, decode: dict[str, Any], store: dict[str, Any]
) -> None:
    """Over the images as they are read, skipped ones left out; the summary has the same numbers."""
    root = draw_dataset(tmp_path / "data", {"cat": 5, "dog": 8})
    save(root / "cat" / "bad.jpg", b"bad")
    save(root / "dog" / "deep.png", encoded(photo(mode="I;16"), "PNG"))
    options = BuildOptions(decode=DecodeOptions((20, 16), **decode), store=StoreOptions(**store))
    build(root, tmp_path / "out.h5", options, on_error="skip")
    summary = {split.name: split for split in summarize(tmp_path / "out.h5").splits}
    with h5py.File(tmp_path / "out.h5") as file:
        for name in ("train", "validation"):
            images = file[name]["images"]
            pixels = images[:].astype(np.float64) * images.attrs.get("scale_factor", 1.0)
            mean, std = (file[f"statistics/{kind}_{name}"][:] for kind in ("mean", "std"))
            assert mean.shape == std.shape == images.shape[-1:]
            np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)), rtol=1e-6)
            np.testing.assert_allclose(std, pixels.std((0, 1, 2)), rtol=1e-5)
            assert summary[name].mean == tuple(mean)
            assert summary[name].std == tuple(std)


def test_an_empty_split_has_none(tmp_path: Path) -> None:
    """NaN in the file, null in JSON, which has no NaN."""
    root = draw_dataset(tmp_path / "data", {"cat": 2})
    build(root, tmp_path / "out.h5", SMALL)
    summary = summarize(tmp_path / "out.h5")
    assert np.isnan(summary.splits[1].mean).all()
    assert summary.as_json()["splits"]["validation"]["mean"] is None


def test_copied_rows_count_too(photos: Path, tmp_path: Path) -> None:
    """A build that takes rows from the file before has the statistics of a fresh one."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL)
    save(photos / "cat" / "new.jpg", encoded(photo(seed=99), "JPEG"))
    report = build(photos, out, SMALL, overwrite=True)
    assert report.copied
    build(photos, tmp_path / "fresh.h5", replace(SMALL))
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_statistics_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    """No JSON, and no constant to paste, is made of them."""
    root = draw_dataset(tmp_path / "photos", {"a": 5})
    build(root, tmp_path / "out.h5", BuildOptions(decode=DecodeOptions((8, 8))))
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        file["statistics/std_train"][1] = value
    with pytest.raises(FileFormatError, match="statistics of train are not finite"):
        summarize(tmp_path / "out.h5")
