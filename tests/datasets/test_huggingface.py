"""Hugging Face image datasets in Parquet and Arrow files: what is taken, and what is wrong."""

from __future__ import annotations

import contextlib
import json
import pickle
import struct
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from helpers.drawing import encoded, photo
from helpers.running import Run
from pyarrow import parquet

import batchify
from batchify.datasets import arrow_files, huggingface
from batchify.datasets.arrow_files import ParquetRows
from batchify.errors import DatasetError, DatasetIOError, OptionError
from batchify.storage import packed
from batchify.storage.archive_file import ArchiveFile
from batchify.storage.source import SourceFile
from batchify.workers import capacity, engine

JPEG = [encoded(photo(12, 10, seed), "JPEG") for seed in range(12)]
SMALL: Any = {"target_size": (8, 6), "workers": 1, "overwrite": True}
IMAGE = {"_type": "Image"}


def table(rows: Sequence[int], *, names: Sequence[str] = "abc", **columns: Any) -> pa.Table:
    """Return some rows as the library writes them: images as structs, features as metadata."""
    features = {
        "image": IMAGE,
        "label": {"names": list(names), "_type": "ClassLabel"},
        **{name: {"dtype": "int64", "_type": "Value"} for name in columns},
    }
    data = {
        "image": [{"bytes": JPEG[row], "path": f"{row}.jpg"} for row in rows],
        "label": [row % 3 for row in rows],
        **columns,
    }
    text = json.dumps({"info": {"features": features}})
    return pa.table(data).replace_schema_metadata({"huggingface": text})


def write(path: Path, data: pa.Table, rows: int = 2) -> Path:
    """Write a Parquet file of small row groups, or an Arrow stream of small batches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(data, path, row_group_size=rows)
    else:
        with pa.ipc.new_stream(path, data.schema) as stream:
            stream.write_table(data, max_chunksize=rows)
    return path


def build(path: Path, **options: Any) -> Path:
    """Build a file of encoded images."""
    out = path.parent / "out.h5"
    batchify.build(path, out, **{**SMALL, "store": "encoded", **options})
    return out


def rows_of(path: Path, split: str) -> dict[str, tuple[bytes, int]]:
    """Return the image file and the label of each path."""
    with batchify.open(path) as file:
        found: Any = file[split]
        return {
            path: (found.encoded(row), int(found.labels[row]))
            for row, path in enumerate(found.paths[:])
        }


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_the_rows_of_files_are_those_of_their_splits(tmp_path: Path, ending: str, run: Run) -> None:
    """Image files byte for byte, labels, class names and paths, in a folder as on the Hub."""
    data = tmp_path / "beans" / "data"
    write(data / f"train-00000-of-00002{ending}", table(range(5), names="abcd"))
    write(data / f"train-00001-of-00002{ending}", table(range(5, 9), names="abcd"))
    write(data / f"test-00000-of-00001{ending}", table(range(9, 12), names="abcd"))
    (tmp_path / "beans" / "README.md").write_text("a card")
    out = tmp_path / "out.h5"
    options = ("--target-size", "8x6", "--store", "encoded")
    done = run("import", tmp_path / "beans", out, *options)
    assert done.returncode == 0, done.stderr
    assert rows_of(out, "train") == {f"{row}.jpg": (JPEG[row], row % 3) for row in range(9)}
    assert rows_of(out, "test") == {f"{row}.jpg": (JPEG[row], row % 3) for row in range(9, 12)}
    with h5py.File(out) as file:
        assert file.attrs["classes"].tolist() == [b"a", b"b", b"c", b"d"]
    assert batchify.verify(out, source=tmp_path / "beans", redecode="all").is_ok
    assert run("import", tmp_path / "beans", out, *options, "--check").returncode == 0
    assert "(12 images, 4 classes)" in run("check", data).stdout


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    """Files and splits are those that it lists; features may be in a file next to them."""
    folder = tmp_path / "saved"
    for split, rows in {"train": range(6), "validation": range(6, 9)}.items():
        bare = table(rows).replace_schema_metadata(None)
        write(folder / split / "data-00000-of-00001.arrow", bare)
        write(folder / split / "cache-12.arrow", bare)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
        (folder / split / "state.json").write_text(json.dumps(state))
        info = {"features": {"image": IMAGE, "label": {"names": ["x", "y", "z"],
                                                       "_type": "ClassLabel"}}}  # fmt: skip
        (folder / split / "dataset_info.json").write_text(json.dumps(info))
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    out = build(folder)
    assert sorted(rows_of(out, "train")) == [f"{row}.jpg" for row in range(6)]
    assert sorted(rows_of(out, "validation")) == [f"{row}.jpg" for row in range(6, 9)]
    with batchify.open(build(folder / "train")) as file:
        assert file.classes == ("x", "y", "z")
        assert sum(len(split) for split in file.values()) == 6
    with pytest.raises(OptionError, match="DATASET lists its files; remove it"):
        build(folder, include="train")
    (folder / "train" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(DatasetError, match=r"train/data-00000-of-00001\.arrow is missing"):
        build(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dataset_dict.json", "{bad", r"dataset_dict\.json cannot be read: not JSON; save"),
        ("dataset_dict.json", '{"splits": "train"}', r"dataset_dict\.json has no list of splits"),
        ("train/state.json", "[]", r"train/state\.json cannot be read: not a JSON object; save"),
        ("train/state.json", '{"_data_files": 7}', "lists no files; save"),
    ],
)
def test_lists_of_save_to_disk_that_are_damaged(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    """Nothing else is taken in their place."""
    write(tmp_path / "train" / "data-0.arrow", table(range(3)))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(DatasetError, match=r"state\.json cannot be read: No such file"):
        batchify.plan_build(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=message):
        batchify.plan_build(tmp_path)


def test_labels(tmp_path: Path) -> None:
    """-1 is no label; several label columns need a choice; a ClassLabel may have any name."""
    path = tmp_path / "a.parquet"
    data = table(range(6), fine=[0, 1, 2, 3, 4, 5], age=[1, 2, None, 4, 5, 6])
    write(path, data.set_column(1, "label", pa.array([0, 1, -1, 0, 1, 2])))
    with pytest.raises(DatasetError, match=r"row 3: 2\.jpg: label is empty"):
        build(path)
    out = build(path, unlabelled="drop", keep_columns=["age"], validation_split=0)
    with h5py.File(out) as file:
        assert sorted(file["train/age"][()].tolist()) == [1, 2, 4, 5, 6]
    with batchify.open(build(path, label_columns="fine", validation_split=0)) as file:
        assert file.classes == tuple("012345")
        train: Any = file["train"]
        assert [int(p[0]) for p in train.paths[:]] == train.labels[:].tolist()
    with batchify.open(build(path, label_columns="fine", classes=list("fedcba"))) as file:
        assert file.classes == tuple("fedcba")
    write(path, pa.table({"image": JPEG, "ab": [1] * 12, "cd": [2] * 12}))
    with pytest.raises(DatasetError, match="has several columns that may be the labels: ab, cd"):
        build(path)


def test_the_only_class_label_is_the_label(tmp_path: Path) -> None:
    """Whatever its name is, next to other columns."""
    data = table(range(6), age=list(range(6)))
    text = data.schema.metadata[b"huggingface"].decode().replace('"label"', '"plant"')
    data = data.rename_columns(["image", "plant", "age"])
    write(tmp_path / "a.parquet", data.replace_schema_metadata({"huggingface": text}))
    with batchify.open(build(tmp_path / "a.parquet")) as file:
        assert file.classes == ("a", "b", "c")


def test_a_split_of_two_names_has_labels_if_some_of_its_rows_have(tmp_path: Path) -> None:
    """Its labels would be lost in silence otherwise: a missing one is an error as elsewhere."""
    data = table(range(6)).set_column(1, "label", pa.array(["a", "b", None, None, "a", "b"]))
    data = data.replace_schema_metadata(None)
    for names in (["train", "train", "val", "val", "validation", "validation"], ["train"] * 6):
        path = write(tmp_path / "a.parquet", data.append_column("split", pa.array(names)))
        with pytest.raises(DatasetError, match=r"row 3: 2\.jpg: label is empty"):
            batchify.plan_build(path)
    names = ["train", "train", "test", "test", "train", "train"]
    path = write(tmp_path / "a.parquet", data.append_column("split", pa.array(names)))
    assert batchify.plan_build(path).dataset.unlabelled == ("test",)


def test_masks_in_a_column_label_next_to_a_column_mask(tmp_path: Path) -> None:
    """The column `label` has the labels, as always; each keeps its name."""
    images = table(range(6))["image"]
    data = pa.table({"image": images, "mask": images, "label": images})
    features = dict.fromkeys(data.column_names, IMAGE)
    text = json.dumps({"info": {"features": features}})
    path = write(tmp_path / "a.parquet", data.replace_schema_metadata({"huggingface": text}))
    masks = batchify.plan_build(path, class_mode="mask").dataset.annotations.masks
    assert masks is not None
    assert next(iter(masks.pieces()))[1][0].endswith(b".label")


def test_images_without_labels_stay_if_no_labels_are_needed(tmp_path: Path) -> None:
    """The names of a ClassLabel are not --classes, which would ignore them."""
    data = table(range(6)).set_column(1, "label", pa.array([0, 1, -1, 0, -1, 1]))
    path = write(tmp_path / "a.parquet", data.replace_schema_metadata(table([0]).schema.metadata))
    assert batchify.plan_build(path, class_mode="none").images == 6
    path = write(tmp_path / "a.parquet", table(range(6), names="cab"))
    assert batchify.plan_build(path, class_mode="none").dataset.classes == (b"c", b"a", b"b")


def test_lists_of_labels_that_are_all_missing_are_no_labels(tmp_path: Path) -> None:
    """They are no lists of different lengths."""
    labels = pa.array([None] * 6, pa.list_(pa.int64()))
    data = table(range(6)).set_column(1, "label", labels).replace_schema_metadata(None)
    path = write(tmp_path / "a.parquet", data)
    assert batchify.plan_build(path, class_mode="none").images == 6
    with pytest.raises(DatasetError, match="has no column label"):
        batchify.plan_build(path, class_mode="multilabel")


def test_a_row_that_names_another_split_than_its_file_is_an_error(tmp_path: Path) -> None:
    """One of both would be ignored in silence; other words are no splits."""
    path = tmp_path / "train-0.parquet"
    for text in ("training", "sunny"):
        write(path, table(range(3), split=["train", text, "train"]))
        assert batchify.plan_build(tmp_path, validation_split=0).rows == {"train": 3}
    write(path, table(range(3), split=["train", "test", "train"]))
    with pytest.raises(DatasetError, match=r"row 2 of train-0\.parquet is in the split test"):
        batchify.plan_build(tmp_path)


def test_paths_that_repeat_are_not_taken(tmp_path: Path) -> None:
    """Rows are then named by their file and number; bytes without a struct have no path."""
    folder = tmp_path / "data"
    write(folder / "train-0.parquet", table(range(3)))
    write(folder / "test-0.parquet", table(range(3)))
    assert sorted(rows_of(build(folder), "test")) == [f"test-0.parquet/{i:07}" for i in range(3)]
    data = pa.table({"image": JPEG, "label": ["x", "y"] * 6})
    write(folder / "train-0.parquet", data)
    write(folder / "test-0.parquet", data)
    out = build(folder)
    assert rows_of(out, "train")["train-0.parquet/0000003"] == (JPEG[3], 1)
    assert batchify.verify(out, source=folder).is_ok


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_a_drive_that_fails_is_no_bad_image(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--on-error skip would drop the images of a row group, in silence."""
    dataset = batchify.plan_build(write(tmp_path / f"a{ending}", table(range(6)))).dataset
    files = dataset.samples.files(np.arange(6))
    first, last = (min(files, key=by) for by in (_row_group, lambda file: -_row_group(file)))
    with contextlib.closing(dataset.source.open_reader()) as reader:
        assert next(reader.read_files([first], 1 << 20)) in JPEG

        def fail(*_: object) -> bytes:
            raise DatasetIOError("the drive fails")

        monkeypatch.setattr(ArchiveFile, "read", fail)
        with pytest.raises(DatasetIOError):
            next(reader.read_files([last], 1 << 20))
        if ending == ".arrow":  # it is known without reading
            assert next(reader.file_sizes([last])) in map(len, JPEG)
            return
        with pytest.raises(DatasetIOError):
            next(reader.file_sizes([last]))


def large_table() -> pa.Table:
    """Return rows whose batches have more than a megabyte, with missing images and values."""
    rows = [*range(12), *range(12)]
    images: list[Any] = [{"bytes": JPEG[row] + bytes(200_000), "path": str(i)}
                         for i, row in enumerate(rows)]  # fmt: skip
    images[5], images[7] = None, {"bytes": None, "path": "7"}
    ages = [None if i % 5 == 2 else i for i in range(24)]
    data = table(rows, text=pa.array([f"n {i}" for i in range(24)]), age=pa.array(ages))
    return data.set_column(0, "image", pa.array(images, data["image"].type))


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list to which each read of a file will add its bytes."""
    done: list[int] = []
    read = ArchiveFile.read

    def count(self: ArchiveFile, offset: int, nbytes: int) -> bytes:
        done.append(nbytes)
        return read(self, offset, nbytes)

    monkeypatch.setattr(ArchiveFile, "read", count)
    return done


@pytest.mark.parametrize("kind", ["stream", "file", "large", "dictionary"])
def test_only_parts_of_arrow_files_are_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are not read before they are needed, and the file is not mapped."""
    data = large_table()
    if kind == "large":
        struct = pa.struct({"bytes": pa.large_binary(), "path": pa.string()})
        data = data.set_column(0, "image", data["image"].cast(struct))
    elif kind == "dictionary":
        data = data.set_column(2, "text", data["text"].dictionary_encode())
    path = write(tmp_path / "a.arrow", data, rows=10)
    if kind == "file":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, data.schema) as writer:
            writer.write_table(data, max_chunksize=10)
    monkeypatch.setattr(pa, "memory_map", None)
    done = counted_reads(monkeypatch)
    options: Any = {"keep_columns": ["text", "age"], "validation_split": 0}
    assert batchify.plan_build(path, **options).images == 24
    assert kind == "dictionary" or sum(done) < 50_000
    out = build(path, on_error="skip", **options)
    with batchify.open(out) as opened:
        train: Any = opened["train"]
        columns = train.columns["text"][:], train.columns["age"][:]
        found = {
            path: (train.encoded(i), text, None if np.isnan(age) else age)
            for i, (path, text, age) in enumerate(zip(train.paths[:], *columns, strict=True))
        }
    paths = [f"a.arrow/{row:07}" for row in range(24)]
    assert found == {
        path: (JPEG[i % 12] + bytes(200_000), f"n {i}", None if i % 5 == 2 else i)
        for i, path in enumerate(paths) if i not in (5, 7)
    }  # fmt: skip
    assert batchify.verify(out, source=path).is_ok


def test_a_batch_that_is_cut_off_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may say that it takes up all of a large file."""
    path = write(tmp_path / "a.arrow", large_table(), rows=24)
    path.write_bytes(path.read_bytes()[:-1000])
    done = counted_reads(monkeypatch)
    with pytest.raises(DatasetError, match=r"a\.arrow is truncated or damaged"):
        batchify.plan_build(path)
    assert sum(done) < 50_000


def test_arrow_files_that_may_lack_rows_or_are_compressed(tmp_path: Path) -> None:
    """A writer that was ended writes no mark; compressed batches cannot be read in place."""
    path, data = write(tmp_path / "a.arrow", table(range(6))), large_table()
    content = path.read_bytes()
    assert content[-8:] == b"\xff\xff\xff\xff\0\0\0\0"
    path.write_bytes(content[:-8])
    with pytest.raises(DatasetError, match="it has no mark at its end, so rows may be missing"):
        batchify.plan_build(path)
    for rows in (table(range(6)), data):
        for codec in ("lz4", "zstd"):
            compress = pa.ipc.IpcWriteOptions(compression=codec)
            with pa.ipc.new_stream(path, rows.schema, options=compress) as stream:
                stream.write_table(rows)
            with pytest.raises(DatasetError, match=r"batches are compressed; write it without"):
                batchify.plan_build(path)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, data.schema) as writer:
        writer.write_table(data)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match="it has no index at its end"):
        batchify.plan_build(path)


def test_an_arrow_file_with_wrong_offsets_is_damaged(tmp_path: Path) -> None:
    """They point outside of the batch."""
    path = write(tmp_path / "a.arrow", table(range(6)))
    offsets = np.cumsum([0, len(JPEG[0]), len(JPEG[1])]).astype("<i4")
    content = path.read_bytes()
    assert content.count(offsets.tobytes()) == 1
    wrong = np.array([0, 1 << 30, offsets[2]], "<i4")
    path.write_bytes(content.replace(offsets.tobytes(), wrong.tobytes()))
    with pytest.raises(DatasetError, match="truncated or damaged"):
        batchify.plan_build(path)


@pytest.mark.parametrize("length", [-1, 0, 1 << 40])
def test_an_arrow_file_with_wrong_lengths_is_damaged(tmp_path: Path, length: int) -> None:
    """Of the batch, of its arrays, and of those in them: pyarrow would end the process at some."""
    path = write(tmp_path / "a.arrow", table([0] * 77), rows=77)
    content, told = path.read_bytes(), struct.pack("<q", 77)
    pieces = content.split(told)
    assert len(pieces) == 6  # image, its bytes and paths, label, and the batch
    for changed in ([0], [1], [2], [3], [4], range(5)):
        wrong = [struct.pack("<q", length) if i in changed else told for i in range(5)]
        whole = zip(pieces, [*wrong, b""], strict=True)
        path.write_bytes(b"".join(piece + each for piece, each in whole))
        if length <= 0 or len(changed) == 5:
            with pytest.raises(DatasetError, match=r"truncated or damaged|lists no images"):
                batchify.plan_build(path)
            continue
        with contextlib.suppress(DatasetError):  # the array of structs may be shorter
            assert batchify.plan_build(path).images == 77


def test_dictionaries_in_lists_of_arrow_files_are_read(tmp_path: Path) -> None:
    """Their bytes are in a batch before those of the rows."""
    many = pa.array(np.arange(1, 40_001) / 2)
    assert many.nbytes > 1 << 18
    numbers = pa.DictionaryArray.from_arrays(pa.array([7, 1, 2, 9], pa.int32()), many)
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 4], pa.int32()), numbers)
    data = pa.table({"image": table([0, 1])["image"], "label": lists})
    out = build(write(tmp_path / "a.arrow", data), class_mode="regression", validation_split=0)
    with batchify.open(out) as file:
        train: Any = file["train"]
        found = dict(zip(train.paths[:], train.labels[:].tolist(), strict=True))
    assert found == {"0.jpg": [4.0, 1.0], "1.jpg": [1.5, 5.0]}


def test_the_metadata_of_a_batch_may_be_larger_than_a_body_that_is_read_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of thousands of columns."""
    monkeypatch.setattr(arrow_files, "_LAZY_NBYTES", 16)
    out = build(write(tmp_path / "a.arrow", table(range(6))), validation_split=0)
    assert rows_of(out, "train")["3.jpg"] == (JPEG[3], 0)


def _row_group(file: SourceFile) -> int:
    assert file.extent is not None
    return file.extent[2]


def wrong(path: Path, name: str) -> None:
    """Write a dataset that cannot be read."""
    if name == "two images":
        data = pa.table({"left": JPEG, "right": JPEG, "label": [0] * 12})
    elif name == "no images":
        data = pa.table({"text": ["a"], "label": [0]})
    elif name == "out of range":
        data = table(range(3), names="ab")
    elif name == "repeated names":
        data = table(range(3), names="aba")
    elif name == "names that are none":
        features = {"image": IMAGE, "label": {"names": 7, "_type": "ClassLabel"}}
        text = json.dumps({"info": {"features": features}})
        data = table(range(3)).replace_schema_metadata({"huggingface": text})
    elif name == "not UTF-8":
        write(path, table(range(3), text=["wxyz", "b", "c"]), rows=3)
        path.write_bytes(path.read_bytes().replace(b"wxyz", b"wx\xffz"))
        return
    elif name == "empty name":
        data = table(range(3), names=["a", "", "b"])
    elif name == "repeated columns":
        labels = pa.array([0, 1, 2])
        data = pa.Table.from_arrays([JPEG[:3], labels, labels], ["image", "label", "label"])
    elif name == "empty":
        data = table(range(3)).slice(0, 0)
    elif name == "paths alone":
        features = {"image": IMAGE}
        text = json.dumps({"info": {"features": features}})
        data = pa.table({"image": ["/a.jpg"], "label": [0]})
        data = data.replace_schema_metadata({"huggingface": text})
    else:
        write(path, table(range(3)))
        content = path.read_bytes()
        path.write_bytes(content[:-20] if name == "truncated" else content[:4] + content[400:])
        return
    write(path, data)


MESSAGES = [
    ("two images", "has several columns of images: left, right"),
    ("no images", "has no column of images, only: text, label"),
    (
        "out of range",
        r"label 2 of row 3 \(2\.jpg\) is out of range: its Class",
    ),
    ("repeated names", "column label names a more than once"),
    ("names that are none", "the ClassLabel of label has no list of names"),
    ("not UTF-8", "truncated or damaged"),
    ("empty name", "name 1 of column label is empty"),
    ("repeated columns", "has 2 columns label; rename them"),
    ("empty", "lists no images"),
    ("paths alone", "the images in column image are only paths"),
    ("truncated", "truncated or damaged"),
    ("damaged", "truncated or damaged"),
]


def test_a_process_reads_small_row_groups_once_and_warns_of_large_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In random order, each image would be read with its group; groups of all files are counted.

    Also those of files that are closed meanwhile, since there are more than a process keeps open.
    """
    for part in range(2):
        write(tmp_path / "data" / f"{part}.parquet", table(range(6 * part, 6 * part + 6)), rows=2)
    loads: list[tuple[str, int]] = []
    load = ParquetRows._load

    def count(self: ParquetRows, name: str, group: int) -> Any:
        loads.append((name, group))
        return load(self, name, group)

    def read_all(order: Sequence[int]) -> list[bytes]:
        dataset = batchify.plan_build(tmp_path / "data").dataset
        loads.clear()
        with contextlib.closing(pickle.loads(pickle.dumps(dataset.source)).open_reader()) as reader:
            return list(reader.read_files(dataset.samples.files(np.array(order)), 1 << 20))

    monkeypatch.setattr(packed, "_MOST_OPEN", 1)
    monkeypatch.setattr(ParquetRows, "_load", count)
    order = [7, 0, 2, 4, 11, 9, 6, 1, 3, 5, 10, 8]
    once = read_all(order)
    assert len(loads) == 6
    monkeypatch.setattr(huggingface, "_MOST_HELD_NBYTES", 100)
    monkeypatch.setattr(huggingface, "_HELD_NBYTES", 100)
    monkeypatch.setattr(huggingface, "_LARGE_NBYTES", 100)
    assert read_all(order) == once
    assert len(loads) == 10
    (warning,) = batchify.plan_build(tmp_path / "data").dataset.warnings
    assert str(warning).startswith("reading an image of this dataset reads a row group of 2.")


def test_the_bytes_of_a_row_group_are_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not kept besides the images in them, for each file that is open."""
    dataset = batchify.plan_build(write(tmp_path / "a.parquet", table(range(12)), rows=6)).dataset
    read, kept = arrow_files._Input.read, []

    def noted(self: Any, nbytes: int | None = -1) -> Any:
        data = np.frombuffer(read(self, nbytes), np.uint8)
        if data.size > 1000:
            kept.append(weakref.ref(data))
        return data

    monkeypatch.setattr(arrow_files._Input, "read", noted)
    with contextlib.closing(dataset.source.open_reader()) as reader:
        assert len(list(reader.read_files(dataset.samples.files(np.arange(12)), 1 << 20))) == 12
        assert len(kept) >= 2
        assert all(each() is None for each in kept)


def test_all_that_reads_row_groups_counts_on_their_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also verify and export with the originals: by default, fewer processes read them."""
    path, counted = write(tmp_path / "a.parquet", table(range(12))), []
    find = capacity.find_capacity

    def count(nbytes: int) -> Any:
        counted.append(nbytes)
        return find(nbytes)

    out = build(path, store="decoded")
    monkeypatch.setattr(engine, "find_capacity", count)
    assert batchify.verify(out, source=path).is_ok
    assert max(counted) >= sum(map(len, JPEG))
    counted.clear()
    batchify.export(out, tmp_path / "x", format="imagefolder", source=path)
    assert max(counted) >= sum(map(len, JPEG))
    (found,) = (tmp_path / "x").rglob("3.jpg")
    assert found.read_bytes() == JPEG[3]


@pytest.mark.parametrize(
    ("name", "message"),
    MESSAGES,
)
def test_what_is_wrong_is_an_error_before_the_first_image(
    tmp_path: Path, name: str, message: str
) -> None:
    """What is wrong, and where."""
    wrong(tmp_path / "a.parquet", name)
    with pytest.raises(DatasetError, match=message):
        batchify.plan_build(tmp_path / "a.parquet")


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.uint8()), pa.int64()])
def test_images_that_are_no_bytes_are_refused(tmp_path: Path, ending: str, kind: Any) -> None:
    """As the lists of numbers that pandas writes."""
    values = {pa.string(): "text", pa.int64(): 7}.get(kind, [255, 216])
    struct = pa.struct({"bytes": kind, "path": pa.string()})
    images = pa.array([{"bytes": values, "path": "a.jpg"}] * 3, struct)
    path = write(tmp_path / f"a{ending}", table(range(3)).set_column(0, "image", images))
    for store in ("decoded", "encoded"):
        with pytest.raises(DatasetError, match=f"column image has {str(kind)[:4]}.*, not bytes"):
            build(path, store=store)


def test_images_in_a_dictionary_are_read_from_parquet(tmp_path: Path) -> None:
    """Also their sizes, which encoded files need."""
    images = pa.array([JPEG[1], JPEG[2], JPEG[1]]).dictionary_encode()
    data = pa.table({"image": images, "label": [0, 1, 2]})
    out = build(write(tmp_path / "a.parquet", data), validation_split=0)
    found = [content for content, _ in rows_of(out, "train").values()]
    assert sorted(found) == sorted([JPEG[1], JPEG[2], JPEG[1]])


def test_a_parquet_file_whose_columns_differ_in_length_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a row group says of its rows is not what its columns have."""
    path = write(tmp_path / "a.parquet", table(range(6)), rows=6)
    plan = batchify.plan_build(path)
    column = ParquetRows.column
    monkeypatch.setattr(ParquetRows, "column", lambda *given: column(*given)[1:])
    with pytest.raises(DatasetError, match="damaged: its columns differ in their number"):
        batchify.plan_build(path)
    read = parquet.ParquetFile.read_row_group
    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", lambda *a, **b: read(*a, **b)[:5])
    with contextlib.closing(plan.dataset.source.open_reader()) as reader:
        files = plan.dataset.samples.files(np.arange(1))
        (found,) = reader.read_files(files, 1 << 20)
        assert str(found) == "cannot be read: a row group has 5 rows, not 6"
        assert list(reader.file_sizes(files)) == [0]


def test_files_of_two_formats_are_refused(tmp_path: Path) -> None:
    """One may be a copy of the other: each image would be in two rows."""
    folder = tmp_path / "data"
    write(folder / "train.arrow", table(range(3)))
    write(folder / "train.parquet", table(range(3)))
    with pytest.raises(DatasetError, match=r"has train\.arrow and train\.parquet, which may hold"):
        batchify.plan_build(folder)
    plan = batchify.plan_build(folder, exclude="*.arrow")
    assert plan.images == 3
    (folder / "train.arrow").rename(folder / "train.npz")
    with pytest.raises(DatasetError, match=r"train\.npz is not read next to \.parquet files; conv"):
        batchify.plan_build(folder)


def test_files_with_other_columns_and_rows_without_images(tmp_path: Path) -> None:
    """Files must agree; a row that has only a path is an image that fails."""
    folder = tmp_path / "data"
    write(folder / "train-0.parquet", table(range(3)))
    write(folder / "test-0.parquet", table(range(3), age=[1, 2, 3]))
    with pytest.raises(DatasetError, match=r"train-0\.parquet has other columns than test-0"):
        build(folder)
    write(folder / "test-0.parquet", table(range(3), names="acb"))
    with pytest.raises(DatasetError, match=r"0\.parquet has other names of labels than test-0\.p"):
        build(folder)
    (folder / "test-0.parquet").unlink()
    images = [{"bytes": None, "path": "/a.jpg"}, *table([1, 2])["image"].to_pylist()]
    kind = table([1])["image"].type
    data = table(range(3)).set_column(0, "image", pa.array(images, kind))
    write(folder / "train-0.parquet", data)
    for store in ("decoded", "encoded"):
        with pytest.raises(batchify.BadImagesError, match="has no image, only its path"):
            build(folder, store=store, restart=True)
    assert len(rows_of(build(folder, on_error="skip", restart=True), "train")) == 2
