"""Outages, kills and flaky servers: nothing is dropped, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from helpers.drawing import draw_dataset
from helpers.running import Run
from helpers.s3server import S3Server
from s3fs import S3FileSystem

from batchify.building.build import build
from batchify.building.outcome import BuildReport
from batchify.common.progress import Progress
from batchify.errors import BadImagesError, DatasetNotFoundError, RemoteError
from batchify.options import BuildOptions
from batchify.storage import remote_store

URL = "s3://bucket/photos"
OUT = "s3://bucket/out.h5"
SMALL = BuildOptions(batch_size=2)
ARGUMENTS = ("--batch-size", "2", "--workers", "1", "--quiet")


@pytest.fixture
def local(s3: S3Server, tmp_path: Path) -> bytes:
    """Put 60 photos into the bucket, and build them from the folder."""
    folder = draw_dataset(tmp_path / "photos", {"cat": 20, "dog": 40})
    s3.put_folder("bucket", "photos", folder)
    build(folder, tmp_path / "local.h5", workers=1)
    return (tmp_path / "local.h5").read_bytes()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a store up at once."""
    monkeypatch.setattr(remote_store, "_FIRST_WAIT_S", remote_store.PATIENCE_S + 1)
    monkeypatch.setattr(S3FileSystem, "retries", 1)


def is_image(request: dict[str, Any]) -> bool:
    """Tell whether a request is for an image."""
    return str(request["PATH_INFO"]).startswith("/bucket/photos/")


def after(count: int, then: Callable[[], int | None]) -> Callable[[dict[str, Any]], int | None]:
    """Return a fault that begins when some images were asked for."""
    lock, left = threading.Lock(), [count]

    def fault(request: dict[str, Any]) -> int | None:
        with lock:
            left[0] -= is_image(request)
            if left[0] >= 0:
                return None
        return then()

    return fault


@pytest.mark.parametrize("status", [0, pytest.param(500, marks=pytest.mark.long), 503])
def test_a_flaky_server_changes_no_byte(
    s3: S3Server, local: bytes, tmp_path: Path, status: int
) -> None:
    """The first request for every other name is answered badly, or its connection breaks."""
    seen: set[str] = set()

    def fault(request: dict[str, Any]) -> int | None:
        path = request["PATH_INFO"]
        is_new = path not in seen
        seen.add(path)
        return status if is_new and (path == "/bucket" or path[-5] in "02468") else None

    s3.fault = fault
    build(URL, tmp_path / "out.h5", workers=1, on_error="skip")
    assert (tmp_path / "out.h5").read_bytes() == local
    assert sum(path in seen for _, path in s3.requests) == 61 + 1 + 30


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_server_that_stops_drops_no_image(
    s3: S3Server, local: bytes, tmp_path: Path, workers: int
) -> None:
    """Exit code 4 even where bad images are to be skipped; the same build continues."""

    def build_it() -> BuildReport:
        return build(
            URL, tmp_path / "out.h5", SMALL, workers=workers, on_error="skip", image_timeout_s=16.0
        )

    s3.fault = after(45, lambda: 0)
    with pytest.raises(RemoteError, match=f"{URL} cannot be reached: ") as raised:
        build_it()
    assert raised.value.exit_code == 4
    assert str(raised.value).endswith("is kept: run the same command again to continue")
    assert not (tmp_path / "out.h5").exists()
    s3.fault = None
    assert 0 < build_it().kept < 60
    assert (tmp_path / "out.h5").read_bytes() == local


@pytest.mark.usefixtures("soon")
def test_a_server_that_is_not_there_is_said(s3: S3Server, local: bytes, tmp_path: Path) -> None:
    """Where it listens no more: by whoever lists, reads, uploads or downloads."""
    s3.stop()
    try:
        with pytest.raises(RemoteError, match=f"{URL} cannot be reached: Could not connect"):
            build(URL, tmp_path / "out.h5", workers=1)
        with pytest.raises(RemoteError, match=f"{OUT} cannot be reached: Could not connect"):
            build(tmp_path / "photos", OUT, workers=1)
    finally:
        s3.start()
    assert list((tmp_path / "cache" / "batchify").iterdir()) == []


@pytest.mark.usefixtures("soon")
def test_access_that_ends_in_the_middle_drops_no_image(
    s3: S3Server, local: bytes, tmp_path: Path
) -> None:
    """A key that expired is no fault of an image: nothing can be listed any more, either."""
    s3.fault = after(30, lambda: 403)
    with pytest.raises(RemoteError, match="it is spoilt; what is decoded is kept"):
        build(URL, tmp_path / "out.h5", SMALL, workers=1, on_error="skip")
    s3.fault = None
    report = build(URL, tmp_path / "out.h5", SMALL, workers=1, on_error="skip")
    assert 20 <= report.kept < 60
    assert (tmp_path / "out.h5").read_bytes() == local


def test_a_dataset_that_vanishes_drops_no_image(s3: S3Server, local: bytes, tmp_path: Path) -> None:
    """All its objects are deleted while it is read."""

    def delete() -> None:
        for key in [key for key in s3.backend.buckets["bucket"].keys if key.startswith("photos/")]:
            s3.backend.delete_object("bucket", key)

    s3.fault = after(30, delete)
    with pytest.raises(DatasetNotFoundError, match=f"dataset {URL} vanished while it was read"):
        build(URL, tmp_path / "out.h5", SMALL, workers=1, on_error="skip")
    assert not (tmp_path / "out.h5").exists()


def test_an_object_that_is_deleted_is_one_bad_image(
    s3: S3Server, local: bytes, tmp_path: Path
) -> None:
    """Between listing and reading; it is skipped where that is asked for, and named."""
    name = "cat/img_000.jpg"
    assert s3.get("bucket", f"photos/{name}")

    def step(progress: Progress) -> None:
        if progress.stage == "allocate":
            s3.backend.delete_object("bucket", f"photos/{name}")

    with pytest.raises(BadImagesError) as raised:
        build(URL, tmp_path / "out.h5", workers=1, progress=step)
    assert [bad.path for bad in raised.value.bad] == [name.encode()]
    s3.put("bucket", {f"photos/{name}": b"not the same any more"})
    build(URL, tmp_path / "out.h5", workers=1, on_error="skip", progress=step, restart=True)
    with h5py.File(tmp_path / "out.h5") as file:
        ((path, reason),) = file["skipped"][:].tolist()
    assert path == name.encode()
    assert reason == b"cannot be read: No such file or directory"


def test_a_server_that_does_not_answer_is_given_up_in_time(
    s3: S3Server, local: bytes, tmp_path: Path
) -> None:
    """Before the image is taken for one that hangs, and left out."""
    held = threading.Event()

    def hold() -> None:
        held.wait(20)

    s3.fault = after(10, hold)
    try:
        with pytest.raises(RemoteError, match="it does not answer in time; what is decoded"):
            build(URL, tmp_path / "out.h5", SMALL, workers=1, on_error="skip", image_timeout_s=2.0)
    finally:
        held.set()
    s3.fault = None
    build(URL, tmp_path / "out.h5", SMALL, workers=1)
    assert (tmp_path / "out.h5").read_bytes() == local


def killed(s3: S3Server, tmp_path: Path, due: Callable[[dict[str, Any]], bool]) -> int:
    """Run a build that is killed at the first request that is due; return its exit code."""
    started = threading.Event()
    processes: list[subprocess.Popen[bytes]] = []

    def fault(request: dict[str, Any]) -> None:
        if due(request):
            started.wait(10)
            processes[0].kill()
            processes[0].wait()

    s3.fault = fault
    command = [sys.executable, "-m", "batchify", "build", URL, OUT, *ARGUMENTS]
    processes.append(subprocess.Popen(command, cwd=tmp_path))
    started.set()
    code = processes[0].wait(timeout=60)
    s3.fault = None
    return code


@pytest.mark.skipif(os.name != "posix", reason="there is no such signal")
@pytest.mark.parametrize("moment", ["reading", "uploading"])
def test_a_build_that_is_killed_goes_on(
    s3: S3Server, local: bytes, run: Run, tmp_path: Path, moment: str
) -> None:
    """By kill -9; nothing of it is to be seen, and nothing stays in the bucket in the end."""
    count = [0]

    def due(request: dict[str, Any]) -> bool:
        if moment == "uploading":
            return bool(request["REQUEST_METHOD"] == "PUT")
        count[0] += is_image(request)
        return count[0] == 40

    assert killed(s3, tmp_path, due) == -signal.SIGKILL
    assert s3.get("bucket", "out.h5") is None
    assert len(s3.uploads("bucket")) == (moment == "uploading")
    done = run("build", URL, OUT, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert s3.get("bucket", "out.h5") == local
    assert s3.uploads("bucket") == []
    assert list((tmp_path / "cache" / "batchify").iterdir()) == []
