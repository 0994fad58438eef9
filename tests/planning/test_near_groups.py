"""Images that look alike stay in one split with --group-near-duplicates."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import encoded, save
from PIL import Image

import batchify
from batchify.building.build import build
from batchify.checking.check import check
from batchify.dataset_options import SplitOptions
from batchify.decoding.image import decode_image
from batchify.errors import OptionError
from batchify.format.config import recorded_options
from batchify.format.reader import Reader
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.planning import near_groups, planner

OPTIONS = BuildOptions(
    decode=DecodeOptions((48, 64), interpolation="bilinear"),
    store=StoreOptions(appearance=True),
    split=SplitOptions("stratified", group_near_duplicates=4),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Draw 12 scenes, each in two classes and three sizes; white images; one that is damaged."""
    root = tmp_path / "data"
    for seed in range(12):
        noise = np.random.RandomState(seed).randint(0, 256, (6, 8, 3), np.uint8)
        scene = Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)
        for name, size in (("cat/a", (160, 120)), ("cat/b", (90, 70)), ("dog/c", (100, 100))):
            save(root / f"{name}{seed:02}.jpg", encoded(scene.resize(size), "JPEG"))
    for i in range(4):
        white = encoded(Image.new("RGB", (40 + i // 2, 40), "white"), "PNG")
        save(root / "dog" / f"white{i}.png", white)
    save(root / "dog" / "bad.png", b"bad")
    return root


def scenes(path: Path) -> dict[str, set[str]]:
    """Return the numbers of the scenes in each split of a file."""
    with h5py.File(path) as file:
        names = {s: [p.decode() for p in file[s]["paths"]] for s in ("train", "validation")}
    return {
        split: {name[5:7] for name in each if "white" not in name} for split, each in names.items()
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_images_that_look_alike_stay_in_one_split(root: Path, tmp_path: Path, seed: int) -> None:
    """Across classes and sizes, for any number of workers; without the option, they do not."""
    options = replace(OPTIONS, split=replace(OPTIONS.split, seed=seed))
    out = tmp_path / "out.h5"
    report = build(root, out, options, workers=2, on_error="skip")
    assert [entry.path for entry in report.plan.skipped] == [b"dog/bad.png"]
    found = scenes(out)
    assert not found["train"] & found["validation"]
    assert found["validation"]
    assert not {"leak", "near-leak"} & {each.code for each in check(out).problems}
    assert build(root, out, options, workers=1, on_error="skip").up_to_date
    plain = replace(options, split=SplitOptions("stratified", seed=seed))
    build(root, tmp_path / "plain.h5", plain, on_error="skip")
    assert scenes(tmp_path / "plain.h5")["train"] & scenes(tmp_path / "plain.h5")["validation"]
    assert "near-leak" in {each.code for each in check(tmp_path / "plain.h5").problems}
    with Reader(out) as reader:
        assert recorded_options(reader.header.config).split.group_near_duplicates == 4


def test_folds_and_shards_keep_them_together(root: Path, tmp_path: Path) -> None:
    """Each scene is in the validation split of one fold."""
    seen: list[set[str]] = []
    for fold in range(3):
        split = SplitOptions("stratified", folds=3, fold=fold, group_near_duplicates=4)
        build(root, tmp_path / f"{fold}.h5", replace(OPTIONS, split=split), on_error="skip")
        seen.append(scenes(tmp_path / f"{fold}.h5")["validation"])
    assert sum(map(len, seen)) == len(set.union(*seen)) == 12
    batchify.build_shards(root, tmp_path / "shards", OPTIONS, shards=2, on_error="skip")
    assert "near-leak" not in {each.code for each in check(tmp_path / "shards").problems}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """List the images that are decoded for the splits."""
    found: list[bytes] = []

    def spy(data: bytes, *args: Any, **keywords: Any) -> Any:
        found.append(data)
        return decode_image(data, *args, **keywords)

    monkeypatch.setattr(near_groups, "decode_image", spy)
    return found


def test_images_of_the_file_are_not_decoded_again(
    root: Path, tmp_path: Path, decoded: list[bytes]
) -> None:
    """To see that it is up to date, or to replace it: the splits are those of a fresh build."""
    out, fresh = tmp_path / "out.h5", tmp_path / "fresh.h5"
    build(root, out, OPTIONS, workers=1, on_error="skip")
    assert len(decoded) == 41
    decoded.clear()
    assert build(root, out, OPTIONS, workers=1, on_error="skip").up_to_date
    assert not batchify.find_changes(root, out, OPTIONS, workers=1, on_error="skip").is_due
    bad = (root / "dog" / "bad.png").read_bytes()
    assert decoded == [bad, bad]
    decoded.clear()
    (root / "cat" / "a00.jpg").write_bytes((root / "cat" / "a01.jpg").read_bytes())
    new = encoded(Image.linear_gradient("L").rotate(30), "PNG")
    save(root / "cat" / "new.png", new)
    build(root, out, OPTIONS, workers=1, on_error="skip", overwrite=True)
    assert sorted(decoded) == sorted([bad, new])
    build(root, fresh, OPTIONS, workers=1, on_error="skip")
    assert out.read_bytes() == fresh.read_bytes()


def test_hashes_of_another_size_or_damaged_ones_are_not_used(
    root: Path, tmp_path: Path, decoded: list[bytes]
) -> None:
    """Nor those of a file without them."""
    out = tmp_path / "out.h5"
    plain = replace(OPTIONS, store=StoreOptions())
    for options in (replace(OPTIONS, decode=replace(OPTIONS.decode, target_size=(20, 20))), plain):
        build(root, out, options, workers=1, on_error="skip", overwrite=True)
        decoded.clear()
        assert batchify.find_changes(root, out, OPTIONS, workers=1, on_error="skip").is_due
        assert len(decoded) == 41
    build(root, out, OPTIONS, workers=1, on_error="skip", overwrite=True)
    with h5py.File(out, "r+") as file:
        file["train/phash"][3] ^= 1
    decoded.clear()
    assert batchify.find_changes(root, out, OPTIONS, workers=1, on_error="skip").is_due
    assert len(decoded) == 2


def test_the_fingerprint_reads_files_once(
    root: Path, decoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding for the splits hashes them, too."""
    (root / "dog" / "bad.png").unlink()
    wanted = batchify.fingerprint(root, OPTIONS, workers=1)
    monkeypatch.setattr(planner, "hash_samples", lambda *_: 1 / 0)
    assert str(batchify.fingerprint(root, OPTIONS, workers=1)) == str(wanted)
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in sorted(root.rglob("*.*g"))]
    given = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    assert planner.fingerprint_of(wanted.plan, given).hexdigest == wanted.hexdigest


def test_the_fingerprint_is_that_of_the_bytes(root: Path) -> None:
    """It changes with the content of a file, and with the distance."""
    (root / "dog" / "bad.png").unlink()
    first = batchify.fingerprint(root, OPTIONS).hexdigest
    assert batchify.fingerprint(root, OPTIONS).hexdigest == first
    other = replace(OPTIONS, split=replace(OPTIONS.split, group_near_duplicates=6))
    assert batchify.fingerprint(root, other).hexdigest != first
    path = root / "cat" / "b00.jpg"
    again = encoded(Image.open(io.BytesIO(path.read_bytes())), "JPEG", quality=95)
    path.write_bytes(again)
    assert batchify.fingerprint(root, OPTIONS).hexdigest != first


@pytest.mark.parametrize("policy", ["keras", "keras-utils", "hash"])
def test_other_policies_are_refused(policy: batchify.choices.Policy) -> None:
    """With the one that is able."""
    with pytest.raises(OptionError, match="needs --split stratified"):
        SplitOptions(policy, group_near_duplicates=4)


@pytest.mark.parametrize("distance", [0, 9, 2.5, True])
def test_the_distance_has_limits(distance: int) -> None:
    """A number of bits."""
    with pytest.raises(OptionError, match="group near duplicates must be 1 to 8 bits"):
        SplitOptions("stratified", group_near_duplicates=distance)
