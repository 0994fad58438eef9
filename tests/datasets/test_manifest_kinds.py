"""Labels of a manifest that are no classes, and weights: stored, proven, shown and served."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.properties import examples
from helpers.running import Run
from helpers.tabled import SUFFIXES, listed, options_of, write_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batchify
from batchify import choices
from batchify.building.build import build
from batchify.building.changes import find_changes
from batchify.checking.check import check
from batchify.checking.verify import verify
from batchify.dataset_options import ManifestOptions
from batchify.datasets.manifest import read_dataset
from batchify.errors import FileFormatError, ManifestError, OutputExistsError
from batchify.loading.loader import Loader
from batchify.options import BuildOptions
from batchify.reporting.report import write_report
from batchify.reporting.sheet import write_sheet
from batchify.reporting.summary import summarize

COLUMNS: dict[str, tuple[str, ...]] = {
    "multilabel": ("red", "blue", "big"),
    "regression": ("x", "y"),
    "sparse": ("label",),
    "categorical": ("label",),
}


def make(folder: Path, photos: Path, mode: Any, **change: Any) -> tuple[BuildOptions, list[Any]]:
    """Write a manifest with weights; `change` is of the first row."""
    rows = []
    for i, path in enumerate(listed(photos)):
        labels: dict[str, Any] = {"label": path.split("/")[0]}
        if mode == "multilabel":
            labels = {"red": i % 2, "blue": str(i % 3 == 0), "big": "1" if i == 4 else "0"}
        elif mode == "regression":
            labels = {"x": i / 7, "y": -i * 1e10}
        rows.append({"path": path, **labels, "weight": 0.5 + i})
    rows[0].update(change)
    manifest = write_table(folder / "labels.csv", rows)
    return options_of(manifest, mode, COLUMNS[mode]), rows


@pytest.mark.parametrize("mode", ["multilabel", "regression"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_label_columns_are_stored_in_the_order_given(
    tmp_path: Path, photos: Path, mode: choices.ClassMode, suffix: str
) -> None:
    """float32, a column each; the classes are the columns; shares are of all rows."""
    options, rows = make(tmp_path, photos, mode)
    if suffix != ".csv":
        manifest = write_table(tmp_path / f"labels{suffix}", rows)
        options = options_of(manifest, mode, COLUMNS[mode])
    build(photos, tmp_path / "out.h5", options)
    by_path = {row["path"]: row for row in rows}
    with h5py.File(tmp_path / "out.h5") as file:
        assert file.attrs["classes"].tolist() == [name.encode() for name in COLUMNS[mode]]
        config = json.loads(file.attrs["config"])
        assert config["layout"] == "manifest"
        assert config["label_columns"] == list(COLUMNS[mode])
        assert len(file["validation/paths"]) == int(0.2 * len(rows))
        for split in ("train", "validation"):
            assert file[split]["labels"].dtype == file[split]["weights"].dtype == "<f4"
            assert file[f"y_{split}"] == file[split]["labels"]
            for path, label, weight in zip(
                *(file[split][name] for name in ("paths", "labels", "weights")), strict=True
            ):
                row = by_path.pop(path.decode())
                wanted = [float({"True": 1, "False": 0}.get(row[name], row[name]))
                          for name in COLUMNS[mode]]  # fmt: skip
                np.testing.assert_array_equal(label, np.array(wanted, np.float32))
                assert weight == row["weight"]
    assert not by_path


def test_one_number_is_a_number(tmp_path: Path, photos: Path) -> None:
    """Labels of one column are of shape (N,); of one truth value still (N, 1)."""
    rows = [{"path": path, "y": i % 2} for i, path in enumerate(listed(photos))]
    manifest = write_table(tmp_path / "labels.csv", rows)
    for mode, shape in (("regression", (12,)), ("multilabel", (12, 1))):
        options = options_of(manifest, mode, ("y",))  # type: ignore[arg-type]
        build(photos, tmp_path / f"{mode}.h5", options)
        with h5py.File(tmp_path / f"{mode}.h5") as file:
            assert file["train/labels"].shape == shape
            assert file.attrs["classes"].tolist() == [b"y"]
        assert verify(tmp_path / f"{mode}.h5").is_ok


@pytest.mark.parametrize(
    ("mode", "change", "message"),
    [
        ("multilabel", {"red": "2"}, "line 2: red 2 is neither 0 nor 1"),
        ("multilabel", {"big": ""}, "line 2: big is empty"),
        ("regression", {"x": "many"}, "line 2: x many is not a number"),
        ("regression", {"y": "nan"}, "line 2: y nan is not a number"),
        ("regression", {"y": "-inf"}, "line 2: y -inf is not finite"),
        ("regression", {"y": "1e39"}, "line 2: y 1e39 is not finite, or too large for float32"),
        ("regression", {"x": ""}, "line 2: x is empty"),
    ],
)
def test_a_label_that_is_none_is_told_with_its_line(
    tmp_path: Path, photos: Path, mode: str, change: dict[str, str], message: str
) -> None:
    """With the column and the value."""
    options, _ = make(tmp_path, photos, mode, **change)
    with pytest.raises(ManifestError) as caught:
        read_dataset(photos, options)
    assert message in str(caught.value)


@pytest.mark.parametrize("mode", COLUMNS)
def test_a_flipped_byte_is_found(tmp_path: Path, photos: Path, mode: str) -> None:
    """In labels and in weights; a value that cannot be is named where checksums were made anew."""
    options, _ = make(tmp_path, photos, mode)
    build(photos, tmp_path / "out.h5", options)
    assert verify(tmp_path / "out.h5", source=photos, redecode="all").is_ok
    for column in ("labels", "weights"):
        with h5py.File(tmp_path / "out.h5", "r+") as file:
            data = file["train"][column]
            old = data[3]
            data[3] = old + 1
        found = verify(tmp_path / "out.h5", quick=True)
        assert (found.counts["record"], found.counts["digest"]) == (1, 1), column
        with h5py.File(tmp_path / "out.h5", "r+") as file:
            file["train"][column][3] = old
    assert verify(tmp_path / "out.h5", quick=True).is_ok


@pytest.mark.parametrize(
    ("mode", "column", "value", "message"),
    [
        ("multilabel", "labels", 0.5, "its label has values other than 0 and 1"),
        ("regression", "labels", np.inf, "its label is not a finite number"),
        ("sparse", "weights", -1, "its weight is negative, or not a number"),
        ("sparse", "weights", np.nan, "its weight is negative, or not a number"),
    ],
)
def test_values_that_cannot_be_are_found(
    tmp_path: Path, photos: Path, mode: str, column: str, value: float, message: str
) -> None:
    """Even where whoever wrote them made the checksum of the row anew."""
    from batchify.format.checksums import record_sums
    from batchify.format.reader import Reader

    options, _ = make(tmp_path, photos, mode)
    build(photos, tmp_path / "out.h5", options)
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        file["train"][column][2] = value
    with Reader(tmp_path / "out.h5") as reader:
        ((_, records),) = reader.records("train")
        sums = record_sums(records)
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        file["train/record_crc32"][...] = sums
    found = verify(tmp_path / "out.h5", quick=True)
    assert [f.message for f in found.findings if f.code == "label"] == [message]


@pytest.mark.parametrize("mode", COLUMNS)
def test_a_changed_label_or_weight_is_a_reason_to_build(
    tmp_path: Path, photos: Path, mode: str
) -> None:
    """--check says so, a build refuses without --overwrite, and copies the pixels with it."""
    options, _ = make(tmp_path, photos, mode)
    build(photos, tmp_path / "out.h5", options)
    assert not find_changes(photos, tmp_path / "out.h5", options).is_due
    name = COLUMNS[mode][0]
    for change in ({name: "dog" if name == "label" else 1}, {"weight": 9}):
        options, _ = make(tmp_path, photos, mode, **change)
        changes = find_changes(photos, tmp_path / "out.h5", options)
        assert any("manifest_sha256" in reason for reason in changes.reasons)
        with pytest.raises(OutputExistsError, match="manifest_sha256"):
            build(photos, tmp_path / "out.h5", options)
    report = build(photos, tmp_path / "out.h5", options, overwrite=True)
    assert report.copied == 15
    with h5py.File(tmp_path / "out.h5") as file:
        weights = [*file["train/weights"], *file["validation/weights"]]
    assert 9 in weights


def test_an_unfinished_build_continues_with_other_labels(tmp_path: Path, photos: Path) -> None:
    """Its images are kept; the labels are those of the new table."""
    options, rows = make(tmp_path, photos, "regression")
    bad = photos / rows[7]["path"]
    good = bad.read_bytes()
    bad.write_bytes(b"no image")
    with pytest.raises(batchify.BatchifyError):
        build(photos, tmp_path / "out.h5", options)
    bad.write_bytes(good)
    changed, _ = make(tmp_path, photos, "regression", x=4)
    assert build(photos, tmp_path / "out.h5", changed).kept == 14
    build(photos, tmp_path / "fresh.h5", changed, workers=2)
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_skipped_and_compressed_rows_keep_labels_and_weights(tmp_path: Path, photos: Path) -> None:
    """The second pass drops rows of all columns alike."""
    options, rows = make(tmp_path, photos, "regression")
    (photos / rows[3]["path"]).write_bytes(b"no image")
    options = replace(options, store=replace(options.store, compression="gzip"))
    build(photos, tmp_path / "out.h5", options, on_error="skip")
    by_path = {row["path"]: row for row in rows}
    with h5py.File(tmp_path / "out.h5") as file:
        for split in ("train", "validation"):
            for path, label, weight in zip(
                *(file[split][name] for name in ("paths", "labels", "weights")), strict=True
            ):
                row = by_path.pop(path.decode())
                assert label.tolist() == [np.float32(row["x"]), np.float32(row["y"])]
                assert weight == row["weight"]
    assert list(by_path) == [rows[3]["path"]]
    assert verify(tmp_path / "out.h5", source=photos, redecode="all").is_ok
    assert not find_changes(photos, tmp_path / "out.h5", options, on_error="skip").is_due


@pytest.mark.parametrize("mode", COLUMNS)
def test_what_is_served_is_what_is_stored(tmp_path: Path, photos: Path, mode: str) -> None:
    """Rows, batches, loaders and pickled copies; several files as one."""
    options, _ = make(tmp_path, photos, mode)
    build(photos, tmp_path / "out.h5", options)
    train = batchify.open(tmp_path / "out.h5")["train"]
    with h5py.File(tmp_path / "out.h5") as file:
        labels, weights = file["train/labels"][()], file["train/weights"][()]
        images = file["train/images"][()]
    assert train.class_mode == mode
    np.testing.assert_array_equal(train.labels, labels)
    np.testing.assert_array_equal(train.weights, weights)
    np.testing.assert_array_equal(train[3][1], labels[3])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(train)).weights, weights)
    x, y = train.batches(100).read(slice(None))
    assert (x.dtype, y.dtype) == (np.float32, np.float32)
    np.testing.assert_array_equal(y, labels.astype(np.float32))
    assert f"{len(COLUMNS[mode])} " in repr(train) or mode in ("sparse", "categorical")
    build(photos, tmp_path / "two.h5", options)
    both = batchify.open([tmp_path / "out.h5", tmp_path / "two.h5"])["train"]
    np.testing.assert_array_equal(both.labels, [*labels, *labels])
    np.testing.assert_array_equal(both.weights, [*weights, *weights])
    loader = Loader.from_directory(
        photos, target_size=(8, 10), class_mode=mode, manifest=options.manifest, batch_size=12,  # type: ignore[arg-type]
        rescale=None,
    )  # fmt: skip
    x, y = next(loader)
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, labels.astype(np.float32))


def test_files_of_other_kinds_are_not_one(tmp_path: Path, photos: Path) -> None:
    """Numbers are no truth values, though both are float32; nor rows with weights those without."""
    rows = [{"path": path, "a": 1, "b": 0} for path in listed(photos)]
    manifest = write_table(tmp_path / "labels.csv", rows)
    for mode in ("regression", "multilabel"):
        build(photos, tmp_path / f"{mode}.h5", options_of(manifest, mode, ("a", "b")))
    with pytest.raises(FileFormatError, match="class modes are multilabel in train of"):
        batchify.open([tmp_path / "regression.h5", tmp_path / "multilabel.h5"])
    manifest = write_table(tmp_path / "more.csv", [{**row, "weight": 1} for row in rows])
    build(photos, tmp_path / "weights.h5", options_of(manifest, "regression", ("a", "b")))
    with pytest.raises(FileFormatError, match="weights are given in train of"):
        batchify.open([tmp_path / "regression.h5", tmp_path / "weights.h5"])


def test_inspect_tells_what_the_labels_are(run: Run, tmp_path: Path, photos: Path) -> None:
    """How many have each label, the range of numbers, the range of weights; as text and JSON."""
    for mode in ("multilabel", "regression"):
        options, _ = make(tmp_path, photos, mode, weight=0)
        options = replace(options, split=replace(options.split, validation=0.0))
        build(photos, tmp_path / f"{mode}.h5", options)
    found = summarize(tmp_path / "multilabel.h5").as_json()["splits"]["train"]
    assert found["class_counts"] is None
    assert found["labels"] == [
        {"name": "red", "positives": 7},
        {"name": "blue", "positives": 5},
        {"name": "big", "positives": 1},
    ]
    assert found["weights"] == {"min": 0, "max": 14.5, "mean": pytest.approx(112 / 15)}
    found = summarize(tmp_path / "regression.h5").as_json()["splits"]["train"]
    assert found["labels"][0] == {"name": "x", "min": 0, "max": 2, "mean": pytest.approx(1)}
    text = run("inspect", "multilabel.h5").stdout
    assert "labels: 3, each 0 or 1; how many are 1" in text
    assert "weights:\n  train       0 to 14.5, mean 7.46667" in text
    assert "0 to 2, mean 1" in run("inspect", "regression.h5").stdout


@pytest.mark.parametrize("mode", ["multilabel", "regression"])
def test_pages_sheets_and_checks_take_these_files(tmp_path: Path, photos: Path, mode: str) -> None:
    """They say what the labels are, and look for no classes."""
    options, rows = make(tmp_path, photos, mode)
    (photos / rows[1]["path"]).write_bytes((photos / rows[9]["path"]).read_bytes())
    build(photos, tmp_path / "out.h5", options)
    write_report(tmp_path / "out.h5", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "label columns" in page
    assert COLUMNS[mode][1] in page
    assert write_sheet(tmp_path / "out.h5", tmp_path / "sheet.png").images == 15
    for report in (check(tmp_path / "out.h5"), check(photos, options)):
        assert {problem.code for problem in report.problems} == {"leak", "upscaled"} - {"upscaled"}


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    values=st.lists(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=2),
        min_size=1, max_size=6,
    ),
    suffix=st.sampled_from(SUFFIXES),
)  # fmt: skip
def test_numbers_survive_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, values: list[list[float]], suffix: str
) -> None:
    """Any float32 in the table is that float32 in the file, in every format."""
    from helpers.drawing import encoded, photo, save

    folder = tmp_path_factory.mktemp("numbers")
    rows = []
    for i, pair in enumerate(values):
        save(folder / "photos" / f"{i}.png", encoded(photo(8, 8), "PNG"))
        rows.append({"path": f"{i}.png", "a": pair[0], "b": pair[1], "split": "train"})
    manifest = write_table(folder / f"labels{suffix}", rows)
    options = options_of(manifest, "regression", ("a", "b"), shuffle=False)
    build(folder / "photos", folder / "out.h5", options, workers=1)
    with h5py.File(folder / "out.h5") as file:
        np.testing.assert_array_equal(file["train/labels"], np.array(values, np.float32))


@pytest.mark.frameworks
@pytest.mark.parametrize("mode", ["multilabel", "regression"])
def test_frameworks_get_these_labels(tmp_path: Path, photos: Path, mode: str) -> None:
    """Torch as they are stored, Hugging Face as lists of floats with the weight beside them."""
    pytest.importorskip("torch")
    options, _ = make(tmp_path, photos, mode)
    build(photos, tmp_path / "out.h5", options)
    train = batchify.open(tmp_path / "out.h5")["train"]
    (_, y), *_ = train.to_torch(batch_size=100)
    np.testing.assert_array_equal(y.numpy(), train.labels)
    pytest.importorskip("datasets")
    rows = train.to_hf()
    np.testing.assert_array_equal(rows["weight"], train.weights)
    np.testing.assert_array_equal(rows["label"], train.labels)


@pytest.mark.parametrize("mode", COLUMNS)
def test_original_bytes_have_these_labels_too(tmp_path: Path, photos: Path, mode: str) -> None:
    """With --store encoded labels and weights are the same; masks, of one size, are refused."""
    options, rows = make(tmp_path, photos, mode)
    build(photos, tmp_path / "pixels.h5", options)
    (photos / rows[3]["path"]).write_bytes(b"no image")
    options = replace(options, store=replace(options.store, store="encoded"))
    build(photos, tmp_path / "out.h5", options, on_error="skip")
    assert verify(tmp_path / "out.h5", source=photos, redecode="all").is_ok
    wanted = {}
    with h5py.File(tmp_path / "pixels.h5") as file:
        for split in ("train", "validation"):
            names = ("paths", "labels", "weights")
            for path, label, weight in zip(*(file[split][n] for n in names), strict=True):
                wanted[path.decode()] = (label, weight)
    for served in batchify.open(tmp_path / "out.h5").values():
        assert served.weights is not None
        for path, (_, label), weight in zip(
            served.paths, map(served.__getitem__, range(len(served))), served.weights, strict=True
        ):
            np.testing.assert_array_equal(label, wanted[path][0])
            assert weight == wanted.pop(path)[1]
    assert list(wanted) == [rows[3]["path"]]
    with pytest.raises(batchify.BatchifyError, match="masks are stored in the target size"):
        replace(
            options,
            store=replace(options.store, class_mode="mask"),
            manifest=ManifestOptions("labels.csv"),
        )


@pytest.mark.parametrize("mode", COLUMNS)
def test_shards_are_merged_to_the_one_file(tmp_path: Path, photos: Path, mode: str) -> None:
    """Byte for byte; inspect tells of the shards what it tells of the file."""
    options, _ = make(tmp_path, photos, mode)
    build(photos, tmp_path / "one.h5", options)
    batchify.build_shards(photos, tmp_path / "shards", options, shards=4)
    batchify.merge(tmp_path / "shards", tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    one, several = (summarize(tmp_path / name) for name in ("one.h5", "shards"))
    for split, joined in zip(one.splits, several.splits, strict=True):
        assert (joined.labels is None) == (split.labels is None)
        assert split.weights is not None
        assert joined.weights is not None
        for mine, other in zip(
            [*(split.labels or ()), split.weights], [*(joined.labels or ()), joined.weights],
            strict=True,
        ):  # fmt: skip
            assert (mine.low, mine.high, mine.positives) == (other.low, other.high, other.positives)
            assert mine.mean == pytest.approx(other.mean)
    assert verify(tmp_path / "shards", source=photos, redecode="all").is_ok
    assert check(tmp_path / "shards").is_ok == check(tmp_path / "one.h5").is_ok
