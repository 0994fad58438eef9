"""What Keras-Preprocessing 1.1.2 yields, for the tests to compare with."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from keras_preprocessing.image import ImageDataGenerator, affine_transformations
from numpy.typing import NDArray

# It refuses to run without SciPy, which it needs for rotations and shears alone.
affine_transformations.scipy = affine_transformations.scipy or affine_transformations


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what is not under test: it prints, and Pillow warns of transparent palettes."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def generator(
    directory: Path,
    subset: str | None,
    *,
    validation: float = 0.2,
    preprocess: Callable[[Any], Any] | None = None,
    **flow: Any,
) -> Any:
    """Return the generator of a subset, as the tutorial makes it."""
    with _quiet():
        images = ImageDataGenerator(
            rescale=1 / 255, validation_split=validation, preprocessing_function=preprocess
        )
        defaults: dict[str, Any] = {
            "target_size": (150, 150), "batch_size": 33, "class_mode": "sparse", "seed": 0,
        }  # fmt: skip
        return images.flow_from_directory(str(directory), subset=subset, **{**defaults, **flow})


def batch(keras: Any, number: int | None = None) -> Any:
    """Return the next batch, or a batch of the current epoch."""
    with _quiet():
        return next(keras) if number is None else keras[number]


def epoch(keras: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the images and labels of an epoch, appended as the tutorial does."""
    batches = [batch(keras) for _ in range(len(keras))]
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])
