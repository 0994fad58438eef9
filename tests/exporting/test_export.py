"""`batchify export`: what is read back is what the file has, in every format."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.exported import MARKER, SUFFIXES, assert_rows, read_back, read_tars, stored_rows, tree
from helpers.packing import members, pack
from helpers.running import Run
from helpers.s3server import S3Server
from helpers.tabled import listed, write_table
from PIL import Image
from pyarrow import parquet

import batchify
from batchify.choices import EXPORT_FORMATS, ExportFormat
from batchify.exporting.request import Request

SIZE = ("--target-size", "12x10")


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
            assert tree(targets[0]) == tree(targets[1])


@pytest.mark.workers
def test_workers_and_a_kill_change_no_byte(photos: Path, tmp_path: Path, long: bool) -> None:
    """A killed export has no target; the next run keeps its shards, unless they are damaged."""
    out = tmp_path / "out.h5"
    batchify.build(photos, out, target_size=(12, 10))
    options: dict[str, Any] = {"format": "webdataset", "shard_size": "1kB"}
    batchify.export(out, tmp_path / "whole", workers=2 if long else 1, **options)
    code = (
        "import batchify, os\n"
        "def step(state):\n"
        "    if state.done > 6: os._exit(9)\n"
        f"batchify.export('out.h5', 'killed', workers=1, progress=step, **{options!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == 9
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
        features = json.loads((made["tfrecord"] / "features.json").read_text())
        found = {
            name: each["pythonClassName"].rpartition(".")[2]
            for name, each in features["featuresDict"]["features"].items()
        }
        assert found == {
            "image": "Image", "image/filename": "Text", "weight": "Scalar", "site": "Text",
            "path_": "Scalar", "label": "Image" if kind == "mask" else "Tensor",
        }  # fmt: skip
        info = json.loads((made["tfrecord"] / "dataset_info.json").read_text())
        lengths = {each["name"]: each["shardLengths"] for each in info["splits"]}
        assert lengths == {"train": ["7"], "validation": ["1"]}
        if kind == "mask":
            masks = [more["mask.png"] for _, more in read_tars(made["webdataset"], "train")]
            for files in (masks, [row["label"]["bytes"] for row in table_rows]):
                drawn = [np.asarray(Image.open(io.BytesIO(each))) for each in files]
                np.testing.assert_array_equal(drawn, labels)
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
    pack(tmp_path / "photos.zip", members(tmp_path / "photos"))
    run("export", "out.h5", "out.npz", "--format", "npz")
    assert run("export", "out.h5", "done", "--format", "mds").returncode == 0
    folder = ("--format", "imagefolder")
    for code, text, arguments in [
        (1, "pass --overwrite to replace it", ("out.h5", "done", "--format", "parquet")),
        (1, "no export of batchify", ("out.h5", "other", *folder, "--overwrite")),
        (1, "is not a folder", ("out.h5", "out.h5", *folder, "--overwrite")),
        (1, "is not a regular file", ("out.h5", "folder.npz", "--format", "npz")),
        (2, "must end with .npz", ("out.h5", "out.h5", "--format", "npz", "--overwrite")),
        (1, "taken.partial is there, and no export", ("out.h5", "taken", *folder)),
        (1, "there is no folder", ("out.h5", "none/x", *folder)),
        (1, "there is no file", ("none.h5", "x", *folder)),
        (2, "use --format npz", ("float.h5", "x", *folder)),
        (2, "JPEG has no alpha", ("rgba.h5", "x", *folder, "--image-format", "jpeg")),
        (2, "written as they are", ("encoded.h5", "x", *folder, "--image-format", "png")),
        (2, "--shard-size is not for", ("out.h5", "x", *folder, "--shard-size", "1GB")),
        (2, "not a size", ("out.h5", "x", "--format", "mds", "--shard-size", "big")),
        (2, "requires --format imagefolder",
         ("out.h5", "x", "--format", "mds", "--source", "photos")),
        (2, "--link hard requires --source", ("out.h5", "x", *folder, "--link", "hard")),
        (2, "--link hard is for --format imagefolder",
         ("photos", "x", "--format", "mds", "--link", "hard")),
        (2, "photos.zip is not a folder of image files on this machine; remove --link",
         ("photos.zip", "x", *folder, "--link", "hard")),
        (2, "out.npz is not a folder", ("out.npz", "x", *folder, "--link", "symbolic")),
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
    elif name == "tfrecord":
        info = json.loads((target / "dataset_info.json").read_text())
        assert [each["name"] for each in info["splits"]] == ["train", "test"]
        assert (target / "label.labels.txt").read_text() == "cat\ndog\n"
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


def test_a_changed_export_is_out_of_date(photos: Path, tmp_path: Path) -> None:
    """A file of it was changed, even to one of the same size, removed or added."""
    out, target = tmp_path / "out.h5", tmp_path / "tars"
    batchify.build(photos, out, target_size=(12, 10))
    options: dict[str, Any] = {"format": "webdataset", "workers": 1}
    batchify.export(out, target, **options)
    shard = target / "train-00000.tar"
    data = shard.read_bytes()
    later = (target / MARKER).stat().st_mtime_ns + 10_000_000
    for change in ("changed", "removed"):
        if change == "changed":
            shard.write_bytes(data[:-1] + b"x")
            os.utime(shard, ns=(later, later))
        else:
            shard.unlink()
        with pytest.raises(batchify.OutputExistsError, match="pass --overwrite"):
            batchify.export(out, target, **options)
        batchify.export(out, target, overwrite=True, **options)
        assert shard.read_bytes() == data
        assert batchify.export(out, target, **options).up_to_date
    (target / ".DS_Store").write_bytes(b"a file manager looked at it")
    assert batchify.export(out, target, **options).up_to_date
    for i in range(4):
        save(target / "more" / f"{i}.txt", b"mine")
    for overwrite in (False, True):
        text = "tars has 4 files in it that .* did not make: more/0.txt, .*/2.txt and 1 more; move"
        with pytest.raises(batchify.OutputExistsError, match=text):
            batchify.export(out, target, overwrite=overwrite, **options)
    assert len(list((target / "more").iterdir())) == 4
    shutil.rmtree(target / "more")
    assert batchify.export(out, target, **options).up_to_date


def leftovers(tmp_path: Path, name: str, options: dict[str, Any]) -> Callable[[], bool]:
    """Give a file of the user a name that exports use; return whether it is as it was."""
    path = tmp_path / name
    if name == "x.replaced":  # even if it is an export
        batchify.export(tmp_path / "out.h5", path, **options)
        batchify.export(tmp_path / "out.h5", tmp_path / "x", format="mds", workers=1)
    elif name == "x.partial":
        path.mkdir()
        (path / "file").write_bytes(b"mine")
    else:
        path.write_bytes(b"mine\n")
    was = _content(path)
    return lambda: bool(_content(path) == was)


def _content(path: Path) -> Any:
    return tree(path) if path.is_dir() else path.read_bytes()


@pytest.mark.parametrize("name", ["x.partial", "x.partial.journal", "x.partial.h5", "x.replaced"])
def test_files_of_a_user_are_never_removed(photos: Path, tmp_path: Path, name: str) -> None:
    """Whatever they are called: only what the journal of an export claims is one's own."""
    batchify.build(photos, tmp_path / "out.h5", target_size=(12, 10))
    options: dict[str, Any] = {"format": "webdataset", "workers": 1}
    is_kept = leftovers(tmp_path, name, options)
    paths = [photos] if name == "x.partial.h5" else [photos, tmp_path / "out.h5"]
    for path in paths:
        with pytest.raises(batchify.OutputExistsError, match=f"{name} is there, and no export"):
            batchify.export(path, tmp_path / "x", overwrite=True, **options)
        assert is_kept()
    batchify.export(photos, tmp_path / "y", **options)
    (tmp_path / "y.partial.h5").write_bytes(b"mine")
    (tmp_path / "y.replaced").write_bytes(b"mine")
    assert batchify.export(photos, tmp_path / "y", **options).up_to_date
    assert {each.name for each in tmp_path.glob("y*")} == {"y", "y.partial.h5", "y.replaced"}


def test_the_journal_of_a_build_is_none_of_an_export(photos: Path, tmp_path: Path) -> None:
    """An unfinished build of this name is not discarded."""

    def stop(state: batchify.Progress) -> None:
        if state.stage == "seal":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batchify.build(photos, tmp_path / "x", target_size=(12, 10), progress=stop)
    batchify.build(photos, tmp_path / "out.h5", target_size=(12, 10))
    with pytest.raises(batchify.OutputExistsError, match=r"x\.partial\.journal is there"):
        batchify.export(tmp_path / "out.h5", tmp_path / "x", format="mds", workers=1)
    assert batchify.build(photos, tmp_path / "x", target_size=(12, 10)).kept == 15


def test_an_export_is_the_same_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it is resumed: a dataset on this machine has one path, and a URL is none."""

    def found(source: str) -> str:
        return Request("out.h5", "imagefolder", None, source, "copy", None).identity("content")

    absolute, url = (found(each) for each in (str(tmp_path / "photos"), "s3://bucket/photos"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert (found("../photos"), found("s3://bucket/photos")) == (absolute, url)


def test_an_export_in_a_folder_that_cannot_be_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is up to date, or an error says that it cannot be replaced."""
    out, target = tmp_path / "out.h5", tmp_path / "tars"
    batchify.build(photos, out, target_size=(12, 10))
    options: dict[str, Any] = {"format": "webdataset", "workers": 1}
    batchify.export(out, target, **options)
    batchify.export(photos, tmp_path / "linked", format="imagefolder", link="hard", workers=1)
    monkeypatch.setattr("os.access", lambda *_: False)
    before = sorted(tmp_path.iterdir())
    assert batchify.export(out, target, **options).up_to_date
    found = batchify.export(photos, tmp_path / "linked", format="imagefolder", link="hard")
    assert found.up_to_date
    for path in (out, photos):
        with pytest.raises(batchify.OutputIOError, match="tars: no permission to write in"):
            batchify.export(path, target, format="mds", overwrite=True, workers=1)
    with pytest.raises(batchify.OutputIOError, match="no permission to write in"):
        batchify.export(out, tmp_path / "new", **options)
    assert sorted(tmp_path.iterdir()) == before


def test_an_earlier_export_that_cannot_be_removed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one is complete all the same; the error says what is left to do."""
    batchify.build(photos, tmp_path / "out.h5", target_size=(12, 10))
    batchify.export(tmp_path / "out.h5", tmp_path / "x", format="mds", workers=1)
    options: dict[str, Any] = {"format": "webdataset", "workers": 1, "overwrite": True}
    text = r"the export is complete, .* remove .*x\.replaced"
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", _denied)
        with pytest.raises(batchify.OutputIOError, match=text):
            batchify.export(tmp_path / "out.h5", tmp_path / "x", **options)
    assert (tmp_path / "x" / "train-00000.tar").exists()
    assert batchify.export(tmp_path / "out.h5", tmp_path / "x", **options).up_to_date
    assert {each.name for each in tmp_path.glob("x*")} == {"x"}


def _denied(*_: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
