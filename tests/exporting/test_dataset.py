"""`batchify export DATASET TARGET`: without a file that is kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.drawing import encoded, photo, save
from helpers.exported import assert_rows, read_back, stored_rows, tree
from helpers.packing import members, pack
from helpers.running import Run
from helpers.s3server import S3Server
from helpers.tabled import listed, write_table
from PIL import Image

import batchify
from batchify.choices import ExportFormat
from batchify.errors import ExtraMissingError

OPTIONS: dict[str, Any] = {"split": "stratified", "seed": 7, "validation_split": 0.4}


@pytest.mark.parametrize("kind", ["folder", "archive", "manifest"])
def test_it_is_what_a_built_file_gives(photos: Path, tmp_path: Path, kind: str) -> None:
    """In all formats: the image files, or what the options make of them."""
    dataset: Path = photos
    options = {**OPTIONS}
    if kind == "archive":
        dataset = pack(tmp_path / "photos.zip", members(photos))
    elif kind == "manifest":
        rows = [{"path": path, "label": path[:3], "site": path[-5]} for path in listed(photos)]
        options["manifest"] = write_table(tmp_path / "t.csv", rows)
        options["keep_columns"] = ["site"]
    for name, sized in (("webdataset", False), ("parquet", True), ("npz", True)):
        target, expected = (tmp_path / f"{name}-{each}.npz" for each in ("new", "old"))
        out = tmp_path / f"{name}.h5"
        form: ExportFormat = name  # type: ignore[assignment]
        extra: dict[str, Any] = {"target_size": (12, 10)} if sized else {}
        found = batchify.export(dataset, target, format=form, workers=1, **options, **extra)
        if not sized:
            extra = {"store": "encoded"}
        batchify.build(dataset, out, **options, **extra)
        batchify.export(out, expected, format=form, workers=1)
        assert found.rows == {"train": 9, "validation": 6}
        if name == "npz":
            assert target.read_bytes() == expected.read_bytes()
        else:
            assert tree(target) == tree(expected)
            assert_rows(read_back(name, target, "train"), stored_rows(out, "train"))
        assert not [each for each in os.listdir(tmp_path) if "partial" in each]


@pytest.mark.parametrize(
    ("name", "library"),
    [("parquet", "pyarrow"), ("arrow", "pyarrow"), ("tfrecord", "google-crc32c")],
)
def test_a_missing_library_is_missed_before_the_rows_are_built(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: ExportFormat, library: str
) -> None:
    """Nothing is decoded, and nothing is left behind."""
    monkeypatch.setitem(sys.modules, library.replace("-", "_"), None)
    before = os.listdir(tmp_path)
    with pytest.raises(ExtraMissingError, match=f"this format needs {library}"):
        batchify.export(photos, tmp_path / "tables", format=name, workers=1)
    assert os.listdir(tmp_path) == before


def test_folders_of_originals(photos: Path, tmp_path: Path, run: Run) -> None:
    """Under their own names, copied or linked; other options make images of them."""
    folder = ("--format", "imagefolder", "--workers", "1")
    assert run("export", "photos", "copies", *folder, "--split", "hash").returncode == 0
    assert run("export", "photos", "links", *folder, "--link", "hard").returncode == 0
    assert run("export", "photos", "small", *folder, "--target-size", "12x10").returncode == 0
    for name in ("copies", "links"):
        found = list((tmp_path / name).rglob("*.jpg"))
        assert len(found) == 15
        for path in found:
            original = photos / path.parent.name / path.name
            assert path.read_bytes() == original.read_bytes()
            assert path.samefile(original) == (name == "links")
    assert len(list((tmp_path / "small").rglob("*.png"))) == 15
    rotated = encoded(photo(seed=5), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03"
                      b"\0\0\0\x01\0\x06\0\0\0\0\0\0")  # fmt: skip
    save(photos / "cat" / "rotated.jpg", rotated)
    for name, options in {"c": (), "d": ("--target-size", "12x10")}.items():
        done = run("export", "photos", name, *folder, *options)
        assert ("EXIF orientation" in done.stdout) == bool(options)  # else nothing is lost
    for text, arguments in {
        "--source is for a built file": ("--source", "photos"),
        "remove --target-size, or --link": ("--link", "hard", "--target-size", "12x10"),
        "use --format npz": ("--dtype", "float32"),
        "no place for labels": ("--class-mode", "regression", "--manifest", "t.csv"),
    }.items():
        write_table(tmp_path / "t.csv", [{"path": "cat/img_000.jpg", "label": 1.5}])
        done = run("export", "photos", "x", *folder, *arguments)
        assert (done.returncode, text in done.stderr) == (2, True), done.stderr
    assert run("export", "photos", "photos/x", *folder).returncode == 1
    run("build", "photos", "out.h5")
    done = run("export", "out.h5", "x", *folder, "--seed", "1")
    assert "--seed is for a dataset" in done.stderr
    with pytest.raises(batchify.OptionError, match="options of a build are for a dataset"):
        batchify.export(tmp_path / "out.h5", tmp_path / "x", format="mds", seed=1)
    assert not (tmp_path / "x").exists()


def test_images_that_look_alike_stay_in_one_split_as_originals(tmp_path: Path) -> None:
    """As in a build: they are compared in its size, although no pixels are exported."""
    for i in range(12):
        image = photo(160, 120, seed=i // 2).resize((320, 240), Image.Resampling.BICUBIC)
        data = encoded(image, "JPEG", quality=95 - i % 2 * 30)
        save(tmp_path / "d" / ("cat", "dog")[i % 2] / f"{i // 2}.jpg", data)
    options: dict[str, Any] = {"split": "stratified", "validation_split": 0.5}
    batchify.export(
        tmp_path / "d", tmp_path / "x", format="imagefolder", group_near_duplicates=4, **options
    )
    found = {p.parent.name + p.stem: p.parts[-3] for p in (tmp_path / "x").rglob("*.jpg")}
    assert len(found) == 12
    assert [found[f"cat{i}"] for i in range(6)] == [found[f"dog{i}"] for i in range(6)]
    assert "near-leak" not in {each.code for each in batchify.check(tmp_path / "x").problems}


@pytest.mark.parametrize(
    "options", [{"image_format": "webp"}, {"color_mode": "grayscale"}, {"store": "jpeg"}], ids=str
)
def test_images_are_not_shrunk_unasked(
    photos: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """An option that makes other images needs a size, which a build has by default."""
    common: dict[str, Any] = {"format": "imagefolder", "workers": 1}
    option = next(iter(options)).replace("_", "-")
    with pytest.raises(batchify.OptionError, match=f"--{option} .* pass --target-size, too"):
        batchify.export(photos, tmp_path / "x", **common, **options)
    assert os.listdir(tmp_path) == ["photos"]
    batchify.export(photos, tmp_path / "x", **common, **options, target_size=(12, 10))
    (first, *_) = (tmp_path / "x" / "train" / "cat").iterdir()
    with Image.open(first) as image:
        assert image.size == (10, 12)


def test_options_of_the_file_alone_are_refused(photos: Path, tmp_path: Path) -> None:
    """An export has no place for what they add to a file; the command does not have them."""
    options: list[dict[str, Any]] = [{"compression": "gzip"}, {"appearance": True}]
    for each in options:
        with pytest.raises(
            batchify.OptionError, match=f"{next(iter(each))} changes how a file is stored"
        ):
            batchify.export(photos, tmp_path / "x", format="mds", workers=1, **each)
    assert os.listdir(tmp_path) == ["photos"]


def test_nothing_is_done_again(photos: Path, tmp_path: Path, run: Run) -> None:
    """Unless a file or an option changed; skipped images are told."""
    save(photos / "cat" / "bad.jpg", b"bad")
    mds = ("export", "photos", "x", "--format", "mds", "--workers", "1")
    done = run(*mds)
    assert done.returncode == 3
    assert "cat/bad.jpg" in done.stderr
    done = run(*mds, "--on-error", "skip", "--json")
    made = json.loads(done.stdout)
    assert (made["rows"], len(made["skipped"])) == ({"train": 13, "validation": 2}, 1)
    done = run(*mds, "--on-error", "skip")
    assert "x is up to date: 13 train + 2 validation images" in done.stdout
    (photos / "cat" / "bad.jpg").unlink()
    assert "pass --overwrite" in run(*mds).stderr
    assert run(*mds, "--overwrite").returncode == 0
    assert "is up to date" in run(*mds).stdout
    assert "pass --overwrite" in run(*mds, "--seed", "3").stderr
    save(photos / "cat" / "img_000.jpg", encoded(photo(seed=99), "JPEG"))
    assert "pass --overwrite" in run(*mds).stderr
    (tmp_path / "batchify.toml").write_text("[tool.batchify.build]\nseed = 4\n")
    assert run(*mds, "--overwrite").returncode == 0
    assert "is up to date" in run(*mds, "--seed", "4").stdout
    assert sorted(os.listdir(tmp_path)) == ["batchify.toml", "photos", "x"]


def test_an_interrupted_one_is_resumed(photos: Path, tmp_path: Path) -> None:
    """While its rows are built, and while they are written."""
    options: dict[str, Any] = {"format": "webdataset", "shard_size": "4kB"}
    batchify.export(photos, tmp_path / "whole", workers=1, **options)
    for stage in ("seal", "export"):
        code = (
            "import batchify, os\n"
            "def step(state):\n"
            f"    if state.stage == {stage!r} and (state.done > 4 or state.stage == 'seal'):\n"
            "        os._exit(9)\n"
            f"batchify.export('photos', 'killed', workers=1, progress=step, **{options!r})\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
        assert done.returncode == 9
        assert not (tmp_path / "killed").exists()
        if stage == "seal":  # with other options, it starts over
            batchify.export(photos, tmp_path / "killed", workers=1, target_size=(12, 10), **options)
            assert os.listdir(tmp_path / "killed") != []
            shutil.rmtree(tmp_path / "killed")
            assert sorted(os.listdir(tmp_path)) == ["photos", "whole"]
    found = batchify.export(photos, tmp_path / "killed", workers=1, **options)
    assert found.kept > 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["killed", "photos", "whole"]


def test_from_a_url_to_a_url(s3: S3Server, photos: Path, tmp_path: Path) -> None:
    """A dataset in a bucket; nothing is left on this machine."""
    s3.put("bucket", {f"a/{name}": data for name, data in tree(photos).items()})
    batchify.export(photos, tmp_path / "tars", format="webdataset", workers=1)
    url = "s3://bucket/tars/"
    batchify.export("s3://bucket/a", url, format="webdataset", workers=1)
    for name, data in tree(tmp_path / "tars").items():
        assert s3.get("bucket", f"tars/{name}") == data
    again = batchify.export("s3://bucket/a", url, format="webdataset", workers=1)
    assert again.up_to_date
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_folder_of_built_files_is_none(photos: Path, tmp_path: Path) -> None:
    """Unless there are folders next to the files."""
    folder = tmp_path / "files"
    for seed in (1, 2):
        folder.mkdir(exist_ok=True)
        batchify.build(photos, folder / f"{seed}.h5", target_size=(12, 10), seed=seed)
    found = batchify.export(folder, tmp_path / "tars", format="webdataset", workers=1)
    assert found.rows == {"train": 24, "validation": 6}
    save(photos / "x.h5", (folder / "1.h5").read_bytes())
    found = batchify.export(photos, tmp_path / "more", format="webdataset", workers=1)
    assert found.rows == {"train": 12, "validation": 3}
