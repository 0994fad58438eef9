"""Splits in Keras, grain and Hugging Face datasets, and what is said where they are missing."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.frameworks import ROWS, SHAPE, framework, make_splits

import batchify
from batchify.building.build import build
from batchify.errors import BatchifyError, ExtraMissingError
from batchify.image_options import StoreOptions
from batchify.loading import frameworks
from batchify.loading import split as split_module
from batchify.loading.loader import Loader
from batchify.loading.split import Split
from batchify.options import BuildOptions

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SCALE = np.float32(1 / 255)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    """Build a mapped and a compressed split."""
    return make_splits(tmp_path_factory.mktemp("frameworks"))


@pytest.mark.parametrize(
    ("method", "module", "extra"),
    [
        ("to_torch", "torch", "torch"),
        ("to_keras", "keras", "keras"),
        ("to_tf", "tensorflow", "tensorflow"),
        ("to_hf", "datasets", "datasets"),
    ],
)
def test_a_missing_framework_is_named(
    splits: dict[str, Split], method: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the extra that installs it; importing and reading need none."""
    for name in list(sys.modules):
        if name.startswith("batchify.loading.frameworks."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExtraMissingError, match=rf"pip install 'batchify-h5\[{extra}\]'") as error:
        getattr(splits["none"], method)()
    assert isinstance(error.value, ImportError)
    assert isinstance(error.value, BatchifyError)


def test_every_adapter_is_in_the_table() -> None:
    """A framework is added with a module and a line."""
    folder = Path(frameworks.__file__).parent
    makers = {path.stem for path in folder.glob("*.py") if "def make_dataset(" in path.read_text()}
    assert makers == set(split_module._INSTALLED_BY)


@pytest.mark.frameworks
@pytest.mark.parametrize("kind", ["none", "gzip", "encoded"])
def test_keras_batches(splits: dict[str, Split], kind: str) -> None:
    """Item i is batch i of the epoch; the end of an epoch draws another order."""
    keras = framework("keras")
    split = splits[kind]
    data = split.to_keras(8, shuffle=True, seed=5, drop_last=True)
    assert isinstance(data, keras.utils.PyDataset)
    assert len(data) == data.num_batches == 18
    assert repr(data) == f"<Keras batches of {split!r}>"
    wanted = split.batches(8, shuffle=True, seed=5, drop_last=True)
    for _ in range(2):
        for index, (x, y) in enumerate(wanted):
            assert x.dtype == y.dtype == np.float32
            np.testing.assert_array_equal(data[index][0], x)
            np.testing.assert_array_equal(data[index][1], y)
        data.on_epoch_end()
    other = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(other[3][0], data[3][0])


@pytest.mark.frameworks
def test_a_fit_resumes(splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of an epoch, on another number of ranks, then with the epochs that follow.

    With one worker: where there are more, Keras 3.15 repeats the batches that it read ahead when it
    built the model.
    """
    keras = framework("keras")
    split = splits["none"]
    monkeypatch.setattr(split, "labels", np.arange(ROWS))

    def fit(data: Any, epochs: int, callbacks: Any = ()) -> list[int]:
        seen: list[int] = []
        trains: list[int] = []  # what Keras builds the model with are no rows
        watch = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, _: trains.append(epoch),
            on_epoch_end=lambda *_: trains.clear(),
        )

        def loss(y: Any, predicted: Any) -> Any:
            if trains:
                seen.extend(keras.ops.convert_to_numpy(y).astype(int).ravel().tolist())
            return keras.ops.mean(predicted)

        mean = keras.layers.GlobalAveragePooling2D()
        model = keras.Sequential([mean, keras.layers.Dense(1)])
        model.compile("sgd", loss, run_eagerly=True)
        while data.epoch < epochs:
            following = {"initial_epoch": data.epoch, "epochs": data.epoch + 1}
            model.fit(data, shuffle=False, verbose=0, callbacks=[watch, *callbacks], **following)
        return seen

    options: dict[str, Any] = {"shuffle": True, "seed": 5}
    wanted = [split.batches(1, shuffle=True, seed=5).order(epoch).tolist() for epoch in range(3)]
    assert fit(split.to_keras(8, **options), 3) == [row for order in wanted for row in order]
    states = []

    class Save(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            states.append(json.loads(json.dumps(data.state_dict(batch + 1))))

    data = split.to_keras(8, **options)
    assert fit(data, 2, [Save()]) == wanted[0] + wanted[1]
    for number in (19 + 7, 19 + 18, 18):
        data = split.to_keras(8, **options)
        data.load_state_dict(states[number])
        epoch, row = states[number]["epoch"], states[number]["row"]
        rest = wanted[epoch][row:] + [row for order in wanted[epoch + 1 :] for row in order]
        assert fit(data, 3) == rest
        assert len(data) == 19
    for rank in range(2):
        data = split.to_keras(4, rank=rank, world_size=2, **options)
        data.load_state_dict(states[3])
        mine = [row for row in range(32, 144) if row // 4 % 2 == rank]
        mine += range(144 + 3 * rank, 147 + 3 * rank)
        assert fit(data, 1) == [wanted[0][row] for row in mine]


@pytest.mark.frameworks
@pytest.mark.parametrize("store", [{}, {"class_mode": "none"}])
def test_keras_never_weighs_images_by_their_rows(tmp_path: Path, store: dict[str, Any]) -> None:
    """A loop gets them; fit, evaluate and predict compute what they do without."""
    keras = framework("keras")
    split = make_splits(tmp_path, **store)["none"]
    plain = split.to_keras(40, shuffle=True, seed=2)
    data = split.to_keras(40, shuffle=True, seed=2, with_rows=True)
    for epoch in range(2):
        served = []
        for index, (x, *y, rows) in enumerate(data):
            assert rows.dtype == np.int64
            served += rows.tolist()
            wanted = split.batches(scaled=True).read(rows)
            for one, other in zip((x, *y), wanted if y else (wanted,), strict=True):
                np.testing.assert_array_equal(one, other)
            np.testing.assert_array_equal(plain[index][0] if y else plain[index], x)
        assert served == split.batches(40, shuffle=True, seed=2).order(epoch).tolist()
        data.on_epoch_end()
        plain.on_epoch_end()
    results = []
    for each in (plain, data):
        keras.utils.set_random_seed(1)
        mean = keras.layers.GlobalAveragePooling2D()
        model = keras.Sequential([keras.Input(SHAPE), mean, keras.layers.Dense(2, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        if split.labels is not None:
            results.append(model.fit(each, shuffle=False, verbose=0).history["loss"])
            results.append([model.evaluate(each, verbose=0)])
        results.append(model.predict(each, verbose=0))
    half = len(results) // 2
    for one, other in zip(results[:half], results[half:], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("kind", "workers"), [("none", 1), ("none", 2), ("gzip", 2), ("encoded", 2)]
)
def test_a_keras_model_learns(splits: dict[str, Split], kind: str, workers: int) -> None:
    """Bright from dark: fit, evaluate and predict."""
    keras = framework("keras")
    keras.utils.set_random_seed(1)
    mean = keras.layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input(SHAPE), mean, keras.layers.Dense(2, "softmax")])
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.3), loss, metrics=["accuracy"])
    data = splits[kind].to_keras(10, shuffle=True, workers=workers)
    history = model.fit(data, epochs=3, shuffle=False, verbose=0).history
    assert history["loss"][-1] < 0.4
    assert model.evaluate(splits[kind].to_keras(64), verbose=0)[1] > 0.95
    assert model.predict(splits[kind].to_keras(64), verbose=0).shape == (ROWS, 2)


@pytest.mark.frameworks
@pytest.mark.parametrize("workers", [1, 2])
def test_a_keras_model_learns_from_a_loader(splits: dict[str, Split], workers: int) -> None:
    """As from Keras' own iterator: fit with validation, evaluate, predict, and an autoencoder."""
    folder = Path(splits["none"].origin.files[0].decode()).parent / "data"
    given: dict[str, Any] = {"target_size": SHAPE[:2], "batch_size": 10, "validation_split": 0.2}
    train = Loader.from_directory(folder, **given)  # maybe before Keras is imported
    keras = framework("keras")
    validation = Loader.from_directory(folder, subset="validation", **given)
    assert isinstance(train, keras.utils.PyDataset)
    assert isinstance(train, Loader)
    train.workers = workers
    keras.utils.set_random_seed(1)
    mean = keras.layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input(SHAPE), mean, keras.layers.Dense(2, "softmax")])
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.3), loss, metrics=["accuracy"])
    history = model.fit(train, validation_data=validation, epochs=3, verbose=0).history
    assert history["val_loss"][-1] < 0.4
    assert train.total_batches_seen >= 3 * len(train)
    assert model.evaluate(validation, verbose=0)[1] > 0.95
    images = Loader.from_directory(folder, subset="validation", class_mode=None, **given)
    assert model.predict(images, verbose=0).shape == (30, 2)
    coder = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(3, 1)])
    coder.compile("adam", "mse")
    coder.fit(Loader.from_directory(folder, class_mode="input", **given), verbose=0)


@pytest.mark.frameworks
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("kind", "workers"), [("none", 0), ("none", 2), ("gzip", 0), ("encoded", 2)]
)
def test_a_split_is_a_grain_source(splits: dict[str, Split], kind: str, workers: int) -> None:
    """Each row once an epoch, in the process and in its workers; a model learns from it."""
    grain = framework("grain")
    split = splits[kind]
    sampler = grain.samplers.IndexSampler(
        num_records=len(split),
        shuffle=True,
        seed=4,
        num_epochs=1,
        shard_options=grain.sharding.NoSharding(),
    )
    loader = grain.DataLoader(
        data_source=split,
        sampler=sampler,
        worker_count=workers,
        operations=[grain.transforms.Batch(10)],
    )
    counts = np.zeros(2, int)
    weights, learnt = np.zeros(2), []
    for x, y in loader:
        assert (x.shape[1:], x.dtype, y.dtype) == (SHAPE, np.uint8, np.int64)
        counts += np.bincount(y, minlength=2)
        brightness = np.stack([x.mean(axis=(1, 2, 3)) / 255 - 0.5, np.ones(len(y))])
        guesses = 1 / (1 + np.exp(-weights @ brightness))  # the probability of "dark"
        learnt.append(np.mean((guesses > 0.5) == (y == 1)))
        weights -= 20 * (guesses - y) @ brightness.T / len(y)
    assert counts.tolist() == np.bincount(split.labels).tolist()  # type: ignore[arg-type]
    assert np.mean(learnt[-4:]) > 0.9


@pytest.mark.frameworks
@pytest.mark.parametrize("kind", ["none", "gzip", "encoded"])
def test_hugging_face_datasets(
    splits: dict[str, Split], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, slices, class names and paths are those of the split; it is saved and mapped."""
    datasets = framework("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    datasets.disable_progress_bars()
    split = splits[kind]
    data = split.to_hf()
    assert isinstance(data, datasets.Dataset)
    assert data.column_names == ["image", "label", "path"]
    assert data.num_rows == ROWS
    assert data.features["label"].names == ["bright", "dark"]
    row = data[70]
    assert row["image"].dtype == np.uint8
    np.testing.assert_array_equal(row["image"], split.images[70])
    assert (row["label"], row["path"]) == (split.labels[70], split.paths[70])  # type: ignore[index]
    np.testing.assert_array_equal(data[60:75]["image"], split.images[60:75])
    np.testing.assert_array_equal(data[[140, 3]]["image"], split.images[[140, 3]])
    shuffled = data.shuffle(seed=2)
    for row in shuffled.select(range(9)):
        index = split.paths.index(row["path"])
        np.testing.assert_array_equal(row["image"], split.images[index])
    data.save_to_disk(tmp_path / "saved")
    saved = datasets.load_from_disk(tmp_path / "saved")
    np.testing.assert_array_equal(saved[70]["image"], split.images[70])
    bright = data.map(lambda row: {"mean": row["image"].mean()}).filter(
        lambda row: row["mean"] > 127
    )
    assert {row["label"] for row in bright} == {0}
    scaled = data.map(lambda row: {"pixels": row["image"].astype("float32") / 255})
    np.testing.assert_array_equal(scaled[3]["pixels"], split.images[3].astype("float32") / 255)
    tensors = data.with_format("torch", dtype=None)[:2]
    assert (str(tensors["image"].dtype), str(tensors["label"].dtype)) == (
        "torch.uint8",
        "torch.int64",
    )
    assert len(pickle.dumps(data)) < 8 * split.images.nbytes  # 4 bytes a pixel and more


@pytest.mark.frameworks
@pytest.mark.parametrize("kind", ["none", "gzip", "encoded"])
def test_a_model_learns_from_a_hugging_face_dataset(
    splits: dict[str, Split], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bright from dark, as torch tensors."""
    datasets, torch = framework("datasets"), framework("torch")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    data = splits[kind].to_hf().with_format("torch", columns=["image", "label"])
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.3)
    losses = []
    for epoch in range(3):
        for batch in data.shuffle(seed=epoch).iter(10):
            loss = torch.nn.functional.cross_entropy(
                model(batch["image"].float().mean((1, 2)) / 255), batch["label"]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.3 < np.mean(losses[:5])


@pytest.mark.frameworks
def test_hugging_face_datasets_of_mapped_rows_copy_nothing(splits: dict[str, Split]) -> None:
    """The values that Arrow has are the bytes of the mapped file, and labels may be one-hot."""
    framework("datasets")
    split = splits["none"]
    chunk = split.to_hf().data.column("image").chunk(0)
    values = chunk.storage.flatten().flatten().flatten()
    assert values.buffers()[1].address == split.images.ctypes.data  # type: ignore[union-attr]


@pytest.mark.frameworks
def test_an_empty_hugging_face_dataset(tmp_path: Path) -> None:
    """Has the columns."""
    framework("datasets")
    root = draw_dataset(tmp_path / "data", {"a": 1})
    for compression in ("none", "gzip"):
        out = tmp_path / f"{compression}.h5"
        build(root, out, BuildOptions(store=StoreOptions(compression=compression)))
        data = batchify.open(out)["validation"].to_hf()
        assert (data.num_rows, data.column_names) == (0, ["image", "label", "path"])


@pytest.mark.frameworks
@pytest.mark.parametrize("store", [{"class_mode": "categorical"}, {"class_mode": "none"}])
def test_hugging_face_datasets_of_other_labels(tmp_path: Path, store: dict[str, Any]) -> None:
    """One-hot lists, or none."""
    framework("datasets")
    split = make_splits(tmp_path, **store)["none"]
    row = split.to_hf()[4]
    if split.labels is None:
        assert "label" not in row
    else:
        np.testing.assert_array_equal(row["label"], split.labels[4])


@pytest.mark.frameworks
def test_pieces_of_a_hugging_face_dataset(
    splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, the last of another size: the rows are the same."""
    framework("datasets")
    adapter = importlib.import_module("batchify.loading.frameworks.huggingface")
    monkeypatch.setattr(adapter, "_PIECE_VALUES", 7 * 20 * 16 * 3)
    data = splits["none"].to_hf()
    assert data.data.column("image").num_chunks == -(-ROWS // 7)
    np.testing.assert_array_equal(data[:]["image"], splits["none"].images)
