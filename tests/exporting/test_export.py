"""`batchify export`: what is read back is what the file has, in every format."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.packing import members, pack
from helpers.running import Run
from helpers.s3server import S3Server
from helpers.tabled import listed, write_table
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

import batchify
from batchify.choices import EXPORT_FORMATS, ExportFormat

Row = tuple[bytes | NDArray[Any], Any, str]
"""An image file or its pixels, the label, the path."""

SUFFIXES = {"npz": ".npz"}
SIZE = ("--target-size", "12x10")


def stored_rows(path: Path, split: str) -> list[Row]:
    """Read the rows of a file with h5py."""
    with h5py.File(path) as file:
        group = file[split]
        paths = [os.fsdecode(each) for each in group["paths"][()]]
        labels = group["labels"][()].tolist() if "labels" in group else [None] * len(paths)
        if "images" in group:
            images: list[Any] = list(group["images"][()])
        else:
            data = group["encoded"][()].tobytes()
            images = [data[start : start + n] for start, n in group["image_extents"][()].tolist()]
    return list(zip(images, labels, paths, strict=True))


def assert_rows(found: list[Row], expected: list[Row]) -> None:
    """Compare image files byte for byte, or pixel for pixel."""
    assert len(found) == len(expected)
    for (image, *rest), (stored, *wanted) in zip(found, expected, strict=True):
        assert rest == wanted
        if isinstance(stored, bytes):
            assert image == stored
        else:
            pixels = np.asarray(Image.open(io.BytesIO(image))) if type(image) is bytes else image
            np.testing.assert_array_equal(np.reshape(pixels, stored.shape), stored)


def read_tars(folder: Path, split: str) -> Iterator[tuple[bytes, dict[str, bytes]]]:
    """Yield the image, and the other members, of each key in tar shards."""
    for path in sorted(folder.glob(f"{split}-*.tar")):
        keys: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                assert (member.mtime, member.uid, member.uname) == (0, 0, "")
                keys.setdefault(key, {})[ending] = file.read()
        for found in keys.values():
            image = found.pop("png", None) or found.pop("jpg")
            yield image, found


def read_back(name: str, target: Path, split: str) -> list[Row]:
    """Read the rows of an export with what the tests have for its format."""
    if name == "webdataset":
        return [
            (image, int(more["cls"]), json.loads(more["json"])["path"])
            for image, more in read_tars(target, split)
        ]
    if name == "npz":
        with np.load(target) as file:
            names = (f"{each}_{split}" for each in ("X", "y", "paths"))
            images, labels, paths = (file[each] for each in names)
            return list(zip(images, labels.tolist(), paths.tolist(), strict=True))
    rows: list[Any] = []
    if name == "parquet":
        for path in sorted(target.glob(f"{split}-*.parquet")):
            rows += parquet.read_table(path).to_pylist()
    else:
        state = json.loads((target / split / "state.json").read_text())
        for file in state["_data_files"]:
            with pa.ipc.open_stream(target / split / file["filename"]) as stream:
                rows += stream.read_all().to_pylist()
    return [(row["image"]["bytes"], row["label"], row["path"]) for row in rows]


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder, by path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("store", ["decoded", "encoded"])
def test_rows_are_read_back(photos: Path, tmp_path: Path, store: Any) -> None:
    """Every pixel or byte, label, path and split, in order; from shards at the same size, too."""
    out, shards = tmp_path / "out.h5", tmp_path / "shards"
    options: batchify.OptionKeywords = {"target_size": (12, 10), "store": store}
    batchify.build(photos, out, **options)
    batchify.build_shards(photos, shards, shards=2, **options)
    names: list[ExportFormat] = ["webdataset", "parquet", "arrow", "npz"]
    for name in names:
        targets = []
        for path in (out, shards):
            target = tmp_path / f"{name}-{path.stem}{SUFFIXES.get(name, '')}"
            size = {} if name == "npz" else {"shard_size": "1kB"}
            found = batchify.export(path, target, format=name, workers=1, **size)  # type: ignore[arg-type]
            assert found.rows == {"train": 12, "validation": 3}
            assert name == "npz" or found.files > 4
            targets.append(target)
            for split in found.rows:
                expected = stored_rows(out, split)
                if name == "npz":
                    images = batchify.open(out)[split].images
                    expected = [(images[i], *row[1:]) for i, row in enumerate(expected)]
                assert_rows(read_back(name, target, split), expected)
        if name == "npz":
            assert targets[0].read_bytes() == targets[1].read_bytes()
            assert np.load(targets[0])["classes"].tolist() == ["cat", "dog"]
        else:
            same = [{**tree(each), ".batchify-export.json": b""} for each in targets]
            assert same[0] == same[1]


@pytest.mark.parametrize("store", ["decoded", "encoded"])
def test_folders_hold_the_images_of_each_class(photos: Path, tmp_path: Path, store: Any) -> None:
    """Under their own names; pixels as PNG, JPEG or WebP, image files as they are."""
    out = tmp_path / "out.h5"
    batchify.build(photos, out, target_size=(12, 10), store=store)
    ways: dict[str, Any] = {"": {}}
    if store == "decoded":
        ways = {"png": {}, "webp": {"image_format": "webp"}, "jpg": {"image_format": "jpeg"}}
    for ending, way in ways.items():
        target = tmp_path / f"folders{ending}"
        batchify.export(out, target, format="imagefolder", workers=1, **way)
        expected = {}
        for split in ("train", "validation"):
            for image, _, path in stored_rows(out, split):
                name = f"{path.rpartition('.')[0]}.{ending}" if ending else path
                expected[f"{split}/{name}"] = image
        found = tree(target)
        del found[".batchify-export.json"]
        assert sorted(found) == sorted(expected)
        for name, image in expected.items():
            if ending != "jpg":
                assert_rows([(found[name], 0, "")], [(image, 0, "")])
            else:
                assert Image.open(io.BytesIO(found[name])).size == (10, 12)


@pytest.mark.filterwarnings("ignore::batchify.BatchifyWarning")
def test_originals_are_copied_or_linked(photos: Path, tmp_path: Path) -> None:
    """After they were compared with their SHA-256; also out of an archive."""
    out = tmp_path / "out.h5"
    batchify.build(photos, out, target_size=(12, 10))
    archive = pack(tmp_path / "photos.zip", members(photos))
    links: list[Any] = ["copy", "hard", "symbolic"]
    for i, (source, link) in enumerate([*((photos, each) for each in links), (archive, "copy")]):
        target = tmp_path / f"folders{i}"
        batchify.export(out, target, format="imagefolder", source=source, link=link, workers=1)
        found = sorted(path for path in target.rglob("*.jpg"))
        assert len(found) == 15
        for path in found:
            original = photos / path.relative_to(target).as_posix().partition("/")[2]
            assert path.read_bytes() == original.read_bytes()
            assert path.is_symlink() == (link == "symbolic")
            assert path.samefile(original) == (link != "copy")
    with pytest.raises(batchify.OptionError, match="folder of this machine"):
        batchify.export(out, tmp_path / "x", format="imagefolder", source=archive, link="hard")
    inside = photos / "x"
    with pytest.raises(batchify.OutputPathError, match="is inside the dataset folder"):
        batchify.export(out, inside, format="imagefolder", source=photos)
    changed = photos / "cat" / "img_002.jpg"
    save(changed, encoded(photo(seed=77), "JPEG"))
    for reason in ("its content has changed", "there is no such file"):
        with pytest.raises(batchify.DatasetError, match=f"cat/img_002.jpg of --source: {reason}"):
            batchify.export(out, tmp_path / "x", format="imagefolder", source=photos, workers=1)
        assert not (tmp_path / "x").exists()
        changed.unlink(missing_ok=True)


def test_names_that_collide_or_do_not_fit(tmp_path: Path) -> None:
    """Two rows never share a file, and a class may be called anything."""
    photos = draw_dataset(tmp_path / "photos", {"a": 2, "b": 2, "c": 2})
    (photos / "c" / "img_000.jpg").rename(photos / "c" / "IMG_000.jpg")
    classes = ["x/y", "x/y", "x/y", "..", "x/y", ".."]
    rows = [{"path": p, "label": c} for p, c in zip(listed(photos), classes, strict=True)]
    table = write_table(tmp_path / "labels.csv", rows)
    out, target = tmp_path / "out.h5", tmp_path / "folders"
    batchify.build(
        photos, out, manifest=table, target_size=(12, 10), validation_split=0.0, shuffle=False
    )
    batchify.export(out, target, format="imagefolder", workers=1)
    stored = stored_rows(out, "train")
    found = {path.relative_to(target).as_posix(): path for path in target.rglob("*.png")}
    row = {path: i for i, (_, _, path) in enumerate(stored)}
    assert found.keys() == {
        "train/x%2Fy/img_000.png",
        "train/x%2Fy/img_001.png",
        f"train/x%2Fy/img_000-row{row['b/img_000.jpg']}.png",
        f"train/x%2Fy/IMG_000-row{row['c/IMG_000.jpg']}.png",
        "train/%2E./img_001.png",
        f"train/%2E./img_001-row{row['c/img_001.jpg']}.png",
    }
    images = [np.asarray(Image.open(path)).tobytes() for path in found.values()]
    assert sorted(images) == sorted(image.tobytes() for image, *_ in stored)  # type: ignore[union-attr]


@pytest.mark.workers
def test_workers_and_a_kill_change_no_byte(photos: Path, tmp_path: Path, long: bool) -> None:
    """A killed export has no target; the next run keeps its shards, unless they are damaged."""
    out = tmp_path / "out.h5"
    batchify.build(photos, out, target_size=(12, 10))
    options: dict[str, Any] = {"format": "webdataset", "shard_size": "1kB"}
    batchify.export(out, tmp_path / "whole", workers=2 if long else 1, **options)
    code = (
        "import batchify, os, signal\n"
        "def step(state):\n"
        "    if state.done > 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"batchify.export('out.h5', 'killed', workers=1, progress=step, **{options!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == -9
    assert not (tmp_path / "killed").exists()
    damaged = tmp_path / "killed.partial" / "train-00001.tar"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    found = batchify.export(out, tmp_path / "killed", workers=1, **options)
    assert found.kept == 3
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["killed", "out.h5", "photos", "whole"]
    again = batchify.export(out, tmp_path / "killed", workers=1, **options)
    assert again.up_to_date


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_limit_of_space_is_an_error_that_can_be_resumed(photos: Path, tmp_path: Path) -> None:
    """With what to do; nothing has the name of the target."""
    batchify.build(photos, tmp_path / "out.h5", target_size=(64, 64), dtype="uint8")
    command = f"{sys.executable} -m batchify export out.h5 x --format mds --workers 1"
    done = subprocess.run(
        ["sh", "-c", f"ulimit -f 40; {command}"], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "writing" in done.stderr
    assert "ulimit -f" in done.stderr
    assert not (tmp_path / "x").exists()
    assert subprocess.run(command.split(), cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "x" / "train" / "index.json").exists()


@pytest.mark.filterwarnings("ignore::batchify.BatchifyWarning")
def test_labels_weights_and_columns_have_their_place(tmp_path: Path) -> None:
    """Several labels, numbers and masks, too; folders refuse what they have no place for."""
    photos = draw_dataset(tmp_path / "photos", {"a": 4, "b": 4})
    rows: list[dict[str, Any]] = []
    for i, path in enumerate(listed(photos)):
        mask = Image.fromarray(np.full((30, 40), i, np.uint8))
        save(photos / "masks" / f"{i}.png", encoded(mask, "PNG"))
        rows.append({"path": path, "red": i % 2, "big": int(i > 3), "x": i / 8, "y": -1.5 * i,
                     "mask": f"masks/{i}.png", "weight": 1 + i / 4, "site": f"s{i}",
                     "path_": i, "split": "validation" if i == 7 else "train"})  # fmt: skip
    table = write_table(tmp_path / "rows.parquet", rows)
    kinds: dict[str, tuple[str, ...]] = {
        "multilabel": ("red", "big"), "regression": ("x", "y"), "mask": ("mask",),
    }  # fmt: skip
    for kind, columns in kinds.items():
        out = tmp_path / f"{kind}.h5"
        given: Any = {"class_mode": kind, "label_columns": columns}
        batchify.build(
            photos, out, manifest=table, target_size=(12, 10), shuffle=False,
            keep_columns=["site", "path_"], **given,
        )  # fmt: skip
        made = {}
        for name in ("webdataset", "parquet", "npz", "mds", "tfrecord", "arrow"):
            made[name] = tmp_path / f"{kind}-{name}{SUFFIXES.get(name, '')}"
            batchify.export(out, made[name], format=name, workers=1)
        with pytest.raises(batchify.OptionError, match="no place for labels that are not classes"):
            batchify.export(out, tmp_path / "x", format="imagefolder")
        with h5py.File(out) as file:
            train = file["train"]
            labels, sites = train["labels"][()], [os.fsdecode(each) for each in train["site"]]
            weights, numbers = train["weights"][()].tolist(), train["path_"][()].tolist()
        facts = [json.loads(more["json"]) for _, more in read_tars(made["webdataset"], "train")]
        table_rows = parquet.read_table(made["parquet"] / "train-00000.parquet").to_pylist()
        arrays = np.load(made["npz"])
        assert [fact["columns"]["site"] for fact in facts] == sites
        assert [fact["columns"]["path_"] for fact in facts] == numbers
        assert [fact["weight"] for fact in facts] == weights
        assert [(row["site"], row["path_"], row["weight"]) for row in table_rows] == list(
            zip(sites, numbers, weights, strict=True)
        )
        assert arrays["site_train"].tolist() == sites
        assert arrays["weights_train"].tolist() == weights
        np.testing.assert_array_equal(arrays["y_train"], labels)
        if kind == "mask":
            masks = [more["mask.png"] for _, more in read_tars(made["webdataset"], "train")]
            for files in (masks, [row["label"]["bytes"] for row in table_rows]):
                found = [np.asarray(Image.open(io.BytesIO(each))) for each in files]
                np.testing.assert_array_equal(found, labels)
        else:
            assert [fact["label"] for fact in facts] == labels.tolist()
            assert [row["label"] for row in table_rows] == labels.tolist()
            assert (made["webdataset"] / "classes.txt").read_text().split() == list(columns)


@pytest.mark.usefixtures("photos")
def test_what_is_refused(run: Run, tmp_path: Path) -> None:
    """With exit code and what to do; nothing that exists is lost."""
    run("build", "photos", "out.h5", *SIZE)
    run("build", "photos", "float.h5", *SIZE, "--dtype", "float32")
    run("build", "photos", "encoded.h5", *SIZE, "--store", "encoded")
    run("build", "photos", "rgba.h5", *SIZE, "--color-mode", "rgba")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    (tmp_path / "taken.partial").mkdir()
    (tmp_path / "folder.npz").mkdir()
    assert run("export", "out.h5", "done", "--format", "mds").returncode == 0
    folder = ("--format", "imagefolder")
    for code, text, arguments in [
        (1, "pass --overwrite to replace it", ("out.h5", "done", "--format", "parquet")),
        (1, "no export of batchify", ("out.h5", "other", *folder, "--overwrite")),
        (1, "is not a folder", ("out.h5", "out.h5", *folder, "--overwrite")),
        (1, "is not a regular file", ("out.h5", "folder.npz", "--format", "npz")),
        (2, "must end with .npz", ("out.h5", "out.h5", "--format", "npz", "--overwrite")),
        (1, "has something else in it", ("out.h5", "taken", *folder)),
        (1, "there is no folder", ("out.h5", "none/x", *folder)),
        (1, "is a URL", ("out.h5", "s3://bucket/x", *folder)),
        (1, "there is no file", ("none.h5", "x", *folder)),
        (2, "use --format npz", ("float.h5", "x", *folder)),
        (2, "JPEG has no alpha", ("rgba.h5", "x", *folder, "--image-format", "jpeg")),
        (2, "written as they are", ("encoded.h5", "x", *folder, "--image-format", "png")),
        (2, "--shard-size is not for", ("out.h5", "x", *folder, "--shard-size", "1GB")),
        (2, "not a size", ("out.h5", "x", "--format", "mds", "--shard-size", "big")),
        (2, "requires --format imagefolder",
         ("out.h5", "x", "--format", "mds", "--source", "photos")),
        (2, "--link hard requires --source", ("out.h5", "x", *folder, "--link", "hard")),
        (2, "Missing option '--format'", ("out.h5", "x")),
    ]:  # fmt: skip
        done = run("export", *arguments, "--workers", "1")
        assert done.returncode == code, done.stderr
        assert text in done.stderr
    assert (tmp_path / "other" / "file").read_text() == "mine"
    assert not (tmp_path / "x").exists()
    assert run("export", "float.h5", "float.npz", "--format", "npz").returncode == 0
    done = run("export", "out.h5", "done", "--format", "parquet", "--overwrite")
    assert done.returncode == 0
    assert not (tmp_path / "done" / "train").exists()
    assert sorted(path.name for path in tmp_path.glob("done*")) == ["done"]


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_a_split_may_be_empty_or_without_labels(tmp_path: Path, name: ExportFormat) -> None:
    """As the test splits of competitions are."""
    data = encoded(photo(20, 20), "PNG")
    for path in ("train/cat/a.png", "train/dog/b.png", "test/c.png"):
        save(tmp_path / "data" / path, data)
    out, target = tmp_path / "out.h5", tmp_path / f"target{SUFFIXES.get(name, '')}"
    if name != "npz":
        target.mkdir()  # an empty folder is no loss
    batchify.build(tmp_path / "data", out, target_size=(12, 10), validation_split=0.0)
    assert batchify.export(out, target, format=name, workers=1).rows == {"train": 2, "test": 1}
    if name == "imagefolder":
        found = {path.relative_to(target).as_posix() for path in target.rglob("*.png")}
        assert found == {"train/cat/a.png", "train/dog/b.png", "test/c.png"}
        assert os.listdir(target / "test") == ["c.png"]
    elif name == "webdataset":
        assert [list(more) for _, more in read_tars(target, "test")] == [["json"]]
    elif name == "parquet":
        assert sorted(os.listdir(tmp_path)) == ["data", "out.h5", "target"]
        assert parquet.read_table(target / "test-00000.parquet")["label"].to_pylist() == [None]


@pytest.mark.parametrize("store", ["decoded", "encoded"])
def test_a_url_of_shards_gives_the_same(
    s3: S3Server, photos: Path, tmp_path: Path, store: Any
) -> None:
    """As the shards on this machine, also with originals of the dataset."""
    shards = tmp_path / "shards"
    batchify.build_shards(photos, shards, shards=2, target_size=(12, 10), store=store)
    s3.put("bucket", {f"a/{name}": data for name, data in tree(shards).items()})
    for i, options in enumerate(
        [{"format": "mds", "shard_size": 2000}, {"format": "imagefolder", "source": photos}]
    ):
        targets = [tmp_path / f"{kind}{i}" for kind in ("local", "remote")]
        for path, target in zip((shards, "s3://bucket/a"), targets, strict=True):
            batchify.export(path, target, workers=1, **options)  # type: ignore[arg-type]
        assert tree(targets[0]) == tree(targets[1])
