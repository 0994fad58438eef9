"""The loader in the place of Keras' directory iterator.

The tests that Keras-Preprocessing 1.1.2 has of its own iterator (tests/image of its repository,
directory_iterator_test.py) hold for the loader: images of several kinds in nested folders, wrong
options, batches by their number, functions of images, labels that are images, and subsets. Its
``save_to_dir``, which they leave out, too, is not batchify's.
"""

from __future__ import annotations

import json
import pickle
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import keras_reference as keras
from helpers.drawing import draw_dataset
from numpy.typing import NDArray
from PIL import Image

import batchify
from batchify import Loader
from batchify.errors import OptionError
from batchify.loading.keras_iterator import KerasIterator

COUNT = 40


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw 20 images of each of two classes, in folders of folders: color, alpha, gray of 8 and 16.

    Keras' tests also save 32 bits as PNG, which older Pillow wrote as 16 and newer refuses.
    """
    root = tmp_path_factory.mktemp("nested")
    random = np.random.default_rng(5)
    kinds: list[tuple[tuple[int, ...], type[np.generic]]] = [
        ((20, 20, 3), np.uint8), ((20, 20, 4), np.uint8), ((20, 20), np.uint8),
        ((20, 20), np.uint16),
    ]  # fmt: skip
    folders = ("", "first", "second", "first/inner")
    for i in range(COUNT):
        shape, dtype = kinds[i // 2 % len(kinds)]
        pixels = random.integers(0, 400 if dtype != np.uint8 else 256, shape).astype(dtype)
        path = root / f"class-{i % 2}" / folders[i % 3 + i % 2] / f"image-{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


def assert_same(batch: Any, expected: Any) -> None:
    """Assert that two batches are equal to the last bit."""
    assert isinstance(batch, tuple) == isinstance(expected, tuple)
    if not isinstance(batch, tuple):
        batch, expected = (batch,), (expected,)
    for mine, theirs in zip(batch, expected, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


def test_all_images_without_a_subset(nested: Path) -> None:
    """Every image and class, with the attributes of Keras' iterator."""
    flow = keras.generator(nested, None, validation=0.0, batch_size=32)
    loader = Loader.from_directory(nested, subset=None, batch_size=32, classes=None)
    assert (loader.samples, loader.n, len(loader), loader.num_classes) == (COUNT, COUNT, 2, 2)
    assert loader.filenames == [name.replace("\\", "/") for name in flow.filenames]
    assert [Path(path) for path in loader.filepaths] == [Path(path) for path in flow.filepaths]
    for name in (
        "n", "samples", "num_classes", "class_indices", "batch_size", "image_shape", "target_size",
        "color_mode", "class_mode", "shuffle", "seed", "batch_index", "total_batches_seen",
    ):  # fmt: skip
        assert getattr(loader, name) == getattr(flow, name), name
    np.testing.assert_array_equal(loader.classes, flow.classes)
    np.testing.assert_array_equal(loader.labels, flow.labels)
    assert loader.index_array is None
    assert_same(loader.next(), keras.batch(flow))
    np.testing.assert_array_equal(loader.index_array, flow.index_array)
    assert repr(loader) == (
        f"<batchify loader of {nested}: 40 images of 150×150×3, 2 batches of 32, 2 classes>"
    )


@pytest.mark.parametrize(
    "wrong", [{"color_mode": "cmyk"}, {"class_mode": "output"}, {"subset": "foo"}]
)
def test_wrong_options_are_value_errors(nested: Path, wrong: dict[str, Any]) -> None:
    """As in Keras."""
    with pytest.raises(ValueError, match=f"{next(iter(wrong.values()))}"):
        Loader.from_directory(nested, **wrong)


def test_batches_by_number_of_transformed_images(nested: Path) -> None:
    """A function gets each image as an array of the target size; a wrong number is refused."""
    seen: list[NDArray[np.float32]] = []

    def black(image: NDArray[np.float32]) -> NDArray[np.float32]:
        assert type(image) is np.ndarray
        assert image.shape == (26, 26, 3)
        assert image.dtype == np.float32
        seen.append(image)
        return np.zeros_like(image)

    loader = Loader.from_directory(
        nested, subset=None, target_size=(26, 26), batch_size=3, class_mode="categorical",
        transform=black,
    )  # fmt: skip
    assert len(loader) == loader.num_batches == 14
    for number, count in ((1, 3), (5, 3), (13, 1), (-1, 1)):
        images, labels = loader[number]
        assert (images.shape, labels.shape) == ((count, 26, 26, 3), (count, 2))
        assert not images.any()
    assert len(seen) == loader.total_batches_seen * 2
    assert max(image.max() for image in seen) == 255
    for number in (14, -15):
        with pytest.raises(OptionError, match=f"there is no batch {number}: an epoch has 14"):
            loader[number]


def test_labels_that_are_images(nested: Path) -> None:
    """Equal to the images and not the same memory, also after a function."""
    loader = Loader.from_directory(
        nested, class_mode="input", target_size=(9, 9), transform=np.sqrt, validation_split=0.3
    )
    flow = keras.generator(
        nested, "training", validation=0.3, class_mode="input", target_size=(9, 9),
        preprocess=np.sqrt,
    )  # fmt: skip
    assert loader.class_mode == "input"
    images, labels = next(loader)
    assert_same((images, labels), keras.batch(flow))
    labels[0, 0, 0] += 1
    assert (images[0, 0, 0] != labels[0, 0, 0]).all()


@pytest.mark.parametrize(("share", "training"), [(0.25, 30), (0.5, 20), (0.75, 10)])
def test_subsets_of_a_validation_split(nested: Path, share: float, training: int) -> None:
    """Both subsets have both classes, and share no file."""
    found = {
        subset: Loader.from_directory(nested, subset=subset, validation_split=share)
        for subset in ("training", "validation")
    }
    names = {subset: set(loader.filenames) for subset, loader in found.items()}
    assert found["training"].samples == len(found["training"].classes) == training
    assert found["validation"].samples == COUNT - training
    assert all(len(loader.class_indices) == 2 for loader in found.values())
    assert len(names["training"] | names["validation"]) == COUNT


@pytest.mark.parametrize(
    "flow",
    [
        {"class_mode": None, "shuffle": True, "seed": 7},
        {"class_mode": "categorical", "shuffle": True, "seed": 2**31},
        {"class_mode": "sparse", "shuffle": False, "seed": 1},
    ],
)
def test_any_use_is_that_of_keras(nested: Path, flow: dict[str, Any]) -> None:
    """Batches by next and by number, ends of epochs, resets and resumed states, bit for bit."""
    flow = {**flow, "target_size": (6, 5), "batch_size": 6}
    reference = keras.generator(nested, "training", validation=0.25, **flow)
    loader = Loader.from_directory(nested, validation_split=0.25, **flow)
    random = np.random.default_rng(2)
    for step in range(50):
        what, number = random.integers(5), int(random.integers(len(loader)))
        if what < 2:
            assert_same(next(loader), keras.batch(reference))
        elif what < 4 or not step:
            assert_same(loader[number], keras.batch(reference, number))
        elif number:
            loader.on_epoch_end()
            reference.on_epoch_end()
        else:
            loader.reset()
            reference.reset()
        assert loader.batch_index == reference.batch_index
        assert loader.total_batches_seen == reference.total_batches_seen
        if step % 5 == 3:
            state = json.dumps(loader.state_dict())
            assert len(state) < 300
            loader = Loader.from_directory(nested, validation_split=0.25, **flow)
            loader.load_state_dict(json.loads(state))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_split": 0.5}, "the checksum of the files was"),
        ({"batch_size": 7}, "the batch size was 6, not 7"),
        ({"seed": 2}, "seed was 1, not 2"),
    ],
)
def test_a_state_of_another_loader_is_refused(
    nested: Path, options: dict[str, Any], message: str
) -> None:
    """The message names what differs."""
    given: dict[str, Any] = {"batch_size": 6, "seed": 1, "validation_split": 0.25}
    state = Loader.from_directory(nested, **given).state_dict()
    with pytest.raises(OptionError, match=f"this state is of other batches: {message}"):
        Loader.from_directory(nested, **{**given, **options}).load_state_dict(state)
    with pytest.raises(OptionError, match="not a state that state_dict"):
        Loader.from_directory(nested, **given).load_state_dict({"version": 1})


@pytest.mark.parametrize(
    "function",
    [
        lambda image: image - np.array([103.939, 116.779, 123.68]),  # float64, as for VGG16
        lambda image: image / 127.5 - 1,
        lambda image: image[::-1],
    ],
)
def test_functions_give_what_they_give_in_keras(nested: Path, function: Any) -> None:
    """Before rescale, in the precision of what they return."""
    flow: dict[str, Any] = {"target_size": (7, 8), "batch_size": 20}
    reference = keras.generator(nested, "training", preprocess=function, **flow)
    loader = Loader.from_directory(nested, transform=function, **flow)
    assert_same(next(loader), keras.batch(reference))


@pytest.mark.parametrize("color_mode", ["rgb", "rgba", "grayscale"])
@pytest.mark.parametrize("rescale", ["auto", 1 / 65535])
def test_a_function_that_changes_nothing(zoo: Path, color_mode: Any, rescale: Any) -> None:
    """Gives the batches that there are without it, for images of every kind and depth."""
    given: dict[str, Any] = {"color_mode": color_mode, "rescale": rescale, "target_size": (9, 8)}
    plain, same = (
        Loader.from_directory(zoo, subset=None, batch_size=500, transform=transform, **given)
        for transform in (None, lambda image: image)
    )
    assert_same(next(same), next(plain))


def test_what_a_function_may_return(photos: Path) -> None:
    """Whole numbers, too; another shape is refused, and its own errors are not hidden."""

    def fails(image: NDArray[np.float32]) -> NDArray[np.float32]:
        raise ZeroDivisionError

    plain = next(Loader.from_directory(photos, rescale=None))
    rounded = Loader.from_directory(photos, rescale=None, transform=lambda image: image.astype(int))
    assert_same(next(rounded), plain)
    with pytest.raises(
        OptionError, match=r"of shape \(150, 150, 3\), .* not float32 of shape \(\)"
    ):
        next(Loader.from_directory(photos, transform=np.mean))
    with pytest.raises(ZeroDivisionError):
        next(Loader.from_directory(photos, transform=fails))
    with pytest.raises(TypeError, match="transform must be a function, not 'flip'"):
        Loader.from_directory(photos, transform="flip")  # type: ignore[arg-type]


def test_threads_and_copies_read_the_same(nested: Path) -> None:
    """A copy, as for another process, goes on with the epoch; threads share a loader."""
    loader = Loader.from_directory(nested, target_size=(8, 8), batch_size=4)
    expected = [loader[i] for i in range(len(loader))]
    copy, other = (pickle.loads(pickle.dumps(loader)) for _ in range(2))
    assert_same(other.next(), loader.next())
    with ThreadPoolExecutor(4) as threads:
        for batch, wanted in zip(threads.map(copy.__getitem__, range(8)), expected, strict=True):
            assert_same(batch, wanted)
    assert copy.total_batches_seen == 2 * len(loader)


def test_an_epoch_that_others_read_does_not_come_twice(nested: Path) -> None:
    """Keras reads in other processes, and tells this one that an epoch has ended."""
    loader = Loader.from_directory(nested, target_size=(8, 8), batch_size=4)
    copy = pickle.loads(pickle.dumps(loader))
    copy[0]
    loader.on_epoch_end()
    assert loader.index_array is not None
    assert not np.array_equal(loader.index_array, copy.index_array)


def test_without_keras_it_has_its_own_class(nested: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Keras, with one that does not import and with Keras 2, which has no PyDataset."""
    loader = Loader.from_directory(nested)
    name = "batchify.loading.frameworks.keras"
    for module in (None, types.ModuleType("keras")):
        monkeypatch.setitem(sys.modules, "keras", module)
        monkeypatch.delitem(sys.modules, name, raising=False)
        assert loader.__class__ is Loader
        assert isinstance(loader, KerasIterator)


def test_images_without_labels_are_not_mixed_with_others(tmp_path: Path) -> None:
    """All images of a dataset have labels, or none are asked for."""
    root = draw_dataset(tmp_path, {"train/cat": 2, "train/dog": 1, "test": 2})
    with pytest.raises(OptionError, match="test has no labels: name a subset, or pass class_mode"):
        Loader.from_directory(root, subset=None)
    assert Loader.from_directory(root, subset=None, class_mode=None).samples == 5
    assert batchify.Loader is Loader
