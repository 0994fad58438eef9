"""Batches: the floats of Keras, every row once an epoch, each compressed chunk inflated once."""

from __future__ import annotations

import dataclasses
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.properties import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import batchify
from batchify.building.build import build
from batchify.dataset_options import SplitOptions
from batchify.errors import FileFormatError, OptionError
from batchify.format.images import StoredPixels
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.loading import epoch_order, prefetching
from batchify.loading.loader import Loader
from batchify.loading.split import Split
from batchify.loading.stored_array import StoredArray
from batchify.options import BuildOptions

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), split=SplitOptions(validation=0))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    """Build 300 images, mapped and compressed (68 a chunk)."""
    root = draw_dataset(tmp_path_factory.mktemp("epochs") / "data", {"a": 100, "b": 200})
    splits = {}
    for compression in ("none", "gzip"):
        out = root.parent / f"{compression}.h5"
        store = StoreOptions(compression=compression)
        build(root, out, dataclasses.replace(SMALL, store=store))
        splits[compression] = batchify.open(out)["train"]
    return splits


def chunk_rows_of(split: Split) -> int:
    """Return how many images a chunk holds."""
    assert isinstance(split.images, StoredArray)
    assert split.images.starts is not None
    return int(split.images.starts[1])


@settings(max_examples=examples(60), deadline=None)
@given(
    kind=st.sampled_from(["none", "gzip"]),
    batch_size=st.integers(1, 320),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**32 + 5),
    drop_last=st.booleans(),
    scaled=st.booleans(),
    reuse=st.booleans(),
    prefetch=st.integers(0, 3),
    with_rows=st.booleans(),
    slow=st.booleans(),
)
def test_every_row_comes_once_an_epoch(
    files: dict[str, Split], kind: str, slow: bool, **options: Any
) -> None:
    """In the order that is told, with its rows or not, whatever is reused or read ahead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefetching, "SLOW_S", 0 if slow else 1)
        patch.setattr("batchify.loading.batches.REUSED_NBYTES", 1 if slow else 1 << 62)
        check_epochs(files[kind], **options)


def check_epochs(split: Split, **options: Any) -> None:
    """Assert that two epochs have all rows in order."""
    batches = split.batches(**options)
    images, labels = split[:]
    size = options["batch_size"]
    count = 300 // size if options["drop_last"] else -(-300 // size)
    assert len(batches) == count
    for epoch in range(2):
        order = batches.order(epoch)
        assert sorted(order.tolist()) == list(range(300))
        assert batches.epoch == epoch
        at = 0
        for x, y, *numbers in batches:
            rows = order[at : at + size]
            assert len(numbers) == options["with_rows"]
            for found in numbers:
                assert found.dtype == np.int64
                np.testing.assert_array_equal(found, rows)
            if options["scaled"]:
                assert (x.dtype, y.dtype) == (np.float32, np.float32)
                wanted = images[rows].astype(np.float32) * np.float32(1 / 255)
            else:
                assert (x.dtype, y.dtype) == (np.uint8, np.int64)
                wanted = images[rows]
            np.testing.assert_array_equal(x, wanted)
            np.testing.assert_array_equal(y, labels[rows])
            at += size
        assert min(at, 300) == min(count * size, 300)


@pytest.mark.parametrize("kind", ["none", "gzip"])
def test_orders_are_drawn_from_seed_and_epoch(files: dict[str, Split], kind: str) -> None:
    """The same ones give the same order, others another; without shuffling it is the file's."""
    batches = files[kind].batches(8, shuffle=True, seed=3)
    same = files[kind].batches(32, shuffle=True, seed=3)
    other = files[kind].batches(8, shuffle=True, seed=4)
    np.testing.assert_array_equal(batches.order(5), same.order(5))
    assert (batches.order(5) != batches.order(6)).any()
    assert (batches.order(5) != other.order(5)).any()
    np.testing.assert_array_equal(files[kind].batches(8).order(7), np.arange(300))
    batches.epoch = 5
    first = next(iter(batches))[0]
    wanted = files[kind][batches.order(5)[:8]][0].astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(first, wanted)


def test_the_batches_are_those_of_the_loader(tmp_path: Path) -> None:
    """Unshuffled batches of a file are the first epoch of Keras' generator, bit for bit."""
    root = draw_dataset(tmp_path / "data", {"a": 20, "b": 21})
    for class_mode in ("sparse", "categorical"):
        options = BuildOptions(
            decode=DecodeOptions((20, 16)),
            store=StoreOptions(class_mode),
        )
        build(root, tmp_path / f"{class_mode}.h5", options)
        for subset in ("train", "validation"):
            loader = Loader.from_directory(
                root,
                subset=subset,
                target_size=(20, 16),
                batch_size=7,
                class_mode=class_mode,
            )
            split = batchify.open(tmp_path / f"{class_mode}.h5")[subset]
            assert len(split.batches(7)) == len(loader)
            for mine, theirs in zip(split.batches(7), loader, strict=False):
                for one, other in zip(mine, theirs, strict=True):
                    np.testing.assert_array_equal(one, other)
                    assert one.dtype == other.dtype


@pytest.mark.parametrize(
    ("batch_size", "prefetch", "mixed"), [(8, 0, 1), (8, 3, 2), (8, 3, 100), (200, 0, 1)]
)
def test_each_chunk_is_inflated_once_an_epoch(
    files: dict[str, Split],
    batch_size: int,
    prefetch: int,
    mixed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the batches, and however few chunks are mixed."""
    split = files["gzip"]
    chunk_rows = chunk_rows_of(split)
    monkeypatch.setattr(epoch_order, "MIXED_NBYTES", mixed * chunk_rows * 20 * 16 * 3)
    inflated: Counter[int] = Counter()
    real = StoredPixels._chunk

    def chunk(self: StoredPixels, index: int) -> bytes:
        inflated[index] += 1
        return real(self, index)

    monkeypatch.setattr(StoredPixels, "_chunk", chunk)
    for _ in split.batches(batch_size, shuffle=True, prefetch=prefetch):
        pass
    assert inflated == dict.fromkeys(range(-(-300 // chunk_rows)), 1)


def test_chunks_of_several_files_are_inflated_once_an_epoch(
    files: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where some of the files are mapped."""
    inflated: Counter[int] = Counter()
    real = StoredPixels._chunk

    def chunk(self: StoredPixels, index: int) -> bytes:
        inflated[id(self), index] += 1  # type: ignore[index]
        return real(self, index)

    monkeypatch.setattr(StoredPixels, "_chunk", chunk)
    monkeypatch.setattr(epoch_order, "MIXED_NBYTES", 150 * 20 * 16 * 3)
    names = [files[kind].origin.files[0] for kind in ("gzip", "none", "gzip")]
    split = batchify.open(names)["train"]
    batches = split.batches(11, shuffle=True, seed=8, scaled=False)
    found = np.concatenate([x for x, _ in batches])
    order = batches.order(0)
    assert sorted(order.tolist()) == list(range(900))
    np.testing.assert_array_equal(found, files["none"].images[order % 300])
    assert list(inflated.values()) == [1] * 2 * -(-300 // chunk_rows_of(files["gzip"]))


def test_rows_of_mixed_chunks_are_mixed_well(
    files: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within what is mixed every order is as likely: neighbours in the file part."""
    split = files["gzip"]
    order = split.batches(8, shuffle=True).order(0)
    assert np.mean(np.abs(np.diff(order)) == 1) < 0.05
    assert abs(np.corrcoef(np.arange(300), order)[0, 1]) < 0.2
    chunk_rows = chunk_rows_of(split)
    monkeypatch.setattr(epoch_order, "MIXED_NBYTES", 2 * chunk_rows * 20 * 16 * 3)
    order = split.batches(8, shuffle=True).order(0)
    for start in range(0, 300, 2 * chunk_rows):
        piece = order[start : start + 2 * chunk_rows]
        assert len(set((piece // chunk_rows).tolist())) <= 3  # the last chunk is not full


def test_reused_arrays_are_reused(files: dict[str, Split]) -> None:
    """The same memory again and again; without reuse each batch is one's own."""
    reused = {x.ctypes.data for x, _ in files["none"].batches(8, reuse=True)}
    assert len(reused) == 2
    reused = {x.ctypes.data for x, _ in files["none"].batches(8, reuse=True, prefetch=3)}
    assert len(reused) == 5
    kept = [x for x, _ in files["none"].batches(8, prefetch=2)]
    images = np.concatenate(kept)
    wanted = files["none"].images[:].astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(images, wanted)


def test_memory_of_dropped_batches_is_used_again(
    files: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once no view of a batch is left; what is kept is never written to."""
    monkeypatch.setattr("batchify.loading.batches.REUSED_NBYTES", 1)
    batches = files["none"].batches(8, scaled=False, prefetch=2)
    images = files["none"].images
    views: list[Any] = []
    places = set()
    for number, (x, _) in enumerate(batches):
        places.add(x.ctypes.data)
        if number % 9 == 0:
            views.append((8 * number, x[2:4].reshape(2, -1)[:, ::3]))
    assert len(places) <= len(views) + 6
    for start, view in views:
        np.testing.assert_array_equal(view, images[start + 2 : start + 4].reshape(2, -1)[:, ::3])


@pytest.mark.parametrize(
    ("read_s", "wait_s", "is_ahead"),
    [(1e-5, 5e-5, False), (1e-2, 1e-2, True), (3e-4, 5e-5, True), (3e-4, 4e-4, False)],
)
def test_batches_are_read_in_the_way_that_takes_less_time(
    read_s: float, wait_s: float, is_ahead: bool
) -> None:
    """Quick ones by the caller, slow ones ahead; those between by what the caller waits for."""
    pace = prefetching._Pace()
    ways = []
    for number in range(2000):
        ways.append(pace.is_ahead)
        pause = 1.0 if number % 16 == 7 else 0.0
        pace.note((wait_s if pace.is_ahead else read_s) + pause, read_s + pause)
    assert ways[0] is False
    assert np.mean(np.array(ways[64:]) == is_ahead) > 0.9


def test_memory_of_an_epoch_is_flat(files: dict[str, Split]) -> None:
    """A few batches, not the split."""
    batches = files["none"].batches(4, shuffle=True, reuse=True)
    for _ in batches:
        pass
    tracemalloc.start()
    for _ in batches:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 4 * 20 * 16 * 3 * 4 + 50_000


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all batches after the first be read ahead, as if it took long to read them."""
    monkeypatch.setattr(prefetching, "SLOW_S", 0)


@pytest.mark.usefixtures("slow")
def test_threads_end_with_their_epoch_or_their_batches(files: dict[str, Split]) -> None:
    """Those of a whole epoch read the next one; if an epoch is given up, nothing is read ahead."""
    before = threading.active_count()
    batches = files["none"].batches(4, prefetch=4)
    epoch = iter(batches)
    next(epoch), next(epoch)
    assert threading.active_count() == before + 4
    assert len(list(epoch)) == len(batches) - 2
    mine = set(threading.enumerate())
    for (x, _), (other, _) in zip(batches, batches, strict=True):
        np.testing.assert_array_equal(x, other)
    assert mine < set(threading.enumerate())
    assert threading.active_count() == before + 8
    epoch = iter(batches)
    next(epoch)
    del epoch, batches
    ends = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < ends:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.usefixtures("slow")
def test_an_epoch_may_be_collected_by_any_thread(
    files: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by one that its own threads wait for."""
    real = StoredPixels._chunk

    def chunk(self: StoredPixels, index: int) -> bytes:
        gc.collect()
        return real(self, index)

    monkeypatch.setattr(StoredPixels, "_chunk", chunk)
    for _ in range(2):
        epoch = iter(files["gzip"].batches(16, shuffle=True, prefetch=2))
        next(epoch), next(epoch)
        ring: list[object] = [epoch]
        ring.append(ring)
        del epoch, ring
    assert len(list(files["gzip"].batches(16, prefetch=2))) == 19


@pytest.mark.parametrize("prefetch", [0, 2])
def test_damage_is_told_where_it_is_read(
    tmp_path: Path, prefetch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whichever thread reads it; the batches before are served."""
    monkeypatch.setattr(prefetching, "SLOW_S", 0)
    root = draw_dataset(tmp_path / "data", {"a": 200})
    out = tmp_path / "out.h5"
    build(root, out, dataclasses.replace(SMALL, store=StoreOptions(compression="gzip")))
    with h5py.File(out) as file:
        chunk = file["train/images"].id.get_chunk_info(1)
    with out.open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(bytes(20))
    epoch = iter(batchify.open(out)["train"].batches(30, prefetch=prefetch))
    for _ in range(2):
        next(epoch)
    with pytest.raises(FileFormatError, match="a compressed chunk"):
        list(epoch)


def test_the_interpreter_ends_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """Quietly, whatever its threads are at."""
    root = draw_dataset(tmp_path / "data", {"a": 60})
    build(root, tmp_path / "out.h5")
    text = """
import batchify
import batchify.loading.prefetching
batchify.loading.prefetching.SLOW_S = 0
epoch = iter(batchify.open("out.h5")["train"].batches(4, prefetch=3, shuffle=True))
next(epoch)
next(epoch)
"""
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=tmp_path, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.usefixtures("slow")
def test_an_epoch_that_is_read_ahead_is_not_forked(files: dict[str, Split]) -> None:
    """Its threads are not there; a new epoch has its own."""
    batches = files["gzip"].batches(8, prefetch=2)
    list(batches)
    epoch = iter(batches)
    next(epoch)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            next(epoch)
        except RuntimeError:
            code = 0 if len(list(batches)) == len(batches) else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(list(epoch)) == len(batches) - 1


def test_batch_sizes_may_be_of_numpy(files: dict[str, Split]) -> None:
    """And larger than the split, also where memory is used again."""
    assert len(files["none"].batches(np.int64(7))) == 43  # type: ignore[arg-type]
    (only,) = files["none"].batches(10**12, reuse=True, prefetch=10**6)
    assert len(only[0]) == 300


@pytest.mark.parametrize(("kind", "step"), [("none", 1), ("gzip", 1), ("gzip", -2)])
def test_rows_lead_from_a_batch_to_its_files(files: dict[str, Split], kind: str, step: int) -> None:
    """The file of each row holds its pixels, also of a view and of a copy in another process."""
    split = files[kind].select(slice(None, None, step))
    batches = split.batches(70, shuffle=True, scaled=False, with_rows=True)
    root = Path(os.fsdecode(split.origin.files[0])).parent / "data"
    for x, y, rows in pickle.loads(pickle.dumps(batches)):
        paths = split.paths[rows]
        assert [split.classes[label] for label in y] == [path.split("/")[0] for path in paths]
        for image, path in zip(x[::9], paths[::9], strict=True):
            wanted = Image.open(root / path).resize((16, 20), Image.Resampling.NEAREST)
            np.testing.assert_array_equal(image, wanted)
        rows[:] = 0  # is the caller's own
    count = len(split)
    assert split.paths[[3, -1]] == [split.paths[3], split.paths[count - 1]]
    assert split.paths[np.arange(count) == 7] == split.paths[7:8] == [split.paths[7]]
    with pytest.raises(IndexError, match="an array of one dimension, not 2"):
        split.paths[np.zeros((1, 2), int)]


def test_rows_without_labels(tmp_path: Path) -> None:
    """Are the second and last value of a batch."""
    root = draw_dataset(tmp_path / "data", {"a": 5})
    build(root, tmp_path / "out.h5", dataclasses.replace(SMALL, store=StoreOptions("none")))
    ((x, rows),) = batchify.open(tmp_path / "out.h5")["train"].batches(with_rows=True)
    assert (len(x), rows.tolist()) == (5, list(range(5)))


def test_rows_are_read_by_any_index(files: dict[str, Split]) -> None:
    """What is no row is refused."""
    batches = files["none"].batches(scaled=False)
    np.testing.assert_array_equal(batches.read([-1, 3])[0], files["none"].images[[-1, 3]])
    with pytest.raises(IndexError, match="row 300 is out of range: there are 300"):
        batches.read([300])


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0}, {"seed": -1}, {"prefetch": -1}, {"shuffle": "no"}, {"drop_last": 1},
        {"with_rows": 1},
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant(files: dict[str, Split], options: dict[str, Any]) -> None:
    """Said before anything is read."""
    with pytest.raises(OptionError):
        files["none"].batches(**options)
