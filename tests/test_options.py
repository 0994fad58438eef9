"""Options: validated once, with what is wrong."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchify
from batchify.choices import Limit, canonical_json, parse_rescale
from batchify.cli import main
from batchify.cli.options import FILE_OPTIONS
from batchify.common.keywords import (
    OPTION_HOMES,
    LoaderKeywords,
    OptionKeywords,
    make_options,
    option_default,
)
from batchify.dataset_options import DiscoverOptions, ManifestOptions, SplitOptions
from batchify.errors import OptionError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions, RunOptions

TAKE_OPTIONS = (
    batchify.build, batchify.build_shards, batchify.check, batchify.find_changes,
    batchify.find_shard_changes, batchify.fingerprint, batchify.plan_build,
    batchify.Loader.from_directory,
)  # fmt: skip


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
        (StoreOptions, {"compression_level": 10}, "compression level must be 1 to 9"),
        (DecodeOptions, {"scaled_decode": "yes"}, "scaled decode must be True or False"),
        (DiscoverOptions, {"hidden": 1}, "hidden must be True or False, not 1"),
        (
            DiscoverOptions,
            {"classes": 5},
            "classes must be a list of names, or names with commas, not 5",
        ),
        (DiscoverOptions, {"include": 5}, "include must be a list of patterns, not 5"),
        (DiscoverOptions, {"classes": {"cat"}}, "classes must be a list: a set has no order"),
        (DiscoverOptions, {"include": {"*.png"}}, "include must be a list: a set has no order"),
        (StoreOptions, {"dtype": np.dtype("uint8")}, "dtype must be one of uint8, uint16, float32"),
        (RunOptions, {"overwrite": "no"}, "overwrite must be True or False, not 'no'"),
        (SplitOptions, {"shuffle": None}, "shuffle must be True or False, not None"),
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


def test_a_repr_shows_what_was_chosen() -> None:
    """Defaults are omitted; it is the expression that makes the options."""
    chosen = BuildOptions(
        split=SplitOptions("hash", seed=3), decode=DecodeOptions((8, 9)), batch_size=5,
        manifest=ManifestOptions("a.csv", ("x",)),
    )  # fmt: skip
    assert repr(chosen) == (
        "BuildOptions(split=SplitOptions(policy='hash', seed=3), "
        "decode=DecodeOptions(target_size=(8, 9)), batch_size=5, "
        "manifest=ManifestOptions(path='a.csv', label_columns=('x',)))"
    )
    assert eval(repr(chosen)) == chosen
    assert repr(BuildOptions()) == "BuildOptions()"


def test_keywords_command_and_groups_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same options everywhere, with the same names, types and defaults."""
    monkeypatch.chdir(tmp_path)  # no options from a file
    types = get_type_hints(OptionKeywords)
    command = {str(option.name) for option in FILE_OPTIONS} | {"batch_size"}
    assert set(types) == {*OPTION_HOMES, "preset"} == command
    parent = click.Context(main, **main.context_settings)
    arguments = ["dataset", "out.h5"]
    defaults = main.commands["build"].make_context("build", arguments, parent).params
    groups = {**get_type_hints(BuildOptions), "": BuildOptions, "manifest": ManifestOptions}
    for name, (group, field) in OPTION_HOMES.items():
        assert option_default(name) == defaults[name], name
        if name not in ("manifest", "classes"):
            kind = get_type_hints(groups[group])[field]
            if name == "target_size":  # a single number is a square
                kind = kind | int
            assert types[name] == (Sequence[str] if kind == tuple[str, ...] else kind), name
    assert types["classes"] == Sequence[str] | Mapping[str, int]


@pytest.mark.parametrize("function", TAKE_OPTIONS, ids=lambda function: function.__name__)
def test_a_signature_shows_every_option(function: Callable[..., object]) -> None:
    """With its type and its default, for `help` and for editors; no ``**keywords`` hides them."""
    shown = inspect.signature(function).parameters
    of_loader = function == batchify.Loader.from_directory
    for name, kind in get_type_hints(LoaderKeywords if of_loader else OptionKeywords).items():
        assert (shown[name].annotation, shown[name].default) == (kind, option_default(name))
    assert "keywords" not in shown
    assert "options" in shown


def test_the_help_of_build_describes_every_option() -> None:
    """In the words of the groups, under the name of the keyword."""
    text = inspect.getdoc(batchify.build) or ""
    for name in (*OPTION_HOMES, "preset"):
        assert any(name in line.partition(" :")[0].split(", ") for line in text.splitlines()), name
    assert "\nvalidation_split, test_split : float, optional\n    Share of each class" in text


def test_keywords_are_the_options_of_the_groups(photos: Path) -> None:
    """A chosen split is remembered as one; names are taken with commas or as a list."""
    made = make_options(
        None, {"target_size": (24, 20), "split": "stratified", "test_split": 0.3, "rescale": None}
    )
    groups = BuildOptions(
        decode=DecodeOptions((24, 20)), split=SplitOptions("stratified", test=0.3),
        store=StoreOptions(rescale=1.0), split_given=True,
    )  # fmt: skip
    assert made == groups
    assert not make_options(None, {"group_by": ""}).split_given
    plan = batchify.plan_build(photos, target_size=(24, 20), split="stratified", test_split=0.3,
                               rescale=None)  # fmt: skip
    assert plan.identity == batchify.plan_build(photos, groups).identity
    commas = make_options(None, {"extensions": "webp, jxl", "classes": "dog,cat"})
    assert commas == make_options(None, {"extensions": ["jxl", "webp"], "classes": ["dog", "cat"]})


def test_keywords_override_the_options_of_an_object() -> None:
    """What they do not name stays as it is there, in the same group, too."""
    base = BuildOptions(decode=DecodeOptions((8, 8), "rgba"), split_given=True, batch_size=3)
    made = make_options(base, {"color_mode": "grayscale", "seed": 5})
    assert made.decode == DecodeOptions((8, 8), "grayscale")
    assert (made.split.seed, made.split_given, made.batch_size) == (5, True, 3)
    assert make_options(base, {}) == base


def test_a_manifest_is_a_path_with_keywords_or_an_object() -> None:
    """Its columns need one."""
    table = ManifestOptions("t.csv", ("red", "big"), keep_columns=("x",))
    made = make_options(None, {
        "manifest": Path("t.csv"), "label_columns": "red, big", "keep_columns": ["x"],
        "class_mode": "multilabel",
    })  # fmt: skip
    assert made.manifest == table
    again = make_options(made, {"manifest": "other.csv", "unlabelled": "drop"})
    assert again.manifest == ManifestOptions("other.csv", ("red", "big"), "", "drop", ("x",))
    assert make_options(None, {"manifest": table, "class_mode": "regression"}).manifest == table
    assert make_options(made, {"manifest": None, "class_mode": "sparse", "label_columns": ()}
                        ).manifest is None  # fmt: skip
    of_dataset = make_options(None, {"path_column": "file"})  # which may have a table of its own
    assert of_dataset.manifest == ManifestOptions("", path_column="file")


def test_a_keyword_that_is_no_option_is_a_type_error(photos: Path) -> None:
    """With the name that may be meant, as Python does it for other functions."""
    with pytest.raises(TypeError, match="'target_sise'; did you mean 'target_size'"):
        batchify.build(photos, "out.h5", target_sise=(8, 8))  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'size'; help\(batchify.build\) lists the options"):
        batchify.build(photos, "out.h5", size=8)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'worker'; did you mean 'workers'"):
        batchify.fingerprint(photos, worker=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'overwrite'; help"):
        batchify.fingerprint(photos, overwrite=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="progress must be True, False or a function, not 1"):
        batchify.fingerprint(photos, progress=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="options must be BuildOptions, not tuple"):
        batchify.build(photos, "out.h5", (8, 8))  # type: ignore[arg-type]


def test_a_single_number_is_a_square() -> None:
    """As on the command line."""
    assert DecodeOptions(224) == DecodeOptions((224, 224))  # type: ignore[arg-type]
    assert DecodeOptions(224).image_shape == (224, 224, 3)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="target size must be a whole number of at least 1"):
        DecodeOptions(0)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="target size must be"):
        DecodeOptions(True)  # type: ignore[arg-type]
