"""Manifests: what is taken from a table, and every way in which it can be wrong."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.properties import examples
from helpers.running import Run
from helpers.tabled import SUFFIXES, listed, options_of, write_table
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batchify import choices
from batchify.building.build import build
from batchify.dataset_options import DiscoverOptions, ManifestOptions
from batchify.datasets.manifest import read_dataset, read_manifest
from batchify.errors import DatasetError, ManifestError, OptionError
from batchify.image_options import StoreOptions
from batchify.options import BuildOptions
from batchify.planning.planner import fingerprint, plan_build
from batchify.storage.listed_tree import ListedTree
from batchify.storage.source import FolderSource

S3 = "s3://bucket/labels.csv"


def columns_of(path: Path) -> dict[str, Any]:
    """Return all columns of all splits of a file, by plain h5py."""
    with h5py.File(path) as file:
        return {
            f"{split}/{name}": dataset[()]
            for split in choices.SPLITS
            for name, dataset in file.get(split, {}).items()
        }


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("policy", ["keras", "stratified", "hash"])
def test_a_manifest_of_class_folders_gives_the_rows_of_the_folders(
    tmp_path: Path, photos: Path, suffix: str, policy: choices.Policy
) -> None:
    """Splits, order, labels and pixels are the same, and so are all checksums of rows."""
    rows = [{"path": path, "label": path.split("/")[0]} for path in listed(photos)]
    manifest = write_table(tmp_path / f"labels{suffix}", rows)
    options = options_of(manifest, policy=policy, test=0.2)
    build(photos, tmp_path / "manifest.h5", options)
    build(photos, tmp_path / "folders.h5", replace(options, manifest=None))
    mine, folders = columns_of(tmp_path / "manifest.h5"), columns_of(tmp_path / "folders.h5")
    assert list(mine) == list(folders)
    for name, values in folders.items():
        np.testing.assert_array_equal(mine[name], values, name)
    with h5py.File(tmp_path / "manifest.h5") as file:
        assert file.attrs["classes"].tolist() == [b"cat", b"dog"]


def test_the_formats_and_the_order_of_classes_change_nothing(tmp_path: Path, photos: Path) -> None:
    """The same rows are the same build: the digest is of what is said, not of how."""
    rows = [{"path": path, "label": path.split("/")[0]} for path in listed(photos)]
    swapped = rows[5:] + rows[:5]  # dogs first: each class keeps its order
    noisy = [{"other": "x", "label": r["label"], "path": "./" + r["path"]} for r in rows]
    found = set()
    for number, some in enumerate((rows, swapped, noisy)):
        for suffix in SUFFIXES:
            manifest = write_table(tmp_path / f"{number}{suffix}", some)
            found.add(plan_build(photos, options_of(manifest)).identity)
    text = "\ufeffpath,label\r\n\r\n" + "".join(f'"{r["path"]}", {r["label"]}\r\n' for r in rows)
    (tmp_path / "bom.csv").write_text(text, encoding="utf-8", newline="")
    found.add(plan_build(photos, options_of(tmp_path / "bom.csv")).identity)
    assert len(found) == 1


def test_a_changed_label_weight_split_or_group_changes_the_identity(
    tmp_path: Path, photos: Path
) -> None:
    """The fingerprint, too; so that no cache serves old labels."""
    paths = listed(photos)
    base = [{"path": p, "label": p.split("/")[0], "weight": 1.0, "group": p} for p in paths]
    rows = {
        "base": base,
        "label": [{**base[0], "label": "dog"}, *base[1:]],
        "weight": [{**base[0], "weight": 2.0}, *base[1:]],
        "group": [{**base[0], "group": paths[1]}, *base[1:]],
        "no weight": [{k: v for k, v in row.items() if k != "weight"} for row in base],
        "split": [{**row, "split": "train"} for row in base],
    }
    plans = {}
    for name, some in rows.items():
        manifest = write_table(tmp_path / f"{name}.csv", some)
        options = options_of(manifest, policy="stratified")
        plans[name] = plan_build(photos, options).identity
        plans[f"fingerprint {name}"] = fingerprint(photos, options).hexdigest
    assert len(set(plans.values())) == len(plans)


def test_a_split_column_is_the_split(tmp_path: Path, photos: Path) -> None:
    """As folders named like splits are; all their names are known, and shares are refused."""
    names = ["train", "Training", "val", "valid", "validation", "dev", "test", "testing", "eval"]
    rows = [
        {"path": path, "label": path.split("/")[0], "split": names[i % len(names)]}
        for i, path in enumerate(listed(photos))
    ]
    manifest = write_table(tmp_path / "labels.csv", rows)
    options = options_of(manifest, shuffle=False)
    report = build(photos, tmp_path / "out.h5", options)
    with h5py.File(tmp_path / "out.h5") as file:
        for split, known in (("train", 2), ("validation", 4), ("test", 3)):
            paths = [path.decode() for path in file[split]["paths"]]
            mine = names[:2] if split == "train" else names[2:6] if known == 4 else names[6:]
            assert paths == [row["path"] for row in rows if row["split"] in mine]
    assert "validation_split" not in report.plan.config
    with pytest.raises(OptionError, match="is split by the manifest already"):
        build(photos, tmp_path / "no.h5", replace(options, split_given=True))


def test_a_group_column_keeps_files_together(tmp_path: Path) -> None:
    """With each policy that can; keras, and a second way to group, are refused."""
    photos = draw_dataset(tmp_path / "photos", {"cat": 20, "dog": 20})
    paths = listed(photos)
    rows = [{"path": p, "label": p.split("/")[0], "group": f"patient {i % 10}"}
            for i, p in enumerate(paths)]  # fmt: skip
    manifest = write_table(tmp_path / "labels.csv", rows)
    group_of = {row["path"]: row["group"] for row in rows}
    for policy in ("stratified", "hash"):
        build(
            photos, tmp_path / f"{policy}.h5", options_of(manifest, policy=policy, validation=0.3)
        )
        with h5py.File(tmp_path / f"{policy}.h5") as file:
            groups = [{group_of[p.decode()] for p in file[split]["paths"]}
                      for split in ("train", "validation")]  # fmt: skip
        assert groups[0]
        assert groups[1]
        assert not groups[0] & groups[1]
    with pytest.raises(OptionError, match="needs --split stratified or hash"):
        build(photos, tmp_path / "no.h5", options_of(manifest))
    with pytest.raises(OptionError, match="remove --group-by"):
        plan_build(photos, options_of(manifest, policy="hash", group_by="(c)"))
    with pytest.raises(OptionError, match="remove --group-duplicates"):
        plan_build(photos, options_of(manifest, policy="hash", group_duplicates=True))
    shutil.copy(photos / paths[0], photos / paths[1])  # the same bytes in groups 0 and 1
    plan = plan_build(
        photos,
        options_of(manifest, policy="stratified", group_duplicates=True, validation=0.3),
    )
    where = {}
    for split in plan.splits:
        for _, found in plan.paths(split):
            where.update({group_of[os.fsdecode(path)]: split.name for path in found})
    assert where["patient 0"] == where["patient 1"]


CASES: dict[str, tuple[str, str]] = {
    "unknown": ("path,label\ncat/no.jpg,a\n", "line 2: cat/no.jpg: there is no such file"),
    "in no folder": ("path,label\nno/no.jpg,a\n", "line 2: no/no.jpg: there is no such file"),
    "below a file": (
        "path,label\ncat/img_000.jpg/x.jpg,a\n",
        "line 2: cat/img_000.jpg/x.jpg: there is no such file",
    ),
    "a folder": ("path,label\ndir.jpg,a\n", "line 2: dir.jpg: not a regular file but a folder"),
    "a FIFO": ("path,label\nfifo.jpg,a\n", "line 2: fifo.jpg: not a regular file but a FIFO"),
    "link out": ("path,label\nout.jpg,a\n", "line 2: out.jpg: link that leads out"),
    "behind a link": ("path,label\nfar/a.jpg,a\n", "line 2: far/a.jpg: behind a link that leads"),
    "dangling": ("path,label\ngone.jpg,a\n", "line 2: gone.jpg: dangling or looping link"),
    "absolute": ("path,label\n/etc/x.jpg,a\n", "line 2: path /etc/x.jpg is absolute"),
    "drive": ("path,label\nC:\\\\x.jpg,a\n", "is absolute; paths are relative to DATASET"),
    "dots": ("path,label\ncat/../dog/x.jpg,a\n", 'line 2: path cat/../dog/x.jpg is not allowed'),
    "kind": ("path,label\nnotes.txt,a\n", "line 2: notes.txt: not taken because of"),
    "no path": ("path,label\n,a\n", "line 2: path is empty"),
    "no label": ("path,label\ncat/img_000.jpg,\n", "line 2: label is empty"),
    "nan label": ("path,label\ncat/img_000.jpg,NaN\n", "label is NaN, which means that there is"),
    "blank label": ("path,label\ncat/img_000.jpg,'  '\n".replace("'", '"'), "label is empty"),
    "long label": ("path,label\ncat/img_000.jpg," + "x" * 256 + "\n", "label has 256 bytes"),
    "twice": (
        "path,label\ncat/img_000.jpg,a\ncat/img_001.jpg,a\n./cat//img_000.jpg,b\n",
        "line 4: cat/img_000.jpg is on line 2 already",
    ),
    "after a long record": (
        'path,label,note\ncat/img_000.jpg,a,"two\nlines"\ncat/no.jpg,a,\n',
        "line 4: cat/no.jpg: there is no such file",
    ),
    "fields": ("path,label\ncat/img_000.jpg,a,b\n", "line 2: it has 3 fields, the header 2"),
    "quote": ('path,label\ncat/img_000.jpg,"a\n', "line 2: it is not CSV: unexpected end"),
    "NUL": ("path,label\ncat/img_000.jpg,a\0b\n", "line 2: it has a NUL byte"),
    "split": ("path,label,split\ncat/img_000.jpg,a,tran\n", "split tran is none of train"),
    "no split": ("path,label,split\ncat/img_000.jpg,a,\n", "line 2: split is empty"),
    "no group": ("path,label,group\ncat/img_000.jpg,a,\n", "line 2: group is empty"),
    "group leak": (
        "path,label,split,group\ncat/img_000.jpg,a,train,g\ncat/img_001.jpg,a,test,g\n",
        "line 3: its group is in train on line 2, here in test",
    ),
    "weight": ("path,label,weight\ncat/img_000.jpg,a,-1\n", "weight -1 is negative"),
    "no weight": ("path,label,weight\ncat/img_000.jpg,a,\n", "line 2: weight is empty"),
    "infinite": ("path,label,weight\ncat/img_000.jpg,a,inf\n", "weight inf is not finite"),
    "nan": ("path,label,weight\ncat/img_000.jpg,a,nan\n", "weight nan is not a number"),
    "word": ("path,label,weight\ncat/img_000.jpg,a,1_0\n", "weight 1_0 is not a number"),
    "column": ("path|label\ncat/img_000.jpg|a\n", "has no column label, only path|label"),
    "label column": ("path,class\ncat/img_000.jpg,a\n", "has no column label, only path, class"),
    "columns": ("path,label,label\ncat/img_000.jpg,a,b\n", "has 2 columns label; keep one"),
    "header alone": ("path,label\n", "lists no images"),
    "nothing": ("", "is empty; its first line must name the columns"),
}  # fmt: skip


@pytest.fixture
def odd(tmp_path: Path, photos: Path) -> Path:
    """Return a dataset with what no image is."""
    far = tmp_path / "far"
    save(far / "a.jpg", encoded(photo(), "JPEG"))
    (photos / "dir.jpg").mkdir()
    os.mkfifo(photos / "fifo.jpg")
    (photos / "out.jpg").symlink_to(far / "a.jpg")
    (photos / "far").symlink_to(far)
    (photos / "gone.jpg").symlink_to(photos / "nothing.jpg")
    (photos / "notes.txt").write_text("notes")
    return photos


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, odd: Path, case: str) -> None:
    """And nothing is written."""
    text, message = CASES[case]
    manifest = tmp_path / "labels.csv"
    manifest.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(ManifestError) as caught:
        build(odd, tmp_path / "out.h5", options_of(manifest, policy="stratified"))
    assert message in str(caught.value)
    assert str(manifest) in str(caught.value)
    assert caught.value.exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "labels.csv", "photos"]


def test_follow_links_takes_what_a_link_leads_to(tmp_path: Path, odd: Path) -> None:
    """And hidden files are taken in any case: they are named."""
    shutil.copy(odd / "cat" / "img_000.jpg", odd / ".hidden.jpg")
    rows = [{"path": path, "label": "a"} for path in ("out.jpg", "far/a.jpg", ".hidden.jpg")]
    options = options_of(write_table(tmp_path / "labels.csv", rows))
    options = replace(options, discover=DiscoverOptions(follow_links=True))
    assert build(odd, tmp_path / "out.h5", options).plan.images == 3


def test_ten_errors_are_named_in_the_order_of_lines(tmp_path: Path, photos: Path) -> None:
    """Whatever found them; the others are counted."""
    lines = ["path,label", *(f"no/{i:02}.jpg,a" for i in range(40)), "cat/img_000.jpg,"]
    lines.insert(3, "cat/../x.jpg,a")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(ManifestError) as caught:
        read_dataset(photos, options_of(tmp_path / "labels.csv"))
    text = str(caught.value).splitlines()
    assert text[0].endswith("has 42 errors:")
    assert [line.split()[2] for line in text[1:11]] == [f"{n}:" for n in range(2, 12)]
    assert text[11:] == [
        "  … and 32 more",
        f"fix the manifest; its paths are relative to {photos}",
    ]


def test_bytes_that_are_not_utf8_are_told(tmp_path: Path, photos: Path) -> None:
    """With the line and the byte."""
    (tmp_path / "labels.csv").write_bytes(b"path,label\ncat/img_000.jpg,caf\xe9\n")
    with pytest.raises(ManifestError, match=r"line 2: it is not UTF-8 \(byte 20 of the line"):
        read_dataset(photos, options_of(tmp_path / "labels.csv"))


JSON_CASES = {
    "no JSON": ('{"path": "cat/img_000.jpg"\n', "line 1: it is not JSON: "),
    "a list": ("[1]\n", "line 1: it is not a JSON object"),
    "nested": ('{"path": "cat/img_000.jpg", "label": ["a"]}\n', "line 1: label is a list; it must"),
    "object": ('{"path": {}, "label": "a"}\n', "line 1: path is an object; it must"),
    "null": ('{"path": "cat/img_000.jpg", "label": null}\n', "line 1: label is empty"),
    "twice": ('{"path": "a.jpg", "path": "b.jpg", "label": "a"}\n', "path is there twice"),
    "a column less": (
        '{"path": "cat/img_000.jpg", "label": "a"}\n\n{"path": "cat/img_001.jpg"}\n',
        "line 3: it has no label, which the first row has",
    ),
    "a column more": (
        '{"path": "cat/img_000.jpg", "label": "a"}\n'
        '{"path": "cat/img_001.jpg", "label": "a", "weight": 1}\n',
        "line 2: it has weight, which the first row does not have",
    ),
    "deep": ("[" * 100_000 + "\n", "line 1: it is not JSON: "),
    "long number": ('{"path": "a.jpg", "label": ' + "1" * 5000 + "}\n", "line 1: it is not JSON: "),
    "surrogate": ('{"path": "\\ud800.jpg", "label": "a"}\n', "not valid UTF-8"),
    "long": ('{"path": "' + "x" * (1 << 20) + '"}\n', "line 1: it is longer than 1,048,576 bytes"),
    "no column": ('{"file": "a.jpg"}\n', "has no column label, only file"),
    "nothing": ("\n", "is empty; every line must be a JSON object"),
}


@pytest.mark.parametrize("case", JSON_CASES)
def test_what_is_wrong_in_json_is_told_with_its_line(
    tmp_path: Path, photos: Path, case: str
) -> None:
    """Each line is an object of plain values."""
    text, message = JSON_CASES[case]
    (tmp_path / "labels.jsonl").write_text(text)
    with pytest.raises(ManifestError) as caught:
        read_dataset(photos, options_of(tmp_path / "labels.jsonl"))
    assert message in str(caught.value)


def test_a_file_whose_name_is_not_utf8_can_be_named_in_json(tmp_path: Path) -> None:
    r"""By ``\udcXX``, as Python carries such bytes."""
    root = os.fsencode(tmp_path / "photos")
    os.mkdir(root)
    with open(os.path.join(root, b"caf\xe9.jpg"), "wb") as file:
        file.write(encoded(photo(), "JPEG"))
    (tmp_path / "labels.jsonl").write_text('{"path": "caf\\udce9.jpg", "label": 3}\n')
    dataset = read_dataset(tmp_path / "photos", options_of(tmp_path / "labels.jsonl"))
    assert dataset.samples.path(0) == b"caf\xe9.jpg"
    assert dataset.classes == (b"3",)


def test_parquet_counts_rows_and_refuses_what_is_not_plain(tmp_path: Path, photos: Path) -> None:
    """What is no Parquet is said to be none."""
    rows: list[dict[str, Any]] = [{"path": "cat/img_000.jpg", "label": "a"}]
    manifest = write_table(tmp_path / "a.parquet", [*rows, {"path": "cat/no.jpg", "label": "b"}])
    with pytest.raises(ManifestError, match=r"row 2: cat/no\.jpg: there is no such file"):
        read_dataset(photos, options_of(manifest))
    manifest = write_table(tmp_path / "b.parquet", [{**rows[0], "label": ["a"]}])
    with pytest.raises(ManifestError, match="has a column label of type list"):
        read_dataset(photos, options_of(manifest))
    manifest = write_table(tmp_path / "c.parquet", [*rows, {"path": "cat/img_001.jpg"}])
    with pytest.raises(ManifestError, match="row 2: label is empty"):
        read_dataset(photos, options_of(manifest))
    (tmp_path / "d.parquet").write_bytes(b"no parquet")
    with pytest.raises(ManifestError, match="is not a valid Parquet file"):
        read_dataset(photos, options_of(tmp_path / "d.parquet"))
    whole = (tmp_path / "a.parquet").read_bytes()
    for at in range(4, len(whole) - 8, 7):
        (tmp_path / "e.parquet").write_bytes(whole[:at] + bytes(6) + whole[at + 6 :])
        try:
            read_dataset(photos, options_of(tmp_path / "e.parquet"))
        except DatasetError as error:
            assert "e.parquet" in str(error)  # noqa: PT017 - some changes are not seen


def test_a_manifest_that_is_none_is_refused(tmp_path: Path, photos: Path) -> None:
    """By its ending, its kind, or because it is not there; a FIFO does not block."""
    with pytest.raises(OptionError, match=r"must end in \.csv, \.tsv, \.jsonl or \.parquet"):
        read_dataset(photos, options_of(tmp_path / "labels.xlsx"))
    with pytest.raises(OptionError, match=r"s3://bucket/labels\.csv is not a local file"):
        read_dataset(photos, replace(options_of(tmp_path), manifest=ManifestOptions(S3)))
    with pytest.raises(ManifestError, match=r"does not exist$"):
        read_dataset(photos, options_of(tmp_path / "labels.csv"))
    (photos / "inside.csv").touch()
    with pytest.raises(ManifestError, match=r"inside\.csv does not exist; \S+inside\.csv does$"):
        read_dataset(photos, options_of(Path("inside.csv")))
    os.mkfifo(tmp_path / "fifo.csv")
    with pytest.raises(ManifestError, match="is not a regular file"):
        read_dataset(photos, options_of(tmp_path / "fifo.csv"))
    (tmp_path / "dir.csv").mkdir()
    with pytest.raises(ManifestError, match="is not a regular file"):
        read_dataset(photos, options_of(tmp_path / "dir.csv"))


def test_options_of_a_manifest_are_checked(photos: Path) -> None:
    """Before anything is read."""
    for mode in choices.MANIFEST_MODES:
        with pytest.raises(OptionError, match="needs labels from a manifest"):
            plan_build(photos, class_mode=mode)  # type: ignore[arg-type]
    two = ManifestOptions("a.csv", ("x", "y"))
    for mode in ("sparse", "mask"):
        with pytest.raises(OptionError, match="has one label column, not 2"):
            BuildOptions(store=StoreOptions(class_mode=mode), manifest=two)  # type: ignore[arg-type]
    for columns, message in (
        (("",), "label columns must be names, and not empty"),
        (("path",), "column path of a manifest is not a label column"),
        (("x", "x"), "'x' is given twice"),
        (tuple(f"{i:04}" for i in range(5000)), "5,000 label columns take more than"),
    ):
        with pytest.raises(OptionError, match=message):
            ManifestOptions("a.csv", columns)


def test_classes_that_differ_in_case_alone_are_told(tmp_path: Path, photos: Path) -> None:
    """They are two, but seldom meant."""
    rows = [{"path": path, "label": label} for path, label in zip(listed(photos), ["Cat", "cat "])]  # noqa: B905
    plan = plan_build(photos, options_of(write_table(tmp_path / "labels.csv", rows)))
    assert next(each.code for each in plan.warnings) == "similar-classes"


def test_a_listed_tree_finds_files_and_their_extents(tmp_path: Path) -> None:
    """What an archive or an object store lists is found as a folder's files are."""
    tree = ListedTree(FolderSource(b"/nowhere"))
    for number, name in enumerate((b"a/x.jpg", b"a/y.jpg", b"b/x.jpg", b"a/x.jpg", b"r.jpg")):
        tree.add_file(name, (number, 10 * number))
    tree.add_special(b"a/link.jpg", "a link")
    paths = [b"b/x.jpg", b"a/link.jpg", b"a/x.jpg", b"a/no.jpg", b"c/x.jpg", b"a", b"r.jpg"]
    reasons, extents = tree.find_files(paths)
    assert reasons == {
        1: "a link",
        3: "there is no such file",
        4: "there is no such file",
        5: "not a regular file but a folder",
    }
    assert extents is not None
    assert extents[[0, 2, 6]].tolist() == [[2, 20], [3, 30], [4, 40]]
    rows = [{"path": name, "label": label} for name, label in
            (("r.jpg", "z"), ("a/y.jpg", "a"), ("b/x.jpg", "z"))]  # fmt: skip
    manifest = write_table(tmp_path / "labels.csv", rows)
    dataset = read_manifest(tree, options_of(manifest))
    files = dataset.samples.files(np.arange(3))
    assert [(file.path, file.extent) for file in files] == [
        (b"a/y.jpg", (1, 10)), (b"r.jpg", (4, 40)), (b"b/x.jpg", (2, 20)),
    ]  # fmt: skip


def test_reading_takes_tens_of_bytes_a_row(tmp_path: Path) -> None:
    """Not an object for each: the peak, paths included, is far below what a list would take."""
    tree = ListedTree(FolderSource(b"/nowhere"))
    count = 20_000
    with (tmp_path / "labels.csv").open("w") as file:
        file.write("path,label,weight,group\n")
        for i in range(count):
            tree.add_file(b"d%d/image_%08d.jpg" % (i % 10, i), (i,))
            file.write(f"d{i % 10}/image_{i:08}.jpg,class {i % 50},1.5,{i // 4}\n")
    options = options_of(tmp_path / "labels.csv", policy="hash")
    tracemalloc.start()
    try:
        dataset = read_manifest(tree, options)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(dataset.samples) == count
    assert peak < 250 * count


# No surrogates: what UTF-8 encodes; `codec` tries that for each of a million characters.
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/."), min_size=1, max_size=12
)


@settings(
    max_examples=examples(30),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(
        st.tuples(
            NAMES.filter(lambda name: name.strip().lower() not in ("", "nan")),
            st.floats(0, 2.0**99, width=32),
            st.sampled_from(["train", "val", "test"]),
        ),
        min_size=1,
        max_size=8,
    ),
    suffix=st.sampled_from(SUFFIXES),
)  # fmt: skip
@example(rows=[(" 0", 1.0, "train")], suffix=".csv")
def test_what_the_table_says_is_what_h5py_reads(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float, str]], suffix: str
) -> None:
    """Any class name, weight and split, in every format; CSV has no spaces after a delimiter."""
    folder = tmp_path_factory.mktemp("round")
    data = encoded(photo(), "PNG")
    table: list[dict[str, Any]] = []
    for i, (label, weight, split) in enumerate(rows):
        save(folder / "photos" / f"{i}.png", data)
        table.append({"path": f"{i}.png", "label": label, "weight": weight, "split": split})
    manifest = write_table(folder / f"labels{suffix}", table)
    if suffix in (".csv", ".tsv"):
        for row in table:
            row["label"] = row["label"].lstrip(" ")
    build(folder / "photos", folder / "out.h5", options_of(manifest), workers=1)
    wanted = {row["path"]: row for row in table}
    with h5py.File(folder / "out.h5") as file:
        classes = [name.decode() for name in file.attrs["classes"]]
        assert classes == sorted({row["label"] for row in table})
        for split, given_name in (("train", "train"), ("validation", "val"), ("test", "test")):
            mine = [row for row in table if row["split"] == given_name]
            assert (split in file) == bool(mine)
            for path, label, weight in (
                zip(*(file[split][name] for name in ("paths", "labels", "weights")), strict=True)
                if mine
                else ()
            ):
                row = wanted.pop(path.decode())
                assert row["split"] == given_name
                assert classes[label] == row["label"]
                assert weight == np.float32(row["weight"])
    assert not wanted


def test_the_commands_take_a_manifest(run: Run, tmp_path: Path, photos: Path) -> None:
    """build, --dry-run, --check, fingerprint, check, inspect, verify; errors have exit code 1."""
    rows = [{"path": path, "species": path.split("/")[0]} for path in listed(photos)]
    write_table(tmp_path / "labels.csv", rows)
    manifest = ("--manifest", "labels.csv", "--label-columns", "species", "--target-size", "8x8")
    plan = run("build", "photos", "out.h5", *manifest, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "12 train + 3 validation images, 2 classes" in plan.stdout
    made = run("build", "photos", "out.h5", *manifest, "--quiet")
    assert made.returncode == 0, made.stderr
    assert "up to date" in run("build", "photos", "out.h5", *manifest, "--check").stdout
    print_one = run("fingerprint", "photos", *manifest, "--quiet")
    assert len(print_one.stdout.strip()) == 64
    checked = run("check", "photos", *manifest, "--ignore", "tiny-class")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    shown = run("inspect", "out.h5", "--report", "page.html")
    assert "--manifest MANIFEST" in shown.stdout
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "--manifest MANIFEST" in page
    assert "--label-columns species" in page
    whole = run("verify", "out.h5", "--source", "photos", "--redecode", "all")
    assert whole.returncode == 0, whole.stdout + whole.stderr

    rows[0]["species"], rows[1]["path"] = "", "cat/no.jpg"
    write_table(tmp_path / "labels.csv", rows)
    wrong = run("build", "photos", "new.h5", *manifest)
    assert wrong.returncode == 1
    first, *errors, advice = wrong.stderr.splitlines()
    assert first == "Error: manifest labels.csv has 2 errors:"
    assert errors[0].startswith("  - line 2: species is empty")
    assert errors[1:] == ["  - line 3: cat/no.jpg: there is no such file"]
    assert advice.endswith(f"the manifest; its paths are relative to {photos}")
    alone = run("build", "photos", "new.h5", "--label-columns", "species")
    assert alone.returncode == 2
    assert "--label-columns requires --manifest" in alone.stderr
    over = run("build", "photos", "labels.csv", *manifest, "--overwrite")
    assert over.returncode == 1
    assert "is the manifest itself" in over.stderr


def test_new_files_in_the_folder_do_not_matter(tmp_path: Path, photos: Path) -> None:
    """Neither to --check nor to verify --source: the manifest says which there are."""
    from batchify.building.changes import find_changes
    from batchify.checking.verify import verify

    rows = [{"path": path, "label": "a"} for path in listed(photos)[:4]]
    options = options_of(write_table(tmp_path / "labels.csv", rows))
    build(photos, tmp_path / "out.h5", options)
    assert not find_changes(photos, tmp_path / "out.h5", options).is_due
    assert verify(tmp_path / "out.h5", source=photos, redecode="all").is_ok
    (photos / rows[0]["path"]).unlink()
    found = verify(tmp_path / "out.h5", source=photos)
    assert found.counts["missing"] == 1
    save(photos / rows[1]["path"], encoded(photo(seed=99), "JPEG"))
    assert verify(tmp_path / "out.h5", source=photos).counts["changed"] == 1


def test_images_that_the_table_does_not_list_are_counted(
    run: Run, tmp_path: Path, photos: Path
) -> None:
    """In folders and archives; not masks, nor images whose rows are ignored by an option."""
    paths = listed(photos)
    rows = [{"path": path, "label": "b" if i else ""} for i, path in enumerate(paths[:5])]
    (photos / "notes.txt").write_text("no image")
    table = write_table(tmp_path / "labels.csv", rows)
    options = replace(options_of(table), discover=DiscoverOptions(classes=("b",)))
    assert options.manifest is not None
    options = replace(options, manifest=replace(options.manifest, unlabelled="drop"))
    shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    for dataset in (photos, tmp_path / "photos.zip"):
        assert read_dataset(dataset, options).unlisted == len(paths) - 5
    arguments = ("build", "photos", "out.h5", "--manifest", "labels.csv", "--unlabelled", "drop",
                 "--target-size", "8x8")  # fmt: skip
    for more in (("--dry-run",), ()):
        shown = run(*arguments, *more).stdout
        assert f"ignored: {len(paths) - 5} images that the manifest does not list" in shown
    told = json.loads(run(*arguments, "--dry-run", "--json").stdout)
    assert told["ignored"]["unlisted"] == len(paths) - 5
    masks = [{"path": paths[i], "label": paths[i + 1]} for i in range(0, 4, 2)]
    table = write_table(tmp_path / "masks.csv", masks)
    masked = replace(options_of(table), store=StoreOptions(class_mode="mask"))
    assert read_dataset(photos, masked).unlisted == len(paths) - 4


def test_a_hostile_file_makes_verify_read_no_other_file(tmp_path: Path, photos: Path) -> None:
    """Paths of rows that lead out of the source are not looked up: they are missing."""
    from batchify.checking.verify import verify

    save(tmp_path / "x.jpg", (photos / "cat" / "img_000.jpg").read_bytes())
    rows = [{"path": "cat/img_000.jpg", "label": "a"}]
    build(photos, tmp_path / "out.h5", options_of(write_table(tmp_path / "labels.csv", rows)))
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        file["train/paths"][0] = b"../x.jpg"
    found = verify(tmp_path / "out.h5", source=photos)
    assert found.counts["missing"] == 1
    assert found.sources == 0


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_manifest_lists_what_an_archive_holds(tmp_path: Path, photos: Path, kind: str) -> None:
    """The file has the rows of the folder; the archive is proven as its source."""
    from batchify.building.changes import find_changes
    from batchify.checking.verify import verify

    shutil.make_archive(str(tmp_path / "packed"), kind, photos)
    packed = tmp_path / f"packed.{kind}"
    rows = [{"path": path, "label": path.split("/")[0]} for path in listed(photos)[::2]]
    options = options_of(write_table(tmp_path / "labels.csv", rows))
    build(packed, tmp_path / "packed.h5", options, workers=2)
    build(photos, tmp_path / "folder.h5", options)
    assert (tmp_path / "packed.h5").read_bytes() == (tmp_path / "folder.h5").read_bytes()
    assert verify(tmp_path / "packed.h5", source=packed, redecode="all").is_ok
    assert not find_changes(packed, tmp_path / "packed.h5", options).is_due
    rows[1]["path"] = "cat/no.jpg"
    write_table(tmp_path / "labels.csv", rows)
    with pytest.raises(ManifestError, match=r"line 3: cat/no\.jpg: there is no such file"):
        build(packed, tmp_path / "no.h5", options)
