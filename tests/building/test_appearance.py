"""The columns of --appearance: the same for every way to build a file, and none without it."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, draw_zoo
from helpers.encoding import columns
from helpers.stopping import StopError, stop_after

import batchify
from batchify import choices
from batchify.building import jobs, workfile
from batchify.building.build import build
from batchify.checking.verify import verify
from batchify.choices import Store
from batchify.dataset_options import SplitOptions
from batchify.decoding.appearance import appearance_columns, measure
from batchify.decoding.image import Decoded
from batchify.format.config import build_command
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions

DECODE = DecodeOptions((36, 40), interpolation="bilinear")
STORES: tuple[Store, ...] = ("decoded", "encoded", "jpeg")
SOME_STORES = ("jpeg", *(pytest.param(each, marks=pytest.mark.long) for each in STORES[:2]))


def options(store: Store = "decoded", **changes: Any) -> BuildOptions:
    """Return the options of a file with the columns."""
    return BuildOptions(
        decode=DECODE, store=StoreOptions(store=store, appearance=True, **changes), batch_size=4
    )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Draw 40 photos; tasks are a batch and commits some batches, so that there is a middle."""
    monkeypatch.setattr(jobs, "TASK_ROWS", 4)
    monkeypatch.setattr(workfile, "COMMIT_NBYTES", 8 << 10)
    return draw_dataset(tmp_path / "data", {"cat": 15, "dog": 25})


@pytest.mark.parametrize("mode", choices.COLOR_MODES)
def test_the_columns_measure_the_decoded_images(tmp_path: Path, mode: choices.ColorMode) -> None:
    """As they are before they are encoded again; a file without the option has none of them."""
    root = draw_zoo(tmp_path / "zoo")
    plain = BuildOptions(decode=replace(DECODE, color_mode=mode, depth="scale"))
    build(root, tmp_path / "plain.h5", plain)
    pixels = columns(tmp_path / "plain.h5")
    for store in STORES if mode != "rgba" else STORES[:2]:
        out = tmp_path / f"{store}.h5"
        build(root, out, replace(plain, store=options(store).store))
        found = columns(out)
        for split in ("train", "validation"):
            sizes = map(tuple, pixels[f"{split}/source_size"].tolist())
            images = map(Decoded, pixels[f"{split}/images"], sizes, itertools.repeat(0))
            wanted = appearance_columns([measure(each, plain.decode) for each in images])
            for name in choices.APPEARANCE:
                np.testing.assert_array_equal(found[f"{split}/{name}"], wanted[name])
            assert not {f"{split}/{name}" for name in choices.APPEARANCE} & set(pixels)
    for name in ("images", "labels", "paths", "source_sha256"):
        np.testing.assert_array_equal(
            columns(tmp_path / "decoded.h5")[f"train/{name}"], pixels[f"train/{name}"]
        )


@pytest.mark.parametrize("store", SOME_STORES)
def test_no_way_to_build_changes_a_byte(root: Path, tmp_path: Path, store: Store) -> None:
    """Workers, batches, an end in the middle, and shards that are merged."""
    (root / "cat" / "img_003.jpg").write_bytes(b"bad")
    wanted = options(store)
    for name, workers, batch_size in (("a", 1, 4), ("b", 2, 7)):
        build(
            root, tmp_path / f"{name}.h5", replace(wanted, batch_size=batch_size),
            workers=workers, on_error="skip",
        )  # fmt: skip
    with pytest.raises(StopError):
        build(root, tmp_path / "c.h5", wanted, workers=1, on_error="skip", progress=stop_after(20))
    assert build(root, tmp_path / "c.h5", wanted, workers=1, on_error="skip").kept >= 8
    batchify.build_shards(root, tmp_path / "shards", wanted, shards=2, workers=1, on_error="skip")
    batchify.merge(tmp_path / "shards", tmp_path / "d.h5")
    assert len({(tmp_path / f"{name}.h5").read_bytes() for name in "abcd"}) == 1
    assert verify(tmp_path / "a.h5", source=root, redecode="all").is_ok
    with batchify.open(tmp_path / "a.h5") as file:
        assert len(file["train"].images[:4]) == 4


@pytest.mark.parametrize("store", SOME_STORES)
def test_rows_of_other_plans_and_files_are_copied(
    root: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their columns: those of two unfinished builds that were set aside, and of a file."""
    out = tmp_path / "out.h5"
    plans = [replace(options(store), split=SplitOptions(seed=seed)) for seed in range(3)]
    for plan, images in zip(plans, (16, 24), strict=False):
        with pytest.raises(StopError):
            build(root, out, plan, workers=1, progress=stop_after(images))
    assert build(root, out, plans[2], workers=1).kept >= 16
    build(root, tmp_path / "fresh.h5", plans[2])
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()
    monkeypatch.setattr("batchify.decoding.batch.decode_image", lambda *_, **__: 1 / 0)
    assert build(root, out, plans[0], workers=1, overwrite=True).copied == 40
    monkeypatch.undo()
    build(root, tmp_path / "fresh.h5", plans[0], overwrite=True)
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_rows_without_the_columns_are_not_copied(root: Path, tmp_path: Path) -> None:
    """They would have to be decoded for them; the option is part of a build's identity."""
    out, plain = tmp_path / "out.h5", BuildOptions(decode=DECODE)
    build(root, out, plain)
    assert batchify.fingerprint(root, plain) != batchify.fingerprint(root, options())
    assert batchify.find_changes(root, out, options()).is_due
    report = build(root, out, options(), workers=1, overwrite=True)
    assert report.copied == 0
    with h5py.File(out) as file:
        assert file["train/phash"].dtype == np.uint64
        config = json.loads(file.attrs["config"])
    assert "--appearance" in build_command(config, skipped=False).split()
