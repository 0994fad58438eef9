"""`batchify export OUT s3://bucket/prefix`: a real server on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.exported import MARKER, tree
from helpers.running import Run
from helpers.s3server import S3Server

import batchify
from batchify.choices import EXPORT_FORMATS
from batchify.exporting.remote_target import _OF_EXPORTS

SIZE = (12, 10)
PARTIAL = ".batchify-export.partial"


def objects(s3: S3Server, prefix: str) -> dict[str, bytes]:
    """Return the objects below a prefix, without markers."""
    keys = [key for key in s3.backend.buckets["bucket"].keys if key.startswith(f"{prefix}/")]
    names = {key.removeprefix(f"{prefix}/"): s3.get("bucket", key) or b"" for key in keys}
    return {name: data for name, data in names.items() if name not in (MARKER, PARTIAL)}


def here(tmp_path: Path) -> list[Path]:
    """Return the files in the cache folder of this user."""
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


COMMON = ("webdataset", "imagefolder", "npz")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in COMMON else pytest.mark.long)
        for name in EXPORT_FORMATS
    ],
)
def test_a_bucket_has_the_files_of_a_folder(
    s3: S3Server, photos: Path, tmp_path: Path, name: Any
) -> None:
    """In every format; nothing is left on this machine, and nothing is done again."""
    out, local = tmp_path / "out.h5", tmp_path / "x.npz"
    batchify.build(photos, out, target_size=SIZE)
    size = {} if name in ("npz", "imagefolder") else {"shard_size": "1kB"}
    batchify.export(out, local, format=name, workers=1, **size)  # type: ignore[arg-type]
    url = "s3://bucket/a/x.npz"
    found = batchify.export(out, url, format=name, workers=1, **size)  # type: ignore[arg-type]
    assert found.path == url
    if name == "npz":
        assert s3.get("bucket", "a/x.npz") == local.read_bytes()
        with pytest.raises(batchify.OutputExistsError, match="pass --overwrite"):
            batchify.export(out, url, format=name)
        batchify.export(out, url, format=name, overwrite=True)
    else:
        assert objects(s3, "a/x.npz") == tree(local)
        assert all(_OF_EXPORTS.fullmatch(each.encode()) for each in tree(local))
        assert s3.get("bucket", f"a/x.npz/{MARKER}")
        assert s3.get("bucket", f"a/x.npz/{PARTIAL}") is None
        assert batchify.export(out, url, format=name, workers=1, **size).up_to_date  # type: ignore[arg-type]
    assert not here(tmp_path)


def test_what_is_there_is_not_lost(s3: S3Server, photos: Path, tmp_path: Path, run: Run) -> None:
    """A changed or removed object is noticed; other objects are never replaced."""
    run("build", "photos", "out.h5", "--target-size", "12x10")
    mds = ("export", "out.h5", "s3://bucket/x", "--format", "mds", "--workers", "1")
    assert run(*mds, "--shard-size", "1kB").returncode == 0
    many = objects(s3, "x")
    done = run(*mds)
    assert (done.returncode, "pass --overwrite to replace it" in done.stderr) == (1, True)
    assert run(*mds, "--overwrite").returncode == 0
    few = objects(s3, "x")
    assert set(few) < set(many)
    assert "is up to date" in run(*mds).stdout
    shard = "x/train/shard.00000.mds"
    data = few["train/shard.00000.mds"]
    s3.put("bucket", {shard: data[:-1] + bytes([data[-1] ^ 1])})
    assert run(*mds).returncode == 1
    s3.backend.delete_object("bucket", shard)
    assert run(*mds).returncode == 1
    assert run(*mds, "--overwrite").returncode == 0
    assert objects(s3, "x") == few
    s3.put("bucket", {"y/mine": b"mine", "x/train/mine": b"mine"})
    done = run(*mds, "--overwrite")
    assert (done.returncode, "did not make: train/mine; move" in done.stderr) == (1, True)
    assert s3.get("bucket", "x/train/mine") == b"mine"
    for text, arguments in {
        "no export of batchify": ("s3://bucket/y", "--format", "mds", "--overwrite"),
        "no such bucket": ("s3://nowhere/y", "--format", "mds"),
        "can only be read": ("http://127.0.0.1:1/y", "--format", "mds"),
        "name a file in it": ("s3://x.npz", "--format", "npz"),
    }.items():
        done = run("export", "out.h5", *arguments, "--workers", "1")
        assert done.returncode, done.stdout
        assert text in done.stderr
    links = ("--format", "imagefolder", "--source", "photos", "--link", "hard")
    done = run("export", "out.h5", "s3://bucket/z", *links)
    assert (done.returncode, "a folder of this machine" in done.stderr) == (2, True)
    s3.put_folder("bucket", "photos", photos)
    done = run("export", "s3://bucket/photos", "s3://bucket/photos/x", "--format", "mds")
    assert "inside the dataset folder" in done.stderr
    assert objects(s3, "y") == {"mine": b"mine"}


def test_an_interrupted_one_is_resumed(s3: S3Server, photos: Path, tmp_path: Path) -> None:
    """Finished shards are not uploaded again, unless they are gone; only then the marker is there.

    With another export, those that are not part of it are removed.
    """
    out = tmp_path / "out.h5"
    batchify.build(photos, out, target_size=SIZE)
    options: dict[str, Any] = {"format": "webdataset", "shard_size": "1kB", "workers": 1}
    batchify.export(out, tmp_path / "whole", **options)
    url = "s3://bucket/x"

    def stop(state: batchify.Progress) -> None:
        if state.stage == "export" and state.done > 6:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            batchify.export(out, url, progress=stop, **options)
        assert s3.get("bucket", f"x/{MARKER}") is None
        assert s3.get("bucket", f"x/{PARTIAL}") is not None
        s3.backend.delete_object("bucket", "x/train-00001.tar")
    s3.requests.clear()
    found = batchify.export(out, url, **options)
    assert found.kept == 3
    sent = [path for method, path in s3.requests if method == "PUT"]
    assert "/bucket/x/train-00000.tar" not in sent
    assert "/bucket/x/train-00001.tar" in sent
    assert objects(s3, "x") == tree(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        batchify.export(out, "s3://bucket/y", progress=stop, **options)
    s3.put("bucket", {"y/notes.txt": b"mine"})
    with pytest.raises(batchify.OutputExistsError, match=r"did not make: notes\.txt; move"):
        batchify.export(out, "s3://bucket/y", format="mds", overwrite=True, workers=1)
    assert s3.get("bucket", "y/notes.txt") == b"mine"
    s3.backend.delete_object("bucket", "y/notes.txt")
    batchify.export(out, "s3://bucket/y", format="mds", workers=1)
    assert not [name for name in objects(s3, "y") if name.endswith(".tar")]
    assert not here(tmp_path)


def test_shards_of_another_machine_are_not_resumed(
    s3: S3Server, photos: Path, tmp_path: Path
) -> None:
    """Also if they have the same names and sizes: only the labels differ."""
    classes = (["cat", "dog"], ["dog", "cat"])
    for name, some in zip(("a.h5", "b.h5"), classes, strict=True):
        batchify.build(photos, tmp_path / name, target_size=SIZE, classes=some)
    options: dict[str, Any] = {"format": "tfrecord", "shard_size": "1kB", "workers": 1}
    batchify.export(tmp_path / "a.h5", tmp_path / "whole", **options)

    def stop(state: batchify.Progress) -> None:
        if state.stage == "export" and state.done > 6:
            raise KeyboardInterrupt

    for name in ("a.h5", "b.h5"):
        with pytest.raises(KeyboardInterrupt):
            batchify.export(
                tmp_path / name, "s3://bucket/x", progress=stop, work_dir=tmp_path / f"{name}-work",
                **options,
            )  # fmt: skip
    found = batchify.export(
        tmp_path / "a.h5", "s3://bucket/x", work_dir=tmp_path / "a.h5-work", **options
    )
    assert found.kept == 0
    assert objects(s3, "x") == tree(tmp_path / "whole")


def test_a_store_that_fails(s3: S3Server, photos: Path, tmp_path: Path, run: Run) -> None:
    """An error names the URL and what to do; the next run continues."""
    run("build", "photos", "out.h5", "--target-size", "12x10")
    command = ("export", "out.h5", "s3://bucket/x", "--format", "mds", "--workers", "1")
    s3.fault = lambda request: (
        403 if request["REQUEST_METHOD"] == "PUT" and ".mds" in request["PATH_INFO"] else None
    )
    done = run(*command)
    assert done.returncode == 4
    assert "s3://bucket/x" in done.stderr
    assert "cannot be written" in done.stderr
    s3.fault = None
    assert run(*command).returncode == 0


def test_large_files_and_empty_classes(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts; a class without images in a split has a file that readers ignore."""
    monkeypatch.setattr("batchify.storage.folder_upload._SMALL_NBYTES", 1000)
    photos = draw_dataset(tmp_path / "photos", {"a": 4, "b": 1})
    out = tmp_path / "out.h5"
    batchify.build(photos, out, target_size=(40, 30), dtype="uint8", validation_split=0.3)
    for name in ("webdataset", "imagefolder"):
        form: Any = name
        batchify.export(out, tmp_path / name, format=form, workers=1)
        batchify.export(out, f"s3://bucket/{name}", format=form, workers=1)
        assert objects(s3, name) == tree(tmp_path / name)
    assert [path for path in objects(s3, "imagefolder") if "validation/b" in path] == [
        "validation/b/.batchify-empty"
    ]


def test_a_store_with_folders(tmp_path: Path, photos: Path) -> None:
    """Which are made; fsspec's store in memory is one."""
    import fsspec

    out, memory = tmp_path / "out.h5", fsspec.filesystem("memory")
    batchify.build(photos, out, target_size=SIZE)
    batchify.export(out, tmp_path / "x", format="imagefolder", workers=1)
    url = "memory://here/x"
    batchify.export(out, url, format="imagefolder", workers=1, work_dir=tmp_path / "work")
    found = {path.removeprefix("/here/x/"): memory.cat(path) for path in memory.find("/here/x")}
    assert found.pop(MARKER)
    assert found == tree(tmp_path / "x")
    options: Any = {"format": "imagefolder", "workers": 1, "work_dir": tmp_path / "work"}
    assert batchify.export(out, url, **options).up_to_date
    assert np.all([not path.is_file() for path in (tmp_path / "work").rglob("*")])
    memory.rm("/here", recursive=True)
