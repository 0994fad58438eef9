"""Tables that could be misread: without a header, with odd labels, with splits by another name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.running import Run

from batchify import choices
from batchify.dataset_options import DiscoverOptions, ManifestOptions
from batchify.datasets.dataset import Dataset, Samples
from batchify.datasets.manifest import read_dataset
from batchify.errors import ManifestError, OptionError
from batchify.image_options import StoreOptions
from batchify.options import BuildOptions

Row = Callable[[int], str]
Read = Callable[..., Dataset]
ROWS = 12


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder of files that are called as images: 0.jpg to 11.jpg. None is decoded."""
    (tmp_path / "data").mkdir()
    for i in range(ROWS):
        (tmp_path / "data" / f"{i}.jpg").touch()
    return tmp_path / "data"


@pytest.fixture
def read(root: Path) -> Read:
    """Return a function that reads a table of a header and 12 rows."""

    def call(
        header: str, row: Row, mode: choices.ClassMode = "sparse", classes: str = "",
        **manifest: object,
    ) -> Dataset:  # fmt: skip
        table = root.parent / "t.csv"
        table.write_text(header + "".join(f"\n{row(i)}" for i in range(ROWS)))
        options = BuildOptions(
            discover=DiscoverOptions(classes=tuple(filter(None, classes.split(",")))),
            store=StoreOptions(class_mode=mode),
            manifest=ManifestOptions(str(table), **manifest),  # type: ignore[arg-type]
        )
        return read_dataset(root, options)

    return call


@pytest.mark.parametrize("header", ["0.jpg,a", "0.jpg;a", "x/nowhere.JPEG\ta", "0.webp,a"])
def test_a_first_line_that_is_an_image_is_no_header(read: Read, header: str) -> None:
    """Its row would be lost; with a header, or with the columns named, it is read."""
    mark = next(mark for mark in ",;\t" if mark in header)
    with pytest.raises(ManifestError, match=r"has no header: .* the first line must name the col"):
        read(header, lambda i: f"{i}.jpg{mark}{'ab'[i % 2]}")
    found = read(header, lambda i: f"{i}.jpg{mark}{'ab'[i % 2]}",
                 path_column=header.split(mark)[0], label_columns=("a",))  # fmt: skip
    assert len(found.samples) == ROWS


@pytest.mark.parametrize(
    ("name", "value", "names"),
    [
        ("fold", lambda i: i % 3, "--class-mode none"),
        ("partition", lambda i: i % 3, "--label-columns partition"),
        ("Patient ID", lambda i: i % 3, "--label-columns Patient ID"),
        ("sha1", lambda i: f"{i:08x}", "--class-mode none"),
        ("image_url", lambda i: f"http://x/{i}", "--class-mode none"),
        ("age", lambda _: 30, "--class-mode regression"),
        ("width", lambda _: 640, "--class-mode regression"),
        ("steering", lambda i: i / 3, "--class-mode regression"),
        ("depth", lambda i: i, "--class-mode regression"),
        ("animal", lambda i: f"a{i % 7}", "7 different values in 12 rows"),
        ("label", lambda i: 0.5 + i % 2, "fractions such as 0.5"),
        ("label", lambda i: i * 3, "--class-mode regression"),
        ("Class", lambda i: f"c{i}", "12 different values in 12 rows"),
    ],
)
def test_a_column_that_is_probably_no_label_is_asked_about(
    read: Read, name: str, value: Callable[[int], object], names: str
) -> None:
    """The build stops, and the options that it names go on."""

    def row(i: int) -> str:
        return f"{i}.jpg,{value(i)}"

    with pytest.raises(ManifestError) as caught:
        read(f"path,{name}", row)
    assert names in str(caught.value)
    assert len(read(f"path,{name}", row, label_columns=(name,)).samples) == ROWS
    assert len(read(f"path,{name}", row, "none").samples) == ROWS
    if "regression" in str(caught.value):
        assert read(f"path,{name}", row, "regression").annotations.values is not None


@pytest.mark.parametrize("name", ["label", "breed", "finding", "Gender"])
def test_a_column_of_classes_is_taken(read: Read, name: str) -> None:
    """Whole numbers and texts that repeat; a few images may have a class each."""
    assert len(read(f"path,{name}", lambda i: f"{i}.jpg,{i % 6}").classes) == 6
    assert len(read(f"path,{name}", lambda i: f"{i}.jpg,{i % 2}.0").classes) == 2
    listed = read(f"path,{name}", lambda i: f"{i}.jpg,c{i}", classes="c1,c2,c3")
    assert len(listed.samples) == 3


@pytest.mark.parametrize(
    "name", ["set", "subset", "Partition", "phase", "part", "data set", "fold", "Train/Test"]
)
def test_splits_by_another_name_are_the_splits(read: Read, name: str) -> None:
    """Said in a warning; values that are no splits leave the column alone."""
    found = read(
        f"path,label,{name}", lambda i: f"{i}.jpg,{i % 2},{'Train set' if i > 3 else 'val'}"
    )
    assert found.splits is not None
    assert {split: len(rows) for split, rows in found.splits.items()} == {
        "train": 8,
        "validation": 4,
    }
    assert [each.code for each in found.warnings] == ["split-column"]
    for prefix in ("", "train_", "train/"):
        rows = [f"{i}.jpg,{i % 2},{prefix}{i % 4}" for i in range(ROWS)]
        assert read(f"path,label,{name}", rows.__getitem__).splits is None


def test_a_doubt_about_splits_stops(read: Read) -> None:
    """Several columns, or a flag; `split` itself leaves no doubt."""

    def row(i: int) -> str:
        return f"{i}.jpg,{i % 2},train,{'test' if i > 5 else 'val'}"

    with pytest.raises(ManifestError, match="several columns that may be the splits: set, phase"):
        read("path,label,set,phase", row)
    assert set(read("path,label,set,split", row).splits or ()) == {"validation", "test"}

    def flagged(i: int) -> str:
        return f"{i}.jpg,{i % 2},{i > 5}"

    with pytest.raises(ManifestError, match="a column split, or pass --keep-columns is_valid"):
        read("path,label,is_valid", flagged)
    assert read("path,label,is_valid", flagged, keep_columns=("is_valid",)).splits is None
    with pytest.raises(ManifestError, match="probably not one: --label-columns fold"):
        read("path,set,fold", lambda i: f"{i}.jpg,train,{i % 3}")


def test_one_column_for_each_class_names_multilabel(read: Read) -> None:
    """Columns of 0 and 1; -1 for "no" is refused with a way, since it may mean "not known"."""
    with pytest.raises(ManifestError, match="--class-mode multilabel --label-columns a,b,c"):
        read("path,a,b,c", lambda i: f"{i}.jpg,{i % 2},0,1")
    with pytest.raises(ManifestError, match=r"e\.g\. --label-columns a,b"):
        read("path,a,b", lambda i: f"{i}.jpg,{i % 2},0", "multilabel")
    with pytest.raises(ManifestError, match="-1 is neither 0 nor 1; write 0 if it means no"):
        read("path,a,b", lambda i: f"{i}.jpg,-1,1", "multilabel", label_columns=("a", "b"))


def test_a_doubt_about_a_table_leaves_no_file(run: Run, root: Path) -> None:
    """Exit code 1, and the option is named."""
    text = "".join(f"{i}.jpg,{'ab'[i % 2]}\n" for i in range(ROWS))
    (root.parent / "t.csv").write_text(text)
    done = run("build", "data", "out.h5", "--manifest", "t.csv")
    assert done.returncode == 1
    assert "has no header: 0.jpg on its first line is an image" in done.stderr
    assert not list(root.parent.glob("out.h5*"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("data/0.jpg", "there is 0.jpg: paths are relative to DATASET: leave data/ out"),
        ("0.JPG", "there is 0.jpg: check upper and lower case"),
        ("12", "there is 0012.jpg: zeros in front of it are lost"),
        ("photo", "there is photo.webp: pass --extensions webp"),
        ("e\u0301.jpg", "its Unicode form differs"),
        ("nothing", "none with this name and the ending"),
    ],
)
def test_a_path_that_names_no_file_has_a_hint(read: Read, root: Path, name: str, hint: str) -> None:
    """Where a file is nearly called so."""
    for file in ("0012.jpg", "photo.webp", "\u00e9.jpg"):
        (root / file).touch()
    with pytest.raises(ManifestError) as caught:
        read("path,label", lambda i: f"{name if i == 3 else f'{i}.jpg'},{i % 2}")
    assert f"line 5: {name}: there is no such file" in str(caught.value)
    assert hint in str(caught.value)


def test_the_first_line_that_excel_reads_is_understood(read: Read) -> None:
    """`sep=;` says what parts the values, and is no header."""
    assert len(read("sep=;\npath;label", lambda i: f"{i}.jpg;{i % 2},x").samples) == ROWS


def test_long_numbers_are_kept_as_text(read: Read) -> None:
    """No digit is lost, and no number becomes infinite."""
    for value in ("123456789012345678901", "9223372036854775808", "1e400"):
        found = read("path,label,n", lambda i: f"{i}.jpg,{i % 2},{value}", keep_columns=("n",))  # noqa: B023
        column = found.annotations.kept[0].values
        assert isinstance(column, Samples)
        assert column.path(0) == value.encode()


def test_options_that_would_do_nothing_are_refused() -> None:
    """Folders name no class of a table, and a list of classes has an order."""
    with pytest.raises(OptionError, match="--class-from takes classes from folders"):
        BuildOptions(discover=DiscoverOptions(class_from="leaf"), manifest=ManifestOptions("t.csv"))
    with pytest.raises(OptionError, match="remove --class-order"):
        DiscoverOptions(classes=("a",), class_order="natural")
