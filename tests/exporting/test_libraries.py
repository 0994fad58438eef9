"""Exports are read with the library of each format, in the environments that have it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.frameworks import framework
from helpers.tabled import listed, write_table
from PIL import Image

import batchify
from batchify.choices import ExportFormat
from batchify.loading.split import Split

pytestmark = pytest.mark.filterwarnings("ignore")

Found = Iterator[tuple[Any, Any, str, Any]]
"""The image, as its file or as pixels; the label; the path; the kept column."""


@pytest.fixture(params=["decoded", "encoded"])
def exported(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[batchify.DatasetFile, Any]]:
    """Build a file with a kept column and weights; yield it, and a function that exports it."""
    photos = draw_dataset(tmp_path / "photos", {"cat": 9, "dog": 12}, size=(150, 100))
    rows: list[dict[str, Any]] = [
        {"path": path, "label": path[:3], "weight": 1 + i / 4, "site": -i}
        for i, path in enumerate(listed(photos))
    ]
    out = tmp_path / "out.h5"
    options: Any = {"target_size": (80, 60), "store": request.param, "keep_columns": ["site"]}
    batchify.build(photos, out, manifest=write_table(tmp_path / "t.csv", rows), **options)

    def export(name: ExportFormat) -> Path:
        size = None if name == "imagefolder" else "100kB"
        batchify.export(out, tmp_path / name, format=name, shard_size=size, workers=1)
        return tmp_path / name

    with batchify.open(out) as file:
        yield file, export


def assert_same(split: Split, found: Found) -> None:
    """Compare what a library read with the rows of a split."""
    count = 0
    for row, (image, label, path, site) in enumerate(found):
        if isinstance(image, bytes):
            try:
                assert image == split.encoded(row)
                image = None
            except batchify.OptionError:
                image = Image.open(io.BytesIO(image))
        if image is not None:
            stored = split.images[row]
            pixels = np.asarray(image)
            if pixels.shape != stored.shape:  # an image file, decoded
                stored = split.decode(row)
            np.testing.assert_array_equal(pixels, stored)
        assert split.labels is not None
        assert label == int(split.labels[row])
        assert path == split.paths[row]
        assert site == split.columns["site"][row]
        count += 1
    assert count == len(split)


@pytest.mark.frameworks
def test_webdataset_reads_tar_shards(exported: Any) -> None:
    """In order, with the label as .cls and the rest as .json."""
    wds = framework("webdataset")
    file, export = exported
    target = export("webdataset")
    for name, split in file.items():
        shards = [str(path) for path in sorted(target.glob(f"{name}-*.tar"))]
        data = wds.WebDataset(shards, shardshuffle=False, empty_check=False)

        def rows(data: Any = data) -> Found:
            for sample in data:
                facts = json.loads(sample["json"])
                image = sample.get("png") or sample["jpg"]
                yield image, int(sample["cls"]), facts["path"], facts["columns"]["site"]

        assert_same(split, rows())


@pytest.mark.frameworks
@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_datasets_reads_tables(exported: Any, tmp_path: Path, name: ExportFormat) -> None:
    """With images and class names as features, which the viewer shows."""
    datasets = framework("datasets")
    file, export = exported
    target = export(name)
    if name == "parquet":
        found = datasets.load_dataset(str(target), cache_dir=str(tmp_path / "cache"))
    else:
        found = datasets.load_from_disk(str(target))
    assert set(found) == set(file)
    for split_name, split in file.items():
        data = found[split_name]
        assert data.features == datasets.Features(
            {
                "image": datasets.Image(),
                "label": datasets.ClassLabel(names=list(split.classes)),
                "weight": datasets.Value("float32"),
                "path": datasets.Value("string"),
                "site": datasets.Value("int64"),
            }
        )
        raw = data.cast_column("image", datasets.Image(decode=False))
        assert_same(split, ((r["image"]["bytes"], r["label"], r["path"], r["site"]) for r in raw))
        assert_same(split, ((r["image"], r["label"], r["path"], r["site"]) for r in data))


@pytest.mark.frameworks
def test_torchvision_reads_folders(exported: Any) -> None:
    """With the same classes, and every image once."""
    folders = framework("torchvision.datasets")
    file, export = exported
    target = export("imagefolder")
    for name, split in file.items():
        found = folders.ImageFolder(target / name)
        assert tuple(found.classes) == split.classes
        row = {path.rpartition(".")[0]: i for i, path in enumerate(split.paths)}
        names = {
            row[Path(path).relative_to(target / name).with_suffix("").as_posix()]: (path, label)
            for path, label in found.samples
        }
        assert_same(
            split,
            (
                (Path(names[i][0]).read_bytes(), names[i][1], split.paths[i],
                 split.columns["site"][i])
                for i in range(len(split))
            ),
        )  # fmt: skip


@pytest.mark.streaming
def test_streaming_reads_mds(exported: Any) -> None:
    """Pixels, labels, paths, weights and columns, in order."""
    streaming = framework("streaming")
    file, export = exported
    target = export("mds")
    for name, split in file.items():
        data = streaming.StreamingDataset(local=str(target / name), shuffle=False, batch_size=1)
        samples = [data[i] for i in range(len(data))]
        assert_same(split, ((s["image"], s["label"], s["path"], s["site"]) for s in samples))
        assert split.weights is not None
        assert [sample["weight"] for sample in samples] == split.weights.tolist()
        if (split.images.shape[1:]) != np.asarray(samples[0]["image"]).shape:
            shards = sorted((target / name).glob("*.mds"))
            data_bytes = b"".join(path.read_bytes() for path in shards)
            assert all(split.encoded(row) in data_bytes for row in range(len(split)))


@pytest.mark.tensorflow
def test_tensorflow_reads_tfrecords(exported: Any) -> None:
    """With the feature names of TFDS; its reader checks the checksums."""
    tf = framework("tensorflow")
    file, export = exported
    target = export("tfrecord")
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "image/filename": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
        "site": tf.io.FixedLenFeature([], tf.int64),
        "weight": tf.io.FixedLenFeature([], tf.float32),
    }
    for name, split in file.items():
        shards = [str(path) for path in sorted(target.glob(f"{name}-*.tfrecord"))]
        read = tf.data.TFRecordDataset(shards)
        samples = [tf.io.parse_single_example(each, features) for each in read]
        assert_same(
            split,
            (
                (s["image"].numpy(), int(s["label"]), s["image/filename"].numpy().decode(),
                 int(s["site"]))
                for s in samples
            ),
        )  # fmt: skip
        assert split.weights is not None
        assert [float(sample["weight"]) for sample in samples] == split.weights.tolist()


@pytest.mark.tensorflow
def test_tfds_reads_tfrecords(exported: Any) -> None:
    """As image files and decoded, with the names of the classes, in order."""
    tfds = framework("tensorflow_datasets")
    file, export = exported
    builder = tfds.builder_from_directory(str(export("tfrecord")))
    assert builder.info.supervised_keys == ("image", "label")
    for name, split in file.items():
        assert builder.info.splits[name].num_examples == len(split)
        assert builder.info.features["label"].names == list(split.classes)
        for decoders in ({"image": tfds.decode.SkipDecoding()}, None):
            data = tfds.as_numpy(builder.as_dataset(split=name, decoders=decoders))
            if decoders is None and builder.info.features["image"].shape[0] is None:
                assert [each["image"].shape for each in data] == [(100, 150, 3)] * len(split)
                continue  # the decoder of TensorFlow makes slightly other pixels of JPEGs
            assert_same(
                split,
                (
                    (s["image"], s["label"], s["image/filename"].decode(), s["site"])
                    for s in data
                ),
            )  # fmt: skip


@pytest.mark.tensorflow
def test_tfds_reads_other_labels(tmp_path: Path) -> None:
    """Numbers, several labels, masks, deep pixels; and a split without labels."""
    tfds = framework("tensorflow_datasets")
    photos = draw_dataset(tmp_path / "photos", {"a": 4, "b": 4}, format_name="PNG")
    rows: list[dict[str, Any]] = []
    for i, path in enumerate(listed(photos)):
        save(photos / "masks" / f"{i}.png", encoded(photo(40, 30, seed=i, mode="L"), "PNG"))
        rows.append({"path": path, "label": path[0], "red": i % 2, "big": int(i > 3), "x": i / 8,
                     "mask": f"masks/{i}.png", "text": f"é{i}", "odd": bool(i % 2)})  # fmt: skip
    table = write_table(tmp_path / "rows.parquet", rows)
    cases: dict[str, Any] = {
        "multilabel": {"class_mode": "multilabel", "label_columns": ["red", "big"]},
        "regression": {"class_mode": "regression", "label_columns": ["x"]},
        "mask": {"class_mode": "mask", "label_columns": ["mask"]},
        "none": {"class_mode": "none"},
        "deep": {"color_mode": "grayscale", "dtype": "uint16"},
    }
    kept = ["text", "odd"]
    for name, options in cases.items():
        batchify.build(
            photos, tmp_path / name, manifest=table, keep_columns=kept, target_size=(12, 10),
            **options,
        )  # fmt: skip
    for path in ("train/cat/a.png", "test/c.png"):
        save(tmp_path / "data" / path, encoded(photo(20, 20), "PNG"))
    batchify.build(tmp_path / "data", tmp_path / "unlabelled", validation_split=0.0)
    for name in [*cases, "unlabelled"]:
        target = tmp_path / f"{name}-records"
        batchify.export(tmp_path / name, target, format="tfrecord", workers=1)
        builder = tfds.builder_from_directory(str(target))
        with batchify.open(tmp_path / name) as file:
            for split in filter(len, file.values()):
                data = list(tfds.as_numpy(builder.as_dataset(split=split.name)))
                found = np.stack([each["image"] for each in data])
                np.testing.assert_array_equal(found, split.images)
                labels = [each.get("label", -1) for each in data]
                expected = [-1] * len(split) if split.labels is None else np.asarray(split.labels)
                np.testing.assert_array_equal(np.reshape(labels, np.shape(expected)), expected)
                for column in split.columns:
                    values = [each[column] for each in data]
                    texts = [v.decode() if isinstance(v, bytes) else v for v in values]
                    assert texts == split.columns[column].tolist()
