"""Decoders that crash or hang: the file is named or left out, and the build never waits for ever.

No image is known that crashes today's Pillow: what reads a file is made to, by its name, in every
process that inherits this environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.running import Run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals differ there")

SITE = """
import os, signal, time
from batchify.storage import source

read = source.read_file

def read_file(path, max_nbytes, patience_s):
    name = os.path.basename(path)
    if name == b"crash.jpg":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == b"hang.jpg":
        time.sleep(1000)
    return read(path, max_nbytes, patience_s)

source.read_file = read_file
"""


@pytest.fixture
def site(tmp_path: Path) -> str:
    """Return a folder that makes every Python process read images in that way."""
    return str(save(tmp_path / "site" / "sitecustomize.py", SITE.encode()).parent)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Draw a few photos."""
    return draw_dataset(tmp_path / "data", {"cat": 12, "dog": 12})


def build(run_process: Run, site: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a build with the hostile decoder."""
    return run_process(
        "build", "data", "out.h5", "--target-size", "20x16", "--image-timeout", "1", *options,
        PYTHONPATH=os.pathsep.join([site, *filter(None, [os.environ.get("PYTHONPATH")])]),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["crash", "hang"])
def test_the_file_in_hand_is_named(run_process: Run, site: str, data: Path, name: str) -> None:
    """Exit 1, in time, with the reason and what to do; the next build continues."""
    save(data / "cat" / f"{name}.jpg", encoded(photo(), "JPEG"))
    done = build(run_process, site, "--workers", "2")
    reason = {
        "crash": "its worker process was ended by SIGSEGV",
        "hang": "took too long (see --image-timeout)",
    }[name]
    assert done.returncode == 1
    assert f"Error: cat/{name}.jpg: {reason}; what is decoded is kept: run the" in done.stderr
    assert "Traceback" not in done.stderr
    (data / "cat" / f"{name}.jpg").write_bytes(encoded(photo(), "JPEG"))
    assert run_process("build", "data", "out.h5", "--target-size", "20x16").returncode == 0


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    "names", [pytest.param(["hang"], marks=pytest.mark.long), ["crash", "hang"]]
)
def test_the_file_in_hand_is_skipped(
    run_process: Run, site: str, data: Path, tmp_path: Path, workers: str, names: list[str]
) -> None:
    """With --on-error skip it is listed with the reason, and all others are there."""
    for name in names:
        save(data / "dog" / f"{name}.jpg", encoded(photo(), "JPEG"))
    if workers == "1" and "crash" in names:  # nobody is left to tell; the next build takes over
        assert build(run_process, site, "--workers", "1", "--on-error", "skip").returncode == -11
    done = build(run_process, site, "--workers", workers, "--on-error", "skip")
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "out.h5") as file:
        skipped = {row["path"].decode(): row["reason"].decode() for row in file["skipped"][()]}
        assert len(file["X_train"]) + len(file["X_validation"]) == 24
    assert set(skipped) == {f"dog/{name}.jpg" for name in names}
    assert skipped["dog/hang.jpg"] == "took too long (see --image-timeout)"


def test_a_crash_in_this_process_is_named_by_the_next_build(
    run_process: Run, site: str, data: Path
) -> None:
    """A small build has no process to spare; what it leaves makes the next one use some."""
    save(data / "cat" / "crash.jpg", encoded(photo(), "JPEG"))
    assert build(run_process, site).returncode == -11
    done = build(run_process, site)
    assert done.returncode == 1
    assert "Error: cat/crash.jpg: its worker process was ended by SIGSEGV" in done.stderr


def test_a_crash_of_a_build_of_shards_is_named_by_the_next(
    run_process: Run, site: str, data: Path, tmp_path: Path
) -> None:
    """As that of a build of one file, and may be left out."""
    save(data / "cat" / "crash.jpg", encoded(photo(), "JPEG"))
    assert build(run_process, site, "--shards", "2").returncode == -11
    done = build(run_process, site, "--shards", "2")
    assert done.returncode == 1
    assert "Error: cat/crash.jpg: its worker process was ended by SIGSEGV" in done.stderr
    done = build(run_process, site, "--shards", "2", "--on-error", "skip")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.h5" / "manifest.json").read_bytes())["skipped"] == 1


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf"])
def test_a_timeout_must_be_one(run: Run, data: Path, timeout: str) -> None:
    """A number of seconds above 0."""
    done = run("build", "data", "out.h5", "--image-timeout", timeout)
    assert done.returncode == 2
    assert "image timeout must be a number above 0" in done.stderr
