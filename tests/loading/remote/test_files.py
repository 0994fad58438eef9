"""Files of a URL: found, read by ranges, fetched and compared with their checksums."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.s3server import S3Server, first

import batchify
from batchify.errors import FileAccessError, FileFormatError, FileMissingError, RemoteError
from batchify.format.reader import Reader
from batchify.loading.remote import files
from batchify.loading.remote.files import fetch_head, fetch_whole, find_files
from batchify.storage import remote_store
from batchify.storage.remote_file import RemoteFile

KINDS: dict[str, dict[str, Any]] = {
    "none": {}, "gzip": {"compression": "gzip"}, "encoded": {"store": "encoded"},
}  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait briefly for a store."""
    monkeypatch.setattr(remote_store, "PATIENCE_S", 0.5)
    monkeypatch.setattr(remote_store, "_FIRST_WAIT_S", 0.05)


@pytest.fixture
def built(s3: S3Server, tmp_path: Path) -> Path:
    """Build a file of 30 rows, and upload it."""
    photos = draw_dataset(tmp_path / "photos", {"cat": 10, "dog": 20})
    batchify.build(photos, tmp_path / "out.h5", target_size=(24, 24))
    s3.put("bucket", {"out.h5": (tmp_path / "out.h5").read_bytes()})
    return tmp_path / "out.h5"


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_has_all_but_the_images(
    s3: S3Server, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In few requests, however the images are stored, and none of its bytes comes twice."""
    monkeypatch.setattr(files, "HEAD_NBYTES", 80_000)
    photos = draw_dataset(tmp_path / "photos", {"cat": 40, "dog": 80})
    made, head, whole = (tmp_path / name for name in ("out.h5", "head.h5", "whole.h5"))
    batchify.build(photos, made, target_size=(64, 64), **KINDS[kind])
    s3.put("bucket", {"out.h5": made.read_bytes()})
    file = RemoteFile("s3://bucket/out.h5")
    fetch_head(file, os.fsencode(head))
    most = 170_000 if kind != "gzip" else made.stat().st_size  # HDF5 puts an index in between
    assert s3.sent["/bucket/out.h5"] <= most
    assert len(s3.requests) <= 5
    with Reader(head) as found, Reader(made) as expected:
        for split, columns in expected.splits.items():
            for name in set(columns) - {"images", "encoded"}:
                np.testing.assert_array_equal(
                    found.column(split, name), expected.column(split, name)
                )
    s3.sent.clear()
    fetch_whole(pickle.loads(pickle.dumps(file)), os.fsencode(whole))
    assert whole.read_bytes() == made.read_bytes()
    assert s3.sent["/bucket/out.h5"] == made.stat().st_size


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fetch", [fetch_whole, fetch_head])
def test_what_arrives_damaged_is_fetched_again(
    s3: S3Server, built: Path, tmp_path: Path, fetch: Any
) -> None:
    """A body that breaks off, wrong bytes, 500, 503, a broken connection; then it is right."""
    data = built.read_bytes()
    with h5py.File(built) as found:
        offset = found["train/source_sha256"].id.get_chunk_info(0).byte_offset
    wrong = data[: offset + 5] + bytes([data[offset + 5] ^ 1]) + data[offset + 6 :]
    for spoilt in (data[:-100], wrong):
        left = [spoilt]
        s3.spoil = lambda _, body, left=left: left.pop() if left and body == data else body
        fetch(RemoteFile("s3://bucket/out.h5"), os.fsencode(tmp_path / "copy.h5"))
        assert not left
        assert (tmp_path / "copy.h5").read_bytes() == data
    s3.spoil = None
    for status in (500, 503, 0):
        s3.fault = first(2, status)
        fetch(RemoteFile("s3://bucket/out.h5"), os.fsencode(tmp_path / "copy.h5"))
        assert (tmp_path / "copy.h5").read_bytes() == data


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_fetched_is_named(s3: S3Server, built: Path, tmp_path: Path) -> None:
    """Wrong bytes twice, another file than the index lists, none, no access, no answer."""
    copy = os.fsencode(tmp_path / "copy.h5")
    url = "s3://bucket/out.h5"
    with pytest.raises(FileFormatError, match=rf"^{url} is damaged: it is not the file that the"):
        fetch_whole(RemoteFile(url), copy, "00" * 32)
    data = bytearray(built.read_bytes())
    with h5py.File(built) as found:
        data[found["train/images"].id.get_chunk_info(0).byte_offset + 5] ^= 1
    s3.put("bucket", {"bad.h5": bytes(data)})
    with pytest.raises(
        FileFormatError, match=r"bad.h5 is damaged: row 0 of train: checksum .* \(downloaded twice"
    ):
        fetch_whole(RemoteFile("s3://bucket/bad.h5"), copy)
    with pytest.raises(FileFormatError, match=f"^{url} ends early"):
        RemoteFile(url).read([(len(data) - 10, 20)])
    with pytest.raises(FileMissingError, match=r"^there is no file s3://bucket/none\.h5$"):
        fetch_whole(RemoteFile("s3://bucket/none.h5"), copy)
    s3.fault = lambda _: 403
    with pytest.raises(FileAccessError, match=f"^{url} cannot be read: "):
        fetch_whole(RemoteFile(url), copy)
    s3.fault = lambda _: 503
    started = time.monotonic()
    with pytest.raises(RemoteError, match=f"^{url} cannot be reached: "):
        RemoteFile(url, 10).read([(0, 10)])
    assert time.monotonic() - started > 0.3


def test_the_files_of_a_url_are_found(s3: S3Server, built: Path, tmp_path: Path) -> None:
    """Those of the shard index, the file itself, or the files in a folder."""
    batchify.build_shards(tmp_path / "photos", "s3://bucket/shards", shards=2, target_size=(24, 24))
    index, files = find_files("s3://bucket/shards/")
    assert index is not None
    assert index.rows == {"train": 24, "validation": 6}
    assert [file.url.rpartition("/")[2] for file in files] == [each.name for each in index.files]
    assert [file.url for file in find_files("s3://bucket/out.h5")[1]] == ["s3://bucket/out.h5"]
    s3.put("bucket", {"some/b.H5": b"", "some/a.hdf5": b"", "some/c.txt": b""})
    found = [file.url for file in find_files("s3://bucket/some")[1]]
    assert found == ["s3://bucket/some/a.hdf5", "s3://bucket/some/b.H5"]
    with pytest.raises(FileMissingError, match="there is no s3://bucket/other"):
        find_files("s3://bucket/other")
    s3.put("bucket", {"half/train-00000-of-00002.h5": b""})
    with pytest.raises(FileMissingError, match=r"has shards without manifest\.json: run"):
        find_files("s3://bucket/half")
    s3.put("bucket", {"text/a.txt": b""})
    with pytest.raises(FileMissingError, match="is no folder of shards"):
        find_files("s3://bucket/text")
