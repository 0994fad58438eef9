"""The cache of shards: its limit, a full disk, and the processes that share it."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.remote_shards import SHARDS, URL, folder_nbytes, sent_of_shards, shard_files
from helpers.s3server import S3Server

import batchify
from batchify.common import durable
from batchify.errors import FileFormatError, OptionError, OutputIOError
from batchify.loading.remote import cache as cache_module
from batchify.loading.remote import fetching
from batchify.loading.remote.cache import Cache, Need
from batchify.loading.remote.cache_options import CacheOptions
from batchify.loading.split import Split


def test_the_cache_keeps_to_its_limit(
    s3: S3Server, local: Split, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for the shards that are mixed, each is fetched once; with less, rows are right."""
    monkeypatch.setattr(fetching, "_SLACK", 1)
    size = max(path.stat().st_size for path in shard_files(made))
    total = sum(path.stat().st_size for path in shard_files(made))
    for room, count in ((11, 18), (2, 4)):
        kept = tmp_path / str(room)
        with batchify.open(URL, cache=kept, cache_limit=room * size) as data:
            batches = data["train"].batches(4, shuffle=True, scaled=False, with_rows=True)
            s3.sent.clear()
            most, rows = 0, set()
            for images, _, some in itertools.islice(batches, count):
                np.testing.assert_array_equal(images, local.images[some])
                rows.update(some.tolist())
                most = max(most, folder_nbytes(kept))
        assert len(rows) == 4 * count
        assert most <= room * size
        assert room < 8 or sum(sent_of_shards(s3).values()) <= 1.05 * total
    with pytest.raises(OptionError, match="cache_limit is 1,000 bytes, but a shard of s3://bucket"):
        batchify.open(URL, cache=kept, cache_limit="1 kB")
    for path in (URL, made / "one.h5"):
        for cache, shown in (("", "''"), ("s3://me:secret@bucket", "s3://bucket")):
            with pytest.raises(OptionError, match=f"^cache must be a local folder, .*not {shown}$"):
                batchify.open(path, cache=cache)
        with pytest.raises(OptionError, match="'much' is not a size such as 20GB"):
            batchify.open(path, cache_limit="much")
    with batchify.open(URL, cache=False) as data:
        np.testing.assert_array_equal(data["train"].images[:2], local.images[:2])
    batchify.open(made / "one.h5", cache=kept, cache_limit="1 kB").close()  # of URLs alone


def test_what_is_released_while_room_is_looked_for_is_evicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it was in use when it was looked at; the limit is not exceeded."""
    files = Cache(CacheOptions(str(tmp_path), 150_000))

    def fetch(path: bytes) -> None:
        assert folder_nbytes(tmp_path) <= 150_000
        Path(os.fsdecode(path)).write_bytes(bytes(100_000))

    held = files.hold(b"a.h5", 100_000, fetch, lambda: Need.NOW)
    real, looks = cache_module._remove_unused, []

    def look(path: bytes) -> bool:
        looks.append(real(path))
        if len(looks) == 2:
            held.release()
        return looks[-1]

    monkeypatch.setattr(cache_module, "_remove_unused", look)
    files.hold(b"b.h5", 100_000, fetch, lambda: Need.NOW).release()
    assert looks == [False, False, True]


def test_damage_is_an_error_and_never_kept(
    s3: S3Server, local: Split, made: Path, tmp_path: Path
) -> None:
    """A shard with a wrong byte, or of another build."""
    name = "shards/train-00003-of-00012.h5"
    data = bytearray(shard_files(made)[4].read_bytes())
    data[len(data) // 2] ^= 1
    for spoilt in (bytes(data), shard_files(made)[2].read_bytes()):
        s3.put("bucket", {name: spoilt})
        train = batchify.open(URL, cache=tmp_path / "kept")["train"]
        with pytest.raises(
            FileFormatError, match=rf"s3://bucket/{name} is damaged: .*\(downloaded"
        ):
            train[20]
    kept = {path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    assert kept <= {path.read_bytes() for path in shard_files(made)}


def test_a_cache_that_is_removed_is_made_again(local: Split, tmp_path: Path) -> None:
    """While shards of it are used."""
    kept = tmp_path / "kept"
    train = batchify.open(URL, cache=kept)["train"]
    np.testing.assert_array_equal(train.images[:9], local.images[:9])
    shutil.rmtree(kept)
    np.testing.assert_array_equal(train.images[:], local.images[:])
    assert any(path.suffix == ".h5" for path in kept.iterdir())


READ = """
import sys, batchify
train = batchify.open(sys.argv[1], cache=sys.argv[2])["train"]
print(len(train), flush=True)
print(sum(len(X) for X, _ in train.batches(4, shuffle=True)))
"""


def reading(kept: Path) -> subprocess.Popen[str]:
    """Start a process that reads an epoch."""
    return subprocess.Popen(
        [sys.executable, "-c", READ, URL, str(kept)], stdout=subprocess.PIPE, text=True
    )


def slow(request: dict[str, Any]) -> None:
    """Answer requests for shards late."""
    if request["PATH_INFO"].endswith(".h5"):
        time.sleep(0.2)


@pytest.mark.long
def test_processes_share_the_cache_and_a_kill_blocks_none(
    s3: S3Server, local: Split, made: Path, tmp_path: Path
) -> None:
    """Each shard is fetched once by two processes; what one that is killed left is removed."""
    kept = tmp_path / "kept"
    stuck = threading.Event()
    answered: list[bool] = []

    def stick(request: dict[str, Any]) -> None:
        if "00007-of" in request["PATH_INFO"]:
            answered.append(stuck.wait(60))

    s3.fault = stick
    killed = reading(kept)
    while not list(kept.glob("*.partial")) or len(sent_of_shards(s3)) < 6:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert list(kept.glob("*.partial"))
    stuck.set()
    while not answered:
        time.sleep(0.02)
    s3.fault = slow
    complete = {f"{path.stem}.h5" for path in kept.glob("*.h5")}
    s3.sent.clear()
    processes = [reading(kept), reading(kept)]
    assert [process.communicate()[0].split() for process in processes] == [["72", "72"]] * 2
    nbytes = sorted(path.stat().st_size for path in shard_files(made)[1:])
    assert len(sent_of_shards(s3)) == SHARDS - len(complete)
    assert all(count in nbytes for count in sent_of_shards(s3).values())
    assert {path.suffix for path in kept.iterdir()} == {".h5"}
    assert len(list(kept.iterdir())) == SHARDS


def test_a_cache_that_cannot_be_written_is_an_error(
    s3: S3Server, local: Split, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only, it serves what it has; on a full disk, the oldest files go first."""
    kept = tmp_path / "kept"
    with batchify.open(URL, cache=kept) as data:
        assert len(data["train"].images[:60]) == 60
    real = os.open

    def read_only(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and os.fsencode(kept) in os.fsencode(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, flags, *rest, **more)

    with monkeypatch.context() as patching, batchify.open(URL, cache=kept) as data:
        patching.setattr(os, "open", read_only)
        np.testing.assert_array_equal(data["train"].images[:60], local.images[:60])
        with pytest.raises(OutputIOError, match=r"kept cannot be written: Read-only file .*cache="):
            data["train"][61]
    free = [0]

    def full(fd: int, path: bytes, nbytes: int) -> bool:
        left = len(list(kept.glob("*.h5")))
        if left > free[0]:
            cause = OSError(errno.ENOSPC, "full")
            raise durable.io_error("reserving", path, cause) from cause
        return True

    monkeypatch.setattr(durable, "reserve", full)
    train = batchify.open(URL, cache=kept)["train"]
    with pytest.raises(
        OutputIOError,
        match=r"cannot keep a file of 193,0.. bytes: No space left on device; free .*cache=None",
    ):
        train[61]
    free[0] = 9
    np.testing.assert_array_equal(train.images[66:], local.images[66:])
    assert len(list(kept.iterdir())) == 10


@pytest.mark.frameworks
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_loader_share_the_cache(
    s3: S3Server, local: Split, made: Path, tmp_path: Path, start: str
) -> None:
    """Every row once, each shard fetched once, with a limit or without; also of two ranks."""
    import torch
    from torch.utils.data import DataLoader

    sizes = {f"/bucket/shards/{path.name}": path.stat().st_size for path in shard_files(made)[1:]}
    for limit in (None, 12 * max(sizes.values())):
        s3.sent.clear()
        kept = tmp_path / f"kept-{limit}"
        train = batchify.open(URL, cache=kept, cache_limit=limit)["train"]
        rows = []
        for rank in range(2):
            torch.manual_seed(7)
            batches = train.to_torch(
                batch_size=6, shuffle=True, with_rows=True, rank=rank, world_size=2
            )
            for images, _, some in DataLoader(
                batches, batch_size=None, num_workers=2, multiprocessing_context=start
            ):
                stored = local.images[some.numpy()].transpose(0, 3, 1, 2)
                np.testing.assert_allclose(images.numpy(), stored / np.float32(255), rtol=1e-6)
                rows += some.tolist()
        assert sorted(rows) == list(range(72))
        assert limit or sent_of_shards(s3) == sizes
        assert sum(path.stat().st_size for path in kept.glob("*.h5")) <= (limit or 1 << 40)


@pytest.mark.long
def test_a_disk_with_room_for_few_shards_is_enough(
    s3: S3Server, local: Split, tmp_path: Path
) -> None:
    """Without a limit, old shards go when it is full; a file-size limit is an error."""
    if os.name == "nt" or not shutil.which("unshare"):
        pytest.skip("no unshare on this platform")
    kept = tmp_path / "kept"
    kept.mkdir()
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = f'mount -t tmpfs -o size={11 * 200_000} tmpfs {kept} && exec "$@"'
    command = ["unshare", *user, "--mount", "sh", "-c", mount, "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    read = [sys.executable, "-c", READ, URL, str(kept)]
    done = subprocess.run([*command, *read], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["72", "72"], "")
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (99999, 99999)){READ}"
    read = [sys.executable, "-c", limited, URL, str(kept)]
    done = subprocess.run(read, capture_output=True, text=True, check=False)
    assert "OutputIOError: the cache" in done.stderr
    assert "bytes: File too large; free some space, set" in done.stderr
    assert list(kept.iterdir()) == []
