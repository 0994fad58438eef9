"""Further columns of a table in the file, and rows without labels."""

from __future__ import annotations

import json
import math
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.running import Run
from helpers.tabled import SUFFIXES, listed, write_table

import batchify
from batchify.building.build import build
from batchify.building.changes import find_changes
from batchify.checking.verify import verify
from batchify.dataset_options import DiscoverOptions, ManifestOptions
from batchify.datasets.manifest import read_dataset
from batchify.errors import BatchifyWarning, FileFormatError, ManifestError, OptionError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.planning.planner import fingerprint
from batchify.reporting.summary import summarize

NAMES = ("age", "share", "ok", "site", "code", "gap")
KINDS = {
    "age": "int64", "share": "float64", "ok": "bool", "site": "text", "code": "text",
    "gap": "float64",
}  # fmt: skip


def rows_of(root: Path) -> list[dict[str, Any]]:
    """Return a row for each photo, with a column of every kind."""
    return [
        {
            "path": path, "label": path.split("/")[0], "age": i - 3, "share": i / 3,
            "ok": i % 2 == 0, "site": f"Zürich, {i}" * (i % 3), "code": f"{i:04}",
            "gap": None if i == 1 else i,
        }
        for i, path in enumerate(listed(root))
    ]  # fmt: skip


def options_of(table: Path, names: tuple[str, ...] = NAMES, **store: Any) -> BuildOptions:
    """Return options of a small build that keeps columns."""
    return BuildOptions(
        decode=DecodeOptions((8, 8)),
        store=StoreOptions(**store),
        manifest=ManifestOptions(str(table), keep_columns=names),
    )


def stored(path: Path) -> dict[str, dict[str, Any]]:
    """Return the kept columns of each path, by plain h5py."""
    found = {}
    with h5py.File(path) as file:
        for split in ("train", "validation"):
            for i, name in enumerate(file[split]["paths"]):
                row = {each: file[split][each][i] for each in NAMES}
                row |= {each: row[each].decode() for each in ("site", "code")}
                found[name.decode()] = row
    return found


def check_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Check that a file has the values of some rows."""
    found = stored(path)
    for row in rows:
        values = found.pop(row["path"])
        assert math.isnan(values["gap"]) == (row["gap"] is None)
        row = {**row, "gap": values["gap"] if row["gap"] is None else row["gap"]}
        np.testing.assert_equal(values, {name: row[name] for name in NAMES})
    assert not found


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_further_columns_travel_row_by_row_in_their_types(
    tmp_path: Path, photos: Path, suffix: str
) -> None:
    """Whole numbers, other numbers, truth values and texts, with the same digest in any format."""
    rows = rows_of(photos)
    options = options_of(write_table(tmp_path / f"t{suffix}", rows))
    build(photos, tmp_path / "out.h5", options)
    check_rows(tmp_path / "out.h5", rows)
    with h5py.File(tmp_path / "out.h5") as file:
        kinds = {name: file["train"][name].dtype for name in NAMES}
        assert [kinds[name].kind for name in NAMES] == ["i", "f", "b", "S", "S", "f"]
        assert h5py.check_string_dtype(kinds["site"]).encoding == "utf-8"
    plain = options_of(write_table(tmp_path / "same.csv", rows))
    assert not find_changes(photos, tmp_path / "out.h5", plain).is_due
    assert verify(tmp_path / "out.h5", source=photos, redecode="all").is_ok


def test_columns_are_served_by_name(tmp_path: Path, photos: Path) -> None:
    """As arrays, in the order of the rows; by a copy in another process and by several files."""
    rows = {row["path"]: row for row in rows_of(photos)}
    options = options_of(write_table(tmp_path / "t.csv", list(rows.values())))
    build(photos, tmp_path / "out.h5", options)
    train = batchify.open(tmp_path / "out.h5")["train"]
    assert list(train.columns) == list(NAMES)
    for split in (train, pickle.loads(pickle.dumps(train))):
        for name in ("age", "share", "ok", "site", "code"):
            values = split.columns[name]
            assert values.tolist() == [rows[path][name] for path in split.paths]
        assert (split.columns["site"].dtype, split.columns["ok"].dtype) == (object, bool)
    with pytest.raises(KeyError, match="no column 'size', only age, share"):
        train.columns["size"]
    two = batchify.open([tmp_path / "out.h5", tmp_path / "out.h5"])["train"]
    assert two.columns["site"].tolist() == 2 * train.columns["site"].tolist()
    build(photos, tmp_path / "none.h5", options_of(tmp_path / "t.csv", ()))
    assert dict(batchify.open(tmp_path / "none.h5")["train"].columns) == {}
    with pytest.raises(FileFormatError, match="columns are none in train of"):
        batchify.open([tmp_path / "out.h5", tmp_path / "none.h5"])


@pytest.mark.parametrize(
    "store", [{"compression": "gzip"}, {"store": "encoded"}, {}], ids=["gzip", "encoded", "plain"]
)
def test_skipped_rows_take_their_columns_with_them(
    tmp_path: Path, photos: Path, store: dict[str, Any]
) -> None:
    """Where the file is written a second time, and where it is resumed."""
    rows = rows_of(photos)
    options = options_of(write_table(tmp_path / "t.csv", rows), **store)
    bad = photos / rows[3]["path"]
    good = bad.read_bytes()
    bad.write_bytes(b"no image")
    with pytest.raises(batchify.BatchifyError):
        build(photos, tmp_path / "out.h5", options)
    build(photos, tmp_path / "out.h5", options, on_error="skip")
    check_rows(tmp_path / "out.h5", rows[:3] + rows[4:])
    assert verify(tmp_path / "out.h5").is_ok
    bad.write_bytes(good)
    build(photos, tmp_path / "out.h5", options, overwrite=True)
    build(photos, tmp_path / "fresh.h5", options)
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "fresh.h5").read_bytes()
    check_rows(tmp_path / "out.h5", rows)


def test_shards_have_the_columns_and_are_merged(tmp_path: Path, photos: Path) -> None:
    """Byte for byte to the one file."""
    options = options_of(write_table(tmp_path / "t.csv", rows_of(photos)))
    build(photos, tmp_path / "one.h5", options)
    batchify.build_shards(photos, tmp_path / "shards", options, shards=3)
    batchify.merge(tmp_path / "shards", tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    shards, one = (batchify.open(tmp_path / name)["train"] for name in ("shards", "one.h5"))
    assert shards.columns["site"].tolist() == one.columns["site"].tolist()
    assert summarize(tmp_path / "shards").columns == summarize(tmp_path / "one.h5").columns == KINDS


def test_a_changed_value_is_another_build_and_a_damaged_one_is_found(
    tmp_path: Path, photos: Path
) -> None:
    """The identity covers them, and so do the checksums."""
    rows = rows_of(photos)
    options = options_of(write_table(tmp_path / "t.csv", rows))
    build(photos, tmp_path / "out.h5", options)
    before = fingerprint(photos, options).hexdigest
    changed = options_of(write_table(tmp_path / "u.csv", [{**rows[0], "age": 99}, *rows[1:]]))
    assert fingerprint(photos, changed).hexdigest != before
    assert find_changes(photos, tmp_path / "out.h5", changed).is_due
    assert find_changes(photos, tmp_path / "out.h5", options_of(tmp_path / "t.csv", ())).is_due
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        file["train/age"][0] = 77
    assert {finding.code for finding in verify(tmp_path / "out.h5").findings} == {
        "record", "digest",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "kind", "wanted"),
    [
        (["1", "-2", "0"], "int64", [1, -2, 0]),
        (["9223372036854775807", "-9223372036854775808", "0"], "int64", [2**63 - 1, -(2**63), 0]),
        (["9223372036854775808", "1", "2"], "text", ["9223372036854775808", "1", "2"]),
        (["9007199254740993", "0.5", "1"], "text", ["9007199254740993", "0.5", "1"]),
        (["1", "2.5", "1e3"], "float64", [1, 2.5, 1000]),
        (["1", "", "NaN"], "float64", [1, math.nan, math.nan]),
        (["007", "1", "2"], "text", ["007", "1", "2"]),
        (["00.5", "1", "2"], "text", ["00.5", "1", "2"]),
        (["inf", "1", "-inf"], "float64", [math.inf, 1, -math.inf]),
        (["true", "False", "TRUE"], "bool", [True, False, True]),
        (["true", "", "false"], "text", ["true", "", "false"]),
        (["true", "1", "0"], "text", ["true", "1", "0"]),
        (["", "", ""], "text", ["", "", ""]),
        (["1_0", "2", "3"], "text", ["1_0", "2", "3"]),
        (["é" * 300, "x", ""], "text", ["é" * 300, "x", ""]),
        (["2024-01-01", "1", "2"], "text", ["2024-01-01", "1", "2"]),
    ],
)
def test_types_are_those_that_hold_every_value(
    tmp_path: Path, photos: Path, values: list[str], kind: str, wanted: list[Any]
) -> None:
    """No digit is lost: what a number would change stays a text."""
    rows = [
        {"path": path, "label": "a", "x": value, "split": "train"}
        for path, value in zip(listed(photos), values, strict=False)
    ]
    options = options_of(write_table(tmp_path / "t.csv", rows), ("x",))
    found = read_dataset(photos, options).annotations.kept[0]
    got = found.rows(np.arange(3))
    if kind == "text":
        assert [value.decode() for value in got.tolist()] == wanted
    else:
        assert found.dtype == np.dtype(kind).str
        np.testing.assert_array_equal(got, wanted)


def test_names_that_a_file_cannot_have_are_refused(run: Run, tmp_path: Path, photos: Path) -> None:
    """Before anything is read, or when the table spells them so."""
    for name, message in (
        ("paths", "a split of a file has a column of this name"),
        ("a/b", "HDF5 has no such name"),
        (".", "HDF5 has no such name"),
        ("a\nb", "its name does not print"),
        ("x" * 256, "HDF5 has no such name"),
        ("", "columns to keep must be names"),
    ):
        with pytest.raises(OptionError, match=message):
            ManifestOptions("t.csv", keep_columns=(name,))
    with pytest.raises(OptionError, match="129 columns to keep; a file has 128 at most"):
        ManifestOptions("t.csv", keep_columns=tuple(map(str, range(129))))
    rows = [{"path": path, "label": "a", "note": "x" * 70_000} for path in listed(photos)]
    write_table(tmp_path / "t.csv", rows)
    done = run("build", "photos", "out.h5", "--manifest", "t.csv", "--keep-columns", "size")
    assert done.returncode == 1
    assert "has no column size, only path, label, note; see --keep-columns" in done.stderr
    done = run("build", "photos", "out.h5", "--manifest", "t.csv", "--keep-columns", "note")
    assert done.returncode == 1
    assert "line 2: note has 70,000 bytes; the limit is 65,536" in done.stderr
    done = run("build", "photos", "out.h5", "--keep-columns", "note")
    assert (done.returncode, "--keep-columns requires --manifest" in done.stderr) == (2, True)


def test_inspect_shows_the_columns(run: Run, tmp_path: Path, photos: Path) -> None:
    """With their kinds, as text, as JSON, and in the command of the report."""
    write_table(tmp_path / "t.csv", rows_of(photos))
    done = run("build", "photos", "out.h5", "--manifest", "t.csv", "--keep-columns", "AGE,site")
    assert done.returncode == 0, done.stderr
    assert "further columns: age (int64), site (text)" in run("inspect", "out.h5").stdout
    found = json.loads(run("inspect", "out.h5", "--json").stdout)
    assert found["columns"] == {"age": "int64", "site": "text"}
    run("inspect", "out.h5", "--report", "page.html")
    assert "--keep-columns age,site" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_stranger_cannot_name_columns_as_they_like(tmp_path: Path, photos: Path) -> None:
    """A config that names what is not there, or another type, is refused."""
    options = options_of(write_table(tmp_path / "t.csv", rows_of(photos)), ("age",))
    build(photos, tmp_path / "out.h5", options)
    for names, message in (
        (["age", "labels"], "not names of columns"),
        (["../train/age"], "not names of columns"),
        (["no"], "train has no no"),
        ("age", "not names"),
        ([["age"]], "nested"),
        (["age", "age"], "not names"),
    ):
        with h5py.File(tmp_path / "out.h5", "r+") as file:
            config = json.loads(file.attrs["config"]) | {"keep_columns": names}
            file.attrs["config"] = np.bytes_(json.dumps(config).encode())
        with pytest.raises(FileFormatError, match=message):
            batchify.open(tmp_path / "out.h5")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("empty", [None, math.nan, "", " "])
def test_rows_without_a_label_are_an_error_or_ignored(
    run: Run, tmp_path: Path, photos: Path, suffix: str, empty: Any
) -> None:
    """The error names the option; what is ignored is counted and said."""
    texts = not isinstance(empty, float)
    rows: list[dict[str, Any]] = [
        {"path": path, "label": empty if i % 3 == 0 else "ab"[i % 2] if texts else i % 2 + 0.0}
        for i, path in enumerate(listed(photos))
    ]
    write_table(tmp_path / f"t{suffix}", rows)
    call = ("build", "photos", "out.h5", "--manifest", f"t{suffix}", "--target-size", "8")
    done = run(*call)
    assert done.returncode == 1
    assert re.search(r"label is (empty|nan, which .*) \(see --unlabelled\)", done.stderr)
    assert not (tmp_path / "out.h5").exists()
    done = run(*call, "--unlabelled", "drop")
    assert done.returncode == 0, done.stderr
    dropped = len(rows[::3])
    assert f"ignored {dropped} rows of the manifest without a label" in done.stdout
    with h5py.File(tmp_path / "out.h5") as file:
        paths = {path.decode() for s in ("train", "validation") for path in file[s]["paths"]}
        assert json.loads(file.attrs["config"])["unlabelled"] == "drop"
        assert len(file.attrs["classes"]) == 2
    assert paths == {row["path"] for i, row in enumerate(rows) if i % 3}
    assert run(*call, "--unlabelled", "drop", "--check").returncode == 0


@pytest.mark.parametrize("mode", ["multilabel", "regression"])
def test_rows_without_any_number_are_unlabelled(tmp_path: Path, photos: Path, mode: str) -> None:
    """One that lacks some of them is not valid."""
    rows: list[dict[str, Any]] = [{"path": path, "x": 1, "y": 0} for path in listed(photos)]
    rows[1] |= {"x": None, "y": None}
    options = BuildOptions(
        store=StoreOptions(class_mode=mode),  # type: ignore[arg-type]
        manifest=ManifestOptions(
            str(write_table(tmp_path / "t.csv", rows)), ("x", "y"), unlabelled="drop"
        ),
    )
    found = read_dataset(photos, options)
    assert len(found.samples) == len(rows) - 1
    assert [str(warning) for warning in found.warnings] == [
        "ignored 1 row of the manifest without a label (--unlabelled drop)"
    ]
    rows[2] |= {"x": None}
    write_table(tmp_path / "t.csv", rows)
    with pytest.raises(ManifestError, match="line 4: x is empty"):
        read_dataset(photos, options)
    for row in rows:
        row |= {"x": None, "y": None}
    write_table(tmp_path / "t.csv", rows)
    with pytest.raises(ManifestError, match="lists no images with a label"):
        read_dataset(photos, options)


def test_class_mode_none_needs_only_paths(run: Run, tmp_path: Path) -> None:
    """Of one column, of several, or with labels that some rows lack."""
    root = tmp_path / "flat"
    for i in range(6):
        save(root / f"{i}.jpg", encoded(photo(8, 8, i), "JPEG"))
    names = [f"{i}.jpg" for i in range(6)]
    (tmp_path / "one.csv").write_text("\n".join(["file", *names]))
    (tmp_path / "two.csv").write_text("\n".join(["id,note,x", *(f"{i},a,b" for i in range(6))]))
    lines = [f"{name},{'a' * (i % 2)}" for i, name in enumerate(names)]
    (tmp_path / "some.csv").write_text("\n".join(["path,label", *lines]))
    for table in ("one", "two", "some"):
        done = run("build", "flat", f"{table}.h5", "--manifest", f"{table}.csv",
                   "--class-mode", "none", "--target-size", "8")  # fmt: skip
        assert done.returncode == 0, done.stderr
        with h5py.File(tmp_path / f"{table}.h5") as file:
            rows = [path.decode() for s in ("train", "validation") for path in file[s]["paths"]]
            assert sorted(rows) == names
            assert "labels" not in file["train"]
            assert json.loads(file.attrs["config"])["label_columns"] == []
        assert run("inspect", f"{table}.h5", "--report", f"{table}.html").returncode == 0
        assert verify(tmp_path / f"{table}.h5", source=root, redecode="all").is_ok
        assert run("build", "flat", f"{table}.h5", "--manifest", f"{table}.csv", "--class-mode",
                   "none", "--target-size", "8", "--check").returncode == 0  # fmt: skip


def test_class_mode_none_keeps_the_classes_that_a_table_has(tmp_path: Path) -> None:
    """So that a stratified split knows them; --classes needs a column of labels."""
    root = draw_dataset(tmp_path / "data", {"cat": 2, "dog": 2}, size=(8, 8))
    rows = [{"path": path, "label": path.split("/")[0]} for path in listed(root)]
    options = BuildOptions(
        store=StoreOptions(class_mode="none"),
        manifest=ManifestOptions(str(write_table(tmp_path / "t.csv", rows))),
    )
    assert read_dataset(root, options).classes == (b"cat", b"dog")
    listing = replace(options, discover=DiscoverOptions(classes=("dog",)))
    with pytest.warns(BatchifyWarning, match="ignored 2 rows of 1 class"):
        build(root, tmp_path / "out.h5", listing)
    write_table(tmp_path / "t.csv", [{"path": row["path"]} for row in rows])
    with pytest.raises(ManifestError, match="has no column label"):
        read_dataset(root, listing)
