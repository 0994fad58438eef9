"""Mean, deviation, class counts and class weights of splits and of views."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.tabled import options_of, write_table

import batchify
from batchify.building.build import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of 40 images of three classes."""
    root = tmp_path_factory.mktemp("statistics") / "data"
    return draw_dataset(root, {"a": 8, "b": 12, "c": 20})


KINDS: dict[str, batchify.OptionKeywords] = {
    "uint8": {"target_size": (20, 16)},
    "gzip": {"target_size": (20, 16), "compression": "gzip"},
    "encoded": {"target_size": (20, 16), "store": "encoded"},
    "float32": {"target_size": (20, 16), "dtype": "float32"},
    "uint16": {"target_size": (20, 16), "dtype": "uint16", "depth": "scale"},
    "grayscale": {"target_size": (20, 16), "color_mode": "grayscale", "rescale": 1 / 127.5},
}


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_those_of_the_pixels(folder: Path, tmp_path: Path, kind: str) -> None:
    """Recorded for a file, computed for views, and joined if all rows are there."""
    out = tmp_path / "out.h5"
    batchify.build(folder, out, **KINDS[kind])
    file = batchify.open(out)
    train, validation = file["train"], file["validation"]
    labels = np.asarray(train.labels)
    views = [
        train, validation, train + validation, train.select([5, 1, 30, 31]),
        train.filter(labels != 1), train.select(slice(10, 20)),
        batchify.open([out, out])["train"] + validation,
    ]  # fmt: skip
    if kind == "encoded":
        views.append(train.select([3, 4]).resized((9, 11)))
    for view in views:
        pixels = view.images[:].astype(np.float64) * np.float64(train.scale_factor or 1)
        assert (str(view.mean.dtype), len(view.mean)) == ("float32", pixels.shape[-1])
        np.testing.assert_allclose(view.mean, pixels.mean((0, 1, 2)), rtol=1e-6)
        np.testing.assert_allclose(view.std, pixels.std((0, 1, 2)), rtol=1e-6)
        counts = np.bincount(np.asarray(view.labels), minlength=3)
        np.testing.assert_array_equal(view.class_counts, counts)
    summary = batchify.summarize(out).splits[0]
    np.testing.assert_array_equal(train.mean, np.array(summary.mean, np.float32))
    with pytest.raises(batchify.OptionError, match="train has no images, and so no mean"):
        train.select([]).mean  # noqa: B018


def test_class_weights_balance_classes(folder: Path, tmp_path: Path) -> None:
    """Every class weighs the same in total; a class without rows has 0; one-hot labels, too."""
    for class_mode in ("sparse", "categorical"):
        out = tmp_path / f"{class_mode}.h5"
        batchify.build(folder, out, target_size=(8, 8), class_mode=class_mode)
        train = batchify.open(out)["train"]
        assert train.class_counts.tolist() == [7, 10, 16]
        some = train.filter(lambda row: (row["class"] != "b") & (row["path"] != "a/img_007.jpg"))
        weights, counts = some.class_weights(), some.class_counts
        assert (str(weights.dtype), weights[1], counts[1]) == ("float32", 0, 0)
        np.testing.assert_allclose((weights * counts)[[0, 2]], len(some) / 2, rtol=1e-6)


def test_labels_that_are_no_classes_are_not_counted(tmp_path: Path) -> None:
    """Several labels, numbers, masks, none: an error that says which, for counts and weights."""
    root = draw_dataset(tmp_path / "data", {"a": 5})
    masks = tmp_path / "data" / "masks"
    rows = []
    for i in range(5):
        save(masks / f"{i}.png", encoded(photo(40, 30, seed=i, mode="L"), "PNG"))
        rows.append(
            {
                "path": f"a/img_{i:03}.jpg",
                "x": i % 2,
                "y": 1,
                "age": i / 2,
                "mask": f"masks/{i}.png",
            }
        )
    table = write_table(tmp_path / "rows.csv", rows)
    asked: list[tuple[Any, list[str], str]] = [
        ("multilabel", ["x", "y"], r"several classes each \(multilabel\); split\.labels\.sum\(0\)"),
        (
            "regression",
            ["age"],
            r"labels of train are numbers \(regression\), not classes to count",
        ),
        ("mask", ["mask"], "labels of train are masks, not classes to count"),
    ]
    for class_mode, columns, message in asked:
        out = tmp_path / f"{class_mode}.h5"
        build(root, out, options_of(table, class_mode, columns))
        train = batchify.open(out)["train"]
        view = train.select([2, 0])
        np.testing.assert_array_equal(np.asarray(view.labels), np.asarray(train.labels)[[2, 0]])
        np.testing.assert_array_equal(view.batches(2).read([1])[1], np.asarray(train.labels)[[0]])
        if class_mode == "multilabel":
            both = train.filter(lambda row: row["label"].all(axis=1))
            assert np.asarray(both.labels).tolist() == [[1, 1]] * len(both)
        for ask in (view.class_weights, lambda view=view: view.class_counts):
            with pytest.raises(batchify.OptionError, match=message):
                ask()
        assert (
            pickle.loads(pickle.dumps(view.labels))[0].tolist()
            == np.asarray(train.labels)[2].tolist()
        )
    out = tmp_path / "none.h5"
    batchify.build(root, out, target_size=(8, 8), class_mode="none")
    view = batchify.open(out)["train"].select([1, 2])
    assert [np.shape(x) for x in view.batches(2)] == [(2, 8, 8, 3)]
    with pytest.raises(batchify.OptionError, match="train has no labels, and so no classes"):
        view.class_weights()
