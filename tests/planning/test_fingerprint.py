"""The identity of a build before it is made: what changes it, and what does not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.drawing import encoded, photo, save
from helpers.running import Run

from batchify.cli import main
from batchify.common.progress import Progress
from batchify.dataset_options import DiscoverOptions, SplitOptions
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.planning.planner import fingerprint


def change(path: Path) -> None:
    """Flip the last byte of a file."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def test_it_is_the_same_for_the_same_images(photos: Path, tmp_path: Path) -> None:
    """Wherever the folder lies, whatever was touched, for any number of workers and batch size."""
    first = str(fingerprint(photos))
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    photos.rename(tmp_path / "moved")
    for path in (tmp_path / "moved").rglob("*.jpg"):
        path.touch()
    assert str(fingerprint(tmp_path / "moved", workers=2)) == first
    assert str(fingerprint(tmp_path / "moved", BuildOptions(batch_size=5))) == first


@pytest.mark.parametrize(
    "act",
    [
        lambda root: change(root / "cat" / "img_001.jpg"),
        lambda root: (root / "cat" / "img_001.jpg").rename(root / "cat" / "renamed.jpg"),
        lambda root: (root / "cat" / "img_001.jpg").rename(root / "dog" / "img_999.jpg"),
        lambda root: (root / "cat" / "img_001.jpg").unlink(),
        lambda root: save(root / "cat" / "new.jpg", encoded(photo(), "JPEG")),
        lambda root: (root / "empty").mkdir(),
        lambda root: (root / "dog").rename(root / "wolf"),
        lambda root: save(root / "cat" / "img_001.jpg", b""),
    ],
)
def test_every_change_of_the_folder_changes_it(photos: Path, act: Callable[[Path], Any]) -> None:
    """Contents, names, classes."""
    before = str(fingerprint(photos))
    act(photos)
    assert str(fingerprint(photos)) != before


@pytest.mark.parametrize(
    "options",
    [
        BuildOptions(decode=DecodeOptions((20, 20))),
        BuildOptions(decode=DecodeOptions(exif="apply")),
        BuildOptions(store=StoreOptions(class_mode="none")),
        BuildOptions(store=StoreOptions(compression="gzip")),
        BuildOptions(store=StoreOptions(rescale="1/127.5")),
        BuildOptions(split=SplitOptions(seed=1)),
        BuildOptions(split=SplitOptions("hash")),
        BuildOptions(split=SplitOptions("stratified", group_by=r"(\d)")),
        BuildOptions(split=SplitOptions("stratified", group_duplicates=True)),
        BuildOptions(discover=DiscoverOptions(hidden=True)),
    ],
)
def test_every_option_of_the_file_changes_it(photos: Path, options: BuildOptions) -> None:
    """What is written in the file, is in it."""
    assert str(fingerprint(photos, options)) != str(fingerprint(photos))


def test_the_version_is_in_it(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another release, or another decoder, may make another file."""
    before = str(fingerprint(photos))
    monkeypatch.setattr("batchify.format.schema.CREATOR", "batchify 99")
    changed = str(fingerprint(photos))
    monkeypatch.undo()
    monkeypatch.setattr("batchify.planning.planner.decoder_text", lambda *_: "Pillow 99")
    assert len({before, changed, str(fingerprint(photos))}) == 3


def test_the_command_prints_it(run: Run, photos: Path) -> None:
    """Alone on stdout; it takes every option of build, those without an effect too."""
    expected = str(fingerprint(photos, BuildOptions(decode=DecodeOptions((20, 16)))))
    size = ("--target-size", "20x16")
    for more in ([], ["--overwrite", "--workers", "2", "--on-error", "skip", "--quiet"]):
        done = run("fingerprint", photos, *size, *more)
        assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr
    found = json.loads(run("fingerprint", photos, *size, "--json").stdout)
    assert found == {
        "json_version": 1, "fingerprint": expected, "images": 15, "classes": 2,
    }  # fmt: skip


def test_options_of_build_count_wherever_they_are(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment and the configuration file of build are those of its fingerprint."""
    monkeypatch.chdir(tmp_path)
    expected = str(fingerprint(photos, BuildOptions(decode=DecodeOptions((20, 16)))))
    environment = {"BATCHIFY_BUILD_TARGET_SIZE": "20x16"}
    done = CliRunner().invoke(main, ["fingerprint", str(photos)], env=environment)
    assert done.stdout.strip() == expected
    Path("batchify.toml").write_text('[tool.batchify.build]\ntarget-size = "20x16"\n')
    done = CliRunner().invoke(main, ["fingerprint", str(photos)])
    assert done.stdout.strip() == expected


def test_groups_that_are_off_are_no_split(run: Run, photos: Path, tmp_path: Path) -> None:
    """Where the folders are the splits already, options that ask for nothing are not refused."""
    for split in ("train", "val"):
        shutil.copytree(photos, tmp_path / "splits" / split)
    off = {"BATCHIFY_BUILD_GROUP_DUPLICATES": "0", "BATCHIFY_BUILD_GROUP_BY": ""}
    done = run("fingerprint", tmp_path / "splits", **off)
    assert done.returncode == 0, done.stderr
    done = run("fingerprint", tmp_path / "splits", "--group-duplicates", "--split", "hash")
    assert "is split into folders already" in done.stderr


def test_files_are_hashed_once(photos: Path) -> None:
    """Also where the split goes by their hashes."""
    options = BuildOptions(split=SplitOptions("stratified", group_duplicates=True))
    steps: list[Progress] = []
    fingerprint(photos, options, progress=steps.append)
    assert [step.stage for step in steps].count("hash") == 2  # at the start, and when it is done


def test_a_missing_folder_is_said(run: Run, tmp_path: Path) -> None:
    """With the exit code of build."""
    done = run("fingerprint", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "nowhere does not exist" in done.stderr
