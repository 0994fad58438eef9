"""The files of a cross-validation are compared with each other; each way to differ is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.drawing import draw_dataset
from helpers.running import Run
from helpers.tabled import write_table

import batchify
from batchify.checking.findings import CheckReport
from batchify.checking.folds import compare_folds, read_fold
from batchify.errors import OptionError

SMALL: dict[str, Any] = {"target_size": (8, 8)}


def build_folds(root: Path, out: Path, folds: int = 3, **options: Any) -> list[Path]:
    """Build a file, or a folder of shards, of each fold."""
    out.mkdir(exist_ok=True)
    given = {"folds": folds, **SMALL, **options}
    files = [out / f"fold{fold}.h5" for fold in range(folds)]
    for fold, file in enumerate(files):
        if shards := given.get("shards"):
            rest = {name: value for name, value in given.items() if name != "shards"}
            batchify.build_shards(root, file, shards=shards, fold=fold, **rest)
        else:
            batchify.build(root, file, fold=fold, **given)
    return files


def found(report: CheckReport) -> list[tuple[str, str, int]]:
    """Return code, message and count of each problem."""
    return [(each.code, each.message, each.count) for each in report.problems]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw 27 photos."""
    counts = {"a": 13, "b": 14}
    return draw_dataset(tmp_path_factory.mktemp("folds") / "data", counts, size=(9, 8))


def test_folds_of_one_dataset_fit(root: Path, tmp_path: Path) -> None:
    """Also with a test split; a missing fold is a note."""
    files = build_folds(root, tmp_path, split="stratified", test_split=0.25)
    report = batchify.check_folds(files[::-1])
    assert (report.is_ok, report.images, report.classes) == (True, 27, 2)
    assert (report.problems, report.notes) == ((), ())
    assert str(report) == "folds 0, 1, 2 of 3: no problems found (27 images, 2 classes)"
    report = batchify.check_folds(files[:2])
    assert (report.is_ok, report.notes) == (True, ("not given: fold 2",))
    one = compare_folds([found for path in files[1:2] if (found := read_fold(path))])
    assert str(one).startswith("fold 1 of 3: no problems found")
    shown = f"no other fold with the same options is given: {files[1]} is not compared"
    assert one.notes == (shown,)


def test_an_image_in_two_validation_splits_is_found(root: Path, tmp_path: Path) -> None:
    """By its content, with where; with its groups kept, there is none."""
    data = shutil.copytree(root, tmp_path / "data")
    shutil.copy(data / "a" / "img_000.jpg", data / "a" / "z.jpg")
    files = build_folds(data, tmp_path / "out")
    report = batchify.check_folds(files)
    assert not report.is_ok
    message = "1 image in the validation splits of several folds"
    assert found(report) == [("fold-leak", message, 1)]
    (example,) = report.problems[0].examples
    assert (example.split, example.path) == ("validation", b"a/img_000.jpg")
    assert example.message.startswith(f"of {files[0]}, and validation row ")
    assert example.message.endswith(f" (a/z.jpg) of {files[2]}")
    assert batchify.check_folds(files, ignore="fold-leak").is_ok
    files = build_folds(data, tmp_path / "kept", 2, split="stratified", group_duplicates=True)
    assert batchify.check_folds(files).problems == ()


def test_folds_that_do_not_fit_are_found(root: Path, tmp_path: Path) -> None:
    """A dataset that changed in between, other seeds of the test split, a fold given twice."""
    data = shutil.copytree(root, tmp_path / "data")
    files = build_folds(data, tmp_path / "out")
    shutil.copy(data / "b" / "img_000.jpg", data / "a" / "img_000.jpg")
    shutil.copy(data / "b" / "img_001.jpg", data / "b" / "zz.jpg")
    batchify.build(data, files[1], folds=3, fold=1, overwrite=True, **SMALL)
    report = batchify.check_folds(files)
    one, other = (f"in train and validation of {file}" for file in files[:2])
    problems = found(report)
    assert ("fold-mismatch", f"2 images {other}, but not of {files[0]}", 2) in problems
    assert ("fold-mismatch", f"1 image {one}, but not of {files[1]}", 1) in problems
    assert {e.path for p in report.problems for e in p.examples} >= {b"a/img_000.jpg", b"b/zz.jpg"}
    twice = [files[0], shutil.copy(files[0], tmp_path / "twice.h5")]
    ((code, message, _),) = found(batchify.check_folds(twice))  # nor is it a leak
    both = f"{twice[0]} and {twice[1]} are both fold 0: give each fold once"
    assert (code, message) == ("fold-mismatch", both)


def test_shards_and_folds_of_a_table_are_compared(root: Path, tmp_path: Path) -> None:
    """A column may leave images out of all folds: those are always in train."""
    files = build_folds(root, tmp_path / "shards", 2, shards=2, split="hash")
    assert batchify.check_folds(files).problems == ()
    rows = [
        {"path": f"{name}/img_{i:03}.jpg", "label": name, "fold": i % 3 - 1}
        for name in "ab"
        for i in range(13)
    ]
    table = write_table(tmp_path / "t.csv", rows)
    tables = [tmp_path / f"table{fold}.h5" for fold in range(2)]
    for fold, file in enumerate(tables):
        batchify.build(root, file, manifest=table, fold=fold, **SMALL)
    report = batchify.check_folds(tables)
    assert str(report) == "folds 0, 1: no problems found (26 images, 2 classes)"


def test_the_command_compares_the_folds_among_its_files(
    run: Run, root: Path, tmp_path: Path
) -> None:
    """After what it finds in each of them, as text and JSON; the exit code is 8 for a problem."""
    files = build_folds(root, tmp_path / "out")
    assert run("build", root, "plain.h5", "--target-size", "8").returncode == 0
    done = run("check", *files, "plain.h5")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("folds 0, 1, 2 of 3: no problems found")
    assert "folds" not in run("check", files[0], "plain.h5", "none.h5").stdout
    listed = json.loads(run("check", *files, "--json").stdout)
    assert [each["path"] for each in listed["folds"]] == ["folds 0, 1, 2 of 3"]
    shutil.copy(files[0], files[1])
    done = run("check", *files)
    assert done.returncode == 8
    assert "are both fold 0: give each fold once" in done.stdout
    assert run("check", *files, "--ignore", "fold-leak,fold-mismatch").returncode == 0
    batchify.build(root, files[1], folds=3, fold=1, seed=4, overwrite=True, **SMALL)
    done = run("check", *files[:2])
    assert "no other fold with the same options is given" in done.stdout
    assert run("check", *files, "--ignore", "odd").returncode == 2


def test_files_that_cannot_be_compared_are_refused(root: Path, tmp_path: Path) -> None:
    """A single one, one without a fold, and folds with other options."""
    plain = tmp_path / "plain.h5"
    batchify.build(root, plain, **SMALL)
    files = build_folds(root, tmp_path / "out", 2)
    other = build_folds(root, tmp_path / "other", 2, seed=1)
    with pytest.raises(OptionError, match=r"plain\.h5 is not built with --fold"):
        batchify.check_folds([files[0], plain])
    with pytest.raises(OptionError, match="give two or more"):
        batchify.check_folds(files[:1])
    with pytest.raises(OptionError, match="these differ in other options"):
        batchify.check_folds([files[0], other[1]])
