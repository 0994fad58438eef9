"""Views, means and class weights in the frameworks that take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.frameworks import SHAPE, framework, make_splits

import batchify
from batchify.loading.split import Split

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ROWS = np.array([140, 3, 77, 8, 3, 60, 61, 62, 149, 0, 20, 21])
KINDS = ["none", "gzip", "encoded"]


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    """Build a split of each kind."""
    return make_splits(tmp_path_factory.mktemp("frameworks"))


def test_class_weights_are_those_of_scikit_learn(tmp_path: Path) -> None:
    """For every share of the classes, and where a class has no rows."""
    compute = framework("sklearn.utils.class_weight").compute_class_weight
    root = draw_dataset(tmp_path / "data", {"a": 2, "b": 9, "c": 30, "d": 1})
    batchify.build(root, tmp_path / "out.h5", target_size=(8, 8))
    train = batchify.open(tmp_path / "out.h5")["train"]
    random = np.random.RandomState(5)
    views = [train, train + train.filter(np.asarray(train.labels) == 3)]
    views += [train.select(random.randint(0, len(train), 1 + 3 * n)) for n in range(12)]
    for view in views:
        labels = np.asarray(view.labels)
        classes = np.unique(labels)
        wanted = np.zeros(4)
        wanted[classes] = compute("balanced", classes=classes, y=labels)
        np.testing.assert_allclose(view.class_weights(), wanted, rtol=1e-7)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_views_are_pytorch_datasets(splits: dict[str, Split], kind: str, workers: int) -> None:
    """Each row of a shuffled epoch once, with its label; rows and batches of them."""
    torch = framework("torch")
    view = splits[kind].select(ROWS) + splits[kind].select(slice(100, 130))
    every = np.concatenate([ROWS, np.arange(100, 130)])
    images, labels = splits[kind][every]
    loader = torch.utils.data.DataLoader(
        view.to_torch(batch_size=5, shuffle=True, scaled=False, with_rows=True),
        batch_size=None,
        num_workers=workers,
    )
    seen = []
    for x, y, rows in loader:
        np.testing.assert_array_equal(x.numpy().transpose(0, 2, 3, 1), images[rows])
        np.testing.assert_array_equal(y.numpy(), labels[rows])
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(every))) != seen
    rows = torch.utils.data.DataLoader(view.to_torch(scaled=False), 7, num_workers=workers)
    found = np.concatenate([x.numpy().transpose(0, 2, 3, 1) for x, _ in rows])
    np.testing.assert_array_equal(found, images)


def test_pytorch_takes_mean_deviation_and_weights(splits: dict[str, Split]) -> None:
    """In torchvision's Normalize, a loss, and a sampler, as the page of training says."""
    torch, transforms = framework("torch"), framework("torchvision.transforms.v2")
    view = splits["none"].select(range(20, 120))
    x, y = next(iter(view.to_torch(batch_size=100)))
    normalized = transforms.Normalize(view.mean, view.std)(x)
    np.testing.assert_allclose(normalized.mean((0, 2, 3)).numpy(), 0, atol=1e-5)
    np.testing.assert_allclose(normalized.std((0, 2, 3), correction=0).numpy(), 1, atol=1e-5)
    weights = torch.from_numpy(view.class_weights())
    loss = torch.nn.CrossEntropyLoss(weights)(torch.zeros(100, 2), y)
    assert loss.item() == pytest.approx(np.log(2))
    assert weights[y].sum().item() == pytest.approx(100, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_keras_datasets(splits: dict[str, Split], kind: str) -> None:
    """Batches are those of the rows, and fit takes the class weights as a dict."""
    keras = framework("keras")
    view = splits[kind].select(ROWS)
    data = view.to_keras(5)
    images, labels = splits[kind][ROWS]
    for number in range(len(data)):
        part = slice(5 * number, 5 * number + 5)
        np.testing.assert_array_equal(data[number][0], images[part] * np.float32(1 / 255))
        np.testing.assert_array_equal(data[number][1], labels[part])
    mean = keras.layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input(SHAPE), mean, keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    weights = dict(enumerate(view.class_weights()))
    keras.utils.set_random_seed(1)
    start = model.get_weights()
    model.fit(view.to_keras(12), class_weight=weights, shuffle=False, verbose=0)
    fitted = model.get_weights()
    model.set_weights(start)
    rows = np.asarray(labels)
    model.fit(
        images * np.float32(1 / 255), rows.astype("float32"), 12,
        sample_weight=view.class_weights()[rows], shuffle=False, verbose=0,
    )  # fmt: skip
    for one, other in zip(fitted, model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_hugging_face_datasets(
    splits: dict[str, Split], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each view has its rows, though Hugging Face caches what it has seen."""
    datasets = framework("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    datasets.disable_progress_bars()
    split = splits[kind]
    fingerprints = set()
    for rows in (ROWS, ROWS[::-1], np.arange(40, 60), np.arange(41, 61)):
        data = split.select(rows).to_hf()
        np.testing.assert_array_equal(data[:]["image"], split.images[rows])
        assert list(data[:]["path"]) == split.paths[rows]
        fingerprints.add(data._fingerprint)
    assert len(fingerprints) == 4
    joined = (split.select([1, 2]) + split.select([9])).to_hf()
    assert joined[2]["path"] == split.paths[9]


def test_adjacent_rows_of_hugging_face_copy_nothing(splits: dict[str, Split]) -> None:
    """The values that Arrow has are the bytes of the mapped file."""
    framework("datasets")
    split = splits["none"]
    chunk = split.select(slice(30, 90)).to_hf().data.column("image").chunk(0)
    values = chunk.storage.flatten().flatten().flatten()
    assert isinstance(split.images, np.memmap)
    assert values.buffers()[1].address == split.images[30:].ctypes.data
