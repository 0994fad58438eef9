"""Classes: which are taken, in which order, and what is said where labels may surprise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import pytest
from helpers.drawing import draw_dataset
from helpers.running import Run
from helpers.tabled import listed, options_of, write_table

from batchify.building.build import build
from batchify.building.changes import find_changes
from batchify.checking.verify import verify
from batchify.choices import canonical_json
from batchify.dataset_options import DiscoverOptions
from batchify.datasets.classes import number_warnings, order_classes
from batchify.datasets.discovery import discover
from batchify.datasets.manifest import read_dataset
from batchify.errors import BatchifyWarning, DatasetError, OptionError
from batchify.format.config import build_command, recorded_options
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions

NUMBERS = [str(number) for number in range(12)]
BY_NAME = sorted(NUMBERS)


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Return a dataset of the classes 0 to 11, an image each."""
    return draw_dataset(tmp_path / "numbered", dict.fromkeys(NUMBERS, 1), size=(8, 8))


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Return a dataset of three classes."""
    return draw_dataset(tmp_path / "animals", {"bird": 2, "cat": 3, "dog": 4}, size=(8, 8))


def labels_of(path: Path) -> dict[str, int]:
    """Return the label of each class folder in a file, by plain h5py."""
    with h5py.File(path) as file:
        rows = [
            (bytes(path).decode().split("/")[-2], int(label))
            for split in ("train", "validation")
            for path, label in zip(file[split]["paths"], file[split]["labels"], strict=True)
        ]
        found = dict(rows)
        assert all(found[name] == label for name, label in rows)
        assert all(file.attrs["classes"][label].decode() == name for name, label in rows)
    return found


def test_number_folders_have_keras_labels_and_a_warning(run: Run, numbered: Path) -> None:
    """Folder 10 has label 2, as with Keras; both ways to change that are named (case L7)."""
    done = run("build", "numbered", "out.h5")
    assert done.returncode == 0, done.stderr
    assert labels_of(numbered.parent / "out.h5") == {n: i for i, n in enumerate(BY_NAME)}
    said = done.stdout + done.stderr
    assert "all 12 class names are whole numbers, but 10 of them have another number" in said
    assert "class 10 has label 2" in said
    assert "--class-order natural" in said
    assert "--classes" in said


def test_natural_order_gives_numbers_their_labels(run: Run, numbered: Path) -> None:
    """10 comes after 9, nothing is warned of, and the file says how it was built."""
    done = run("build", "numbered", "out.h5", "--class-order", "natural")
    assert done.returncode == 0, done.stderr
    assert labels_of(numbered.parent / "out.h5") == {name: int(name) for name in NUMBERS}
    assert "whole numbers" not in done.stdout + done.stderr
    assert "--class-order natural" in run("inspect", "out.h5").stdout
    assert verify(numbered.parent / "out.h5", source=numbered).is_ok


@pytest.mark.parametrize(
    ("names", "natural", "warns"),
    [
        (["0", "1", "2"], ["0", "1", "2"], False),
        (["00", "01", "10", "02"], ["00", "01", "02", "10"], True),
        (["1", "2", "3"], ["1", "2", "3"], True),
        (["0.0", "1.0"], ["0.0", "1.0"], False),
        (["a10", "a9", "a"], ["a", "a9", "a10"], False),
        (["01", "1", "001"], ["001", "01", "1"], True),
        (["0", "x"], ["0", "x"], False),
    ],
)
def test_orders_of_other_names(
    tmp_path: Path, names: list[str], natural: list[str], warns: bool
) -> None:
    """A warning where all are numbers and one is not its label; ties by code point."""
    root = draw_dataset(tmp_path / "data", dict.fromkeys(names, 1), size=(8, 8))
    by_name = discover(root)
    assert list(by_name.class_to_idx) == sorted(names)
    assert [warning.code for warning in by_name.warnings] == ["number-classes"] * warns
    found = discover(root, DiscoverOptions(class_order="natural"))
    assert list(found.class_to_idx) == natural
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("names", "says", "natural"),
    [
        ([*BY_NAME, "unknown"], "12 of 13 class names", True),
        ([*BY_NAME, "tmp", "x"], "12 of 14 class names", True),
        (["0", "1", "10", "9", "a", "b"], "", False),
        (["1", "2", "x"], "", False),
        (["0", "1", "2", "3", "x"], "", False),
        (["1", "2", "3"], "class 1 has label 0, since labels count from 0", False),
        (["2019", "2020"], "class 2019 has label 0, since labels count from 0", False),
        (["-1", "1"], "class -1 has label 0", False),
        (["-1", "0", "1"], "class -1 has label 0", False),
        (["00", "01", "02", "10"], "class 10 has label 3", False),
        (sorted(map(str, range(1, 13))), "which sort as text", True),
    ],
)
def test_the_order_of_numbers_is_explained_truly(
    names: list[str], says: str, natural: bool
) -> None:
    """Natural order is named where it helps; one odd folder does not hide the warning."""
    found = number_warnings([name.encode() for name in names], DiscoverOptions())
    assert [each.code for each in found] == ["number-classes"] * bool(says)
    assert not found or says in str(found[0])
    assert ("--class-order natural" in "".join(map(str, found))) == natural
    assert number_warnings([b"1", b"2"], DiscoverOptions(classes=("1", "2"))) == ()


@pytest.mark.parametrize("suffix", ["", ".0"])
def test_numbers_of_a_table_are_the_labels(tmp_path: Path, numbered: Path, suffix: str) -> None:
    """10 is 10, and so is the 10.0 that pandas writes where a label is missing (L8)."""
    rows = [{"path": path, "label": path.split("/")[0] + suffix} for path in listed(numbered)]
    options = options_of(write_table(tmp_path / "labels.csv", rows))
    build(numbered, tmp_path / "out.h5", options)
    assert read_dataset(numbered, options).warnings == ()
    assert labels_of_numbers(tmp_path / "out.h5") == {name: int(name) for name in NUMBERS}


def labels_of_numbers(path: Path) -> dict[str, int]:
    """Return the label of each folder, whatever its class is called."""
    with h5py.File(path) as file:
        return {
            bytes(path).decode().split("/")[0]: int(label)
            for split in ("train", "validation")
            for path, label in zip(file[split]["paths"], file[split]["labels"], strict=True)
        }


def test_numbers_of_a_table_that_do_not_count_are_a_warning(tmp_path: Path, numbered: Path) -> None:
    """1 to 12, and numbers with gaps, are names: sorted as text, unless natural is asked for."""
    for shift, factor in ((1, 1), (0, 2)):
        rows = [
            {"path": path, "label": shift + factor * int(path.split("/")[0])}
            for path in listed(numbered)
        ]
        options = options_of(write_table(tmp_path / "labels.csv", rows))
        found = read_dataset(numbered, options)
        names = [str(shift + factor * int(name)) for name in NUMBERS]
        assert list(found.class_to_idx) == sorted(names)
        assert [warning.code for warning in found.warnings] == ["number-classes"]
        natural = BuildOptions(
            discover=DiscoverOptions(class_order="natural"), manifest=options.manifest
        )
        found = read_dataset(numbered, natural)
        assert list(found.class_to_idx) == names
        assert found.warnings == ()


@pytest.mark.parametrize("listing", ["dog,bird", "@classes.txt"])
def test_some_classes_are_taken_in_the_order_listed(run: Run, animals: Path, listing: str) -> None:
    """As Keras' classes=: other folders are ignored and counted; the file is up to date."""
    (animals.parent / "classes.txt").write_bytes("\ufeffdog\r\n bird \r\n\r\n".encode())
    done = run("build", "animals", "out.h5", "--classes", listing, "--target-size", "8")
    assert done.returncode == 0, done.stderr
    assert labels_of(animals.parent / "out.h5") == {"dog": 0, "bird": 1}
    assert "ignored 1 folder of 1 class that --classes does not list: cat" in done.stdout
    assert verify(animals.parent / "out.h5", source=animals, redecode="all").is_ok
    assert run("build", "animals", "out.h5", "--classes", "dog,bird", "--target-size", "8",
               "--check").returncode == 0  # fmt: skip
    with h5py.File(animals.parent / "out.h5") as file:
        assert len(file["train/labels"]) + len(file["validation/labels"]) == 6


@pytest.mark.parametrize(
    "index",
    [
        {"dog": 3, "cat": 0, "bird": 2, "ant": 1},
        {"0": "cat", "3": "dog", "2": "bird", "1": "ant"},
        {"0": ["cat", "a cat"], "1": ["ant", "an ant"], "2": ["bird", "x"], "3": ["dog", "y"]},
        ["cat", "ant", "bird", "dog"],
    ],
)
def test_labels_are_the_numbers_of_a_class_index(run: Run, animals: Path, index: Any) -> None:
    """In every form, also for classes without images; in Python, a mapping is one."""
    (animals.parent / "index.json").write_text(json.dumps(index), "utf-8")
    done = run("build", "animals", "out.h5", "--classes", "@index.json", "--target-size", "8")
    assert done.returncode == 0, done.stderr
    assert labels_of(animals.parent / "out.h5") == {"cat": 0, "bird": 2, "dog": 3}
    with h5py.File(animals.parent / "out.h5") as file:
        assert file.attrs["classes"].tolist() == [b"cat", b"ant", b"bird", b"dog"]
    if isinstance(index, dict):
        options: Any = {"classes": index}
        assert DiscoverOptions(**options).classes == ("cat", "ant", "bird", "dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"cat": 0, "dog": 2}', "of its 2 classes, none has the number 1"),
        ('{"cat": 0, "dog": 0}', "of its 2 classes, none has the number 1"),
        ('{"cat": 0, "dog": 0, "cat": 1}', "it names a class or a number more than once"),
        ('["\\ud800", "cat"]', "classes must be names, and not empty, in valid Unicode"),
        ('{"cat": "a"}', "none has the number 0"),
        ('{"0": 1.5}', "neither a list of names nor names with their numbers"),
        ("[1, 2]", "neither a list of names nor names with their numbers"),
        ("3", "neither a list of names nor names with their numbers"),
        ("{}", "it lists no classes"),
        ("{", "index.json cannot be read: Expecting"),
        ("[" * 100_000, "index.json cannot be read"),
    ],
)
def test_class_indexes_that_are_not_valid_are_refused(
    run: Run, animals: Path, text: str, message: str
) -> None:
    """In a line that says what is wrong."""
    (animals.parent / "index.json").write_text(text, "utf-8")
    done = run("build", "animals", "out.h5", "--classes", "@index.json")
    assert done.returncode == 2
    assert message in done.stderr


def test_the_order_of_the_samples_follows_that_of_the_classes(animals: Path) -> None:
    """As in Keras, which walks the folders in the order of `classes`."""
    found = discover(animals, DiscoverOptions(classes=("dog", "bird")))
    assert found.samples.labels.tolist() == [0] * 4 + [1] * 2
    assert found.samples.path(0) == b"dog/img_000.jpg"


def test_a_listed_class_that_is_missing_ends_a_build_that_leaves_others_out(
    run: Run, animals: Path
) -> None:
    """It is probably misspelled; if all others are listed, it keeps its label, with a warning."""
    done = run("build", "animals", "out.h5", "--classes", "cat,dgo")
    assert done.returncode == 1
    assert "has no class dgo, which --classes lists; it has bird, dog, not listed" in done.stderr
    assert not (animals.parent / "out.h5").exists()
    done = run("build", "animals", "out.h5", "--classes", "cat,cow,bird,dog")
    assert done.returncode == 0, done.stderr
    assert labels_of(animals.parent / "out.h5") == {"cat": 0, "bird": 2, "dog": 3}
    assert "1 of 4 classes have no images: cow" in done.stdout


def test_rows_of_classes_that_are_not_listed_are_ignored(tmp_path: Path, animals: Path) -> None:
    """Tables, too; their files need not exist."""
    rows = [{"path": path, "label": path.split("/")[0]} for path in listed(animals)]
    rows += [{"path": "no/such.jpg", "label": "fish"}]
    options = BuildOptions(
        discover=DiscoverOptions(classes=("dog", "cat")),
        decode=DecodeOptions((8, 8)),
        manifest=options_of(write_table(tmp_path / "labels.csv", rows)).manifest,
    )
    with pytest.warns(BatchifyWarning, match="ignored 3 rows of 2 classes .*: bird, fish"):
        build(animals, tmp_path / "out.h5", options)
    assert labels_of(tmp_path / "out.h5") == {"dog": 0, "cat": 1}
    assert not find_changes(animals, tmp_path / "out.h5", options).is_due
    options = BuildOptions(discover=DiscoverOptions(classes=("cow",)), manifest=options.manifest)
    with pytest.raises(DatasetError, match=r"has no class cow, which --classes lists; it has bird"):
        read_dataset(animals, options)


def test_a_list_of_classes_is_recorded_and_read_back(tmp_path: Path) -> None:
    """The command that is shown names a file where a comma would part a name."""
    config = plain_config(classes=("b", "a"))
    assert recorded_options(config).discover.classes == ("b", "a")
    assert "--classes b,a" in build_command(config, skipped=False)
    config = plain_config(classes=("a, b",))
    assert "--classes @CLASSES" in build_command(config, skipped=False)
    assert "classes" not in plain_config()


def plain_config(**discover: Any) -> dict[str, Any]:
    """Return a config as it is read back from a file."""
    options = BuildOptions(discover=DiscoverOptions(**discover))
    found: dict[str, Any] = json.loads(canonical_json(options.config(layout="classes")))
    return found


def test_lists_that_cannot_be(run: Run, animals: Path) -> None:
    """Usage errors, in plain words."""
    for listing, message in (
        ("@no.txt", "no.txt cannot be read: No such file"),
        ("@empty.txt", "empty.txt lists no classes"),
        ("@gap.txt", "gap.txt cannot be read: line 2 is empty"),
        ("cat,cat", "class 'cat' is given twice"),
        ("@animals", "animals cannot be read: Is a directory"),
    ):
        (animals.parent / "empty.txt").write_text("\n")
        (animals.parent / "gap.txt").write_text("cat\n\ndog\n")
        done = run("build", "animals", "out.h5", "--classes", listing)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    with pytest.raises(OptionError, match="class mode regression has no classes to list"):
        BuildOptions(
            discover=DiscoverOptions(classes=("a",)),
            store=StoreOptions(class_mode="regression"),
            manifest=options_of(Path("x.csv")).manifest,
        )
    with pytest.raises(OptionError, match="take more than 32,768 bytes"):
        DiscoverOptions(classes=tuple(f"{i:0200}" for i in range(200)))


@pytest.mark.parametrize(
    ("listed", "found", "hint"),
    [
        ("caf\u00e9", "cafe\u0301", "case, spaces and Unicode form"),
        ("dog", "Dog", "case, spaces and Unicode form"),
        ("a", "a,b", "--classes @FILE"),
    ],
)
def test_a_listed_class_that_is_nearly_there_has_a_hint(listed: str, found: str, hint: str) -> None:
    """By another case or Unicode form, or cut at a comma."""
    options = DiscoverOptions(classes=(listed,))
    with pytest.raises(DatasetError) as caught:
        order_classes([found.encode(), b"x"], options, "dataset d")
    assert hint in str(caught.value)
