"""Tar shards of WebDataset: what is taken, and every way in which they are wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo
from helpers.packing import pack
from helpers.running import Run

import batchify
from batchify.datasets.packed_formats import packed_kind
from batchify.errors import DatasetError, DatasetNotFoundError

Entries = list[tuple[str, bytes | None]]
SMALL: Any = {"target_size": (8, 6), "workers": 1, "overwrite": True}
JPEG = [encoded(photo(12, 10, seed), "JPEG") for seed in range(12)]


def sample(key: str, seed: int, **files: Any) -> Entries:
    """Return the files of a key: an image, and others by their endings."""
    others = {
        name: json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in files.items()
    }
    texts: Entries = [(f"{key}.{name}", text.encode()) for name, text in others.items()]
    return [(f"{key}.jpg", JPEG[seed]), *texts]


def shard(path: Path, keys: Sequence[int], **files: Any) -> Path:
    """Write a shard of numbered samples of the classes 0 to 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [each for key in keys for each in sample(f"{key:06}", key, cls=key % 3, **files)]
    return pack(path, entries)


def found_in(path: Path, split: str) -> dict[str, tuple[bytes, int]]:
    """Return the image file and the label of each path in a file with encoded images."""
    with batchify.open(path) as file:
        found: Any = file[split]
        return {
            path: (found.encoded(row), int(found.labels[row]))
            for row, path in enumerate(found.paths[:])
        }


def test_the_samples_of_shards_are_the_rows_of_their_splits(tmp_path: Path, run: Run) -> None:
    """Image files byte for byte, with labels, class names and splits; the dataset verifies them."""
    tars = tmp_path / "tars"
    shard(tars / "train-000000.tar", range(5))
    shard(tars / "train-000001.tar", range(5, 9))
    shard(tars / "val-000000.tar", range(9, 12))
    (tars / "classes.txt").write_text("ant\nbee\ncow\ndog\n", "utf-8")
    out = tmp_path / "out.h5"
    done = run("import", tars, out, "--target-size", "8x6", "--store", "encoded")
    assert done.returncode == 0, done.stderr
    expected = {f"train-000000.tar/{key:06}.jpg": (JPEG[key], key % 3) for key in range(5)}
    expected |= {f"train-000001.tar/{key:06}.jpg": (JPEG[key], key % 3) for key in range(5, 9)}
    assert found_in(out, "train") == expected
    assert sorted(found_in(out, "validation")) == [
        f"val-000000.tar/{key:06}.jpg" for key in range(9, 12)
    ]
    with h5py.File(out) as file:
        assert file.attrs["classes"].tolist() == [b"ant", b"bee", b"cow", b"dog"]
    for command in (("verify", out, "--source", tars), ("build", tars, out, "--check", "--store",
                    "encoded", "--target-size", "8x6"), ("fingerprint", tars)):  # fmt: skip
        assert run(*command).returncode == 0
    pack(tars / "val-000000.tar", sample("000009", 0, cls=0))
    changed = run("verify", out, "--source", tars)
    assert changed.returncode == 6
    assert "000009.jpg" in changed.stdout


def test_what_is_a_dataset_of_shards(tmp_path: Path) -> None:
    """Folders of tars alone, also by split; a tar with labels; not what has images or classes."""
    shard(tmp_path / "one" / "a.tar", range(3))
    shard(tmp_path / "splits" / "train" / "a.tar", range(3))
    shard(tmp_path / "splits" / "val" / "a.tar", range(3))
    shard(tmp_path / "mixed" / "a.tar", range(3))
    (tmp_path / "mixed" / "1.jpg").write_bytes(JPEG[0])
    photos = draw_dataset(tmp_path / "photos", {"cat": 2, "dog": 2})
    shard(photos / "a.tar", range(3))
    described = [*sample("cat/1", 1, json={}), *sample("dog/1", 2, json={})]
    pack(tmp_path / "classes.tar", described)
    pack(tmp_path / "flat.tar", sample("1", 1, json={"label": 1}))
    found = {
        path.name: packed_kind(path)
        for path in (*tmp_path.iterdir(), tmp_path / "one" / "a.tar")
    }  # fmt: skip
    assert found == {
        **dict.fromkeys(("one", "splits", "a.tar", "flat.tar"), "webdataset"),
        **dict.fromkeys(("mixed", "photos", "classes.tar")),
    }  # fmt: skip
    with h5py.File(build(tmp_path / "splits")) as file:
        assert (len(file["train/paths"]), len(file["validation/paths"])) == (3, 3)
    batchify.build(tmp_path / "classes.tar", tmp_path / "classes.h5", **SMALL)


def build(path: Path, **options: Any) -> Path:
    """Build a file of small images."""
    out = path.parent / "out.h5"
    batchify.build(path, out, **{**SMALL, **options})
    return out


def test_values_of_json_are_columns(tmp_path: Path) -> None:
    """Labels and paths, too; a label may be the name of its class. Text is a column, too."""
    entries: Entries = [("README", b"ignored"), ("._1.jpg", b"hidden"), ("folder/", None)]
    for key in range(6):
        facts = {"path": f"a/{key}.jpeg", "label": "bc"[key % 2], "age": key, "box": [1, 2]}
        entries += sample(f"k/{key}", key, json={**facts, "weight": 0.5}, txt="a cat")
    (tmp_path / "tars").mkdir()
    pack(tmp_path / "tars" / "b.tar", entries)
    out = build(tmp_path / "tars", validation_split=0, keep_columns=["age", "txt"])
    with h5py.File(out) as file:
        train = file["train"]
        assert file.attrs["classes"].tolist() == [b"b", b"c"]
        assert sorted(train["paths"].asstr()[()].tolist()) == [f"a/{key}.jpeg" for key in range(6)]
        ages = [int(path[2]) for path in train["paths"].asstr()[()]]
        assert train["age"][()].tolist() == ages
        assert [age % 2 for age in ages] == train["labels"][()].tolist()
        assert set(train["weights"][()].tolist()) == {0.5}
        assert set(train["txt"].asstr()[()].tolist()) == {"a cat"}


@pytest.mark.parametrize(
    "name", ["train-1.tar.gz", "train-1.TGZ", "train/train-1.tar.zst", "a.npz"]
)
def test_shards_that_would_be_left_out_are_an_error(tmp_path: Path, name: str) -> None:
    """Compressed ones, or arrays next to tars: their images would be missing without a word."""
    tars = tmp_path / "tars"
    shard((tars / name).parent / "train-0.tar", range(3))
    (tars / name).write_bytes(b"")
    with pytest.raises(DatasetError, match=f"{name} is not read next to .tar files"):
        batchify.plan_build(tars)
    assert batchify.plan_build(tars, exclude=name).images == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train-0.tar.gz", "compressed tar, .*decompress it to a plain .tar"),
        ("a/train-0.TGZ", "compressed tar, .*decompress it to a plain .tar"),
        ("shard.00000.mds.zstd", "shard of MosaicML"),
        ("train/x.tfrecord-00000-of-00002", "file of TFRecord"),
        ("train.beton", "file of FFCV"),
        ("train-images-idx3-ubyte.gz", r"file of arrays \(IDX\), which is not read; save"),
        ("images.npy", "array without labels; save"),
        ("mnist.npz", "file of arrays; name it as the dataset"),
    ],
)
def test_datasets_of_other_formats_are_named(tmp_path: Path, name: str, message: str) -> None:
    """Not as a folder without class folders, which they are, too; but images come first."""
    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    with pytest.raises(DatasetError, match=f"data has no images; {name} is an? {message}"):
        batchify.plan_build(tmp_path / "data")
    if "tar" not in message and not name.endswith(".npz"):
        with pytest.raises(DatasetError, match=f"{name} is an? {message}"):
            batchify.plan_build(path)
    (path.parent / "1.jpg").write_bytes(JPEG[0])
    if "/" not in name:
        with pytest.raises(DatasetError, match="class folders"):
            batchify.plan_build(tmp_path / "data")


def test_a_file_that_does_not_exist_needs_no_class_folders(tmp_path: Path) -> None:
    """It would be one of arrays, tars or tables."""
    for ending in ("npz", "tar", "parquet", "arrow"):
        with pytest.raises(DatasetNotFoundError, match=f"no.{ending} does not exist; check the"):
            batchify.plan_build(tmp_path / f"no.{ending}")


def test_a_json_that_names_another_split_than_its_shard_is_an_error(tmp_path: Path) -> None:
    """One of both would be ignored in silence; other words are no splits."""
    shard(tmp_path / "tars" / "val-0.tar", range(3), json={"split": "validation"})
    shard(tmp_path / "tars" / "train-0.tar", range(3, 6), json={"split": "sunny"})
    assert batchify.plan_build(tmp_path / "tars").rows == {"train": 3, "validation": 3}
    shard(tmp_path / "tars" / "train-0.tar", range(3, 6), json={"split": "test"})
    with pytest.raises(DatasetError, match=r"key 000003 of train-0.tar is in the split test"):
        batchify.plan_build(tmp_path / "tars")


def test_paths_that_are_not_valid_are_not_taken(tmp_path: Path) -> None:
    """Absolute or repeated ones, or numbers: images are then named by shard and key."""
    for number, paths in enumerate([("/a", "/b"), ("a", "a"), ("a", None), (1, 2)]):
        tars = tmp_path / str(number) / "tars"
        tars.mkdir(parents=True)
        entries = [
            each
            for key, path in enumerate(paths)
            for each in sample(str(key), key, cls=key, json={"path": path} if path else {})
        ]
        pack(tars / "a.tar", entries)
        with h5py.File(build(tars, validation_split=0)) as file:
            found = sorted(file["train/paths"].asstr()[()].tolist())
        assert found == ["a.tar/0.jpg", "a.tar/1.jpg"]


def test_no_image_has_the_path_of_a_mask(tmp_path: Path) -> None:
    """It would be read instead of the mask, in silence."""
    (tmp_path / "tars").mkdir()
    entries: Entries = []
    for key, path in enumerate(("a.tar/1.mask.png", "b.jpg")):
        entries += [*sample(str(key), key, json={"path": path}), (f"{key}.mask.png", JPEG[key + 4])]
    pack(tmp_path / "tars" / "a.tar", entries)
    dataset = batchify.plan_build(tmp_path / "tars", class_mode="mask").dataset
    masks = dataset.annotations.masks
    assert masks is not None
    assert [path for _, paths in dataset.samples.pieces() for path in paths] == [
        b"a.tar/0.jpg", b"a.tar/1.jpg",
    ]  # fmt: skip
    with contextlib.closing(dataset.source.open_reader()) as reader:
        assert list(reader.read_files(masks.files(np.arange(2)), 1 << 20)) == JPEG[4:6]


def test_patterns_choose_shards(tmp_path: Path) -> None:
    """--include and --exclude are for files, which are the shards."""
    tars = tmp_path / "tars"
    for name in ("train-0", "train-1", "extra"):
        shard(tars / f"{name}.tar", range(3))
    with pytest.raises(DatasetError, match=r"train-0.tar is in the split train, and extra.tar in"):
        build(tars)
    with h5py.File(build(tars, exclude="extra.tar")) as file:
        assert len(file["train/paths"]) == 6
    with h5py.File(build(tars, include="train-1*")) as file:
        assert len(file["train/paths"]) == 3
    assert batchify.verify(tmp_path / "out.h5", source=tars).is_ok
    (tmp_path / "bad.txt").write_text("train-0.tar/000001.jpg\n", "utf-8")
    listed = [f"@{tmp_path / 'bad.txt'}", "train-1.tar/", "000002.jpg", "extra.tar"]
    with h5py.File(build(tars, exclude=listed)) as file:
        assert file["train/paths"][()].tolist() == [b"train-0.tar/000000.jpg"]
    plan = batchify.plan_build(tars, exclude=["extra.tar", "000001.jpg", "nothing"])
    assert (plan.images, plan.dataset.excluded) == (4, 2)
    assert [each.code for each in plan.dataset.warnings] == ["unused-pattern"]
    with pytest.raises(DatasetError, match="ignore all of its files"):
        build(tars, include="none")


IMAGE = ("1.jpg", JPEG[0])
WRONG: dict[str, tuple[Entries, str]] = {
    "repeated key": (
        [*sample("1", 1, cls=0), *sample("2", 2, cls=0), *sample("1", 1, cls=0)],
        "a.tar has 1 more than once",
    ),
    "repeated file": ([IMAGE, IMAGE, ("1.cls", b"0")], "a.tar has 1.jpg more than once"),
    "no label": ([*sample("1", 1, cls=0), *sample("2", 2)], r"row 2: a.tar/2.jpg: label is empty"),
    "no labels": (
        [*sample("1", 1, json={"x": [1]})],
        "has no column label.*--class-mode none needs none",
    ),
    "no image": ([("1.cls", b"0"), *sample("2", 2, cls=0)], "key 1 of a.tar has no image"),
    "two labels": (
        [IMAGE, ("1.cls", b"0"), ("1.label", b"1")],
        r"key 1 of a.tar has different labels in .cls, .label",
    ),
    "two images": (
        [("1.left.jpg", JPEG[0]), ("1.right.jpg", JPEG[1]), ("1.cls", b"0")],
        r"key 1 of a.tar has several images: .left.jpg, .right.jpg",
    ),
    "out of range": (sample("1", 1, cls=7), "label 7 of row 1 .*: classes.txt has 2 names"),
    "two masks": (
        [*sample("1", 1, cls=0), ("1.mask.png", JPEG[2]), ("1.mask.jpg", JPEG[3])],
        "a.tar has 1.mask.png and 1.mask.jpg, which may both be the mask",
    ),
    "negative": (sample("1", 1, cls=-7), "label -7 of row 1 .* is out of range"),
    "not JSON": ([IMAGE, ("1.json", b"{"), ("1.cls", b"0")], "1.json of a.tar is not JSON"),
    "not UTF-8": ([IMAGE, ("1.cls", b"\xff")], "1.cls of a.tar is not UTF-8"),
    "names and numbers": (
        [*sample("1", 1, cls=0), *sample("2", 2, json={"label": True})],
        "label 0 of row 1 .* is not in classes.txt",
    ),
    "up": (
        [("../1.jpg", JPEG[0]), ("../1.cls", b"0")],
        r"a.tar has ../1.jpg, which is refused: name that leads",
    ),
    "absolute": (
        [("/1.jpg", JPEG[0]), ("/1.cls", b"0")],
        "a.tar has /1.jpg, which is refused: absolute",
    ),
    "half a character": (sample("1", 1, json={"label": "\ud800"}), "is not in classes.txt"),
    "large": ([IMAGE, ("1.cls", b"1" * (1 << 21))], "the limit is 1,048,576"),
}


def test_masks_that_are_called_like_labels_replace_no_label(tmp_path: Path) -> None:
    """Their column is mask, unless there is one already."""
    (tmp_path / "tars").mkdir()
    entries = [each for key in range(4) for each in sample(str(key), key, cls=key % 2)]
    entries += [(f"{key}.label.png", JPEG[key + 4]) for key in range(4)]
    entries.sort()
    pack(tmp_path / "tars" / "a.tar", entries)
    assert batchify.plan_build(tmp_path / "tars").dataset.classes == (b"0", b"1")
    masks = batchify.plan_build(tmp_path / "tars", class_mode="mask").dataset.annotations.masks
    assert masks is not None
    assert next(iter(masks.pieces()))[1][0] == b"a.tar/0.label.png"


def test_labels_that_are_no_masks_are_not_taken_for_them(tmp_path: Path) -> None:
    """A label 1 would mean the image 1.jpg, in silence."""
    (tmp_path / "tars").mkdir()
    entries = [each for key in range(2) for each in sample(str(key), key, cls=key)]
    pack(tmp_path / "tars" / "a.tar", entries)
    with pytest.raises(DatasetError, match="has no column of masks, only: label, path; --label-c"):
        batchify.plan_build(tmp_path / "tars", class_mode="mask")
    entries += [(f"{key}.{name}.png", JPEG[key]) for key in range(2) for name in ("left", "right")]
    pack(tmp_path / "tars" / "a.tar", sorted(entries))
    with pytest.raises(DatasetError, match="has several columns of masks: left, right; --label-c"):
        batchify.plan_build(tmp_path / "tars", class_mode="mask")
    options: Any = {"class_mode": "mask", "label_columns": "right"}
    assert batchify.plan_build(tmp_path / "tars", **options).images == 2


def test_numbers_among_names_are_an_error(tmp_path: Path) -> None:
    """As a name, 7 would be class 0 or 1."""
    (tmp_path / "tars").mkdir()
    pack(tmp_path / "tars" / "a.tar", [*sample("1", 1, cls=7), *sample("2", 2, cls="cat")])
    with pytest.raises(DatasetError, match=r"label cat of row 2 \(a.tar/2.jpg\) is no number"):
        batchify.plan_build(tmp_path / "tars")


def test_masks_replace_no_other_column(tmp_path: Path) -> None:
    """Not the paths, splits and weights of images, nor values of the .json."""
    (tmp_path / "tars").mkdir()
    entries: Entries = []
    for key in range(4):
        facts = {"path": f"p/{key}.jpg", "split": ["train", "val"][key % 2], "age": key + 0.5}
        entries += sample(str(key), key, cls=key % 2, json=facts)
        entries += [
            (f"{key}.{name}.png", JPEG[key + 4])
            for name in ("path", "split", "weight", "group", "age", "label", "mask", "label_mask")
        ]
    pack(tmp_path / "tars" / "a.tar", sorted(entries))
    out = build(tmp_path / "tars", keep_columns="age")
    with h5py.File(out) as file:
        ages = dict(zip(file["train/paths"][()], file["train/age"][()], strict=True))
        assert ages == {b"p/0.jpg": 0.5, b"p/2.jpg": 2.5}
        assert (file["train/labels"][()] == [0, 0]).all()
        assert "weights" not in file["train"]
    columns = {"path_mask": "path", "age_mask": "age", "mask": "mask", "": "mask"}
    columns |= {"label_mask": "label", "label_mask_mask": "label_mask"}
    for column, ending in columns.items():
        options: Any = {"class_mode": "mask", **({"label_columns": column} if column else {})}
        masks = batchify.plan_build(tmp_path / "tars", **options).dataset.annotations.masks
        assert masks is not None
        found = {path for _, paths in masks.pieces() for path in paths}
        assert found == {f"a.tar/{key}.{ending}.png".encode() for key in range(4)}
    with pytest.raises(DatasetError, match="column age_mask: labels are images, not classes: pass"):
        batchify.plan_build(tmp_path / "tars", label_columns="age_mask")


def test_class_names_next_to_a_single_tar_and_in_folders_of_splits(tmp_path: Path) -> None:
    """Otherwise, the classes would be called 0 and 1; lists that differ are an error."""
    shard(tmp_path / "a.tar", range(3))
    (tmp_path / "classes.txt").write_text("ant\nbee\ncow\n", "utf-8")
    assert batchify.plan_build(tmp_path / "a.tar").dataset.classes == (b"ant", b"bee", b"cow")
    for split in ("train", "val"):
        shard(tmp_path / "tars" / split / "0.tar", range(3))
        (tmp_path / "tars" / split / "classes.txt").write_text("x\ny\nz\n", "utf-8")
    assert batchify.plan_build(tmp_path / "tars").dataset.classes == (b"x", b"y", b"z")
    (tmp_path / "tars" / "val" / "classes.txt").write_text("z\ny\nx\n", "utf-8")
    with pytest.raises(DatasetError, match=r"train/classes.txt and val/classes.txt differ; keep"):
        batchify.plan_build(tmp_path / "tars")


def test_labels_that_cannot_be_numbers_of_classes(tmp_path: Path) -> None:
    """They are an error, unless no labels are needed; that there are none is a warning."""
    (tmp_path / "tars").mkdir()
    for labels in ([-1, -1, -1], [0, 1, -1], [0, "cat", 1]):
        entries = [each for k, label in enumerate(labels) for each in sample(str(k), k, cls=label)]
        pack(tmp_path / "tars" / "a.tar", entries)
        with pytest.raises(DatasetError, match=r"label .* of row \d \(a.tar/\d.jpg\) is "):
            batchify.plan_build(tmp_path / "tars")
        plan = batchify.plan_build(tmp_path / "tars", class_mode="none")
        assert plan.images == 3
        (warning,) = plan.dataset.warnings
        assert str(warning).startswith("stored without labels: label ")
        with pytest.raises(DatasetError, match=r"label .* of row"):
            batchify.plan_build(tmp_path / "tars", class_mode="none", classes=["0", "1"])


def test_labels_of_which_only_some_are_lists(tmp_path: Path) -> None:
    """Both are named; other columns may be the labels."""
    (tmp_path / "tars").mkdir()
    entries = [each for key in range(4)
               for each in sample(str(key), key, json={"label": [1, 0] if key % 2 else 1,
                                                       "kind": "ab"[key % 2]})]  # fmt: skip
    pack(tmp_path / "tars" / "a.tar", entries)
    message = r"the label of row 2 \(a.tar/1.jpg\) is a list, and that of row 1 \(a.tar/0.jpg\) is"
    for mode in ("sparse", "multilabel", "regression"):
        with pytest.raises(DatasetError, match=message):
            batchify.plan_build(tmp_path / "tars", class_mode=mode)
    plan = batchify.plan_build(tmp_path / "tars", label_columns="kind")
    assert plan.dataset.classes == (b"a", b"b")
    assert batchify.plan_build(tmp_path / "tars", class_mode="none").images == 4


def test_class_names_are_lines_and_lines_end_with_newlines_only(tmp_path: Path) -> None:
    """Names may have other line separators; an empty line would move the numbers."""
    (tmp_path / "tars").mkdir()
    pack(tmp_path / "tars" / "a.tar", [*sample("1", 1, cls=0), *sample("2", 2, cls=1)])
    names = tmp_path / "tars" / "classes.txt"
    names.write_bytes("a\x85b\u2028c\r\n\x0cd\\r\r\n\n".encode())
    classes = batchify.plan_build(tmp_path / "tars").dataset.classes
    assert [name.decode() for name in classes] == ["a\x85b\u2028c", "\x0cd\r"]
    names.write_text("a\n\nb\n", "utf-8")
    with pytest.raises(DatasetError, match=r"line 2 of classes.txt is empty"):
        batchify.plan_build(tmp_path / "tars")


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_an_error_before_the_first_image(tmp_path: Path, name: str) -> None:
    """What is wrong, and where."""
    entries, message = WRONG[name]
    (tmp_path / "tars").mkdir()
    pack(tmp_path / "tars" / "a.tar", entries)
    (tmp_path / "tars" / "classes.txt").write_text("a\nb\n", "utf-8")
    with pytest.raises(DatasetError, match=message):
        batchify.plan_build(tmp_path / "tars")


def test_shards_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    """Compressed and truncated ones, links, and names that repeat."""
    tars = tmp_path / "tars"
    path = shard(tars / "a.tar", range(3))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    with pytest.raises(DatasetError, match="truncated or damaged"):
        batchify.plan_build(tars)
    path.write_bytes(b"\x1f\x8b" + data)
    with pytest.raises(DatasetError, match=r"a.tar is compressed \(gzip\); decompress it"):
        batchify.plan_build(tars)
    path.write_bytes(b"no tar")
    with pytest.raises(DatasetError, match=r"a.tar is not a tar archive"):
        batchify.plan_build(tars)
    for empty in (b"", bytes(10240)):
        path.write_bytes(empty)
        with pytest.raises(DatasetError, match=r"a.tar is an empty tar; remove it, or ignore"):
            batchify.plan_build(tars)
        with pytest.raises(DatasetNotFoundError, match=r"\.tar archive, but an empty file"):
            batchify.plan_build(path)
    path.unlink()
    path.symlink_to(tmp_path / "gone.tar")
    with pytest.raises(DatasetError, match=r"a.tar is a link to a file that does not exist"):
        batchify.plan_build(tars)
    path.unlink()
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "2.jpg"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("1.cls"), io.BytesIO())
    with pytest.raises(DatasetError, match=r"1.jpg is a link in an archive"):
        batchify.plan_build(tars)
    shard(tars / "a.tar", range(3))
    (tars / "classes.txt").write_text("a\nb\na\n", "utf-8")
    with pytest.raises(DatasetError, match=r"classes.txt names a more than once"):
        batchify.plan_build(tars)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
@pytest.mark.parametrize(
    ("name", "message"),
    [("b.tar", "b.tar is not a tar archive"), ("classes.txt", "it is not a regular file")],
)
def test_a_fifo_next_to_shards_blocks_nothing(tmp_path: Path, name: str, message: str) -> None:
    """Opening it would wait for its writer."""
    shard(tmp_path / "tars" / "a.tar", range(3))
    os.mkfifo(tmp_path / "tars" / name)
    with pytest.raises(DatasetError, match=message):
        batchify.plan_build(tmp_path / "tars")


def test_damaged_images_are_failures_as_in_folders(tmp_path: Path) -> None:
    """They are named, and skipped by --on-error skip."""
    entries = [*sample("1", 1, cls=0), ("2.jpg", JPEG[2][:200]), ("2.cls", b"1"),
               *sample("3", 3, cls=1)]  # fmt: skip
    pack(tmp_path / "a.tar", entries)
    with pytest.raises(batchify.BadImagesError, match=r"a.tar/2.jpg"):
        build(tmp_path / "a.tar")
    out = build(tmp_path / "a.tar", on_error="skip", validation_split=0)
    with h5py.File(out) as file:
        np.testing.assert_array_equal(np.sort(file["train/labels"][()]), [0, 1])
