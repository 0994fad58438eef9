"""Options: validated once, with what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchify.choices import Limit, canonical_json, parse_rescale
from batchify.errors import OptionError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions


@pytest.mark.parametrize(
    ("text", "value"),
    [("1/255", 1 / 255), (" 1 / 255 ", 1 / 255), ("0.5", 0.5), ("1e-3", 0.001), ("1", 1)],
)
def test_rescale_is_a_fraction_or_a_number(text: str, value: float) -> None:
    """The same double that Python gives for it."""
    assert parse_rescale(text) == value


@pytest.mark.parametrize("text", ["", "x", "1/0", "1/2/3", "nan", "inf", "0", "1e-300", "/2", "1/"])
def test_a_rescale_that_cannot_be_is_refused(text: str) -> None:
    """Neither nothing nor infinity is a factor."""
    with pytest.raises(OptionError, match="rescale must be"):
        StoreOptions(rescale=text)


@given(value=st.floats(1e-30, 1e30))
def test_a_float_survives_as_text(value: float) -> None:
    """What Loader.from_directory is handed as a float is used to the bit."""
    assert parse_rescale(str(value)) == value
    assert np.float32(parse_rescale(str(value))) == np.float32(value)


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        (
            DecodeOptions,
            {"target_size": (0, 5)},
            "target size must be a whole number of at least 1",
        ),
        (DecodeOptions, {"target_size": (5, 5, 3)}, "target size must be"),
        (DecodeOptions, {"color_mode": "bgr"}, "color mode must be one of rgb, rgba, grayscale"),
        (DecodeOptions, {"interpolation": "cubic"}, "interpolation must be one of nearest"),
        (DecodeOptions, {"fit": "cover"}, "fit must be one of"),
        (DecodeOptions, {"exif": "auto"}, "exif must be one of"),
        (DecodeOptions, {"max_pixels": 0}, "max pixels must be"),
        (StoreOptions, {"dtype": "int8"}, "dtype must be one of uint8, uint16, float32"),
        (StoreOptions, {"class_mode": "input"}, "class mode must be one of"),
        (StoreOptions, {"compression": "lzf"}, "compression must be one of none, gzip"),
        (StoreOptions, {"compression_level": 0}, "compression level must be 1 to 9"),
        (BuildOptions, {"batch_size": 0}, "batch size must be"),
        (
            BuildOptions,
            {"decode": DecodeOptions((40_000, 40_000))},
            "an HDF5 chunk holds less than 4 GiB",
        ),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    group: Any, values: dict[str, Any], message: str
) -> None:
    """By the group that holds them."""
    with pytest.raises(OptionError, match=message):
        group(**values)


@pytest.mark.parametrize(
    ("text", "images", "count"),
    [("3", 100, 3), ("0", 5, 0), ("1%", 199, 1), ("2.5%", 1000, 25), ("100%", 7, 7)],
)
def test_max_skipped_is_a_count_or_a_share(text: str, images: int, count: int) -> None:
    """A share is rounded down."""
    assert Limit(text).count(images) == count


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x%", "101%", "%"])
def test_a_max_skipped_that_cannot_be_is_refused(text: str) -> None:
    """With what it takes."""
    with pytest.raises(OptionError, match="max skipped"):
        Limit(text)


def test_config_records_what_shapes_the_file() -> None:
    """Neither batch size nor anything of this machine; a level only where it is used."""
    config = BuildOptions().config(layout="classes")
    assert config["target_size"] == (150, 150)
    assert "batch_size" not in config
    assert "compression_level" not in config
    assert "validation_split" not in BuildOptions().config(layout="splits")
    store = StoreOptions(compression="gzip")
    assert BuildOptions(store=store).config(layout="classes")["compression_level"] == 4
    assert canonical_json({"b": 1, "a": (1, 2)}) == '{"a":[1,2],"b":1}'
