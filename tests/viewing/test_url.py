"""The page of a URL: rows come by ranges, and the whole file is never fetched."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from helpers.drawing import draw_dataset
from helpers.s3server import S3Server, first
from helpers.viewing import Client, served

import batchify
from batchify.loading.remote import files


@pytest.mark.parametrize("options", [{}, {"store": "encoded"}], ids=["decoded", "encoded"])
def test_a_url_is_shown_as_the_local_file(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """A file and a folder of shards, whose temporary copies are gone at the end."""
    monkeypatch.setattr(files, "HEAD_NBYTES", 20_000)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    root = draw_dataset(tmp_path / "d", {"cat": 6, "dog": 6})
    batchify.build(root, tmp_path / "out.h5", target_size=(48, 64), **options)
    batchify.build_shards(root, tmp_path / "s", shards=2, target_size=(48, 64), **options)
    s3.put_folder("bucket", "shards", tmp_path / "s")
    s3.put("bucket", {"out.h5": (tmp_path / "out.h5").read_bytes()})
    with served(tmp_path / "out.h5") as local:
        wanted = [each(Client(local)) for each in (_rows, _pictures)]
    for url in ("s3://bucket/out.h5", "s3://bucket/shards"):
        with served(url) as found:
            assert [each(Client(found)) for each in (_rows, _pictures)] == wanted
            (copies,) = (tmp_path / "temporary").iterdir()
            assert all(copies.iterdir())
    assert not list((tmp_path / "temporary").iterdir())


def test_a_store_that_fails_is_not_a_damaged_image(s3: S3Server, tmp_path: Path) -> None:
    """The page says what is wrong, and the next request may find the image."""
    root = draw_dataset(tmp_path / "d", {"cat": 6, "dog": 6})
    batchify.build(root, tmp_path / "out.h5", target_size=(48, 64), store="encoded")
    s3.put("bucket", {"out.h5": (tmp_path / "out.h5").read_bytes()})
    with served("s3://bucket/out.h5") as found:
        client = Client(found)
        s3.fault = first(2, 403)
        for path in ("/picture/0", "/thumbnail/0"):
            status, data, headers = client.ask(path)
            assert status == 422
            assert b"damaged" not in data
            assert headers["Cache-Control"] == "no-store"
        assert client.ask("/picture/0")[0] == 200


def _rows(client: Client) -> list[Any]:
    return [client.json(f"/row/{number}") for number in (0, 11)]


def _pictures(client: Client) -> list[bytes]:
    paths = [f"/{kind}/{number}" for kind in ("thumbnail", "picture") for number in range(12)]
    return [client.ask(path)[1] for path in paths]
