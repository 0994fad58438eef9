"""The commands on what is in a bucket: as on a disk of this machine, with few bytes fetched."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import h5py
import pytest
from helpers.drawing import draw_dataset
from helpers.running import Run
from helpers.s3server import S3Server, first
from s3fs import S3FileSystem

import batchify
from batchify.loading.remote import files
from batchify.storage import remote_store

URL = "s3://bucket/shards"
TRAIN = "train-00001-of-00002.h5"
VALIDATION = "validation-00000-of-00002.h5"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build two shards of each split, and a file of them; with copies in both splits."""
    folder = tmp_path_factory.mktemp("built")
    photos = draw_dataset(folder / "photos", {"cat": 10, "dog": 14})
    for number in range(4):
        shutil.copy(photos / "cat/img_000.jpg", photos / f"cat/copy_{number}.jpg")
    (photos / "dog" / "img_003.jpg").write_bytes(b"bad")
    options = batchify.BuildOptions(decode=batchify.DecodeOptions((128, 128)))
    batchify.build_shards(photos, folder / "shards", options, shards=2, on_error="skip", workers=1)
    batchify.merge(folder / "shards", folder / "out.h5")
    return folder


@pytest.fixture
def stored(s3: S3Server, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put them into the bucket, and a copy into the working folder."""
    monkeypatch.setattr(files, "HEAD_NBYTES", 20_000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    shutil.copytree(built / "shards", tmp_path / "shards")
    shutil.copy(built / "out.h5", tmp_path)
    s3.put_folder("bucket", "shards", built / "shards")
    s3.put("bucket", {"out.h5": (built / "out.h5").read_bytes()})
    return tmp_path


def flip(path: Path, column: str) -> None:
    """Change a byte of a column."""
    with h5py.File(path) as file:
        offset = file[path.name.partition("-")[0]][column].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[offset + 3] ^= 1
    path.write_bytes(data)


def renamed(text: str) -> str:
    """Return a text about the URL as one about the local folder."""
    return text.replace(f"{URL}/", "").replace(URL, "shards").replace("s3://bucket/", "")


@pytest.mark.parametrize(
    ("command", "code"),
    [(("inspect",), 0), (("check",), 8), (("verify",), 0), (("verify", "--quick"), 0)],
)
def test_a_command_finds_what_it_finds_here(
    s3: S3Server, stored: Path, run: Run, command: tuple[str, ...], code: int
) -> None:
    """Text, JSON and exit code, for shards, a file and both; only verify fetches the images."""
    del stored
    for names, more in ((["shards"], ()), (["out.h5", "shards"], ("--json",))):
        s3.sent.clear()
        here = run(*command, *names, *more)
        there = run(*command, *(f"s3://bucket/{name}" for name in names), *more)
        assert (there.returncode, there.stderr) == (code, here.stderr)
        assert renamed(there.stdout) == here.stdout
        fetched = sum(nbytes for key, nbytes in s3.sent.items() if key.endswith(".h5"))
        images = 49_152 * 27 * len(names)
        assert fetched > images if command == ("verify",) else 0 < fetched < images * 0.4
    assert os.listdir(tempfile.gettempdir()) == []


def test_what_is_damaged_is_named_by_its_url(s3: S3Server, stored: Path, run: Run) -> None:
    """A flipped pixel, a changed path, a lost shard, another index: the findings of a folder."""
    shards = stored / "shards"
    flip(shards / TRAIN, "images")
    flip(shards / TRAIN.replace("00001-", "00000-"), "paths")
    s3.put_folder("bucket", "shards", shards)
    s3.backend.delete_object("bucket", f"shards/{VALIDATION}")
    (shards / VALIDATION).unlink()
    for quick in ((), ("--quick",)):
        here, there = run("verify", "shards", *quick), run("verify", URL, *quick)
        assert (here.returncode, there.returncode) == (6, 6)
        assert renamed(there.stdout) == here.stdout
        assert f"{URL}/{VALIDATION}: there is no such file" in there.stdout
        assert (f"{URL}/{TRAIN}: checksum mismatch (row_crc32)" in there.stdout) != bool(quick)
    for command in ("inspect", "check"):
        done = run(command, URL)
        assert done.returncode == 1
        assert done.stderr == f"Error: there is no {URL}/{VALIDATION}; run batchify build again\n"
    s3.put("bucket", {"shards/manifest.json": b"{}"})
    assert "is not a valid shard index" in run("verify", URL).stdout


def test_shards_in_a_bucket_are_merged(s3: S3Server, stored: Path, run: Run) -> None:
    """Into the file of a direct build, here or in the bucket; each shard is fetched once."""
    s3.sent.clear()
    done = run("merge", URL, "merged.h5")
    assert (done.returncode, done.stderr) == (0, "")
    assert (stored / "merged.h5").read_bytes() == (stored / "out.h5").read_bytes()
    whole = sum(path.stat().st_size for path in (stored / "shards").glob("*.h5"))
    assert sum(n for key, n in s3.sent.items() if key.endswith(".h5")) < 1.5 * whole
    report = json.loads(run("merge", f"{URL}/", "s3://bucket/merged.h5", "--json").stdout)
    assert report["path"] == "s3://bucket/merged.h5"
    assert s3.get("bucket", "merged.h5") == (stored / "out.h5").read_bytes()
    refused = run("merge", URL, f"{URL}/{TRAIN}", "--overwrite")
    assert "is a shard, or the shard index; name another file" in refused.stderr
    flip(stored / "shards" / TRAIN, "images")
    s3.put_folder("bucket", "shards", stored / "shards")
    failed = run("merge", URL, "again.h5")
    assert failed.returncode == 1
    assert f"Error: {URL}/{TRAIN} is damaged: row " in failed.stderr
    s3.backend.delete_object("bucket", f"shards/{TRAIN}")
    assert run("merge", URL, "again.h5").stderr == (
        f"Error: there is no {URL}/{TRAIN}; run batchify build again\n"
    )
    assert not list(stored.glob("again*"))
    assert os.listdir(tempfile.gettempdir()) == []


@pytest.mark.parametrize(
    "fault", ["gone", pytest.param("503", marks=pytest.mark.long), "in the middle"]
)
def test_a_store_that_stays_away_is_an_error(
    s3: S3Server, stored: Path, run: Run, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Exit code 4 and the URL, without the keys; nothing is left, and then it works."""
    monkeypatch.setattr(remote_store, "PATIENCE_S", 0.3)
    monkeypatch.setattr(remote_store, "_FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")

    def in_the_middle(request: dict[str, Any]) -> int | None:
        return 503 if request["PATH_INFO"].endswith(TRAIN) else None

    faults = {"gone": lambda _: 0, "503": lambda _: 503, "in the middle": in_the_middle}
    for command in (("inspect", URL), ("check", URL), ("verify", URL), ("merge", URL, "new.h5")):
        s3.fault = faults[fault]
        done = run(*command)
        assert done.returncode == 4, done
        assert f"Error: {URL}" in done.stderr
        assert "cannot be reached: " in done.stderr
        assert "geheim" not in done.stderr + done.stdout
        s3.fault = None
    assert not (stored / "new.h5").exists()
    assert run("merge", URL, "new.h5").returncode == 0
    assert os.listdir(tempfile.gettempdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("status", [0, 500, 503])
def test_a_store_that_stumbles_is_waited_for(
    s3: S3Server, stored: Path, run: Run, status: int
) -> None:
    """Some requests fail: what is found is the same."""
    del stored
    for command in ("inspect", "check", "verify"):
        s3.fault = first(2, status)
        assert renamed(run(command, URL).stdout) == run(command, "shards").stdout
    s3.fault = first(2, status)
    assert run("merge", URL, "new.h5").returncode == 0
