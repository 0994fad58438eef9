"""The loader on its own, beyond what it shares with Keras (test_keras.py)."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers.drawing import draw_dataset

import batchify
from batchify.datasets.discovery import discover
from batchify.decoding.batch import BatchReader
from batchify.errors import BadImagesError, BatchifyWarning, OptionError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.loading.loader import Loader
from batchify.planning.planner import plan_build
from batchify.storage.source import SourceFile


def test_an_epoch_serves_every_image_once(photos: Path) -> None:
    """In batches of which the last is partial; then the next epoch follows in another order."""
    loader = Loader.from_directory(photos, target_size=(8, 8), batch_size=5)
    assert (len(loader), loader.samples, loader.batch_size, loader.seed) == (3, 12, 5, 0)
    first = list(itertools.islice(loader, 3))
    assert [len(images) for images, _ in first] == [5, 5, 2]
    second = list(itertools.islice(loader, 3))
    one, two = (np.concatenate([x for x, _ in epoch]) for epoch in (first, second))
    assert not np.array_equal(one, two)
    assert sorted(one.sum(axis=(1, 2, 3)).tolist()) == sorted(two.sum(axis=(1, 2, 3)).tolist())


def test_two_loaders_of_a_seed_agree(photos: Path) -> None:
    """The order is drawn from the seed alone."""
    batches = [next(Loader.from_directory(photos, seed=seed))[1] for seed in (3, 3, 4)]
    np.testing.assert_array_equal(batches[0], batches[1])
    assert not np.array_equal(batches[0], batches[2])


def test_without_labels_images_come_alone(photos: Path) -> None:
    """As Keras with class_mode=None."""
    loader = Loader.from_directory(photos, class_mode="none", batch_size=4)
    batch = next(loader)
    assert isinstance(batch, np.ndarray)
    assert batch.shape == (4, 150, 150, 3)


def test_subsets(photos: Path, tmp_path: Path) -> None:
    """Keras' names are understood; one that is not there is said."""
    assert Loader.from_directory(photos, subset="training").samples == 12
    assert Loader.from_directory(photos, subset="validation").samples == 3
    with pytest.raises(OptionError, match="there is no split 'test', only train, validation"):
        Loader.from_directory(photos, subset="test")
    for name, count in (("train", 3), ("val", 2)):
        draw_dataset(tmp_path / "split" / name, {"cat": count})
    with pytest.warns(BatchifyWarning, match="only one class"):
        loader = Loader.from_directory(tmp_path / "split", subset="validation")
    assert loader.samples == 2


def test_it_takes_every_option_of_a_build(photos: Path) -> None:
    """Copies stay in one split; how a file would store the images makes no difference."""
    (photos / "dog" / "copy.jpg").write_bytes((photos / "dog" / "img_003.jpg").read_bytes())
    options: batchify.OptionKeywords = {
        "target_size": (8, 8), "split": "hash", "group_duplicates": True, "exclude": ["img_000.*"],
        "seed": 2, "store": "encoded", "dtype": "uint16",
    }  # fmt: skip
    loader = Loader.from_directory(photos, **options)
    plan = plan_build(photos, **options)
    rows = {split.name: len(split) for split in plan.splits}
    assert loader.samples == rows["train"]
    images, _ = next(loader)
    assert images.shape == (rows["train"], 8, 8, 3)
    assert images.dtype == np.float32
    assert 0.2 < images.mean() < 0.8


def test_it_warns_as_a_build_does(tmp_path: Path) -> None:
    """Of splits and classes, too."""
    root = draw_dataset(tmp_path / "d", {"train/cat": 1, "train/dog": 1, "test/cat": 1})
    (root / "test" / "owl").mkdir()
    with pytest.warns(BatchifyWarning) as found:
        Loader.from_directory(root)
    codes = [each.message.code for each in found]  # type: ignore[union-attr]
    assert codes == [each.code for each in plan_build(root).warnings]
    assert codes == ["no-validation", "empty-class"]


def test_a_bad_image_is_named(photos: Path) -> None:
    """When its batch is asked for."""
    (photos / "cat" / "img_004.jpg").write_bytes(b"no")
    loader = Loader.from_directory(photos, batch_size=12)
    with pytest.raises(
        BadImagesError, match=r"1 of 12 images .* first cat/img_004.jpg: not an image"
    ):
        next(loader)


def test_an_empty_split_ends_at_once(tmp_path: Path) -> None:
    """Iterating over it does not hang."""
    root = draw_dataset(tmp_path, {"cat": 1, "dog": 1})
    with pytest.warns(BatchifyWarning, match="validation split is empty"):
        loader = Loader.from_directory(root, subset="validation")
    assert list(loader) == []


def test_a_batch_of_the_reader_holds_what_the_file_stores(photos: Path) -> None:
    """Rows of bad files are zeros, and their position and reason are told."""
    (photos / "cat" / "img_001.jpg").write_bytes(b"no")
    store = StoreOptions(dtype="float32", rescale=0.5)
    reader = BatchReader(discover(photos).source.open_reader(), DecodeOptions((8, 6)), store=store)
    batch = reader.read(
        [SourceFile(b"cat/%b.jpg" % name) for name in (b"img_000", b"img_001", b"img_002")]
    )
    assert batch.columns["images"].shape == (3, 8, 6, 3)
    assert [position for position, _ in batch.bad] == [1]
    assert not batch.columns["images"][1].any()
    assert batch.columns["source_size"].tolist() == [[30, 40], [0, 0], [30, 40]]
    assert batch.columns["images"][0].max() > 1
    shapes = {name: column.shape for name, column in batch.columns.items()}
    empty = {name: column.shape for name, column in reader.read([]).columns.items()}
    assert empty == {name: (0, *shape[1:]) for name, shape in shapes.items()}
