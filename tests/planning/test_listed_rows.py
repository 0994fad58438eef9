"""Builds without the rows that a list names."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.running import Run

import batchify
from batchify.errors import OptionError
from batchify.viewing.catalog import Catalog
from batchify.viewing.marks import list_paths, list_rows

SMALL: dict[str, Any] = {"target_size": (8, 8)}


def paths_of(path: Path, split: str) -> list[bytes]:
    """Return the paths of a split, with plain h5py."""
    with h5py.File(path) as file:
        return [bytes(each) for each in file[split]["paths"][()]]


def write_lists(out: Path, numbers: list[int], folder: Path) -> tuple[str, str]:
    """Write both lists of some rows; return their paths."""
    with Catalog(out) as catalog:
        (folder / "rows.jsonl").write_bytes(list_rows(catalog, numbers))
        (folder / "paths.txt").write_bytes(list_paths(catalog, numbers))
    return str(folder / "rows.jsonl"), str(folder / "paths.txt")


def test_rows_are_excluded_and_all_others_stay_where_they_are(photos: Path, tmp_path: Path) -> None:
    """Also if the earlier build skipped an image, whose row the file does not have."""
    (photos / "dog" / "img_004.jpg").write_bytes(b"bad")
    batchify.build(photos, tmp_path / "a.h5", on_error="skip", **SMALL)
    train, validation = (paths_of(tmp_path / "a.h5", name) for name in ("train", "validation"))
    rows, _ = write_lists(tmp_path / "a.h5", [0, 5, len(train) + 1], tmp_path)
    batchify.build(photos, tmp_path / "b.h5", on_error="skip", exclude_rows=[rows], **SMALL)
    assert paths_of(tmp_path / "b.h5", "train") == train[1:5] + train[6:]
    assert paths_of(tmp_path / "b.h5", "validation") == validation[:1] + validation[2:]
    with h5py.File(tmp_path / "a.h5") as old, h5py.File(tmp_path / "b.h5") as new:
        kept = np.delete(np.arange(len(train)), [0, 5])
        np.testing.assert_array_equal(new["train"]["images"][()], old["train"]["images"][kept])
        np.testing.assert_array_equal(new["train"]["labels"][()], old["train"]["labels"][kept])
    assert batchify.verify(tmp_path / "b.h5").is_ok


def test_a_second_list_is_about_the_file_that_the_first_one_made(
    photos: Path, tmp_path: Path
) -> None:
    """Both are given then, in this order; one alone, or the other order, is refused."""
    batchify.build(photos, tmp_path / "a.h5", **SMALL)
    train = paths_of(tmp_path / "a.h5", "train")
    one, _ = write_lists(tmp_path / "a.h5", [1], tmp_path)
    batchify.build(photos, tmp_path / "b.h5", exclude_rows=[one], **SMALL)
    (tmp_path / "second").mkdir()
    two, _ = write_lists(tmp_path / "b.h5", [1], tmp_path / "second")
    plan = batchify.plan_build(photos, exclude_rows=[one, two], **SMALL)
    assert plan.rows["train"] == len(train) - 2
    assert "excluded: 2 rows by --exclude-rows" in str(plan)
    batchify.build(photos, tmp_path / "c.h5", exclude_rows=[one, two], **SMALL)
    assert paths_of(tmp_path / "c.h5", "train") == train[:1] + train[3:]
    for lists in ([two], [two, one]):
        with pytest.raises(OptionError, match="train has 12 rows, not 11; build with the options"):
            batchify.plan_build(photos, exclude_rows=lists, **SMALL)
    with pytest.raises(OptionError, match=r"rows\.jsonl is given twice; give it once"):
        batchify.plan_build(photos, exclude_rows=[one, two, one], **SMALL)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "the rows of train are other images, or in another order"),
        ({"validation_split": 0.4}, r"train has \d+ rows, not 12"),
        ({"validation_split": 0.0}, r"train has 15 rows, not 12"),
    ],
)
def test_rows_of_another_build_are_refused(
    photos: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    """Other images would be excluded, in silence."""
    batchify.build(photos, tmp_path / "a.h5", **SMALL)
    rows, _ = write_lists(tmp_path / "a.h5", [1], tmp_path)
    with pytest.raises(OptionError, match=f"lists 1 row of another build than this one: {message}"):
        batchify.build(photos, tmp_path / "b.h5", exclude_rows=rows, **SMALL, **changed)
    assert not (tmp_path / "b.h5").exists()
    draw_dataset(tmp_path / "more", {"cat": 5, "dog": 10, "eel": 1})
    with pytest.raises(OptionError, match="of another build"):
        batchify.plan_build(tmp_path / "more", exclude_rows=rows, **SMALL)


def test_a_list_that_was_edited_or_leaves_nothing_is_refused(photos: Path, tmp_path: Path) -> None:
    """Row numbers and paths must agree."""
    batchify.build(photos, tmp_path / "a.h5", **SMALL)
    rows, _ = write_lists(tmp_path / "a.h5", [1, 2], tmp_path)
    text = Path(rows).read_text()
    Path(rows).write_text(text.replace('"row": 1,', '"row": 3,'))
    with pytest.raises(OptionError, match=r"row 3 of train is not (cat|dog)/img_"):
        batchify.plan_build(photos, exclude_rows=rows, **SMALL)
    Path(rows).write_text(text.replace('"row": 1,', '"row": 12,'))
    with pytest.raises(OptionError, match="train has no row 12"):
        batchify.plan_build(photos, exclude_rows=rows, **SMALL)
    rows, _ = write_lists(tmp_path / "a.h5", list(range(12)), tmp_path)
    with pytest.raises(OptionError, match="leaves no rows in train"):
        batchify.plan_build(photos, exclude_rows=rows, **SMALL)
    with pytest.raises(OptionError, match="a loader has none; pass the paths"):
        batchify.Loader.from_directory(photos, exclude_rows=[rows])


def test_the_file_records_lists_by_their_content(photos: Path, tmp_path: Path) -> None:
    """A build with the same lists, under other names, is up to date; without them, it is not."""
    batchify.build(photos, tmp_path / "a.h5", **SMALL)
    rows, paths = write_lists(tmp_path / "a.h5", [1], tmp_path)
    shutil.copy(rows, tmp_path / "copy.jsonl")
    shutil.copy(paths, tmp_path / "copy.txt")
    lists: list[dict[str, Any]] = [{"exclude_rows": [rows]}, {"exclude": [f"@{paths}"]}]
    copies: list[dict[str, Any]] = [
        {"exclude_rows": [str(tmp_path / "copy.jsonl")]},
        {"exclude": [f"@{tmp_path / 'copy.txt'}"]},
    ]
    for given, same in zip(lists, copies, strict=True):
        batchify.build(photos, tmp_path / "b.h5", overwrite=True, **SMALL, **given)
        assert not batchify.find_changes(photos, tmp_path / "b.h5", **SMALL, **same).is_due
        assert batchify.find_changes(photos, tmp_path / "b.h5", **SMALL).is_due
        with h5py.File(tmp_path / "b.h5") as file:
            assert str(tmp_path).encode() not in bytes(file.attrs["config"])


def test_shards_are_those_of_the_plan(photos: Path, tmp_path: Path) -> None:
    """Shards of a build without rows are merged into the file of the same build."""
    batchify.build(photos, tmp_path / "a.h5", **SMALL)
    rows, _ = write_lists(tmp_path / "a.h5", [0, 13], tmp_path)
    batchify.build(photos, tmp_path / "b.h5", exclude_rows=rows, **SMALL)
    batchify.build_shards(photos, tmp_path / "s", shards=2, exclude_rows=rows, **SMALL)
    batchify.merge(tmp_path / "s", tmp_path / "m.h5")
    assert (tmp_path / "m.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_paths_are_excluded_as_if_the_files_were_not_there(
    photos: Path, tmp_path: Path, run: Run
) -> None:
    """Names that are patterns elsewhere are only names here; paths that are not there are told."""
    for name in ("[a].jpg", "!b.jpg", "#c.jpg"):
        shutil.copy(photos / "cat" / "img_000.jpg", photos / "cat" / name)
    (tmp_path / "list.txt").write_text("cat/[a].jpg\ncat/!b.jpg\ncat/#c.jpg\ncat/a.jpg\n")
    arguments = ["--target-size", "8", "--exclude", f"@{tmp_path / 'list.txt'}"]
    result = run("build", str(photos), str(tmp_path / "a.h5"), *arguments)
    assert result.returncode == 0
    assert "1 of 4 paths in" in result.stdout
    assert "is not in the dataset, such as cat/a.jpg" in result.stdout
    for name in ("[a].jpg", "!b.jpg", "#c.jpg"):
        (photos / "cat" / name).unlink()
    batchify.build(photos, tmp_path / "b.h5", **SMALL)
    for split in ("train", "validation"):
        assert paths_of(tmp_path / "a.h5", split) == paths_of(tmp_path / "b.h5", split)


def test_excluded_files_are_not_new(photos: Path, tmp_path: Path) -> None:
    """Of one list of either kind; a file that was added is reported, with what it may be."""
    (photos / "dog" / "img_004.jpg").write_bytes(b"bad")
    batchify.build(photos, tmp_path / "a.h5", on_error="skip", **SMALL)
    rows, paths = write_lists(tmp_path / "a.h5", [0, 5, 12], tmp_path)
    options: dict[str, dict[str, Any]] = {
        "rows": {"exclude_rows": [rows]},
        "paths": {"exclude": [f"@{paths}"]},
    }
    for name in ("rows", "paths"):
        out = tmp_path / f"{name}.h5"
        batchify.build(photos, out, on_error="skip", **SMALL, **options[name])
        assert batchify.verify(out, source=photos).is_ok
    batchify.build_shards(photos, tmp_path / "s", shards=2, on_error="skip", **SMALL,
                          **options["paths"])  # fmt: skip
    assert batchify.verify(tmp_path / "s", source=photos).is_ok
    shutil.copy(photos / "cat" / "img_000.jpg", photos / "cat" / "more.jpg")
    for name in ("rows", "paths"):
        found = batchify.verify(tmp_path / f"{name}.h5", source=photos)
        assert found.counts["new"] == 4
        assert "built with a list of what to exclude" in str(found)


def test_a_list_whose_paths_are_not_known_is_no_pattern(photos: Path, tmp_path: Path) -> None:
    """The options that a file records would build something else, in silence."""
    (tmp_path / "list.txt").write_text("cat/img_000.jpg\n")
    options = batchify.build(
        photos, tmp_path / "a.h5", exclude=[f"@{tmp_path / 'list.txt'}"], **SMALL
    ).plan.options
    recorded = replace(options.discover, exclude=tuple(map(str.__str__, options.discover.exclude)))
    with pytest.raises(OptionError, match="records which list of paths it was built without"):
        batchify.build(photos, tmp_path / "b.h5", replace(options, discover=recorded))


def test_lists_name_the_samples_of_imported_tars(photos: Path, tmp_path: Path) -> None:
    """By the paths that the tars record, or by their members."""
    batchify.export(photos, tmp_path / "tars", format="webdataset", workers=1)
    shutil.copytree(tmp_path / "tars", tmp_path / "bare")
    for path in (tmp_path / "bare").glob("*.tar"):
        with tarfile.open(tmp_path / "tars" / path.name) as old, tarfile.open(path, "w") as new:
            for member in old:
                if not member.name.endswith(".json"):
                    new.addfile(member, old.extractfile(member))
    for name, where in (("tars", b"cat/"), ("bare", b"train-00000.tar/")):
        batchify.build(tmp_path / name, tmp_path / f"{name}.h5", **SMALL)
        train = paths_of(tmp_path / f"{name}.h5", "train")
        assert any(path.startswith(where) for path in train)
        rows, _ = write_lists(tmp_path / f"{name}.h5", [0, 5], tmp_path)
        batchify.build(tmp_path / name, tmp_path / "again.h5", exclude_rows=[rows], overwrite=True,
                       **SMALL)  # fmt: skip
        assert paths_of(tmp_path / "again.h5", "train") == train[1:5] + train[6:]
