"""A file for S3 is built here and uploaded whole; what is there already is treated as a file is."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import h5py
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.running import Run
from helpers.s3server import S3Server, first

import batchify
from batchify.building.build import build
from batchify.building.remote_staging import WorkFolder
from batchify.common.progress import Progress
from batchify.errors import (
    BadImagesError,
    FileMissingError,
    OptionError,
    OutputExistsError,
    OutputIOError,
    OutputPathError,
    RemoteError,
)
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions
from batchify.storage import remote_store, transfer

OUT = "s3://bucket/sets/out.h5"
KEY = "sets/out.h5"
LARGE = BuildOptions(decode=DecodeOptions(target_size=(512, 512)))
"""Rows of 786 kB: 15 of them are three parts of an upload."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try what fails three times at once, and do not wait a minute for a store."""
    monkeypatch.setattr(remote_store, "_FIRST_WAIT_S", remote_store.PATIENCE_S + 1)


@pytest.fixture
def local(photos: Path, tmp_path: Path) -> bytes:
    """Build the photos into a file of this machine."""
    build(photos, tmp_path / "local.h5", workers=1)
    return (tmp_path / "local.h5").read_bytes()


@pytest.fixture
def large(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Build the photos into a file of three parts."""
    monkeypatch.setattr(transfer, "BLOCK_NBYTES", 5 << 20)
    build(photos, tmp_path / "large.h5", LARGE, workers=1)
    return (tmp_path / "large.h5").read_bytes()


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the temporary folder by Python's web server, which knows no ranges."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def work_files(tmp_path: Path) -> list[str]:
    """Return what is left in the work folders."""
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def changing(server: S3Server) -> list[tuple[str, str]]:
    """Return the requests that change something."""
    return [each for each in server.requests if each[0] not in ("GET", "HEAD")]


def test_the_object_is_the_file(s3: S3Server, photos: Path, local: bytes, tmp_path: Path) -> None:
    """Byte for byte; the report names the URL, and nothing is left here."""
    stages = []
    report = build(photos, OUT, workers=1, progress=lambda p: stages.append(p.stage))
    assert s3.get("bucket", KEY) == local
    assert report.path == OUT
    assert report.nbytes == len(local)
    assert report.as_json()["path"] == OUT
    assert not report.up_to_date
    assert stages[-1] == "upload"
    assert list((tmp_path / "cache" / "batchify").iterdir()) == []


def test_an_object_that_is_up_to_date_stays(s3: S3Server, photos: Path, run: Run) -> None:
    """It is fetched and compared, and nothing is uploaded; both ends may be remote."""
    s3.put_folder("bucket", "photos", photos)
    first_run = run("build", "s3://bucket/photos", OUT, "--json")
    assert first_run.returncode == 0, first_run.stderr
    assert json.loads(first_run.stdout)["path"] == OUT
    s3.requests.clear()
    again = run("build", "s3://bucket/photos", OUT)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"{OUT} is up to date: ")
    assert changing(s3) == []


def test_an_object_that_is_not_up_to_date(
    s3: S3Server, photos: Path, local: bytes, tmp_path: Path
) -> None:
    """It is refused without overwrite, and replaced with it, by copying what did not change."""
    build(photos, OUT, workers=1)
    save(photos / "cat" / "new.png", encoded(photo(seed=99), "PNG"))
    with pytest.raises(OutputExistsError, match=f"target {OUT} exists and is not up to date"):
        build(photos, OUT, workers=1)
    with pytest.raises(OutputExistsError, match=f"target {OUT} exists; pass --overwrite"):
        build(photos, OUT, workers=1, restart=True)
    assert s3.get("bucket", KEY) == local
    report = build(photos, OUT, workers=1, overwrite=True)
    assert report.copied == 15
    build(photos, tmp_path / "fresh.h5", workers=1)
    assert s3.get("bucket", KEY) == (tmp_path / "fresh.h5").read_bytes()
    assert build(photos, OUT, workers=1, overwrite=True, restart=True).copied == 0
    assert list((tmp_path / "cache" / "batchify").iterdir()) == []


def test_it_is_never_seen_half(s3: S3Server, photos: Path, large: bytes) -> None:
    """At every request of the upload there is nothing, and then all of it."""
    seen = []

    def look(_: dict[str, Any]) -> None:
        seen.append(s3.get("bucket", KEY))

    s3.fault = look
    build(photos, OUT, LARGE, workers=1)
    assert sum(method == "PUT" for method, _ in s3.requests) == 3
    assert set(seen) == {None, large}


def test_a_failed_upload_is_taken_back_and_made_up_for(
    s3: S3Server, photos: Path, large: bytes, tmp_path: Path
) -> None:
    """Nothing is left in the bucket; the next run decodes nothing."""
    parts = iter(range(1, 100))
    s3.fault = lambda request: (
        500 if request["REQUEST_METHOD"] == "PUT" and next(parts) > 1 else None
    )
    with pytest.raises(RemoteError, match=r"what is built is kept in .*/cache/batchify/") as raised:
        build(photos, OUT, LARGE, workers=1)
    assert raised.value.exit_code == 4
    assert s3.get("bucket", KEY) is None
    assert s3.uploads("bucket") == []
    assert "out.h5" in work_files(tmp_path)
    s3.fault = None
    stages = []
    report = build(photos, OUT, LARGE, workers=1, progress=lambda p: stages.append(p.stage))
    assert "fill" not in stages
    assert report.kept == 15
    assert s3.get("bucket", KEY) == large
    assert work_files(tmp_path) == []


def test_an_upload_is_tried_again(s3: S3Server, photos: Path, local: bytes) -> None:
    """What may have been a moment is no failure."""
    s3.fault = first(1, 0, method="PUT")
    build(photos, OUT, workers=1)
    assert s3.get("bucket", KEY) == local
    assert s3.uploads("bucket") == []


def test_an_upload_that_is_interrupted_is_taken_back(
    s3: S3Server, photos: Path, large: bytes
) -> None:
    """By Ctrl-C in its middle."""

    def interrupt(progress: Progress) -> None:
        if progress.stage == "upload" and progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(photos, OUT, LARGE, workers=1, progress=interrupt)
    assert s3.get("bucket", KEY) is None
    assert s3.uploads("bucket") == []
    build(photos, OUT, LARGE, workers=1)
    assert s3.get("bucket", KEY) == large


def test_an_upload_whose_answer_was_lost_is_found(
    s3: S3Server, photos: Path, local: bytes, tmp_path: Path
) -> None:
    """The object is there and is what was built: it is up to date."""
    s3.fault = lambda request: 500 if request["REQUEST_METHOD"] == "PUT" else None
    with pytest.raises(RemoteError):
        build(photos, OUT, workers=1)
    s3.fault = None
    s3.put("bucket", {KEY: local})
    assert build(photos, OUT, workers=1).up_to_date
    assert work_files(tmp_path) == []


def test_another_object_that_came_meanwhile_is_not_replaced(
    s3: S3Server, photos: Path, local: bytes, tmp_path: Path
) -> None:
    """By what could not be uploaded; with overwrite it is."""
    s3.fault = lambda request: 500 if request["REQUEST_METHOD"] == "PUT" else None
    with pytest.raises(RemoteError):
        build(photos, OUT, workers=1)
    s3.fault = None
    build(photos, tmp_path / "other.h5", BuildOptions(split=batchify.SplitOptions(seed=5)))
    theirs = (tmp_path / "other.h5").read_bytes()
    for data in (theirs, theirs + b"longer"):
        s3.put("bucket", {KEY: data})
        with pytest.raises(OutputExistsError, match="not the file that was built but not uploaded"):
            build(photos, OUT, workers=1)
        assert s3.get("bucket", KEY) == data
    assert build(photos, OUT, workers=1, overwrite=True).kept == 15
    assert s3.get("bucket", KEY) == local


def test_an_object_that_appears_during_the_build_stays(s3: S3Server, photos: Path) -> None:
    """As a file does that takes the name of the target."""

    def put(progress: Progress) -> None:
        if progress.stage == "seal":
            s3.put("bucket", {KEY: b"somebody else's"})

    with pytest.raises(OutputExistsError, match=f"target {OUT} exists"):
        build(photos, OUT, workers=1, progress=put)
    assert s3.get("bucket", KEY) == b"somebody else's"
    with pytest.raises(OutputExistsError, match="is not an HDF5 file"):
        build(photos, OUT, workers=1)


def test_an_object_that_is_no_file_of_ours_is_not_fetched(
    s3: S3Server, photos: Path, local: bytes
) -> None:
    """However large it is; with overwrite it is replaced."""
    s3.put("bucket", {KEY: b"a film, say"})
    with pytest.raises(OutputExistsError, match="is not an HDF5 file"):
        build(photos, OUT, workers=1)
    build(photos, OUT, workers=1, overwrite=True)
    assert s3.get("bucket", KEY) == local


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("s3://nowhere/out.h5", OutputIOError, "there is no such bucket"),
        ("s3://bucket/sets/", OutputPathError, "is a folder; name a file in it"),
        ("s3://bucket", OutputPathError, "is a bucket; name a file in it"),
        ("s3://bucket/photos/out.h5", OutputPathError, "inside the dataset folder s3://bucket/ph"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_any_work(
    s3: S3Server, photos: Path, url: str, kind: type[Exception], message: str, tmp_path: Path
) -> None:
    """No image is read."""
    s3.put_folder("bucket", "photos", photos)
    with pytest.raises(kind, match=message):
        build("s3://bucket/photos", url, workers=1)
    assert not any(path.endswith((".jpg", ".png")) for _, path in s3.requests)
    assert work_files(tmp_path) == []


def test_a_bucket_that_may_not_be_written_is_found_at_once(s3: S3Server, photos: Path) -> None:
    """Before hours of decoding."""
    s3.fault = lambda request: 403 if request["REQUEST_METHOD"] == "POST" else None
    stages = []
    with pytest.raises(OutputIOError, match=f"target {OUT} cannot be written: it is spoilt"):
        build(photos, OUT, workers=1, progress=lambda p: stages.append(p.stage))
    assert stages == []


def test_one_build_of_a_machine_at_a_time(s3: S3Server, photos: Path, run: Run) -> None:
    """The work folder is locked, for as long as anything happens there."""
    with WorkFolder(OUT, None):
        done = run("build", photos, OUT)
    assert done.returncode == 5
    assert "another build is writing this target" in done.stderr


def test_the_work_folder_can_be_elsewhere(
    s3: S3Server, photos: Path, run: Run, tmp_path: Path
) -> None:
    """By option or environment; nobody else can look into it."""
    s3.fault = lambda request: 500 if request["REQUEST_METHOD"] == "PUT" else None
    done = run("build", photos, OUT, "--work-dir", "scratch")
    assert done.returncode == 4
    (folder,) = (tmp_path / "scratch").iterdir()
    assert f"is kept in {folder}" in done.stderr
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    s3.fault = None
    done = run("build", photos, OUT, BATCHIFY_BUILD_WORK_DIR="scratch")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="there are no such modes")
def test_a_work_folder_of_others_is_refused(s3: S3Server, photos: Path, tmp_path: Path) -> None:
    """What another user may write is not gone on with."""
    with WorkFolder(OUT, tmp_path) as work:
        work.note(kept=True)
        work.remove(work.path)
        Path(os.fsdecode(work.path)).touch()
    Path(os.fsdecode(work.folder)).chmod(0o777)
    with pytest.raises(OutputPathError, match="not a private folder of this user"):
        build(photos, OUT, work_dir=tmp_path)


def test_a_remote_file_is_read_as_a_copy(
    s3: S3Server, photos: Path, local: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By inspect, verify, check and the question whether a build is due; the copy is gone then."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    s3.put("bucket", {KEY: local, "broken.h5": local[:3000], "text.h5": b"text" * 9})
    assert batchify.summarize(OUT).path == OUT.encode()
    result = batchify.verify(OUT)
    assert result.is_ok
    assert result.as_json()["path"] == OUT
    assert batchify.check(OUT).as_json()["path"] == OUT
    changes = batchify.find_changes(photos, OUT)
    assert not changes.is_due
    assert changes.as_json()["path"] == OUT
    missing = batchify.find_changes(photos, "s3://bucket/none.h5")
    assert missing.reasons == ["there is no such file"]
    damaged = batchify.verify("s3://bucket/broken.h5")
    assert str(damaged.findings[0].message).startswith("s3://bucket/broken.h5 is not a valid")
    with pytest.raises(FileMissingError, match=r"there is no file s3://bucket/none\.h5"):
        batchify.summarize("s3://bucket/none.h5")
    assert list(scratch.iterdir()) == []


def test_the_commands_read_a_remote_file(
    s3: S3Server, local: bytes, run: Run, tmp_path: Path
) -> None:
    """One copy serves summary, sheet and report."""
    s3.put("bucket", {KEY: local})
    done = run("inspect", OUT, "--sheet", "sheet.png", "--report", "report.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{OUT}: batchify schema 1")
    assert (tmp_path / "sheet.png").stat().st_size
    assert sum(path == f"/bucket/{KEY}" for _, path in s3.requests) <= 3
    done = run("check", OUT, "--split", "hash")
    assert done.returncode == 2
    assert "a file records its own" in done.stderr
    done = run("check", OUT)
    assert done.stdout.startswith(f"{OUT}: ")


def test_other_file_systems_take_a_file(photos: Path, local: bytes, tmp_path: Path) -> None:
    """Fsspec's memory, as one of them."""
    import fsspec

    memory = fsspec.filesystem("memory")
    try:
        build(photos, "memory://sets/out.h5", workers=1, work_dir=tmp_path / "work")
        assert memory.cat_file("/sets/out.h5") == local
        again = build(photos, "memory://sets/out.h5", workers=1, work_dir=tmp_path / "work")
        assert again.up_to_date
        assert batchify.summarize("memory://sets/out.h5").nbytes == len(local)
    finally:
        memory.rm("/sets", recursive=True)


def test_it_is_read_with_plain_h5py(s3: S3Server, tmp_path: Path) -> None:
    """As a file of this machine."""
    build(draw_dataset(tmp_path / "x", {"a": 3, "b": 3}), OUT, workers=1)
    (tmp_path / "got.h5").write_bytes(s3.get("bucket", KEY) or b"")
    with h5py.File(tmp_path / "got.h5") as file:
        assert file["X_train"].shape == (6, 150, 150, 3)


def test_shards_are_merged_into_an_object(
    s3: S3Server, photos: Path, local: bytes, run: Run
) -> None:
    """That of a build; an object that is there is not even fetched."""
    assert run("build", photos, "shards", "--shards", "2").returncode == 0
    done = run("merge", "shards", OUT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{OUT}: ")
    assert s3.get("bucket", KEY) == local
    done = run("merge", "shards", OUT)
    assert done.returncode == 1
    assert done.stderr == f"Error: target {OUT} exists; pass --overwrite to replace it\n"
    assert not any(method == "GET" and path.endswith(KEY) for method, path in s3.requests)
    assert run("merge", "s3://bucket/shards", "out.h5").returncode == 1


def test_a_store_that_is_read_only_is_refused_at_once(
    photos: Path, tmp_path: Path, serving: str
) -> None:
    """A web server; a dataset on one is read, and so is a file."""
    stages = []
    with pytest.raises(OutputPathError, match="can only be read"):
        build(photos, f"{serving}/x.h5", workers=1, progress=lambda p: stages.append(p.stage))
    assert stages == []
    with pytest.raises(OptionError, match="with a query") as raised:
        build(f"{serving}/photos?signature=secret", tmp_path / "out.h5", workers=1)
    assert "secret" not in str(raised.value)
    report = build(f"{serving}/photos", tmp_path / "out.h5", workers=1)
    assert report.plan.dataset.name == f"{serving}/photos"
    build(photos, tmp_path / "local.h5", workers=1)
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "local.h5").read_bytes()
    assert batchify.summarize(f"{serving}/local.h5?signature=secret").nbytes == report.nbytes
    with pytest.raises(FileMissingError):
        batchify.summarize(f"{serving}/none.h5")


def test_rows_of_another_plan_are_taken_over(s3: S3Server, photos: Path, tmp_path: Path) -> None:
    """The list of what failed, and the rows, are in the work folder until a build succeeds."""
    (photos / "cat" / "img_000.jpg").write_bytes(b"bad")
    with pytest.raises(BadImagesError, match=r"all of them are listed in .*/out\.h5\.errors\.txt"):
        build(photos, OUT, workers=1)
    assert "out.h5.errors.txt" in work_files(tmp_path)
    (photos / "cat" / "img_000.jpg").unlink()
    assert build(photos, OUT, workers=1).kept == 14
    assert work_files(tmp_path) == []
    build(photos, tmp_path / "local.h5", workers=1)
    assert s3.get("bucket", KEY) == (tmp_path / "local.h5").read_bytes()
