"""Shards made by a real Dask cluster: one in this process' children, and one of `dask worker`s."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.drawing import draw_dataset
from helpers.files import contents
from helpers.running import Run

import batchify
from batchify.common.progress import Progress
from batchify.errors import BadImagesError, ClusterError, WorkerDiedError
from batchify.sharding import executors
from batchify.sharding.shards import ShardOutcome
from batchify.sharding.task import ShardTask, build_shard_elsewhere, read_breadcrumb

distributed = pytest.importorskip("distributed")

from batchify.sharding import cluster  # noqa: E402 - which imports distributed

OPTIONS = batchify.BuildOptions(decode=batchify.DecodeOptions((12, 10)))
WAIT_S = 60.0

SLOW = """
import sys, time
from batchify.building import jobs, workfile
from batchify.decoding.batch import BatchReader

jobs.TASK_ROWS, workfile.COMMIT_NBYTES = 4, 1

if not hasattr(BatchReader, "quick_read"):  # Dask loads this twice
    BatchReader.quick_read = BatchReader.read

def slow_read(self, files, **options):
    time.sleep(0.1)
    return self.quick_read(files, **options)

BatchReader.read = slow_read
"""
"""For workers that are to be caught at their work."""


def wait_for(what: str, happened: object) -> None:
    """Wait until a callable returns something true."""
    assert callable(happened)
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline, f"no {what} in time"
        time.sleep(0.02)


def commits(journal: Path) -> int:
    """Return how often a journal says that rows are durable."""
    return journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    """Tell whether a process listens on a port of the loopback address."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class Processes:
    """A scheduler and workers, each a process of its own, as on several machines.

    Parameters
    ----------
    folder : Path
        Where they leave their files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self._all: list[subprocess.Popen[bytes]] = []
        (folder / "slow.py").write_text(SLOW)
        port = self.address.rpartition(":")[2]
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"
        )
        wait_for("scheduler", lambda: is_listening(int(port)))

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one of the programs of Dask."""
        program = [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
        log = open(self.folder / f"log{len(self._all)}.txt", "wb")  # noqa: SIM115 - of the process
        process = subprocess.Popen(program, cwd=self.folder, stdout=log, stderr=log)
        log.close()
        self._all.append(process)
        return process

    def start_worker(self, *, slow: bool = False) -> subprocess.Popen[bytes]:
        """Start a worker that is one process, with one thread."""
        extra = ["--preload", str(self.folder / "slow.py")] if slow else []
        return self._start(
            "worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard", *extra
        )

    def close(self) -> None:
        """End all of them."""
        for process in self._all:
            process.kill()
            process.wait()


@contextlib.contextmanager
def building(photos: Path, out: Path, scheduler: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command until it has committed some batches; yield it."""
    command = [sys.executable, "-m", "batchify", "build", str(photos), str(out), "--shards=2"]
    command += ["--target-size=12x10", "--batch-size=2", "--scheduler", scheduler]
    journal = out / "train-00000-of-00002.h5.partial.journal"
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as build:
        try:
            wait_for("commit", lambda: commits(journal) >= 3)
            yield build
        finally:
            build.kill()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Start a scheduler on loopback, without workers yet."""
    folder = tmp_path / "dask"
    folder.mkdir()
    started = Processes(folder)
    try:
        yield started
    finally:
        started.close()


def test_a_local_cluster_makes_the_same_shards(photos: Path, tmp_path: Path) -> None:
    """And tells how far it is; a second build finds all of them standing."""
    batchify.build_shards(photos, tmp_path / "own", OPTIONS, shards=3)
    seen: list[Progress] = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as local:
        for stood in (0, 6):
            report = batchify.build_shards(
                photos,
                tmp_path / "shards",
                OPTIONS,
                shards=3,
                scheduler=local.scheduler_address,
                progress=seen.append,
            )
            assert report.shards_kept == stood
        (photos / "cat" / "img_004.jpg").write_bytes(b"no")
        with pytest.raises(BadImagesError, match=r"1 of 15 images failed:\n  - cat/img_004"):
            batchify.build_shards(
                photos, tmp_path / "bad", OPTIONS, shards=3, scheduler=local.scheduler_address
            )
    assert contents(tmp_path / "shards") == contents(tmp_path / "own")
    fills = [(p.done, p.total) for p in seen if p.stage == "fill"]
    assert fills[-1] == (15, 15)


def test_a_worker_that_is_killed_loses_no_shard(processes: Processes, tmp_path: Path) -> None:
    """Its shard goes on with another worker, from the last commit; the files are the same."""
    photos = draw_dataset(tmp_path / "photos", {"cat": 60, "dog": 60})
    batchify.build_shards(photos, tmp_path / "own", OPTIONS, shards=2)
    victim = processes.start_worker(slow=True)
    with building(photos, tmp_path / "out", processes.address) as build:
        victim.kill()
        victim.wait()
        processes.start_worker()
        stdout, stderr = build.communicate(timeout=WAIT_S)
    assert build.returncode == 0, stderr
    assert "4 shards: 96 train + 24 validation images" in stdout
    assert "continued: " in stdout, "what the first worker had committed is kept"
    assert contents(tmp_path / "out") == contents(tmp_path / "own")


def test_ctrl_c_stops_the_workers(processes: Processes, tmp_path: Path) -> None:
    """Those in hand within a batch; the same command continues, with what they had committed."""
    photos = draw_dataset(tmp_path / "photos", {"cat": 120})
    processes.start_worker(slow=True)
    out = tmp_path / "out"
    with building(photos, out, processes.address) as build:
        build.send_signal(signal.SIGINT)
        _, stderr = build.communicate(timeout=WAIT_S)
    assert build.returncode == 128 + signal.SIGINT
    assert stderr.endswith("Error: stopped by SIGINT; run the same command again to continue\n")

    def sizes() -> list[int]:
        return [path.stat().st_size for path in sorted(out.iterdir())]

    time.sleep(1.0)  # what the worker was at when it was told
    before = sizes()
    time.sleep(1.0)
    assert sizes() == before, "the worker goes on"
    assert not (out / "train-00000-of-00002.h5").exists()
    report = batchify.build_shards(photos, out, OPTIONS, shards=2)
    assert report.kept > 0
    batchify.build_shards(photos, tmp_path / "own", OPTIONS, shards=2)
    assert contents(out) == contents(tmp_path / "own")


def test_no_scheduler_is_told(photos: Path, tmp_path: Path, run: Run) -> None:
    """With what to do, and without a folder."""
    address = f"tcp://127.0.0.1:{free_port()}"
    for wrong in (address, "nonsense://here", "127.0.0.1:nothing"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cluster, "CONNECT_S", 1.0)
            with pytest.raises(ClusterError, match=f"there is no Dask scheduler at {wrong}"):
                batchify.build_shards(photos, tmp_path / "out", shards=2, scheduler=wrong)
    done = run("build", photos, "out", "--shards", "2", "--scheduler", "nonsense://here")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("Error: there is no Dask scheduler at nonsense://here")
    assert not (tmp_path / "out").exists()


def test_a_cluster_without_workers_is_not_waited_for(
    processes: Processes, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For ever: after a while the build ends, and says what to start."""
    monkeypatch.setattr(cluster, "NO_WORKERS_S", 1.0)
    monkeypatch.setattr(cluster, "CHECK_S", 0.2)
    with pytest.raises(ClusterError, match="has had no worker for 1 s; start some"):
        batchify.build_shards(
            photos, tmp_path / "out", OPTIONS, shards=2, scheduler=processes.address
        )


def test_a_scheduler_that_is_lost_ends_the_build(processes: Processes, tmp_path: Path) -> None:
    """With exit code 4; what is done is kept, and the build continues without a cluster."""
    photos = draw_dataset(tmp_path / "photos", {"cat": 120})
    processes.start_worker(slow=True)
    with building(photos, tmp_path / "out", processes.address) as build:
        processes.scheduler.kill()
        _, stderr = build.communicate(timeout=WAIT_S)
    assert build.returncode == 4, stderr
    assert "Traceback" not in stderr
    assert "run the same command again to continue" in stderr
    processes.close()
    batchify.build_shards(photos, tmp_path / "out", OPTIONS, shards=2)


def test_a_shard_that_a_scheduler_forgot_is_told() -> None:
    """One that was started anew knows of nothing, and says nothing."""
    workers = object.__new__(cluster.DaskWorkers)
    error = workers.explain(CancelledError(), "train-00000-of-00002.h5")
    assert isinstance(error, ClusterError)
    assert str(error) == (
        "the scheduler lost train-00000-of-00002.h5, as it does when it restarts; finished shards "
        "are kept: run the same command again to continue"
    )


def test_an_image_that_kills_its_workers_ends_the_build(
    processes: Processes, photos: Path, tmp_path: Path
) -> None:
    """After some workers the build ends; the cluster is not eaten up, and no note is left."""
    (processes.folder / "slow.py").write_text(
        "import os\n"
        "from batchify.decoding import batch\n"
        f"evil = open({str(photos / 'dog' / 'img_007.jpg')!r}, 'rb').read()\n"
        "decode = getattr(batch, 'kind_decode', batch.decode_image)\n"
        "batch.kind_decode = decode\n"
        "batch.decode_image = lambda data, options, **rest: (\n"
        "    os.kill(os.getpid(), 11) if data == evil else decode(data, options, **rest)\n"
        ")\n"
    )
    for _ in range(5):
        processes.start_worker(slow=True)
    options = batchify.BuildOptions(split=batchify.SplitOptions(validation=0.0))
    out = tmp_path / "out"
    with pytest.raises(WorkerDiedError, match=r"train-00000-of-00001\.h5.*: 4 workers died"):
        batchify.build_shards(photos, out, options, shards=1, scheduler=processes.address)
    processes.close()
    batchify.build_shards(photos, out, options, shards=1)
    assert sorted(os.listdir(out)) == ["manifest.json", "train-00000-of-00001.h5"]


def test_a_worker_after_one_that_was_lost_notes_what_it_has_in_hand(
    photos: Path, tmp_path: Path
) -> None:
    """The first leaves no note; where the second is lost, too, its note names the image."""
    program = (
        "import os, sys\n"
        "from batchify import build_shards\n"
        "from batchify.decoding import batch\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "evil, decode = open(sys.argv[1] + '/dog/img_007.jpg', 'rb').read(), batch.decode_image\n"
        "batch.decode_image = lambda data, options, **rest: (\n"
        "    os.kill(os.getpid(), 9) if data == evil else decode(data, options, **rest)\n"
        ")\n"
        "build_shards(sys.argv[1], sys.argv[2], shards=1, executor=ThreadPoolExecutor(1))\n"
    )
    out = tmp_path / "out"
    place = str(out / "train-00000-of-00001.h5")
    for image in ("", "dog/img_007.jpg"):
        command = [sys.executable, "-c", program, str(photos), str(out)]
        assert subprocess.run(command, check=False).returncode == -9
        assert read_breadcrumb(place) == image
    batchify.build_shards(photos, out, shards=1)
    assert read_breadcrumb(place) == ""


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("os.path.isdir", "a worker has no folder"),
        ("storage.source.FolderSource.exists", "does not see"),
    ],
)
def test_workers_that_do_not_see_the_storage_are_told_so(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, message: str
) -> None:
    """As on a machine that has not mounted it."""

    def blinded(task: ShardTask) -> ShardOutcome:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(what if what.startswith("os") else f"batchify.{what}", lambda *_: False)
            return build_shard_elsewhere(task)

    monkeypatch.setattr(executors, "build_shard_elsewhere", blinded)
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(batchify.BatchifyError, match=f"{message}.*on storage that all of them"),
    ):
        batchify.build_shards(photos, tmp_path / "out", OPTIONS, shards=1, executor=pool)
    assert os.listdir(tmp_path) == ["photos"]
