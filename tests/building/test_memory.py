"""Memory: no process above its bound, and next to nothing for each image of the dataset."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.containers import can_limit, limited
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.packing import Entries, pack
from PIL import Image

from batchify import build

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no ru_maxrss there")

MEASURED = """
import resource, sys
from batchify.cli import main

main(sys.argv[1:], standalone_mode=False)
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)
"""


def peaks(*arguments: str | Path) -> tuple[int, int, list[int]]:
    """Run a command in a process of its own.

    Returns
    -------
    int, int
        Peak of the process, and of its largest worker, in bytes, by ru_maxrss. That of a worker
        is at least that of its parent when it was started: Linux hands it down through exec.
    list of int
        Peak of each worker's own memory, in bytes, as /proc tells it while it runs.
    """
    # Through a small shell, for the same reason: this process is large when other tests have run.
    command = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    if arguments[0] != "inspect":
        command.append("--quiet")
    with subprocess.Popen(
        ["sh", "-c", '"$@"; exit $?', "sh", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        own: dict[str, int] = {}
        while process.poll() is None:
            for builder in _children(process.pid):
                for pid, peak in _workers(builder):
                    own[pid] = max(peak, own.get(pid, 0))
            time.sleep(0.005)
        stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    parent, worker = map(int, stdout.split()[-2:])
    return parent, worker, list(own.values())


def _children(pid: int | str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _workers(pid: str) -> list[tuple[str, int]]:
    """Return the children that decode, with their peaks; not Python's resource tracker."""
    found = []
    for child in _children(pid):
        try:
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                status = Path(f"/proc/{child}/status").read_text()
                if "VmHWM:" in status:
                    found.append((child, 1024 * int(status.split("VmHWM:")[1].split()[0])))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.long), "2"])
@pytest.mark.parametrize("how", ["--compression=none", "--compression=gzip", "--store=encoded"])
def test_no_process_takes_more_than_its_bound(tmp_path: Path, workers: str, how: str) -> None:
    """150 MB, one batch and one decoded image, though the file is larger than all of that."""
    root = draw_dataset(tmp_path / "d", {"a": 300}, size=(200, 150))
    save(root / "a" / "large.jpg", encoded(photo(2000, 1500), "JPEG"))
    out = tmp_path / "out.h5"
    parent, worker, _ = peaks(
        "build", root, out, "--target-size", "512x512", "--workers", workers, "--batch-size", "16",
        how,
    )  # fmt: skip
    bound = 150_000_000 + 16 * 512 * 512 * 3 + 2000 * 1500 * 3
    assert bound < 300 * 512 * 512 * 3
    assert max(parent, worker) <= bound


@pytest.mark.parametrize("name", ["a.zip", pytest.param("a.tar", marks=pytest.mark.long)])
def test_no_process_holds_more_of_an_archive_than_a_member(tmp_path: Path, name: str) -> None:
    """150 MB, a batch and an image of an archive of 250 MB; members of 8 MB, and one of 64."""
    noise = os.urandom(4 << 20) * 2
    image = encoded(photo(400, 300), "BMP")
    entries: Entries = [(f"c{i % 2}/{i}.bmp", image) for i in range(20)]
    entries += [(f"c{i % 2}/none{i}.bmp", noise) for i in range(23)]
    entries.append(("c0/bomb.bmp", bytes(64 << 20)))
    archive = pack(tmp_path / name, entries, level=1)
    parent, worker, _ = peaks(
        "build", archive, tmp_path / "out.h5", "--target-size", "64", "--workers", "2",
        "--max-file-size", "16777216", "--on-error", "skip",
    )  # fmt: skip
    assert max(parent, worker) <= 150_000_000 + 2 * len(noise)


@pytest.mark.long
def test_memory_of_a_zip_grows_by_less_than_200_bytes_an_image(tmp_path: Path) -> None:
    """The position of each member and its name; in all processes, from 1,000 images on."""
    tiny = encoded(photo(2, 2), "PNG")
    sums = []
    most = 50_000
    for count in (1_000, most):
        entries: Entries = [(f"class{i % 10}/image_{i:06}.png", tiny) for i in range(count)]
        archive = pack(tmp_path / f"{count}.zip", entries)
        out = tmp_path / f"{count}.h5"
        parent, _, workers = peaks("build", archive, out, "--target-size", "2", "--workers", "2")
        sums.append(parent + 2 * max(workers, default=0))
    assert (sums[1] - sums[0]) / (most - 1_000) < 200


@pytest.mark.skipif(not can_limit(), reason="no groups may be made here")
def test_a_container_with_little_memory_skips_no_image(tmp_path: Path) -> None:
    """Memory for one large image at a time: the bytes of two workers are those of one process."""
    root = draw_dataset(tmp_path / "d", {"a": 4, "b": 4})
    for i in range(4):
        large = Image.new("RGB", (5000, 4000), (40 * i, 99, 0))
        save(root / "ab"[i % 2] / f"large{i}.jpg", encoded(large, "JPEG"))
    command = [
        sys.executable, "-m", "batchify", "build", str(root), str(tmp_path / "out.h5"), "--json",
        "--target-size", "20", "--batch-size", "1", "--on-error", "skip", "--workers",
    ]  # fmt: skip
    with limited(memory=180_000_000) as group:
        done = subprocess.run([*group, *command, "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "workers-killed" in [each["code"] for each in json.loads(done.stdout)["warnings"]]
    two = (tmp_path / "out.h5").read_bytes()
    (tmp_path / "out.h5").unlink()
    build(root, tmp_path / "out.h5", target_size=(20, 20), workers=1)
    assert (tmp_path / "out.h5").read_bytes() == two


def linked(folder: Path, count: int) -> Path:
    """Return a dataset of ten classes whose images are links to one tiny image."""
    root = folder / str(count)
    tiny = save(folder / f"{count}.png", encoded(photo(2, 2), "PNG"))
    for index in range(10):
        (root / f"class{index}").mkdir(parents=True)
    for i in range(count):
        os.link(tiny, root / f"class{i % 10}" / f"image_{i:06}.png")
    return root


@pytest.mark.parametrize("store", ["decoded", pytest.param("encoded", marks=pytest.mark.long)])
def test_memory_grows_by_less_than_100_bytes_an_image(tmp_path: Path, store: str) -> None:
    """From 5,000 images on, over all processes: links to one tiny image.

    Before, a worker has not done enough tasks to have all its memory.
    """
    sums = []
    most = 50_000  # fewer are less than the noise
    for count in (5_000, most):
        root = linked(tmp_path, count)
        out = tmp_path / f"{count}.h5"
        parent, _, workers = peaks(
            "build", root, out, "--target-size", "2", "--workers", "2", "--store", store
        )
        if sys.platform == "linux":
            assert len(workers) == 2
        # on busy cores a worker may come late, with nothing left to do: that of the larger counts
        sums.append(parent + 2 * max(workers, default=0))
    assert (sums[1] - sums[0]) / (most - 5_000) < 100


@pytest.mark.long
def test_memory_of_comparing_grows_by_less_than_100_bytes_an_image(tmp_path: Path) -> None:
    """Comparing a file with its sources, too: unchanged, with one changed, and in verify."""
    size = ("--target-size", "2", "--workers", "2")
    found: list[list[int]] = []
    most = 40_000
    for count in (5_000, most):
        root = linked(tmp_path, count)
        out = tmp_path / f"{count}.h5"
        peaks("build", root, out, *size)
        up_to_date, _, _ = peaks("build", root, out, *size, "--overwrite")
        verify, _, _ = peaks("verify", out, "--source", root, "--workers", "2")
        os.unlink(root / "class7" / "image_000007.png")
        overwrite, _, _ = peaks("build", root, out, *size, "--overwrite")
        found.append([up_to_date, verify, overwrite])
    for few, many in zip(*found, strict=True):
        assert (many - few) / (most - 5_000) < 100


@pytest.mark.long
def test_memory_of_a_report_grows_by_less_than_120_bytes_an_image(tmp_path: Path) -> None:
    """From 5,000 images on, though all of them are copies of one another."""
    found = []
    most = 40_000
    for count in (5_000, most):
        out = tmp_path / f"{count}.h5"
        peaks("build", linked(tmp_path, count), out, "--target-size", "2", "--workers", "2")
        found.append(peaks("inspect", out, "--report", tmp_path / "report.html")[0])
    assert (found[1] - found[0]) / (most - 5_000) < 120
