"""Large ranges of S3 objects, which plain connections copy as far as they can."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from helpers.s3server import S3Server

from batchify.common import durable
from batchify.errors import OutputIOError, RemoteError
from batchify.storage import direct, remote_file, remote_store
from batchify.storage.remote_file import RemoteFile

PART = 10_000
DATA = bytes(range(256)) * 400
URL = "s3://bucket/folder/ä %20.h5"


@pytest.fixture
def path(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Upload eleven parts; return where they are copied to."""
    monkeypatch.setattr(remote_file, "DIRECT_NBYTES", 0)
    monkeypatch.setattr(remote_file, "PART_NBYTES", PART)
    monkeypatch.setattr(remote_store, "_FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(direct, "_PIECE_NBYTES", 3_000)
    direct._refusing.clear()
    s3.put("bucket", {"folder/ä %20.h5": DATA})
    (tmp_path / "copy").touch()
    return tmp_path / "copy"


def copied(path: Path) -> bool:
    """Copy the object; return whether the copy is right."""
    path.write_bytes(bytes(len(DATA)))
    RemoteFile(URL, len(DATA)).copy([(0, 70_000), (70_000, len(DATA) - 70_000)], os.fsencode(path))
    return path.read_bytes() == DATA


def is_direct(request: dict[str, Any]) -> bool:
    """Return whether a request is one that is signed in its URL, by the current version."""
    return "X-Amz-Signature=" in request["QUERY_STRING"]


def test_all_parts_come_over_plain_connections(s3: S3Server, path: Path) -> None:
    """Each part once; the name is quoted."""
    kinds: list[bool] = []
    s3.fault = lambda request: kinds.append(is_direct(request))
    assert copied(path)
    assert kinds == [True] * 11
    assert set(s3.sent.values()) == {len(DATA)}


@pytest.mark.parametrize("status", [0, 403, 404, 503])
def test_what_fails_is_left_to_s3fs(s3: S3Server, path: Path, status: int) -> None:
    """The copy is right; a store that refuses such requests is not asked for another."""
    asked: list[int] = []

    def fault(request: dict[str, Any]) -> int | None:
        if not is_direct(request):
            return None
        asked.append(status)
        return status if len(asked) > 2 else None

    s3.fault = fault
    assert copied(path)
    assert 2 < len(asked) <= 2 + direct.THREADS
    count = len(asked)
    assert copied(path)
    assert (len(asked) == count) == (status == 403)


def test_only_what_is_missing_is_asked_for_again(s3: S3Server, path: Path) -> None:
    """A body that breaks off is continued where it ended."""
    bodies = [0]

    def spoil(_: str, body: bytes) -> bytes:
        bodies[0] += 1
        return body[:7_000] if bodies[0] <= 2 else body

    s3.spoil = spoil
    assert copied(path)
    assert set(s3.sent.values()) == {len(DATA)}


def test_requests_with_options_are_left_to_s3fs(
    s3: S3Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the requester pays, objects have keys, a proxy is used, or TLS is not verified."""
    file = RemoteFile(URL, len(DATA))
    store = file._store
    for name in ("req_kw", "s3_additional_kwargs"):
        with monkeypatch.context() as patch:
            patch.setattr(store.fs, name, {"RequestPayer": "requester"})
            assert direct._address_of(store, 5) is None
    assert direct._address_of(store, 5) is not None
    with monkeypatch.context() as patch:
        patch.setenv("http_proxy", "http://proxy.invalid:3128")
        patch.setenv("no_proxy", "")
        assert direct._address_of(store, 5) is None
        patch.setenv("no_proxy", "127.0.0.1")
        assert direct._address_of(store, 5) is not None


def test_errors_show_no_signature(
    s3: S3Server, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signature is enough to read the object."""
    monkeypatch.setattr(remote_store, "PATIENCE_S", 0.5)
    caplog.set_level(logging.DEBUG, "urllib3")
    s3.fault = lambda request: 503 if "GET" in request["REQUEST_METHOD"] else None
    with pytest.raises(RemoteError) as caught:
        copied(path)
    assert "Signature" not in str(caught.value) + caplog.text


def test_a_full_disk_is_an_error(s3: S3Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the file."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "pwrite_all", full)
    with pytest.raises(OutputIOError, match=f"{path}.*No space left"):
        copied(path)
