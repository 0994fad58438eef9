"""Shards in a remote store: uploaded one by one, listed last; made here or by a cluster."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.running import Run
from helpers.s3server import S3Server

import batchify
from batchify.errors import OutputExistsError, OutputIOError, OutputLockedError, OutputPathError
from batchify.sharding import build
from batchify.sharding.folder import RemoteShards
from batchify.storage.remote_store import Store

URL = "s3://bucket/shards"
OPTIONS = batchify.BuildOptions(decode=batchify.DecodeOptions((12, 10)))


def contents(url: str) -> dict[str, bytes]:
    """Return all files of a prefix."""
    store = Store(url)
    paths = store.call("find", store.root)
    return {path.rpartition("/")[2]: store.call("cat_file", path) for path in paths}


@pytest.fixture
def own(s3: S3Server, photos: Path, tmp_path: Path) -> dict[str, bytes]:
    """Build the shards in a folder of this machine; put the dataset into the store."""
    s3.put_folder("bucket", "photos", photos)
    batchify.build_shards(photos, tmp_path / "own", OPTIONS, shards=2)
    return {path.name: path.read_bytes() for path in (tmp_path / "own").iterdir()}


@pytest.mark.parametrize("dataset", ["photos", "s3://bucket/photos"])
def test_shards_in_a_store_are_those_of_a_folder(
    own: dict[str, bytes], tmp_path: Path, dataset: str
) -> None:
    """Wherever the dataset is; a second build finds all of them standing, and uploads nothing."""
    source = dataset if "://" in dataset else str(tmp_path / dataset)
    for stood in (0, 4):
        report = batchify.build_shards(source, URL, OPTIONS, shards=2, work_dir=tmp_path / "work")
        assert (report.shards_kept, report.path) == (stood, URL)
        assert contents(URL) == own
        assert os.listdir(tmp_path / "work") == []
    assert not batchify.find_shard_changes(source, URL, OPTIONS, shards=2).is_due


def test_a_shard_that_is_lost_or_damaged_is_built_again(
    own: dict[str, bytes], s3: S3Server, photos: Path, tmp_path: Path
) -> None:
    """The others stay; those of another build are replaced with --overwrite alone."""
    batchify.build_shards(photos, URL, OPTIONS, shards=2, work_dir=tmp_path / "work")
    name = "train-00001-of-00002.h5"
    s3.put("bucket", {f"shards/{name}": own[name][:-999]})
    RemoteShards(URL, tmp_path / "work").remove(b"validation-00000-of-00002.h5")
    changes = batchify.find_shard_changes(photos, URL, OPTIONS, shards=2)
    assert changes.lines()[0].startswith("2 shards damaged or missing: train-00001")
    report = batchify.build_shards(photos, URL, OPTIONS, shards=2, work_dir=tmp_path / "work")
    assert report.shards_kept == 2
    assert contents(URL) == own
    with pytest.raises(OutputExistsError, match="pass --overwrite"):
        batchify.build_shards(photos, URL, OPTIONS, shards=1, work_dir=tmp_path / "work")
    assert contents(URL) == own
    batchify.build_shards(
        photos, URL, OPTIONS, shards=1, overwrite=True, work_dir=tmp_path / "work"
    )
    assert sorted(contents(URL)) == [
        "manifest.json", "train-00000-of-00001.h5", "validation-00000-of-00001.h5",
    ]  # fmt: skip


def test_a_build_that_is_stopped_goes_on(
    own: dict[str, bytes], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is uploaded stays; there is no manifest before all of it is there."""
    real, count = build.__dict__["build_shard"], iter(range(4))

    def stopped(*arguments: object, **options: object) -> object:
        if next(count) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(build, "build_shard", stopped)
        with pytest.raises(KeyboardInterrupt):
            batchify.build_shards(photos, URL, OPTIONS, shards=2, work_dir=tmp_path / "work")
    assert sorted(contents(URL)) == ["train-00000-of-00002.h5", "train-00001-of-00002.h5"]
    report = batchify.build_shards(photos, URL, OPTIONS, shards=2, work_dir=tmp_path / "work")
    assert report.shards_kept == 2
    assert contents(URL) == own


def test_places_that_cannot_be_are_refused(own: dict[str, bytes], tmp_path: Path) -> None:
    """Before any work: no such bucket, in the dataset, held by another build of this machine."""
    with pytest.raises(OutputIOError, match="cannot be written"):
        batchify.build_shards(
            tmp_path / "photos", "s3://none/shards", OPTIONS, shards=2, work_dir=tmp_path / "work"
        )
    with pytest.raises(OutputPathError, match="inside the dataset"):
        batchify.build_shards("s3://bucket/photos", "s3://bucket/photos/out", OPTIONS, shards=2)
    with (
        RemoteShards(URL, tmp_path / "work").claim(),
        pytest.raises(OutputLockedError, match="another build"),
    ):
        batchify.build_shards(
            tmp_path / "photos", URL, OPTIONS, shards=2, work_dir=tmp_path / "work"
        )


def test_a_cluster_builds_from_a_store_into_a_store(
    own: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    """Its workers share nothing but the store."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as local:
        done = run(
            "build", "s3://bucket/photos", URL, "--shards", "2", "--target-size", "12x10",
            "--scheduler", local.scheduler_address, XDG_CACHE_HOME=str(tmp_path / "cache"),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{URL}, 4 shards: 12 train + 3 validation images" in done.stdout
    assert contents(URL) == own
