"""Opened files: arrays that are those of h5py, in every process, whatever happens to the name."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import errno
import gc
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo
from helpers.properties import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import batchify
from batchify.building.build import build
from batchify.dataset_options import SplitOptions
from batchify.errors import (
    FileAccessError,
    FileClosedError,
    FileFormatError,
    FileMissingError,
    OptionError,
)
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.loading import open as open_module
from batchify.loading.arrays import ChainedArray, RowArray
from batchify.loading.encoded import EncodedArray
from batchify.loading.split import Split
from batchify.loading.stored_array import StoredArray
from batchify.options import BuildOptions

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)
KINDS = ("mapped", "gzip", "grown", "several", "encoded", "mixed")


def make(tmp_path: Path, kind: str, options: BuildOptions = SMALL) -> Any:
    """Build 70 images of three classes; return what `batchify.open` takes."""
    root = draw_dataset(tmp_path / "data", {"a": 20, "b": 30, "c": 20})
    compression: Any = "gzip" if kind == "gzip" else "none"
    options = dataclasses.replace(
        options, store=dataclasses.replace(options.store, compression=compression)
    )
    out = tmp_path / "out.h5"
    build(root, out, options)
    if kind == "grown":  # by its owner, a row of each column: the images are two runs of bytes then
        with h5py.File(out, "r+") as file:
            for dataset in file["train"].values():
                dataset.resize(len(dataset) + 1, axis=0)
                dataset[-1] = dataset[0]
    if kind == "encoded":
        os.replace(out, out.with_suffix(".twin"))
        build(root, out, dataclasses.replace(options, store=encoding(options.store)))
    if kind == "mixed":
        (tmp_path / "mixed").mkdir()
        os.replace(out, tmp_path / "mixed" / "b.twin")
        kept = dataclasses.replace(options, store=encoding(options.store))
        build(root, tmp_path / "mixed" / "b.h5", kept)
        build(root, tmp_path / "mixed" / "a.h5", options)
        return tmp_path / "mixed"
    if kind == "several":
        (tmp_path / "shards").mkdir()
        os.replace(out, tmp_path / "shards" / "b.h5")
        packed = dataclasses.replace(options.store, compression="gzip")
        build(root, tmp_path / "shards" / "a.hdf5", dataclasses.replace(options, store=packed))
        (tmp_path / "shards" / ".b.h5").write_bytes(b"not shown by ls, not opened")
        return tmp_path / "shards"
    return out


def encoding(store: StoreOptions) -> StoreOptions:
    """Return the options that keep the files' own bytes."""
    return dataclasses.replace(store, store="encoded")


def expected(path: Path, name: str) -> NDArray[Any]:
    """Return a column of the train split as h5py reads it; pixels of the decoded twin."""
    paths = sorted(path.glob("[a-z]*.h*5")) if path.is_dir() else [path]
    parts = []
    for each in paths:
        twin = each.with_suffix(".twin")
        with h5py.File(twin if name == "images" and twin.exists() else each) as file:
            parts.append(file[f"train/{name}"][()])
    return np.concatenate(parts)


@pytest.fixture(scope="module", params=KINDS)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Split, Path]:
    """Open a split of each kind; also return its file."""
    path = make(tmp_path_factory.mktemp(request.param), request.param)
    return batchify.open(path)["train"], path


def test_images_are_indexed_as_an_array_is(both: tuple[Split, Path]) -> None:
    """By integers, slices, lists, arrays, masks, and further axes after the rows."""
    split, path = both
    images = expected(path, "images")
    rows = len(images)
    keys: list[Any] = [
        0, -1, np.int64(3), slice(None), slice(3, 30, 4), slice(None, None, -1), slice(5, 5),
        [4, 4, -2], [], np.array([[1, 2], [3, 0]]), np.arange(rows) % 3 == 0, (2, 5), ...,
        (slice(2, 9), slice(1, 3), 4), ([7, 1], ..., 0), (np.arange(rows) % 2 == 1, 3),
        ([0, 1], [2, 3]), (0, slice(None), [0, 2]), ([7, 1], 3, [0, 1]), ([[1], [2]], [3, 4, 5]),
        (slice(3, 8), [1, 2], slice(None), [0, 1]), range(2, 9, 3), np.array([1, 2], np.uint8),
        np.array([-1, 3], np.int8), np.array([5], np.uint64), (3, None), (slice(2), None, 1),
    ]  # fmt: skip
    for key in keys:
        found = split.images[key]
        assert found.dtype == images.dtype
        np.testing.assert_array_equal(found, images[key], err_msg=str(key))
    assert split.images.shape == images.shape
    assert (split.images.ndim, split.images.size) == (4, images.size)
    assert split.images.nbytes == images.nbytes
    np.testing.assert_array_equal(np.asarray(split.images), images)
    too_large = np.array([2**64 - 1], np.uint64)
    for wrong in (rows, -rows - 1, [0, rows], "x", 1.5, [1.5], np.ones(3, bool), too_large, 2**70):
        with pytest.raises(IndexError):
            split[wrong]


@settings(max_examples=examples(60), deadline=None)
@given(data=st.data())
def test_rows_are_those_of_h5py(both: tuple[Split, Path], data: st.DataObject) -> None:
    """For any rows in any order, images and labels together."""
    split, path = both
    images, labels = expected(path, "images"), expected(path, "labels")
    rows = data.draw(st.lists(st.integers(-len(images), len(images) - 1), max_size=40))
    found = split[rows]
    np.testing.assert_array_equal(found[0], images[np.array(rows, int)])
    np.testing.assert_array_equal(found[1], labels[np.array(rows, int)])


def test_a_split_is_a_map_style_dataset(both: tuple[Split, Path]) -> None:
    """len, an item, several items at once, a stable repr, paths, classes."""
    split, path = both
    images, labels = expected(path, "images"), expected(path, "labels")
    assert len(split) == len(images)
    image, label = split[5]
    np.testing.assert_array_equal(image, images[5])
    assert label == labels[5]
    image[:] = 0  # a copy: the file is as it was
    np.testing.assert_array_equal(split[5][0], images[5])
    items = split.__getitems__([3, 0, 3])
    assert [label for _, label in items] == labels[[3, 0, 3]].tolist()
    np.testing.assert_array_equal(np.stack([image for image, _ in items]), images[[3, 0, 3]])
    paths = [os.fsdecode(path) for path in expected(path, "paths").tolist()]
    assert list(split.paths) == paths
    assert (split.paths[-1], split.paths[2:4]) == (paths[-1], paths[2:4])
    assert split.classes == ("a", "b", "c")
    assert split.scale_factor == np.float32(1 / 255)
    text = f"<batchify split 'train': {len(split)} images of 20×16×3 uint8, 3 classes>"
    assert repr(split) == text
    assert repr(split.paths) == f"<{len(split)} paths: {paths[0]!r}, …>"


def test_reprs_are_short(tmp_path: Path) -> None:
    """What there is of a file, of several, of batches and of columns, on a line."""
    file = batchify.open(make(tmp_path, "mapped"))
    path, train = file.paths[0], file["train"]
    assert repr(file) == (
        f"<batchify file {path}: train 56, validation 14 images of 20×16×3 uint8, 3 classes>"
    )
    assert repr(batchify.open([path, path])).startswith(
        f"<batchify file {path} and 1 more: train 112, validation 28 images of"
    )
    assert repr(train.batches(32)) == f"<batchify 2 batches of 32 rows of {train!r}>"
    shuffled = train.batches(56, shuffle=True, seed=3)
    assert repr(shuffled) == f"<batchify 1 batch of 56 rows of {train!r}, shuffled with seed 3>"
    assert repr(train.columns) == "<columns: none>"


def test_each_kind_is_what_it_says(tmp_path: Path) -> None:
    """Mapped where the rows are one run of bytes; never when there are no rows."""
    kinds = [np.memmap, StoredArray, StoredArray, ChainedArray, EncodedArray, ChainedArray]
    for kind, wanted in zip(KINDS, kinds, strict=True):
        (tmp_path / kind).mkdir()
        file = batchify.open(make(tmp_path / kind, kind))
        assert isinstance(file["train"].images, wanted)
        assert isinstance(file["train"].images, np.ndarray | RowArray)
        assert list(file) == ["train", "validation"]
        assert (len(file), "test" in file) == (2, False)
        with pytest.raises(KeyError, match="there is no split 'test', only train, validation"):
            file["test"]
        if kind == "mapped":
            with pytest.raises(ValueError, match="read-only"):
                file["train"].images[0] = 1  # type: ignore[index]
            assert file.paths == (str(tmp_path / kind / "out.h5"),)


@pytest.mark.parametrize("class_mode", ["sparse", "categorical", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_load_is_what_the_tutorial_makes(tmp_path: Path, class_mode: Any, dtype: Any) -> None:
    """float32 images times the rescale, float32 labels; without labels images alone."""
    options = dataclasses.replace(SMALL, store=StoreOptions(class_mode, dtype=dtype))
    out = make(tmp_path, "mapped", options)
    found = batchify.load(out, "train")
    images, labels = found if class_mode != "none" else (found, None)
    stored = expected(out, "images")
    floats = stored if dtype == "float32" else stored.astype(np.float32) * np.float32(1 / 255)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, floats)
    if labels is not None:
        assert labels.dtype == np.float32
        np.testing.assert_array_equal(labels, expected(out, "labels"))
    with pytest.raises(OptionError, match="there is no split 'test', only train, validation"):
        batchify.load(out, "test")


def test_it_is_pickled_by_name(both: tuple[Split, Path]) -> None:
    """A few hundred bytes, whatever the split holds; files and batches are, too."""
    split, path = both
    pickled = pickle.dumps(split)
    assert len(pickled) < 1000
    images = expected(path, "images")
    np.testing.assert_array_equal(pickle.loads(pickled).images[:], images)
    file = pickle.loads(pickle.dumps(batchify.open(path)))
    np.testing.assert_array_equal(file["train"].images[:], images)
    batches = split.batches(9, shuffle=True, seed=3)
    batches.epoch = 4
    other = pickle.loads(pickle.dumps(batches))
    assert len(pickle.dumps(split.images)) < 1000 or isinstance(split.images, np.ndarray)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(split.images))[:], images)
    for mine, theirs in zip(batches, other, strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0])


def test_several_mapped_files_are_read_row_by_row(tmp_path: Path) -> None:
    """As one, in the order that they are given in."""
    out = make(tmp_path, "mapped")
    one = batchify.open(out)["train"]
    split = batchify.open([out, out, out])["train"]
    assert len(split) == 3 * len(one)
    rows = np.random.RandomState(1).permutation(len(split))
    np.testing.assert_array_equal(split[rows][0], one[rows % len(one)][0])
    np.testing.assert_array_equal(split[rows][1], one[rows % len(one)][1])
    order = split.batches(7, shuffle=True, seed=1).order(0)
    assert len({row // len(one) for row in order[:20].tolist()}) == 3
    assert sorted(order.tolist()) == list(range(len(split)))
    assert split.paths[len(one)] == one.paths[0]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system does not list them")
def test_descriptors_are_few_and_let_go(tmp_path: Path) -> None:
    """One for a mapped file, and one for each compressed split; none when it is not used."""
    for kind, most in (("mapped", 1), ("gzip", 3), ("several", 4), ("encoded", 3), ("mixed", 4)):
        (tmp_path / kind).mkdir()
        path = make(tmp_path / kind, kind)
        file = batchify.open(path)
        assert 1 <= descriptors(path) <= most
        split = file["train"]
        del file
        assert split.images[3].shape == (20, 16, 3)
        del split
        gc.collect()
        assert not descriptors(path)


@pytest.mark.parametrize("kind", ["mapped", "gzip", "encoded", "several"])
def test_a_closed_file_says_so(tmp_path: Path, kind: str) -> None:
    """And so do its splits, their batches, and the same images at another size."""
    path = make(tmp_path, kind)
    with batchify.open(path) as file:
        train = file["train"]
        resized = train.resized((8, 9)) if kind == "encoded" else train
        batches, kept = train.batches(4), [train.images]
        first = np.array(kept[0][:3])
        assert (train[:3][0] == first).all()
    assert file.closed
    asked: list[Callable[[], Any]] = [
        lambda: file["train"], lambda: list(file), lambda: len(file), lambda: train[0],
        lambda: train.paths[0], lambda: len(train), lambda: train.resized((3, 3)),
        lambda: resized[0], lambda: next(iter(batches)), lambda: list(train.batches(2)),
    ]  # fmt: skip
    if isinstance(kept[0], RowArray):
        asked.append(lambda: kept[0][0])
    else:
        assert (kept[0][:3] == first).all()
    for ask in asked:
        with pytest.raises(
            FileClosedError, match=r"a\.hdf5 and 1 more are closed|out\.h5 is closed"
        ):
            ask()
    file.close()
    assert "closed" in repr(file)
    assert repr(train) == "<batchify split 'train': closed>"
    kept.clear()
    gc.collect()
    if os.path.isdir("/proc/self/fd"):
        assert not descriptors(path)


def test_files_that_do_not_go_together_are_closed(tmp_path: Path) -> None:
    """Also while the error, with all that it refers to, is kept."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        draw_dataset(tmp_path / name / "data", {name: 4})
        options = dataclasses.replace(SMALL, store=encoding(SMALL.store))
        build(tmp_path / name / "data", tmp_path / f"{name}.h5", options)
    with pytest.raises(FileFormatError, match="has other classes than") as kept:
        batchify.open([tmp_path / "a.h5", tmp_path / "b.h5"])
    assert kept.tb is not None
    if os.path.isdir("/proc/self/fd"):
        assert not descriptors(tmp_path)


def descriptors(path: Path) -> int:
    """Return how many of this process are of files there."""
    names = []
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            names.append(os.readlink(f"/proc/self/fd/{entry}"))
    return sum(name.startswith(str(path)) for name in names)


def _sums(split: Split, rows: list[int]) -> int:
    return int(split[rows][0].astype(int).sum())


@pytest.fixture(scope="module")
def spawned() -> Iterator[ProcessPoolExecutor]:
    """Return processes that inherit nothing, and so may serve all tests."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as processes:
        yield processes


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    "method", ["spawn", "fork", pytest.param("forkserver", marks=pytest.mark.long)]
)
def test_it_is_read_in_processes_and_threads(
    both: tuple[Split, Path], method: str, spawned: ProcessPoolExecutor
) -> None:
    """After reading in this one: nothing that is open is shared in a way that could break."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    split, path = both
    images = expected(path, "images").astype(int)
    pieces = [[3 * i, (7 * i) % len(images), i] for i in range(17)]
    wanted = [int(images[rows].sum()) for rows in pieces]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda rows: _sums(split, rows), pieces)) == wanted
    if method == "spawn":
        assert list(spawned.map(_sums, [split] * len(pieces), pieces)) == wanted
        return
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as processes:
        assert list(processes.map(_sums, [split] * len(pieces), pieces)) == wanted


def test_a_file_that_is_replaced_serves_its_old_rows(tmp_path: Path) -> None:
    """To whoever has it open; whoever gets it by pickle is told."""
    for kind in ("mapped", "gzip", "encoded"):
        folder = tmp_path / kind
        folder.mkdir()
        out = make(folder, kind)
        split = batchify.open(out)["train"]
        before, pickled = split.images[:], pickle.dumps(split)
        (folder / "data" / "a" / "img_005.jpg").write_bytes(encoded(photo(seed=99), "JPEG"))
        compression: Any = "gzip" if kind == "gzip" else "none"
        store = StoreOptions(compression=compression)
        if kind == "encoded":
            store = encoding(store)
        options = dataclasses.replace(SMALL, store=store)
        build(folder / "data", out, options, overwrite=True)
        assert (batchify.open(out)["train"].images[:] != before).any()
        assert copy.deepcopy(split)[3][0].shape == (20, 16, 3)
        np.testing.assert_array_equal(split.images[:], before)
        with pytest.raises(FileFormatError, match="was rebuilt after it was opened; open it"):
            pickle.loads(pickled)


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    """No file, an empty folder, other classes, other images, rows past the end."""
    with pytest.raises(FileMissingError):
        batchify.open(tmp_path / "none.h5")
    with pytest.raises(FileMissingError, match="the path of the file is empty"):
        batchify.open("")
    with pytest.raises(OptionError, match="trusted must be True or False, not 'no'"):
        batchify.open(tmp_path / "none.h5", trusted="no")  # type: ignore[arg-type]
    with pytest.raises(FileMissingError, match=r"holds no \.h5 or \.hdf5 file"):
        batchify.open(tmp_path)
    one = make(tmp_path, "mapped")
    two = tmp_path / "two.h5"
    build(tmp_path / "data", two, BuildOptions(decode=DecodeOptions((8, 8))))
    with pytest.raises(
        FileFormatError, match=r"images are 8×8×3 uint8 in train of .*two.*, 20×16×3"
    ):
        batchify.open([one, two])
    labels = tmp_path / "labels.h5"
    build(tmp_path / "data", labels, dataclasses.replace(SMALL, store=StoreOptions("categorical")))
    with pytest.raises(FileFormatError, match=r"labels are float32 of shape \(3,\) in train of"):
        batchify.open([one, labels])
    with pytest.raises(FileMissingError, match="no file is given"):
        batchify.open([])
    three = tmp_path / "three.h5"
    build(draw_dataset(tmp_path / "more", {"x": 9}), three, SMALL)
    with pytest.raises(
        FileFormatError, match=r"three.h5 has other classes than .*out.h5: it has x and lacks a, b"
    ):
        batchify.open([one, three])
    with h5py.File(one, "r+") as file:
        del file["train/images"].attrs["scale_factor"]
    with pytest.raises(FileFormatError, match="train/images has no scale_factor"):
        batchify.open(one)
    os.truncate(one, one.stat().st_size - 1)
    with pytest.raises(FileFormatError):
        batchify.open(one)


def test_a_file_that_grew_is_another_one(tmp_path: Path) -> None:
    """A split that was pickled before is not served with other rows."""
    out = make(tmp_path, "mapped")
    pickled = pickle.dumps(batchify.open(out)["train"])
    with h5py.File(out, "r+") as file:
        for dataset in file["train"].values():
            dataset.resize(len(dataset) + 1, axis=0)
            dataset[-1] = dataset[0]
    with pytest.raises(FileFormatError, match="was rebuilt after it was opened"):
        pickle.loads(pickled)


def test_labels_are_of_classes(tmp_path: Path) -> None:
    """Others would be found in the middle of a training, or never."""
    for label in (-1, 3):
        out = make(tmp_path / str(label), "mapped")
        with h5py.File(out, "r+") as file:
            file["train/labels"][5] = label
        with pytest.raises(FileFormatError, match="train has labels without a class"):
            batchify.open(out)


@pytest.mark.parametrize("kind", ["mapped", "encoded", "several"])
def test_a_file_system_that_maps_no_files_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Every column is the same, and so are batches, also after a pickle."""
    path = make(tmp_path, kind)
    expected = batchify.open(path)["train"]

    def refused(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(np, "memmap", refused)
    split = batchify.open(path)["train"]
    assert not isinstance(split.images, np.ndarray)
    for found in (split, pickle.loads(pickle.dumps(split))):
        np.testing.assert_array_equal(found.images[:], expected.images[:])
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert list(found.paths) == list(expected.paths)
    for mine, other in zip(split.batches(8), expected.batches(8), strict=True):
        np.testing.assert_array_equal(mine[0], other[0])


def test_what_the_system_refuses_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Descriptors, memory, a file that was cut while it was open, a name that cannot be."""
    out = make(tmp_path, "gzip")
    split = batchify.open(out)["train"]
    os.truncate(out, 4096)
    with pytest.raises(FileAccessError, match=r"out\.h5, rows 0 to \d+ of train: "):
        split[3]
    with pytest.raises(FileMissingError, match="no file has such a name"):
        batchify.open("a\0b")
    other = make(tmp_path / "more", "mapped")

    def refused(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(np, "memmap", refused)
    with pytest.raises(FileAccessError, match=r"out\.h5 cannot be opened: .*Cannot allocate"):
        batchify.open(other)


def test_an_empty_split_is_empty(tmp_path: Path) -> None:
    """One image: nothing is left for validation."""
    root = draw_dataset(tmp_path / "data", {"a": 1})
    for compression in ("none", "gzip"):
        out = tmp_path / f"{compression}.h5"
        build(root, out, dataclasses.replace(SMALL, store=StoreOptions(compression=compression)))
        split = batchify.open(out)["validation"]
        assert (len(split), len(split.paths), list(split.batches(4))) == (0, 0, [])
        assert split[[]][0].shape == (0, 20, 16, 3)
        assert batchify.load(out, "validation")[0].shape == (0, 20, 16, 3)


def test_structure_and_rows_are_of_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though another takes its name while it is opened."""
    out = make(tmp_path, "mapped")
    build(
        tmp_path / "data",
        tmp_path / "other.h5",
        dataclasses.replace(SMALL, split=SplitOptions(seed=5)),
    )
    wanted = expected(tmp_path / "other.h5", "images")
    before = expected(out, "images")
    real, left = open_module._split, [1]

    def split(*arguments: Any) -> Split:
        if left:
            left.pop()
            os.replace(tmp_path / "other.h5", out)
        return real(*arguments)

    monkeypatch.setattr(open_module, "_split", split)
    np.testing.assert_array_equal(batchify.open(out)["train"].images, before)
    np.testing.assert_array_equal(batchify.open(out)["train"].images, wanted)
