"""Shards below a URL: fetched when they are needed, kept, shared, and the rows of a folder."""

from __future__ import annotations

import contextlib
import errno
import http.server
import itertools
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.s3server import S3Server

import batchify
from batchify.common import durable
from batchify.errors import (
    BatchifyError,
    FileAccessError,
    FileClosedError,
    FileFormatError,
    OptionError,
    OutputIOError,
    RemoteError,
)
from batchify.loading import fetching, providers, stored_array
from batchify.loading.origin import AS_RECORDED, Origin
from batchify.loading.split import Split
from batchify.storage import remote_file, remote_store

URL = "s3://bucket/shards/"
SHARDS = 12
KINDS: dict[str, dict[str, Any]] = {
    "none": {}, "few": {}, "gzip": {"compression": "gzip"}, "encoded": {"store": "encoded"},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build 12 shards of 6 rows of 12 kB, and of each other kind 3."""
    folder = tmp_path_factory.mktemp("made")
    photos = draw_dataset(folder / "photos", {"cat": 30, "dog": 42})
    size: dict[str, Any] = {"target_size": (64, 64), "validation_split": 0.0}
    for kind, options in KINDS.items():
        shards = SHARDS if kind == "none" else 3
        batchify.build_shards(photos, folder / kind, shards=shards, **size, **options)
    batchify.build(photos, folder / "one.h5", target_size=(64, 64))
    return folder


@pytest.fixture
def local(s3: S3Server, made: Path) -> Split:
    """Upload the shards; return their rows in the folder."""
    s3.put("bucket", {f"shards/{path.name}": path.read_bytes() for path in shard_files(made)})
    return batchify.open(made / "none")["train"]


def shard_files(made: Path) -> list[Path]:
    """Return the files of the shards, in order, and the shard index."""
    return sorted((made / "none").iterdir())


def folder_nbytes(folder: Path) -> int:
    """Return the bytes of the files in a folder, of which others may vanish meanwhile."""
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def sent_of_shards(s3: S3Server) -> dict[str, int]:
    """Return how many bytes of each shard were sent."""
    return {path: count for path, count in s3.sent.items() if path.endswith(".h5")}


def epoch(split: Split, seed: int = 0) -> Any:
    """Return the images, labels and rows of a shuffled epoch."""
    batches = split.batches(7, shuffle=True, seed=seed, scaled=False, with_rows=True)
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


def same_rows(local: Split, found: Any) -> bool:
    """Return whether the images and labels of an epoch are those of the folder, each row once."""
    images, labels, rows = found
    assert sorted(rows) == list(range(len(local)))
    return np.array_equal(images, local.images[rows]) and np.array_equal(
        labels, np.asarray(local.labels)[rows]
    )


@pytest.mark.parametrize(
    ("kind", "cache"),
    [
        ("few", True),
        ("few", None),
        ("gzip", True),
        pytest.param("encoded", None, marks=pytest.mark.long),
        pytest.param("gzip", None, marks=pytest.mark.long),
        pytest.param("encoded", True, marks=pytest.mark.long),
    ],
)
def test_the_rows_of_a_url_are_those_of_the_folder(
    s3: S3Server, made: Path, kind: str, cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the cache or by ranges, however images are stored; columns, one row, another process."""
    monkeypatch.setattr(providers, "_SMALL_NBYTES", 0)  # all heads are fetched by themselves
    s3.put("bucket", {f"{kind}/{path.name}": path.read_bytes() for path in (made / kind).iterdir()})
    local = batchify.open(made / kind)["train"]
    with batchify.open(f"s3://bucket/{kind}", cache=cache) as data:
        train = data["train"]
        assert len(s3.requests) <= 5  # whatever the number of shards
        assert (data.classes, len(train), train.paths[-1]) == (("cat", "dog"), 72, local.paths[-1])
        assert train.images.shape == local.images.shape
        copy = pickle.loads(pickle.dumps(train))
        assert same_rows(local, epoch(copy))
        one, (images, labels) = train[-2], train[[70, 3, 3, -1]]
        np.testing.assert_array_equal(one[0], local.images[-2])
        np.testing.assert_array_equal(images, local.images[[70, 3, 3, 71]])
        assert labels.tolist() == np.asarray(local.labels)[[70, 3, 3, 71]].tolist()
        assert np.asarray(train.labels == 1).tolist() == (np.asarray(local.labels) == 1).tolist()
        assert list(train.paths) == list(local.paths)
        np.testing.assert_allclose(train.mean, local.mean)
        view = train.filter(lambda row: row["class"] == "dog") + train.select(range(9))
        expected = local.filter(lambda row: row["class"] == "dog") + local.select(range(9))
        assert same_rows(expected, epoch(pickle.loads(pickle.dumps(view))))
        if kind == "encoded":
            assert train.encoded(40) == local.encoded(40)
            wanted = local.resized((9, 7)).images[30:50]
            np.testing.assert_array_equal(train.resized((9, 7)).images[30:50], wanted)
        assert repr(data).startswith(f"<batchify file s3://bucket/{kind}/train-00000-of-")
    with pytest.raises(FileClosedError, match=f"s3://bucket/{kind} is closed"):
        train[0]


def test_a_shard_is_fetched_once(s3: S3Server, local: Split, made: Path, tmp_path: Path) -> None:
    """Ahead of the first epoch's rows; later epochs and processes read the cache."""
    train = batchify.open(URL, cache=tmp_path / "kept")["train"]
    assert same_rows(local, epoch(train))
    nbytes = {f"/bucket/shards/{path.name}": path.stat().st_size for path in shard_files(made)[1:]}
    assert sent_of_shards(s3) == nbytes
    s3.requests.clear()
    assert same_rows(local, epoch(train, 1))
    assert s3.requests == []
    assert same_rows(local, epoch(batchify.open(URL, cache=tmp_path / "kept")["train"], 2))
    assert s3.requests == [("GET", "/bucket/shards/manifest.json")]
    assert {path.suffix for path in (tmp_path / "kept").iterdir()} == {".h5"}


def test_the_order_mixes_a_few_shards(s3: S3Server, local: Split, tmp_path: Path) -> None:
    """The first batch needs one shard; a shard is needed for a part of the epoch, in any seed."""
    train = batchify.open(URL, cache=tmp_path / "kept")["train"]
    for seed in range(20):
        order = train.batches(shuffle=True, seed=seed).order(0)
        shards = order // 6
        places = {shard: np.flatnonzero(shards == shard) for shard in range(SHARDS)}
        begun = sorted(places, key=lambda shard: places[shard][0])
        assert begun != list(range(SHARDS))
        assert max(np.ptp(found) for found in places.values()) <= 8 * 6 + 30
        assert len(set(shards[24:48].tolist())) >= 4
    order = train.batches(shuffle=True, seed=1).order(0)
    s3.sent.clear()
    next(iter(train.batches(1, shuffle=True, seed=1)))
    assert len(sent_of_shards(s3)) == 1
    np.testing.assert_array_equal(train.batches().order(0), np.arange(72))
    ranged = batchify.open(URL, cache=None)["train"].batches(shuffle=True, seed=1)
    np.testing.assert_array_equal(ranged.order(0), local.batches(shuffle=True, seed=1).order(0))


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
    for cache, shown in (("", "''"), (False, "False"), ("s3://me:secret@bucket", "s3://bucket")):
        with pytest.raises(OptionError, match=f"^cache must be a local folder, .*not {shown}$"):
            batchify.open(URL, cache=cache)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="'much' is not a size such as 20GB"):
        batchify.open(URL, cache_limit="much")


def test_a_store_that_stays_away_is_an_error_and_the_epoch_continues(
    s3: S3Server, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the shard; when the store is back, the epoch resumes, there or in the folder."""
    train = batchify.open(URL, cache=tmp_path / "kept")["train"]
    monkeypatch.setattr(remote_file, "PATIENCE_S", 0.5)
    monkeypatch.setattr(remote_file, "_FIRST_WAIT_S", 0.05)
    batches = train.batches(6, scaled=False)
    found: list[Any] = []
    s3.fault = lambda request: 503 if "00005-of" in request["PATH_INFO"] else None
    with pytest.raises(RemoteError, match=r"^s3://bucket/shards/train-00005-of-00012.h5 cannot be"):
        found.extend(images for images, _ in batches)
    assert len(found) == 5
    s3.fault = None
    state = batches.state_dict()
    for resumed in (batches, local.batches(6)):
        resumed.load_state_dict(state)
        assert len(list(resumed)) == 7
    batches.load_state_dict(state)
    found += [images for images, _ in batches]
    np.testing.assert_array_equal(np.concatenate(found), local.images[:])
    s3.fault = lambda _: 403
    with pytest.raises(FileAccessError, match=r"^s3://bucket/shards/manifest.json cannot be read"):
        batchify.open(URL)


@pytest.mark.usefixtures("local")
def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """With the shards of a bucket."""
    page = (Path(batchify.__file__).parent / "docs" / "distributed.md").read_text(encoding="utf-8")
    section = page.split("## From a bucket")[1]
    exec(section.split("```text")[1].split("```")[0], {})
    assert capsys.readouterr().out == "(32, 64, 64, 3)\n" * 2 + "(8, 64, 64, 3)\n"


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


def test_files_without_an_index_are_one_dataset(s3: S3Server, made: Path) -> None:
    """A file, a list of files; other classes, and a path among URLs, are refused."""
    data = (made / "one.h5").read_bytes()
    s3.put("bucket", {"a.h5": data, "b.h5": data, "folder/x.h5": data})
    local = batchify.open(made / "one.h5")
    for cache in (True, None):
        with batchify.open(["s3://bucket/a.h5", "s3://bucket/b.h5"], cache=cache) as both:
            assert {name: len(split) for name, split in both.items()} == {
                name: 2 * len(split) for name, split in local.items()
            }
            np.testing.assert_array_equal(
                both["train"].images[:], np.concatenate([local["train"].images[:]] * 2)
            )
        for url in ("s3://bucket/folder", "s3://bucket/a.h5"):
            validation = batchify.open(url, cache=cache)["validation"]
            assert same_rows(local["validation"], epoch(validation))
    with pytest.raises(OptionError, match=r"a\.h5 is a URL: name all files by URLs, or none"):
        batchify.open(["s3://bucket/a.h5", made / "one.h5"])
    other = draw_dataset(made / "other", {"cat": 2, "fox": 2})
    batchify.build(other, "s3://bucket/folder/y.h5", target_size=(64, 64))
    with pytest.raises(FileFormatError, match=r"train of s3://bucket/folder/y\.h5 has other"):
        batchify.open("s3://bucket/folder")


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"store": "encoded"}])
def test_a_file_that_is_replaced_while_it_is_read_is_an_error(
    s3: S3Server, made: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """By ranges, its rows would be those of another file: the same size, other images."""
    content = []
    for seed in (1, 2):
        out = tmp_path / f"{seed}.h5"
        batchify.build(made / "photos", out, target_size=(40, 40), seed=seed, **options)
        content.append(out.read_bytes())
    s3.put("bucket", {"one.h5": content[0]})
    train = batchify.open("s3://bucket/one.h5", cache=None)["train"]
    np.testing.assert_array_equal(
        train.images[:3], batchify.open(tmp_path / "1.h5")["train"][:3][0]
    )
    s3.put("bucket", {"one.h5": content[1]})
    with pytest.raises(FileFormatError, match=r"^s3://bucket/one\.h5, "):
        next(iter(train.batches(3)))
    if "compression" not in options:
        with pytest.raises(
            FileFormatError, match="row 0 does not match its checksum: the file was"
        ):
            train.images[:2]


def test_a_cache_that_is_removed_is_made_again(local: Split, tmp_path: Path) -> None:
    """While shards of it are used."""
    kept = tmp_path / "kept"
    train = batchify.open(URL, cache=kept)["train"]
    np.testing.assert_array_equal(train.images[:9], local.images[:9])
    shutil.rmtree(kept)
    np.testing.assert_array_equal(train.images[:], local.images[:])
    assert any(path.suffix == ".h5" for path in kept.iterdir())


def test_secrets_in_a_url_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """In no error, of any URL."""
    monkeypatch.setattr(remote_file, "PATIENCE_S", 0.1)
    for url in ("http://me:s3cret@127.0.0.1:9/x.h5?key=s3cret", "http://me:s3cret@127.0.0.1:9/x"):
        with pytest.raises(RemoteError) as raised:
            batchify.open(url)
        assert "s3cret" not in "".join(
            map(
                str,
                (
                    raised.value,
                    raised.value.__notes__ if hasattr(raised.value, "__notes__") else "",
                ),
            )
        )
        assert "http://127.0.0.1:9/x" in str(raised.value)
        origin = Origin((url.encode(),), "train", (), 0, AS_RECORDED, repr)
        assert "s3cret" not in repr(origin)


@pytest.mark.parametrize("status", [403, 404])
def test_secrets_in_a_url_are_in_no_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int
) -> None:
    """Not even in the causes of an error, which Python prints with it."""
    monkeypatch.setattr(remote_file, "PATIENCE_S", 0.1)
    monkeypatch.setattr(remote_store, "WAITS_S", ())
    monkeypatch.setattr(remote_store, "PATIENCE_S", 5.0)

    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        at = f"127.0.0.1:{server.server_port}"
        for url in (f"http://me:s3cret@{at}/x.h5?sig=s3cret", f"http://me:s3cret@{at}/x/"):
            for read in (
                lambda url: batchify.open(url, cache=tmp_path),
                batchify.check,
                batchify.verify,
                lambda url: batchify.merge(url, tmp_path / "out.h5"),
            ):
                with pytest.raises(BatchifyError) as raised:
                    read(url)
                assert "s3cret" not in "".join(traceback.format_exception(raised.value))
        server.shutdown()


def read_in_process(train: Split, queue: Any) -> None:
    """Send an epoch of a process."""
    queue.put(epoch(train, 3))


def test_a_fork_and_threads_read_by_themselves(local: Split, tmp_path: Path) -> None:
    """Amid an epoch of the parent, whose threads fetch ahead."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this platform")
    train = batchify.open(URL, cache=tmp_path / "kept")["train"]
    running = iter(train.batches(6, shuffle=True, scaled=False, with_rows=True, prefetch=2))
    found = [next(running)]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=read_in_process, args=(train, queue))
    process.start()
    found += running
    assert same_rows(local, tuple(np.concatenate(parts) for parts in zip(*found, strict=True)))
    assert same_rows(local, queue.get(timeout=60))
    process.join(60)
    assert process.exitcode == 0


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


def test_shards_are_fetched_at_the_same_time(
    s3: S3Server, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ahead of the rows, but for the first batch; by ranges, rows of a batch are, too."""
    at_once, most, lock = [0], [0], threading.Lock()

    def count(request: dict[str, Any]) -> None:
        if request["PATH_INFO"].endswith(".h5"):
            with lock:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
            time.sleep(0.05)
            with lock:
                at_once[0] -= 1

    train = batchify.open(URL, cache=tmp_path / "kept")["train"]
    s3.fault = count
    batches = iter(train.batches(1, shuffle=True))
    next(batches)
    assert most == [1]
    assert sum(len(X) for X, _ in batches) == 71
    assert 2 <= most[0] <= fetching.AHEAD + 2
    ranged = batchify.open(URL, cache=None)["train"]
    list(ranged.batches(72))  # opens all shards
    s3.requests.clear()
    most[0] = 0
    np.testing.assert_array_equal(ranged[[0, 5, 1, 2]][0], local.images[[0, 5, 1, 2]])
    assert len(s3.requests) == 1  # what lies between them is read, too
    monkeypatch.setattr(stored_array, "_GAP_NBYTES", 1)
    np.testing.assert_array_equal(ranged[[0, 5, 2]][0], local.images[[0, 5, 2]])
    assert (len(s3.requests), most) == (4, [3])


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


@pytest.mark.long
def test_an_epoch_through_a_bad_network_is_right(
    s3: S3Server, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late answers, 500 and 503, broken connections, and bodies that break off or have wrong bytes.

    Each shard meets one of them, once.
    """
    monkeypatch.setattr(remote_file, "_FIRST_WAIT_S", 0.05)
    seen: set[str] = set()

    def fault(request: dict[str, Any]) -> int | None:
        path = request["PATH_INFO"]
        time.sleep(0.03)
        kind = int(path[-14:-12]) % 5 if path.endswith(".h5") and path not in seen else 9
        if kind < 3:
            seen.add(path)
        return {0: 500, 1: 503, 2: 0}.get(kind)

    def spoil(path: str, body: bytes) -> bytes:
        if path in seen or not path.endswith(".h5"):
            return body
        seen.add(path)
        middle = len(body) // 2
        if int(path[-14:-12]) % 5 == 3:
            return body[:middle]
        return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]

    s3.fault, s3.spoil = fault, spoil
    data = batchify.open(URL, cache=tmp_path / "kept")
    assert same_rows(local, epoch(data["train"]))
    assert len(seen) == SHARDS
