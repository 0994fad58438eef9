"""Arrays of images and labels in a .npz file: what is taken, and every way in which it is wrong."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.running import Run
from numpy.typing import NDArray

import batchify
from batchify.datasets import npz
from batchify.errors import DatasetError, OptionError
from batchify.workers import capacity
from batchify.workers.engine import Workers

Arrays = dict[str, NDArray[Any]]

savez: Any = np.savez


def digits(count: int, *shape: int, dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    """Return images of noise."""
    random = np.random.RandomState(seed)
    if dtype == "float32":
        return random.rand(count, *shape).astype("float32")
    return random.randint(0, np.iinfo(dtype).max + 1, (count, *shape)).astype(dtype)


def mnist() -> Arrays:
    """Return arrays as those of Keras' mnist.npz."""
    return {
        "x_test": digits(12, 8, 6, seed=1),
        "x_train": digits(30, 8, 6),
        "y_train": np.arange(30, dtype="uint8") % 10,
        "y_test": np.arange(12, dtype="uint8") % 10,
    }


def rows_of(path: Path, split: str) -> dict[str, tuple[NDArray[Any], int]]:
    """Return the image and the label of each path, by plain h5py."""
    with h5py.File(path) as file:
        group = file[split]
        columns = (group["paths"][()].tolist(), group["images"][()], group["labels"][()].tolist())
        found = zip(*columns, strict=True)
        return {name.decode(): (image, label) for name, image, label in found}


def build(path: Path, **options: Any) -> Path:
    """Build a file of small images next to an archive."""
    out = path.parent / "out.h5"
    options = {"target_size": (8, 6), "color_mode": "grayscale", "workers": 1, **options}
    batchify.build(path, out, overwrite=True, **options)
    return out


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_arrays_of_keras_become_the_rows_of_their_splits(tmp_path: Path, save: Any) -> None:
    """Pixels, labels and splits are those of the arrays; verify and check read them again."""
    arrays = mnist()
    save(tmp_path / "mnist.npz", **arrays)
    out = build(tmp_path / "mnist.npz")
    with h5py.File(out) as file:
        assert file.attrs["classes"].tolist() == [str(i).encode() for i in range(10)]
        assert sorted(set(file) & {"train", "validation", "test"}) == ["test", "train"]
    for split in ("train", "test"):
        found = rows_of(out, split)
        assert len(found) == len(arrays[f"x_{split}"])
        for row, (image, label) in enumerate(
            zip(arrays[f"x_{split}"], arrays[f"y_{split}"], strict=True)
        ):
            stored, number = found[f"x_{split}/{row:07}.png"]
            np.testing.assert_array_equal(stored[..., 0], image)
            assert number == label
    assert batchify.verify(out, source=tmp_path / "mnist.npz", redecode="all").is_ok
    assert batchify.check(tmp_path / "mnist.npz", target_size=(8, 6)).images == 42


def test_the_command_builds_resumes_and_says_what_is_out_of_date(tmp_path: Path, run: Run) -> None:
    """`import` is `build` under another name; a changed label makes the file out of date."""
    arrays = mnist()
    savez(tmp_path / "mnist.npz", **arrays)
    out, size = tmp_path / "out.h5", ("--target-size", "8x6", "--color-mode", "grayscale")
    done = run("import", tmp_path / "mnist.npz", out, *size)
    assert done.returncode == 0, done.stderr
    assert "30 train + 12 test images of 8×6×1 uint8, 10 classes" in done.stdout
    assert run("build", tmp_path / "mnist.npz", out, *size, "--check").returncode == 0
    shown = run("inspect", out).stdout
    assert "batchify import SOURCE OUT --target-size 8x6 --color-mode grayscale" in shown
    arrays["y_test"][0] = 9
    savez(tmp_path / "mnist.npz", **arrays)
    asked = run("import", tmp_path / "mnist.npz", out, *size, "--check")
    assert (asked.returncode, "manifest_sha256" in asked.stdout) == (9, True)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train_images", "train_labels", "val_images", "val_labels"), ["train", "validation"]),
        (("X_train", "Y_train", "X_test", "Y_test"), ["test", "train"]),
        (("images_train", "labels_train", "images_valid", "labels_valid"), ["train", "validation"]),
    ],
)
def test_other_names_of_arrays(tmp_path: Path, names: Any, splits: list[str]) -> None:
    """As in MedMNIST, whose labels have the shape (N, 1)."""
    arrays = {
        names[0]: digits(10, 8, 6, 3),
        names[1]: np.arange(10)[:, np.newaxis] % 2,
        names[2]: digits(4, 8, 6, 3),
        names[3]: np.arange(4)[:, np.newaxis] % 2,
    }
    savez(tmp_path / "a.npz", **arrays)
    out = build(tmp_path / "a.npz", color_mode="rgb")
    with h5py.File(out) as file:
        assert sorted({"train", "validation", "test"} & set(file)) == splits
        assert file["train/labels"].shape == (10,)


def test_arrays_without_splits_are_split_by_policy(tmp_path: Path) -> None:
    """With class names, numbers of labels that no image has, and columns to keep."""
    savez(
        tmp_path / "a.npz",
        x=digits(20, 8, 6, 4),
        y=np.array([0, 1, 3, 3, 0] * 4),
        classes=np.array(["ant", "bee", "cow", "dog"]),
        age=np.arange(20),
    )
    out = build(tmp_path / "a.npz", color_mode="rgba", split="stratified", keep_columns="age")
    with h5py.File(out) as file:
        assert file.attrs["classes"].tolist() == [b"ant", b"bee", b"cow", b"dog"]
        assert len(file["train/paths"]) + len(file["validation/paths"]) == 20
        ages = {int(p[2:9]): a for p, a in zip(file["train/paths"], file["train/age"], strict=True)}
        assert all(row == age for row, age in ages.items())
        assert 2 not in file["train/labels"][()]


def test_names_of_numbers_can_be_given(tmp_path: Path) -> None:
    """By --classes, if the file has no names; numbers in --classes choose classes, as in tables."""
    savez(tmp_path / "a.npz", **mnist())
    names = list("abcdefghij")
    with batchify.open(build(tmp_path / "a.npz", classes=names)) as file:
        assert file.classes == tuple(names)
    with batchify.open(build(tmp_path / "a.npz", classes=["3", "1"])) as file:
        assert file.classes == ("3", "1")
        assert len(file["train"]) == 6
    with pytest.raises(DatasetError, match=r"label 9 of row 10 \(x_train/0000009.png\) is out of"):
        build(tmp_path / "a.npz", classes=names[:9])


@pytest.mark.parametrize(
    ("dtype", "store"),
    [(dtype, store) for dtype in ("uint8", "uint16") for store in ("decoded", "encoded", "png")]
    + [("float32", "decoded")],
)
def test_depths_and_stores(tmp_path: Path, dtype: Any, store: Any) -> None:
    """16 bits and floats of one channel are kept by the options that keep them in image files."""
    x = digits(6, 8, 6, dtype=dtype)
    savez(tmp_path / "a.npz", x=x, y=np.zeros(6, int))
    out = build(tmp_path / "a.npz", dtype=dtype, store=store)
    with batchify.open(out) as file:
        for split in file.values():
            for row, path in enumerate(split.paths[:]):
                np.testing.assert_array_equal(split.images[row][..., 0], x[int(path[2:9])])


def test_files_of_pixels_are_those_of_any_machine(tmp_path: Path) -> None:
    """The digests of images depend on the pixels alone, so that verify works everywhere."""
    savez(tmp_path / "a.npz", x=digits(1, 300, 200, 3), y=np.zeros(1, int))
    out = build(tmp_path / "a.npz", target_size=(300, 200), color_mode="rgb", validation_split=0)
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["train/images"][0], digits(1, 300, 200, 3)[0])
        digest = bytes(file["train/source_sha256"][0]).hex()
    assert digest == "0ef7ec214fa3f48408e82d5051424d058795d5cacc632543c468aeace94e6420"


def test_arrays_that_are_ignored_are_told(tmp_path: Path) -> None:
    """Weights of one split, or of another shape, would be missed in training only."""
    arrays = {**mnist(), "weights_train": np.ones(30), "mean": np.ones(3), "ids_train": np.ones(9)}
    savez(tmp_path / "a.npz", **arrays)
    (warning,) = batchify.plan_build(tmp_path / "a.npz").dataset.warnings
    assert str(warning) == (
        "ignored arrays, which do not have a value for each image of all splits: weights_train "
        "(30,) float64; mean (3,) float64; ids_train (9,) float64"
    )
    texts = np.array([f"{row}.png".encode() for row in range(6)])
    savez(tmp_path / "a.npz", x=X, y=np.array([[b"cat"], [b"dog"]] * 3), paths=texts)
    plan = batchify.plan_build(tmp_path / "a.npz", validation_split=0)
    assert (plan.dataset.warnings, plan.dataset.classes) == ((), (b"cat", b"dog"))
    assert sorted(plan.path("train", row) for row in range(6)) == texts.tolist()


def test_splits_without_labels(tmp_path: Path) -> None:
    """A test split without labels has none; without any, --class-mode none is needed."""
    arrays = mnist()
    del arrays["y_test"]
    savez(tmp_path / "a.npz", **arrays)
    with h5py.File(build(tmp_path / "a.npz")) as file:
        assert ("labels" in file["train"], "labels" in file["test"]) == (True, False)
    del arrays["y_train"]
    savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DatasetError, match="has no column label"):
        build(tmp_path / "a.npz")
    with h5py.File(build(tmp_path / "a.npz", class_mode="none")) as file:
        assert len(file["test/paths"]) == 12


def test_one_hot_labels_are_classes(tmp_path: Path) -> None:
    """Other rows of numbers are refused, unless no labels are wanted."""
    x = digits(6, 8, 6)
    savez(tmp_path / "a.npz", x=x, y=np.eye(3, dtype="float32")[[0, 1, 2, 2, 1, 0]])
    with batchify.open(build(tmp_path / "a.npz", validation_split=0)) as file:
        train: Any = file["train"]
        found = dict(zip(train.paths[:], train.labels[:].tolist(), strict=True))
    assert [found[f"x/{row:07}.png"] for row in range(6)] == [0, 1, 2, 2, 1, 0]
    savez(tmp_path / "a.npz", x=x, y=np.ones((6, 3)))
    with pytest.raises(DatasetError, match="labels are lists of numbers, not classes"):
        build(tmp_path / "a.npz")
    build(tmp_path / "a.npz", class_mode="none")


X, Y = digits(6, 8, 6), np.zeros(6, int)
WRONG: dict[str, tuple[Arrays, str]] = {
    "no images": ({"a": X, "y": Y}, r"has no array named like images: .* it has a \(6, 8, 6\)"),
    "lengths": ({"x": X, "y": Y[:5]}, "a row for each image: x 6, y 5"),
    "flat": ({"x": X.reshape(6, 48), "y": Y}, "is not an array of images"),
    "channels first": (
        {"x": digits(6, 3, 8, 6), "y": Y},
        r"move the channels to the end: x.transpose\(0, 2, 3, 1\)",
    ),
    "two channels": ({"x": digits(6, 8, 6, 2), "y": Y}, "with 1, 3 or 4 channels"),
    "int64": ({"x": X.astype(int), "y": Y}, "pixels must be uint8"),
    "float64": ({"x": X / 255, "y": Y}, "pixels must be uint8"),
    "float colors": ({"x": digits(6, 8, 6, 3, dtype="float32"), "y": Y}, "floats are for images"),
    "deep colors": ({"x": digits(6, 8, 6, 3, dtype="uint16"), "y": Y}, "16 bits are for images"),
    "bool": ({"x": X > 9, "y": Y}, "pixels must be uint8"),
    "fortran": ({"x": np.asfortranarray(X), "y": Y}, "Fortran order"),
    "objects": ({"x": np.array([X[0], X[:2, 0]], object), "y": Y[:2]}, "holds Python objects"),
    "object labels": ({"x": X, "y": np.array(list("abcdef"), object)}, "holds Python objects"),
    "negative": ({"x": X, "y": Y - 1}, r"label -1 of row 1 .* is out of range"),
    "huge": ({"x": X, "y": Y + 10**9}, "is out of range: class numbers"),
    "out of range": (
        {"x": X, "y": Y + 2, "classes": np.array(["a", "b"])},
        "label 2 of row 1 .* is out of range: classes has 2 names",
    ),
    "repeated names": (
        {"x": X, "y": Y, "classes": np.array(["a", "a"])},
        "classes names a more than once",
    ),
    "complex": ({"x": X, "y": Y.astype(complex)}, r"y \(6,\) complex128 does not hold labels"),
    "dates": ({"x": X, "y": Y.astype("M8[D]")}, "does not hold labels"),
    "records": ({"x": X, "y": np.zeros(6, [("a", int)])}, "does not hold labels"),
    "fractions": ({"x": X, "y": np.linspace(0, 1, 6)}, "fractions such as"),
    "two of a kind": ({"x": X, "images": X, "y": Y}, "may both be the images"),
    "mixed": ({"x": X, "y": Y, "x_test": X}, "names a split, and x does not"),
    "labels alone": ({"x_train": X, "y_train": Y, "y_test": Y}, "y_test has no array of images"),
    "empty": ({"x": X[:0], "y": Y[:0]}, "lists no images"),
    "no pixels": ({"x": X[:, :0], "y": Y}, "images without pixels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_an_error_before_the_first_image(tmp_path: Path, name: str) -> None:
    """One line: what is wrong, where, and what to do; objects are never unpickled."""
    arrays, message = WRONG[name]
    savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DatasetError, match=message) as caught:
        batchify.plan_build(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("classes", [np.array(5), np.zeros((10**12, 0), "u1"), np.eye(2)])
def test_names_of_classes_are_a_list_of_texts(tmp_path: Path, classes: Any) -> None:
    """Also where the array takes no bytes, however long it is."""
    savez(tmp_path / "a.npz", x=digits(3, 5, 5), y=np.arange(3), classes=classes)
    with pytest.raises(DatasetError, match=r"classes \(.*\) .* must be names of classes"):
        batchify.plan_build(tmp_path / "a.npz")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """Truncated ones, bytes that changed, and members that are not arrays."""
    path = tmp_path / "a.npz"
    savez(path, x=X, y=Y)
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(DatasetError, match="truncated or damaged"):
        batchify.plan_build(path)
    at = data.index(X[3].tobytes())
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(DatasetError, match="x: damaged in the archive: CRC-32 mismatch"):
        batchify.plan_build(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"no array")
    with pytest.raises(DatasetError, match=r"truncated or damaged: x\.npy: "):
        batchify.plan_build(path)
    for header, message in [
        (b"{'descr': '<i8', 'fortran_order': False, 'shape': (6, }", "EOF in"),
        (b"{'descr': '<i8', 'fortran_order': Fals, 'shape': (6,)}", "its header is not valid;"),
    ]:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x01\0" + bytes([len(header), 0]) + header)
        with pytest.raises(DatasetError, match=rf"truncated or damaged: x\.npy: {message}"):
            batchify.plan_build(path)


def test_processes_that_hold_compressed_arrays_are_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds all of them: the plan says so, and counts on it; numpy.savez needs no memory."""
    monkeypatch.setattr(capacity, "usable_cpus", lambda: 8)
    monkeypatch.setattr(capacity, "usable_memory", lambda: 620_000_000)
    monkeypatch.setattr(npz, "_MUCH_NBYTES", 1 << 20)
    arrays = {"x_train": np.zeros((30, 1000, 2000), "uint8"), "y_train": np.zeros(30, int)}
    np.savez_compressed(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    plan = batchify.plan_build(tmp_path / "a.npz", target_size=(8, 6))
    savez(tmp_path / "b.npz", x_train=arrays["x_train"][:3], y_train=arrays["y_train"][:3])
    other = batchify.plan_build(tmp_path / "b.npz", target_size=(8, 6))
    assert 60_000_000 <= plan.memory_nbytes - other.memory_nbytes < 61_000_000
    said = "compressed arrays are read as a whole: each process holds 60.0 MB of them; numpy.savez"
    assert [str(each)[: len(said)] for each in plan.warnings if each.code == "compressed"] == [said]
    few = [str(each) for found in (plan, other) for each in found.warnings
           if each.code == "little-memory"]  # fmt: skip
    assert [text[:23] for text in few] == ["2 workers instead of 8:", "3 workers instead of 8:"]
    assert "compressed" not in [each.code for each in other.warnings]
    with Workers(2) as workers:
        workers.fit(1 << 40)
        assert workers.count == 2  # as it was given


def test_options_for_files_and_folders_are_refused(tmp_path: Path, photos: Path) -> None:
    """Nothing is ignored in silence; options of tables need one."""
    savez(tmp_path / "a.npz", x=X, y=Y)
    for options, message in [
        ({"layout": "flat"}, "remove --layout"),
        ({"include": "*.png"}, "--include chooses files, and DATASET is one"),
        ({"class_order": "natural"}, "remove --class-order"),
        ({"class_from": "leaf"}, "--class-from"),
    ]:
        with pytest.raises(OptionError, match=message):
            batchify.plan_build(tmp_path / "a.npz", **options)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"^--keep-columns requires --manifest$"):
        batchify.plan_build(photos, keep_columns="age")
    with pytest.raises(DatasetError, match=r"batchify\.plan_build reads it"):
        batchify.discover(tmp_path / "a.npz")


def test_a_loader_and_workers_read_arrays(tmp_path: Path) -> None:
    """Training without a file, and a build by processes, give the same pixels."""
    arrays = mnist()
    savez(tmp_path / "mnist.npz", **arrays)
    out = build(tmp_path / "mnist.npz", workers=2, shuffle=False)
    options: Any = {"target_size": (8, 6), "color_mode": "grayscale", "shuffle": False}
    loader = batchify.Loader.from_directory(
        tmp_path / "mnist.npz", subset="test", batch_size=5, rescale=1, **options
    )
    with h5py.File(out) as file:
        images, labels = file["test/images"][()], file["test/labels"][()]
    batches: list[Any] = [loader[i] for i in range(len(loader))]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), images)
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), labels)
