"""Views: the rows that were chosen, served as those of a file, wherever a split is."""

from __future__ import annotations

import copy
import gc
import itertools
import multiprocessing
import pickle
import zlib
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.properties import examples
from helpers.tabled import write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import batchify
from batchify.loading.arrays import ViewArray
from batchify.loading.epoch_order import MIXED_NBYTES
from batchify.loading.split import Split
from batchify.loading.stored_array import StoredArray

SIZE = (20, 16)
KINDS = ("mapped", "gzip", "encoded", "several")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Build the same 60 images as each kind of file; the sizes of the image files differ."""
    folder = tmp_path_factory.mktemp("views")
    for number in range(60):
        image = photo(30 + number % 7, 20 + number % 5, seed=number)
        save(folder / "data" / "abc"[number % 3] / f"{number:02}.png", encoded(image, "PNG"))
    stores: dict[str, batchify.OptionKeywords] = {
        "mapped": {"target_size": SIZE},
        "gzip": {"target_size": SIZE, "compression": "gzip"},
        "encoded": {"target_size": SIZE, "store": "encoded"},
    }
    found: dict[str, Any] = {kind: folder / f"{kind}.h5" for kind in stores}
    for kind, store in stores.items():
        batchify.build(folder / "data", found[kind], **store)
    found["several"] = [found["gzip"], found["mapped"]]
    return found


@pytest.fixture(params=KINDS)
def both(request: pytest.FixtureRequest, files: dict[str, Any]) -> dict[str, Split]:
    """Return the splits of a file of each kind."""
    return dict(batchify.open(files[request.param]))


def assert_same(view: Split, images: NDArray[Any], labels: NDArray[Any], paths: list[str]) -> None:
    """Compare everything that a split serves with arrays."""
    assert (len(view), view.images.shape) == (len(images), images.shape)
    np.testing.assert_array_equal(view.images[:], images)
    np.testing.assert_array_equal(np.asarray(view.labels), labels)
    assert list(view.paths) == paths
    rows = np.random.RandomState(1).randint(0, max(1, len(view)), min(9, len(view)))
    np.testing.assert_array_equal(view[rows][0], images[rows])
    for number, (x, y, numbers) in enumerate(view.batches(7, prefetch=2, with_rows=True)):
        part = slice(number * 7, number * 7 + 7)
        assert numbers.tolist() == list(range(len(view)))[part]
        np.testing.assert_array_equal(x, images[part].astype(np.float32) * np.float32(1 / 255))
        np.testing.assert_array_equal(y, labels[part])


@settings(max_examples=examples(40), deadline=None)
@given(data=st.data())
def test_views_of_views_are_the_rows_of_arrays(files: dict[str, Any], data: st.DataObject) -> None:
    """Selected, filtered and joined in any order, and after a pickle."""
    file = batchify.open(files[data.draw(st.sampled_from(KINDS))])
    parts = []
    for _ in range(data.draw(st.integers(1, 3))):
        split = file[data.draw(st.sampled_from(["train", "validation"]))]
        images, labels, paths = split.images[:], np.asarray(split.labels), list(split.paths)
        for _ in range(data.draw(st.integers(0, 2))):
            count = len(split)
            kind = data.draw(st.sampled_from(["slice", "rows", "mask"]))
            if kind == "slice":
                first = data.draw(st.integers(0, count))
                key: Any = slice(first, data.draw(st.integers(first, count)))
            elif kind == "rows":
                key = (
                    data.draw(st.lists(st.integers(-count, count - 1), max_size=30))
                    if count
                    else []
                )
            else:
                key = np.array(
                    data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool
                )
            split = split.filter(key) if kind == "mask" else split.select(key)
            rows = np.arange(count)[key if kind != "rows" else np.array(key, int)]
            images, labels, paths = images[rows], labels[rows], [paths[row] for row in rows]
        parts.append((split, images, labels, paths))
    joined = batchify.concatenate(part[0] for part in parts)
    whole = [np.concatenate(arrays) for arrays in list(zip(*parts, strict=True))[1:3]]
    paths = list(itertools.chain.from_iterable(part[3] for part in parts))
    assert_same(joined, whole[0], whole[1], paths)
    assert_same(pickle.loads(pickle.dumps(joined)), whole[0], whole[1], paths)


def test_a_view_costs_its_row_numbers(files: dict[str, Any]) -> None:
    """Adjacent rows of a mapped file stay mapped; others take 8 bytes each, and no pixels."""
    train = batchify.open(files["mapped"])["train"]
    assert isinstance(train.images, np.memmap)
    part = train.select(range(10, 40)).select([3, 4, 5])
    assert isinstance(part.images, np.memmap)
    assert np.shares_memory(part.images, train.images[13:16])
    assert np.shares_memory(np.asarray(part.labels), np.asarray(train.labels))
    again = train.select(slice(13)) + train.select(slice(13, None))
    assert np.shares_memory(again.images[:], train.images)
    odd = train.select(range(1, len(train), 2))
    assert isinstance(odd.images, ViewArray)
    nested = odd.select([0, 2]).images
    assert isinstance(nested, ViewArray)
    assert nested.base is train.images
    assert isinstance(odd.images.selected, np.ndarray)
    assert odd.images.selected.nbytes == 8 * len(odd)
    assert len(pickle.dumps(part)) < 1500
    assert len(pickle.dumps(odd)) < 1500 + 8 * len(odd)
    assert len(pickle.dumps(odd.images)) < 1500 + 8 * len(odd)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(odd.images))[:], train.images[1::2])
    assert copy.deepcopy(odd) is odd
    text = (
        f"<batchify split 'train': {len(odd)} of {len(train)} images of 20×16×3 uint8, 3 classes>"
    )
    assert repr(odd) == text
    both = train + batchify.open(files["mapped"])["validation"]
    assert (
        repr(both) == "<batchify split 'train+validation': 60 images of 20×16×3 uint8, 3 classes>"
    )
    assert odd.origin == pickle.loads(pickle.dumps(odd)).origin != train.select([1, 3]).origin


def test_rows_are_filtered_by_their_columns(both: dict[str, Split], tmp_path: Path) -> None:
    """A function gets whole columns: classes, labels, paths, sizes of the image files."""
    train = both["train"]
    number = np.array([int(Path(path).stem) for path in train.paths])
    wide = train.filter(lambda row: (row["width"] > 33) & (row["height"] == 22))
    np.testing.assert_array_equal(
        wide.images[:], train.images[(30 + number % 7 > 33) & (20 + number % 5 == 22)]
    )
    assert wide.paths[0] in train.paths
    cats = train.filter(lambda row: row["class"] == "b")
    assert set(np.asarray(cats.labels).tolist()) == {1}
    assert len(cats) == train.class_counts[1] == np.count_nonzero(number % 3 == 1)
    same = train.filter(np.asarray(train.labels) == 1)
    assert list(same.paths) == list(cats.paths)
    assert set(cats.filter(lambda row: row["width"] < 32).paths) <= set(cats.paths)
    seen: list[str] = []
    train.filter(lambda row: seen.extend(row) or [True] * len(train))  # type: ignore[func-returns-value]
    assert sorted(seen) == ["class", "height", "label", "path", "width"]
    assert len(train.filter([False] * len(train)).filter(lambda _: [])) == 0


def test_kept_columns_and_weights_are_selected(tmp_path: Path) -> None:
    """By name; a kept column comes before one of batchify; for each kind of labels."""
    root = draw_dataset(tmp_path / "data", {"a": 6, "b": 6})
    rows = [
        {"path": f"{name}/img_{i:03}.jpg", "label": name, "weight": 1 + i,
         "width": i, "site": f"é{i}"}
        for name in "ab" for i in range(6)
    ]  # fmt: skip
    table = write_table(tmp_path / "rows.csv", rows)
    batchify.build(
        root,
        tmp_path / "out.h5",
        manifest=table,
        keep_columns=["width", "site"],
        target_size=(8, 9),
    )
    train = batchify.open(tmp_path / "out.h5")["train"]
    some = train.filter(
        lambda row: (row["width"] >= 2) & (row["weight"] < 6) & (row["site"] != "é3")
    )
    assert some.columns["width"].tolist() == [
        v for v in train.columns["width"].tolist() if v in (2, 4)
    ]
    assert set(some.columns["site"].tolist()) == {"é2", "é4"}
    assert some.weights is not None
    assert some.weights.tolist() == [1 + v for v in some.columns["width"].tolist()]
    twice = some + some.select([0])
    assert twice.columns["site"].tolist() == [*some.columns["site"], some.columns["site"][0]]
    with pytest.raises(
        KeyError, match=r"there is no column 'wdth', only label, class, path, weight, width"
    ):
        train.filter(lambda row: row["wdth"] > 1)


def test_what_cannot_be_a_view_is_said(files: dict[str, Any], tmp_path: Path) -> None:
    """Masks of other lengths, row numbers for filter, rows that are not, splits that differ."""
    file = batchify.open(files["mapped"])
    train = file["train"]
    count = len(train)
    masks: list[Any] = [
        [1, 2],
        [True],
        np.ones(count),
        True,
        lambda _: True,
        np.ones((count, 1), bool),
    ]
    for wrong in masks:
        with pytest.raises(
            batchify.OptionError,
            match=rf"filter needs one True or False for each of the {count} rows",
        ):
            train.filter(wrong)
    conditions: list[Any] = [
        lambda row: row["width"] > 30 and row["height"] > 20,
        lambda row: not row["width"],
        lambda row: 20 < row["width"] < 30,
        lambda row: row["class"] in ("a", "b"),
        lambda row: "a" in row["class"],
    ]
    for wrong in conditions:
        with pytest.raises(
            batchify.OptionError,
            match=r"combine conditions with &, \| and ~ .* np.isin replaces in",
        ):
            train.filter(wrong)
    some = train.filter(lambda row: np.isin(row["class"], ["a", "b"]))
    assert len(some) == train.class_counts[:2].sum()
    with pytest.raises(IndexError, match=f"row {count} is out of range: there are {count}"):
        train.select([0, count])
    with pytest.raises(IndexError, match="select takes a list of rows, not 3; for one, see"):
        train.select(3)
    with pytest.raises(IndexError, match="select takes a list of rows"):
        train.select([[1, 2], [3, 4]])
    no_rows: list[Any] = ["abc", {1, 2}, [0.5], None]
    for wrong in no_rows:
        with pytest.raises(IndexError, match="rows are"):
            train.select(wrong)
    no_splits: list[Any] = [train, [], [train, "x"]]
    for wrong in no_splits:
        with pytest.raises(
            batchify.OptionError, match=r"concatenate takes a list|there are no splits"
        ):
            batchify.concatenate(wrong)
    with pytest.raises(TypeError, match="unsupported operand"):
        train + 3  # type: ignore[operator]
    other = tmp_path / "other.h5"
    batchify.build(draw_dataset(tmp_path / "data", {"x": 4}), other, target_size=SIZE)
    with pytest.raises(
        batchify.OptionError,
        match=r"train of .*other.h5 has other classes than train of .*: it has x and lacks a, b",
    ):
        train + batchify.open(other)["train"]
    large = batchify.open(files["encoded"])["train"].resized((9, 9))
    with pytest.raises(
        batchify.OptionError, match=r"images are 9×9×3 uint8 in train of .*, 20×16×3 uint8"
    ):
        train + large


@pytest.mark.parametrize("kind", ["mapped", "gzip", "encoded"])
def test_a_view_is_closed_with_its_files(files: dict[str, Any], kind: str) -> None:
    """And views of it, also if those between are gone; closing a view leaves the file open."""
    one, two = batchify.open(files[kind]), batchify.open(files["mapped"])
    train = one["train"]
    odd = train.select(range(1, 30, 2))
    nested = odd.select([5, 2])
    batches = nested.batches(2)
    joined = two["train"] + odd
    odd.close()
    with pytest.raises(batchify.FileClosedError):
        odd[0]
    with pytest.raises(batchify.FileClosedError):
        odd.select([0])
    with pytest.raises(batchify.FileClosedError):
        batchify.concatenate([odd])
    assert repr(odd) == "<batchify split 'train': closed>"
    np.testing.assert_array_equal(nested[0][0], train[11][0])
    del odd
    gc.collect()
    images = nested.images
    one.close()
    for ask in (lambda: nested[0], lambda: list(batches), lambda: joined[0], lambda: images[0]):
        with pytest.raises(batchify.FileClosedError):
            ask()
    assert two["train"][0][1] in (0, 1, 2)
    view = batchify.open(files[kind])["train"].select([4, 1])
    gc.collect()  # the file and its split are gone; the view keeps what it needs
    assert view[1][0].shape == (*SIZE, 3)


def test_encoded_views_give_their_image_files(files: dict[str, Any]) -> None:
    """Bytes, pixels of their own size, other sizes; files of pixels say that they cannot."""
    train = batchify.open(files["encoded"])["train"]
    view = train.select([7, 3]) + train.select([20])
    for number, row in enumerate((7, 3, 20)):
        assert view.encoded(number) == train.encoded(row)
        np.testing.assert_array_equal(view.decode(number), train.decode(row))
        assert view.pil_image(number).size == train.pil_image(row).size != SIZE[::-1]
    html = view._repr_html_()
    assert html is not None
    assert html.count("<img") == 3
    larger = view.resized((33, 31))
    np.testing.assert_array_equal(larger.images[:], train.resized((33, 31)).images[[7, 3, 20]])
    assert larger.select([2]).encoded(0) == train.encoded(20)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(larger)).images[:], larger.images[:])
    several = batchify.open([files["encoded"], files["encoded"]])["train"] + train
    assert several.encoded(2 * len(train) + 5) == train.encoded(5)
    for kind in ("mapped", "gzip"):
        stored = batchify.open(files[kind])["train"].select([1, 0])
        with pytest.raises(batchify.OptionError, match="stores decoded images; build it with"):
            stored.encoded(0)
        with pytest.raises(batchify.OptionError, match="stores decoded images; build it with"):
            stored.resized((9, 9))


def test_an_epoch_of_a_view_is_resumed(both: dict[str, Split]) -> None:
    """In a view that was made again; not in one of other rows."""
    train = both["train"]
    views = [train.select(range(40, 3, -1)) for _ in range(2)]
    first, second = (view.batches(4, shuffle=True, with_rows=True) for view in views)
    epoch = iter(first)
    for _ in range(3):
        next(epoch)
    second.load_state_dict(first.state_dict())
    for (_, _, rows), (_, _, same) in zip(epoch, second, strict=True):
        assert rows.tolist() == same.tolist()
    other = train.select(range(41, 4, -1)).batches(4, shuffle=True)
    with pytest.raises(batchify.OptionError, match="this state is of other batches"):
        other.load_state_dict(first.state_dict())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_views_are_read_in_processes(both: dict[str, Split]) -> None:
    """After a fork, as here."""
    view = both["train"].select([9, 2, 30]) + both["validation"].select(slice(2, 5))
    wanted = [zlib.crc32(view[row][0].tobytes()) for row in range(len(view))]
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as processes:
        assert list(processes.map(_crc32, [view] * len(view), range(len(view)))) == wanted


def _crc32(split: Split, row: int) -> int:
    return zlib.crc32(split[row][0].tobytes())


@pytest.fixture
def inflated(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Count how often each chunk is decompressed."""
    counts: Counter[int] = Counter()
    chunk = StoredArray.chunk

    def counted(self: StoredArray, index: int) -> NDArray[Any]:
        counts[index] += 1
        return chunk(self, index)

    monkeypatch.setattr(StoredArray, "chunk", counted)
    return counts


def test_each_chunk_is_decompressed_once_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inflated: Counter[int]
) -> None:
    """Of shuffled views, in whatever order their rows were selected; a few chunks at a time."""
    root = draw_dataset(tmp_path / "data", {"a": 300}, size=(12, 12), format_name="PNG")
    out = tmp_path / "out.h5"
    batchify.build(root, out, target_size=(40, 40), validation_split=0, compression="gzip")
    monkeypatch.setattr("batchify.loading.epoch_order.MIXED_NBYTES", MIXED_NBYTES >> 9)
    train = batchify.open(out)["train"]
    random = np.random.RandomState(3)
    permuted = random.permutation(300)[:200]
    views = [
        train.filter(random.rand(300) < 0.4), train.select(permuted), train.select(slice(40, 250)),
        train.select(permuted[:20]) + train.select(permuted[20:]),
        train.select(permuted) + batchify.open(out)["train"].select(slice(0, 0)),
    ]  # fmt: skip
    for view in views:
        for epoch, shuffled in enumerate((False, True, True)):
            batches = view.batches(16, shuffle=shuffled, seed=epoch)
            order = batches.order(0)
            assert sorted(order.tolist()) == list(range(len(view)))
            inflated.clear()
            found = np.concatenate([x for x, _ in batches])
            if shuffled:
                assert (order != np.arange(len(view))).any()
                assert set(inflated.values()) == {1}
            np.testing.assert_array_equal(found, view.images[order] * np.float32(1 / 255))
    numbers = permuted[views[1].batches(16, shuffle=True).order(0)]
    assert len(set((numbers // 13)[:30].tolist())) > 3  # chunks are mixed
