"""Splits in TensorFlow: what scripts/test --tensorflow runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.frameworks import SHAPE, framework, make_splits

from batchify.loading.split import Split

tf = framework("tensorflow")
pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    """Build a mapped and a compressed split."""
    return make_splits(tmp_path_factory.mktemp("tensorflow"))


@pytest.mark.parametrize("kind", ["none", "gzip", "encoded"])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("with_rows", [True, False])
def test_batches_have_a_signature(
    splits: dict[str, Split], kind: str, scaled: bool, drop_last: bool, with_rows: bool
) -> None:
    """And are those of the split, each iteration an epoch."""
    split = splits[kind]
    given: Any = {"seed": 2, "scaled": scaled, "drop_last": drop_last, "with_rows": with_rows}
    data = split.to_tf(8, shuffle=True, **given)
    x, y, *rows = data.element_spec
    size = 8 if drop_last else None
    assert (x.shape.as_list(), y.shape.as_list()) == ([size, *SHAPE], [size])
    assert [(spec.shape.as_list(), spec.dtype) for spec in rows] == [([size], tf.int64)] * with_rows
    dtypes = (tf.float32, tf.float32) if scaled else (tf.uint8, tf.int64)
    assert (x.dtype, y.dtype) == dtypes
    assert int(data.cardinality()) == (18 if drop_last else 19)
    batches = split.batches(8, shuffle=True, **given)
    for _ in range(2):
        for mine, theirs in zip(data, batches, strict=True):
            for one, other in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(one.numpy(), other)


@pytest.mark.parametrize("kind", ["none", "gzip", "encoded"])
def test_a_model_learns(splits: dict[str, Split], kind: str) -> None:
    """Bright from dark, within a few epochs."""
    weights = tf.Variable(tf.zeros((3, 2)))
    bias = tf.Variable(tf.zeros(2))
    losses = []
    for _ in range(4):
        for x, y in splits[kind].to_tf(10, shuffle=True):
            with tf.GradientTape() as tape:
                logits = (tf.reduce_mean(x, (1, 2)) - 0.5) @ weights + bias
                each = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(y, tf.int64), logits)
                loss = tf.reduce_mean(each)
            for variable, gradient in zip(
                (weights, bias), tape.gradient(loss, (weights, bias)), strict=True
            ):
                variable.assign_sub(5 * gradient)
            losses.append(float(loss))
    assert np.mean(losses[-5:]) < 0.3 < losses[0]


@pytest.mark.parametrize("kind", ["none", "gzip", "encoded"])
def test_views_are_tensorflow_datasets(splits: dict[str, Split], kind: str) -> None:
    """Of their rows, in their order."""
    rows = [9, 3, 140, 3, 60, 61]
    images, labels = splits[kind][rows]
    found = list(splits[kind].select(rows).to_tf(4, scaled=False))
    np.testing.assert_array_equal(np.concatenate([x.numpy() for x, _ in found]), images)
    np.testing.assert_array_equal(np.concatenate([y.numpy() for _, y in found]), labels)
