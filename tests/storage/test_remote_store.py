"""The store of a URL: what is asked again while it does not answer, and what is refused at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from helpers.s3server import S3Server, first
from s3fs import S3FileSystem

import batchify
from batchify.errors import OptionError, RemoteError
from batchify.storage import remote_store
from batchify.storage.remote_store import Store


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait briefly for a store, and do not let the library repeat requests."""
    monkeypatch.setattr(remote_store, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(S3FileSystem, "retries", 1)


@pytest.mark.usefixtures("s3", "quick")
def test_what_cannot_be_sent_is_refused_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password in the URL of a bucket, a name that no bucket has, and no credentials."""
    started = time.monotonic()
    for read in (batchify.open, batchify.check, lambda url: batchify.build(url, tmp_path / "x.h5")):
        with pytest.raises(OptionError, match=r"^s3://bucket/\S+: the URL of a bucket has no user"):
            read("s3://me:s3cret@bucket/x.h5")
        with pytest.raises(RemoteError, match=r"cannot be reached: .*Invalid bucket name"):
            read("s3://Bad_Bucket!/x.h5")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(RemoteError, match=r"cannot be reached: Unable to locate credentials"):
        batchify.open("s3://bucket/x.h5")
    S3FileSystem.clear_instance_cache()
    store = Store("s3://bucket/x.h5")
    with pytest.raises(RemoteError, match=r"cannot be reached: Unable to locate credentials"):
        store.retry(lambda: store.fs.put_file(__file__, store.root))  # a transfer
    S3FileSystem.clear_instance_cache()
    assert time.monotonic() - started < 20


@pytest.mark.usefixtures("quick")
def test_every_request_is_repeated_for_as_long(s3: S3Server) -> None:
    """More often than three times, also for lists and what is no file."""
    s3.put("bucket", {"a/x.h5": b"12345"})
    for part in ("/bucket", "/bucket/a/x.h5"):
        for status in (0, 500, 503):
            s3.fault = first(6, status, method="HEAD" if part.endswith("h5") else "GET", part=part)
            if part.endswith("h5"):
                assert Store("s3://bucket/a/x.h5").file_size("bucket/a/x.h5") == 5
            else:
                assert len(Store("s3://bucket/a").call("ls", "bucket/a", detail=True)) == 1
