"""Bit for bit: what is built and what the loader yields is what Keras-Preprocessing yields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers import keras_reference as keras
from helpers.drawing import draw_dataset

import batchify
from batchify.choices import ClassMode
from batchify.dataset_options import DiscoverOptions, SplitOptions
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions

SUBSETS = {"train": "training", "validation": "validation"}

CASES: list[dict[str, Any]] = [
    {"seed": 0, "color_mode": "rgb", "interpolation": "nearest"},
    {"seed": 1, "color_mode": "rgba", "interpolation": "bilinear"},
    {"seed": 2**31, "color_mode": "rgb", "interpolation": "bicubic"},
    {"seed": 3, "color_mode": "rgb", "interpolation": "lanczos"},
    {"seed": 4, "color_mode": "rgba", "interpolation": "box"},
    {"seed": 5, "color_mode": "rgb", "interpolation": "hamming"},
    {"seed": 6, "color_mode": "grayscale", "interpolation": "nearest"},
    {"seed": 7, "color_mode": "grayscale", "interpolation": "bilinear"},
]


def build_options(case: dict[str, Any], *, validation: float, **store: Any) -> BuildOptions:
    """Return the options of a case, on small images."""
    return BuildOptions(
        discover=DiscoverOptions(hidden=True),
        split=SplitOptions(seed=case["seed"], validation=validation),
        decode=DecodeOptions((23, 31), case["color_mode"], case["interpolation"]),
        store=StoreOptions(**store),
        batch_size=4,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_built_rows_are_those_of_keras(zoo: Path, tmp_path: Path, case: dict[str, Any]) -> None:
    """Rows times scale_factor, labels and order equal Keras, for every format, mode and name."""
    dtype = "uint16" if case["color_mode"] == "grayscale" else "uint8"
    out = tmp_path / "out.h5"
    options = build_options(case, validation=0.3, dtype=dtype, rescale="1/255")
    batchify.build(zoo, out, options)
    with h5py.File(out) as file:
        for split, subset in SUBSETS.items():
            flow = keras.generator(
                zoo, subset, validation=0.3, target_size=(23, 31), batch_size=4, **case
            )
            expected_x, expected_y = keras.epoch(flow)
            images = file[f"X_{split}"]
            rows = images[:].astype(np.float32) * images.attrs["scale_factor"]
            assert rows.dtype == np.float32
            np.testing.assert_array_equal(rows, expected_x)
            np.testing.assert_array_equal(file[f"y_{split}"][:], expected_y)
            classes = [name.decode() for name in file.attrs["classes"]]
            assert dict(zip(classes, range(len(classes)), strict=True)) == flow.class_indices
            paths = [path.decode() for path in file[split]["paths"][:]]
            assert sorted(paths) == sorted(name.replace("\\", "/") for name in flow.filenames)


@pytest.mark.parametrize("class_mode", ["sparse", "categorical", "binary"])
def test_stored_floats_are_those_of_keras(zoo: Path, tmp_path: Path, class_mode: str) -> None:
    """--dtype float32 stores the very floats, and labels of every class mode are Keras' own."""
    case = CASES[6]
    out = tmp_path / "out.h5"
    options = build_options(
        case, validation=0.3, dtype="float32", rescale="1/255", class_mode=class_mode
    )
    batchify.build(zoo, out, options)
    flow = keras.generator(
        zoo, "training", validation=0.3, target_size=(23, 31), batch_size=4,
        class_mode=class_mode, **case,
    )  # fmt: skip
    expected_x, expected_y = keras.epoch(flow)
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["X_train"][:], expected_x)
        np.testing.assert_array_equal(file["y_train"][:], expected_y)
        assert "scale_factor" not in file["X_train"].attrs


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("class_mode", ["sparse", "categorical"])
@pytest.mark.parametrize("subset", ["train", "validation"])
def test_loader_yields_what_keras_yields_for_epochs(
    zoo: Path, subset: str, class_mode: ClassMode, shuffle: bool
) -> None:
    """Batch after batch, over three epochs and a reset in the middle of one."""
    flow = keras.generator(
        zoo, SUBSETS[subset], validation=0.3, target_size=(20, 20), batch_size=4, seed=11,
        shuffle=shuffle, class_mode=class_mode,
    )  # fmt: skip
    loader = batchify.Loader.from_directory(
        zoo, subset=subset, validation_split=0.3, target_size=(20, 20), batch_size=4, seed=11,
        shuffle=shuffle, class_mode=class_mode, hidden=True,
    )  # fmt: skip
    assert len(loader) == len(flow)
    assert loader.class_indices == flow.class_indices
    assert loader.filenames == [name.replace("\\", "/") for name in flow.filenames]
    np.testing.assert_array_equal(loader.classes, flow.classes)
    for step in range(3 * len(flow) + 1):
        if step == len(flow) + 1:
            flow.reset()
            loader.reset()
        expected = keras.batch(flow)
        batch = next(loader)
        for mine, theirs in zip(batch, expected, strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("share", [0.1, 0.29, 0.2, 0.5])
def test_split_truncates_as_keras(tmp_path: Path, share: float) -> None:
    """The number and the names of validation files equal Keras' for shares that round badly."""
    root = draw_dataset(tmp_path / "data", {"a": 100, "b": 7, "c": 1}, size=(4, 4))
    loader = batchify.Loader.from_directory(root, subset="validation", validation_split=share)
    flow = keras.generator(root, "validation", validation=share)
    assert loader.filenames == [name.replace("\\", "/") for name in flow.filenames]


def test_defaults_are_the_tutorial(photos: Path, tmp_path: Path) -> None:
    """With no option, the file holds what the tutorial's code appends."""
    out = tmp_path / "out.h5"
    batchify.build(photos, out)
    with h5py.File(out) as file:
        for split, subset in SUBSETS.items():
            expected_x, expected_y = keras.epoch(keras.generator(photos, subset))
            images = file[f"X_{split}"]
            np.testing.assert_array_equal(images[:] * images.attrs["scale_factor"], expected_x)
            np.testing.assert_array_equal(file[f"y_{split}"][:], expected_y)
