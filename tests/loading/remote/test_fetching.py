"""Shards are fetched when they are needed, ahead of the rows, and once."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.remote_shards import (
    SHARDS,
    URL,
    epoch,
    same_rows,
    sent_of_shards,
    shard_files,
)
from helpers.s3server import S3Server

import batchify
from batchify.errors import FileAccessError, RemoteError
from batchify.format import reader
from batchify.loading import stored_array
from batchify.loading.remote import fetching
from batchify.loading.split import Split
from batchify.storage import remote_store


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


def test_a_shard_that_was_checked_is_not_opened_again(
    s3: S3Server, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the check opened is what rows are read from, under its name in the cache."""
    opened: list[str] = []
    real = reader._opened

    def counted(path: bytes) -> Any:
        opened.append(os.fsdecode(path))
        return real(path)

    monkeypatch.setattr(reader, "_opened", counted)
    train = batchify.open(URL, cache=tmp_path / "kept")["train"]
    opened.clear()
    np.testing.assert_array_equal(train.images[12:30], local.images[12:30])
    assert [path.endswith(".partial") for path in opened] == [True] * 3
    kept = batchify.open(URL, cache=tmp_path / "kept")["train"]
    opened.clear()
    np.testing.assert_array_equal(kept.images[12:30], local.images[12:30])
    assert [path.endswith(".h5") for path in opened] == [True] * 3


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


def test_a_store_that_stays_away_is_an_error_and_the_epoch_continues(
    s3: S3Server, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the shard; when the store is back, the epoch resumes, there or in the folder."""
    train = batchify.open(URL, cache=tmp_path / "kept")["train"]
    monkeypatch.setattr(remote_store, "PATIENCE_S", 0.5)
    monkeypatch.setattr(remote_store, "_FIRST_WAIT_S", 0.05)
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


@pytest.mark.long
def test_an_epoch_through_a_bad_network_is_right(
    s3: S3Server, local: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late answers, 500 and 503, broken connections, and bodies that break off or have wrong bytes.

    Each shard meets one of them, once.
    """
    monkeypatch.setattr(remote_store, "_FIRST_WAIT_S", 0.05)
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
