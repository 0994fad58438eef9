"""Presets: options under one name, on the command line, in files and in Python."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import pytest
from helpers.drawing import draw_dataset
from helpers.running import Run

import batchify
from batchify import choices
from batchify.common.keywords import OPTION_HOMES, make_options, option_default
from batchify.common.presets import PRESETS
from batchify.errors import OptionError

SMALL = {"target_size": (12, 10)}


def config_of(path: Path) -> dict[str, Any]:
    """Return what a file records about its build."""
    with h5py.File(path) as file:
        found: dict[str, Any] = json.loads(file.attrs["config"])
        return found


def test_presets_are_listed(run: Run) -> None:
    """In a table of what each sets, and as JSON; all are options of build."""
    assert tuple(PRESETS) == choices.PRESETS
    lines = run("presets").stdout.splitlines()
    assert lines[0].split() == ["option", *PRESETS]
    assert ["target-size", "150x150", "224x224", "224x224"] in [line.split() for line in lines]
    assert ["split", "keras", "-", "stratified"] in [line.split() for line in lines]
    found = json.loads(run("presets", "--json").stdout)["presets"]
    for name, preset in PRESETS.items():
        assert found[name]["options"] == json.loads(json.dumps(dict(preset.options)))
        assert set(preset.options) < set(OPTION_HOMES)
        assert any(line.endswith(f"  {preset.purpose}") for line in lines)


@pytest.mark.parametrize("name", choices.PRESETS)
def test_a_preset_is_its_options(run: Run, photos: Path, tmp_path: Path, name: Any) -> None:
    """The same file, identity and batches as with each option by itself; keras is the default."""
    options: Any = dict(PRESETS[name].options)
    done = run("build", photos, "preset.h5", "--preset", name)
    assert done.returncode == 0, done.stderr
    batchify.build(photos, tmp_path / "options.h5", **options)
    config = config_of(tmp_path / "preset.h5")
    assert config == config_of(tmp_path / "options.h5")
    recorded = {key: list(value) if key == "target_size" else value
                for key, value in options.items() if value is not None}  # fmt: skip
    assert recorded.items() <= config.items()
    assert "preset" not in config
    plan = batchify.plan_build(photos, preset=name)
    assert plan.identity == batchify.plan_build(photos, **options).identity
    if name == "keras":
        assert plan.identity == batchify.plan_build(photos).identity
        assert all(value == option_default(key) for key, value in options.items())
    loader = batchify.Loader.from_directory(photos, preset=name, batch_size=1)
    assert loader.target_size == options["target_size"]
    assert f"{options['target_size'][0]}×" in run("inspect", "preset.h5").stdout


def test_given_options_override_a_preset(run: Run, photos: Path, tmp_path: Path) -> None:
    """Each, wherever both are given; the shorter side follows a target size, or the fit."""
    changes: dict[str, Any] = {
        "target_size": (12, 10), "shorter_side": 14, "interpolation": "lanczos", "fit": "crop",
        "exif": "ignore", "split": "hash",
    }  # fmt: skip
    made = make_options(None, {"preset": "photos", **changes})  # type: ignore[typeddict-item]
    assert made == make_options(None, changes)  # type: ignore[arg-type]
    base = make_options(None, {"preset": "imagenet", "seed": 5})
    again = make_options(base, {"preset": "photos", "exif": "ignore"})
    assert (again.decode.shorter_side, again.decode.exif, again.split.seed) == (None, "ignore", 5)
    for fit in ("stretch", "pad"):
        assert make_options(None, {"preset": "imagenet", "fit": fit}).decode.shorter_side is None
        assert make_options(base, {"fit": fit}).decode.shorter_side is None
    for side in range(1, 1000):  # as timm has it, with the share of 0.875 of these models
        decode = make_options(None, {"preset": "imagenet", "target_size": (side, side)}).decode
        assert decode.shorter_side == math.floor(side / 0.875)
    wide = make_options(None, {"preset": "imagenet", "target_size": (96, 192)}).decode
    assert wide.shorter_side == 219
    done = run("build", photos, "a.h5", "--preset", "imagenet", "--target-size", "21",
               "--exif", "apply")  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = config_of(tmp_path / "a.h5")
    assert (config["target_size"], config["shorter_side"], config["exif"]) == (
        [21] * 2,
        24,
        "apply",
    )


@pytest.mark.parametrize(
    ("table", "words", "expected"),
    [
        ("preset = 'photos'", (), ("bicubic", "apply")),
        ("preset = 'photos'\nexif = 'ignore'", (), ("bicubic", "ignore")),
        ("preset = 'photos'", ("--interpolation", "box"), ("box", "apply")),
        ("exif = 'ignore'", ("--preset", "photos"), ("bicubic", "apply")),
        ("preset = 'photos'\nexif = 'ignore'", ("--preset", "imagenet"), ("bilinear", "ignore")),
    ],
)
def test_the_command_line_wins_over_a_file(
    run: Run, photos: Path, tmp_path: Path, table: str, words: tuple[str, ...], expected: Any
) -> None:
    """Presets have the rank of the place where they are given; options win in the same place."""
    (tmp_path / "batchify.toml").write_text(f"[tool.batchify.build]\n{table}\n")
    done = run("build", photos, "a.h5", *words, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)["config"]
    assert (config["interpolation"], config["exif"]) == expected
    environment = {"BATCHIFY_BUILD_PRESET": "keras", "BATCHIFY_BUILD_EXIF": "apply"}
    done = run("build", photos, "a.h5", "--dry-run", "--json", **environment)
    config = json.loads(done.stdout)["config"]
    assert (config["interpolation"], config["exif"]) == ("nearest", "apply")


def test_a_preset_does_not_insist_on_its_split(tmp_path: Path, photos: Path, run: Run) -> None:
    """A dataset with splits keeps them; check of a dataset splits by groups as the build does."""
    draw_dataset(tmp_path / "ready" / "train", {"a": 3, "b": 3})
    draw_dataset(tmp_path / "ready" / "val", {"a": 2, "b": 2})
    plan = batchify.plan_build(tmp_path / "ready", preset="photos")
    assert plan.rows == {"train": 6, "validation": 4}
    by_group = ("--group-by", r"img_(\d+)", "--preset")
    done = run("build", photos, "a.h5", "--dry-run", "--json", *by_group, "photos")
    assert json.loads(done.stdout)["config"]["group_by"]
    for name in ("photos", "keras"):
        done = run("check", photos, *by_group, name, "--json")
        codes = {each["code"] for each in json.loads(done.stdout)["findings"]}
        assert ("group-leak" in codes) == (name == "keras")


def test_what_is_no_preset_is_refused(run: Run, photos: Path) -> None:
    """With the presets there are, and before the images are looked for."""
    done = run("build", photos, "a.h5", "--preset", "photo")
    assert done.returncode == 2
    assert "'photo' is not one of 'keras', 'imagenet', 'photos'" in done.stderr
    with pytest.raises(OptionError, match="preset must be one of keras, imagenet, photos"):
        make_options(None, {"preset": "photo"})  # type: ignore[typeddict-item]
    with pytest.raises(OptionError, match=r"target size must be \(height, width\)"):
        make_options(None, {"preset": "imagenet", "target_size": "224"})  # type: ignore[typeddict-item]
    with pytest.raises(OptionError, match="--shorter-side requires --fit crop, and fit is pad"):
        make_options(None, {"preset": "imagenet", "fit": "pad", "shorter_side": 9})
