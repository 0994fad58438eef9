"""Datasets that other libraries wrote are imported, in the environments that have them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import encoded, photo
from helpers.frameworks import framework
from PIL import Image

import batchify

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore")]

JPEG = [encoded(photo(12, 10, seed), "JPEG") for seed in range(12)]
NAMES = ["ant", "bee", "cow"]
SMALL: Any = {"target_size": (10, 12), "workers": 1, "overwrite": True}


def rows_of(path: Path, split: str) -> list[tuple[bytes, int]]:
    """Return the image files and labels of a split, in the order of their paths."""
    with batchify.open(path) as file:
        found: Any = file[split]
        order = np.argsort(np.array(found.paths[:]))
        return [(found.encoded(row), int(found.labels[row])) for row in order.tolist()]


@pytest.mark.parametrize("compress", [False, True])
def test_shards_that_webdataset_writes(tmp_path: Path, compress: bool) -> None:
    """Images, labels and metadata, by its ShardWriter; compressed shards are refused."""
    wds = framework("webdataset")
    ending = ".tar.gz" if compress else ".tar"
    (tmp_path / "tars").mkdir()
    for split, rows in {"train": range(8), "val": range(8, 12)}.items():
        pattern = str(tmp_path / "tars" / f"{split}-%06d{ending}")
        with wds.ShardWriter(pattern, maxcount=3, verbose=0) as sink:
            for row in rows:
                sink.write({"__key__": f"{row:06}", "jpg": JPEG[row], "cls": row % 3,
                            "json": {"age": row}})  # fmt: skip
    out = tmp_path / "out.h5"
    if compress:
        with pytest.raises(batchify.DatasetError):
            batchify.build(tmp_path / "tars", out, **SMALL)
        return
    batchify.build(tmp_path / "tars", out, store="encoded", keep_columns="age", **SMALL)
    assert rows_of(out, "train") == [(JPEG[row], row % 3) for row in range(8)]
    assert rows_of(out, "validation") == [(JPEG[row], row % 3) for row in range(8, 12)]
    assert batchify.verify(out, source=tmp_path / "tars").is_ok


def hub(tmp_path: Path) -> Any:
    """Return a dataset of the library, of image files, with class names and two splits."""
    datasets = framework("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    )
    found = {}
    for split, rows in {"train": range(8), "test": range(8, 12)}.items():
        images = []
        for row in rows:
            (tmp_path / f"{row:02}.jpg").write_bytes(JPEG[row])
            images.append(str(tmp_path / f"{row:02}.jpg"))
        data = {"image": images, "label": [row % 3 for row in rows]}
        found[split] = datasets.Dataset.from_dict(data, features)
    return datasets.DatasetDict(found)


@pytest.mark.parametrize("kind", ["save_to_disk", "to_parquet"])
def test_datasets_that_the_hub_library_writes(tmp_path: Path, kind: str) -> None:
    """Of save_to_disk, in several files, and of to_parquet: image files byte for byte.

    What to_parquet writes without the images is refused.
    """
    data, folder, out = hub(tmp_path), tmp_path / "saved", tmp_path / "out.h5"
    if kind == "save_to_disk":
        data.save_to_disk(str(folder), num_shards={"train": 3, "test": 1})
    else:
        folder.mkdir()
        for split, each in data.items():
            path = str(folder / f"{split}-00000-of-00001.parquet")
            each.to_parquet(path)
            with pytest.raises(batchify.DatasetError, match="column image are only paths; save"):
                batchify.plan_build(path)
            embed = framework("datasets.table").embed_table_storage
            each.with_format("arrow").map(embed, batched=True).to_parquet(path)
    batchify.build(folder, out, store="encoded", **SMALL)
    assert rows_of(out, "train") == [(JPEG[row], row % 3) for row in range(8)]
    assert rows_of(out, "test") == [(JPEG[row], row % 3) for row in range(8, 12)]
    with batchify.open(out) as file:
        assert file.classes == tuple(NAMES)
    assert batchify.verify(out, source=folder, redecode="all").is_ok


def test_images_of_arrays_that_the_library_encodes(tmp_path: Path) -> None:
    """As PNG files, without paths: the pixels are those of the arrays."""
    datasets = framework("datasets")
    pixels = [np.asarray(Image.open(io.BytesIO(data))) for data in JPEG]
    features = datasets.Features(
        {"img": datasets.Image(), "digit": datasets.ClassLabel(names=NAMES)}
    )
    rows = {"img": pixels, "digit": [row % 3 for row in range(12)]}
    data = datasets.Dataset.from_dict(rows, features)
    data.to_parquet(str(tmp_path / "a.parquet"))
    out = tmp_path / "out.h5"
    batchify.build(tmp_path / "a.parquet", out, validation_split=0, **SMALL)
    with batchify.open(out) as file:
        train: Any = file["train"]
        for row, path in enumerate(train.paths[:]):
            number = int(path.rpartition("/")[2])
            np.testing.assert_array_equal(train.images[row], pixels[number])
            assert train.labels[row] == number % 3
