"""What `batchify export` writes is imported again: the same images, labels, classes and splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.tabled import listed, write_table
from PIL import Image

import batchify
from batchify.choices import ExportFormat, Store

FORMATS: tuple[ExportFormat, ...] = ("npz", "webdataset", "parquet", "arrow")
SIZE: Any = {"target_size": (12, 10), "workers": 1}


def rows_of(path: Path) -> dict[str, dict[str, list[Any]]]:
    """Return all columns of each split but those of the source, by path, by plain h5py."""
    found: dict[str, dict[str, list[Any]]] = {}
    with h5py.File(path) as file:
        for split in {"train", "validation", "test"} & set(file):
            group = file[split]
            names = sorted({"images", "labels", "weights", "site", "note"} & set(group))
            columns = [group[name][()].tolist() for name in names]
            if "encoded" in group:
                data, extents = group["encoded"][()].tobytes(), group["image_extents"][()]
                columns.append([data[start : start + n] for start, n in extents.tolist()])
            paths = [name.decode("utf-8", "surrogateescape") for name in group["paths"][()]]
            rows = zip(*columns, strict=True)
            found[split] = dict(zip(paths, map(list, rows), strict=True))
    return found


def source(folder: Path) -> tuple[Path, Path]:
    """Draw images, and write their table: splits, weights, columns; a class without images."""
    photos = draw_dataset(folder / "photos", {"cat": 9, "dog é": 12, "fox": 2}, size=(30, 20))
    rows: list[dict[str, Any]] = [
        {
            "path": path,
            "label": path.partition("/")[0],
            "split": ["train", "train", "validation", "test"][i % 4],
            "weight": 1 + i / 4,
            "site": -i,
            "note": f"n {i}" if i % 3 else "",
        }
        for i, path in enumerate(listed(photos))
    ]
    return photos, write_table(folder / "table.csv", rows)


@pytest.mark.parametrize("store", ["decoded", "encoded", "jpeg"])
@pytest.mark.parametrize("name", FORMATS)
def test_classes(tmp_path: Path, name: ExportFormat, store: Store) -> None:
    """Pixels or files, byte for byte, with weights, columns, paths and class names."""
    photos, table = source(tmp_path)
    options: Any = {**SIZE, "keep_columns": ["site", "note"], "store": store}
    first, again = tmp_path / "first.h5", tmp_path / "again.h5"
    batchify.build(photos, first, manifest=table, **options)
    target = tmp_path / ("arrays.npz" if name == "npz" else name)
    batchify.export(first, target, format=name, workers=1)
    if name == "npz":
        options["store"] = "decoded"  # it has pixels
    elif store == "jpeg":
        options["store"] = "encoded"
    batchify.build(target, again, **options)
    with batchify.open(first) as one, batchify.open(again) as other:
        assert other.classes == one.classes
        if name == "npz" and store != "decoded":
            for split in one:
                found = dict(zip(other[split].paths[:], other[split].images[:], strict=True))
                for path, image in zip(one[split].paths[:], one[split].images[:], strict=True):
                    np.testing.assert_array_equal(found[path], image)
            return
    assert rows_of(again) == rows_of(first)
    assert batchify.verify(again, source=target, redecode="all").is_ok


@pytest.mark.parametrize("name", FORMATS)
def test_splits_without_labels_and_shards(tmp_path: Path, name: ExportFormat) -> None:
    """A test split that has no labels, and a build into shards of an import."""
    photos = draw_dataset(tmp_path / "photos" / "train", {"a": 8, "b": 8}).parent
    draw_dataset(photos, {"test": 5})
    first, again = tmp_path / "first.h5", tmp_path / "again"
    batchify.build(photos, first, **SIZE)
    target = tmp_path / ("arrays.npz" if name == "npz" else name)
    size = None if name == "npz" else "10kB"
    batchify.export(first, target, format=name, workers=1, shard_size=size)
    batchify.build_shards(target, again, shards=2, **SIZE)
    batchify.merge(again, tmp_path / "again.h5")
    assert rows_of(tmp_path / "again.h5") == rows_of(first)
    assert "labels" not in h5py.File(tmp_path / "again.h5")["test"]


@pytest.mark.parametrize("store", ["decoded", "encoded"])
@pytest.mark.parametrize("mode", ["multilabel", "regression"])
@pytest.mark.parametrize("name", FORMATS)
def test_numbers(tmp_path: Path, name: ExportFormat, mode: Any, store: Store) -> None:
    """Labels that are numbers, several or one, and their names."""
    photos = draw_dataset(tmp_path / "photos", {"a": 12}, size=(30, 20))
    columns = ["red", "big", "old"] if mode == "multilabel" else ["age"]
    rows = [
        {"path": path, **{c: (i >> k) % 2 if k or mode == "multilabel" else i / 4
                          for k, c in enumerate(columns)}}
        for i, path in enumerate(listed(photos))
    ]  # fmt: skip
    table = write_table(tmp_path / "table.csv", rows)
    first, again = tmp_path / "first.h5", tmp_path / "again.h5"
    options: Any = {**SIZE, "class_mode": mode, "store": store}
    batchify.build(photos, first, manifest=table, label_columns=columns, **options)
    target = tmp_path / ("arrays.npz" if name == "npz" else name)
    batchify.export(first, target, format=name, workers=1)
    if name == "npz":
        options["store"] = "decoded"
    batchify.build(target, again, **options)
    with batchify.open(first) as one, batchify.open(again) as other:
        assert other.classes == one.classes
    if name != "npz" or store == "decoded":
        assert rows_of(again) == rows_of(first)
    if mode == "multilabel":
        with pytest.raises(batchify.DatasetError, match="labels are lists of numbers, not classes"):
            batchify.plan_build(target)


@pytest.mark.parametrize("name", FORMATS)
def test_masks(tmp_path: Path, name: ExportFormat) -> None:
    """Label images, of each row."""
    photos = draw_dataset(tmp_path / "photos", {"a": 12}, size=(30, 20), format_name="PNG")
    images = listed(photos)
    masks = draw_dataset(photos, {"m": 12}, size=(30, 20), format_name="PNG")
    for number, path in enumerate(sorted((masks / "m").iterdir())):
        shape = (20, 30)
        values = np.random.RandomState(number).randint(0, 5, shape).astype(np.uint8)
        Image.fromarray(values).save(path)
    names = [f"m/{path.name}" for path in sorted((masks / "m").iterdir())]
    rows = [{"path": p, "mask": m} for p, m in zip(images, names, strict=True)]
    table = write_table(tmp_path / "table.csv", rows)
    first, again = tmp_path / "first.h5", tmp_path / "again.h5"
    options: Any = {**SIZE, "class_mode": "mask"}
    batchify.build(photos, first, manifest=table, **options)
    target = tmp_path / ("arrays.npz" if name == "npz" else name)
    batchify.export(first, target, format=name, workers=1)
    batchify.build(target, again, **options)
    assert rows_of(again) == rows_of(first)
    assert batchify.verify(again, source=target, redecode="all").is_ok
