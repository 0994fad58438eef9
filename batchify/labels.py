"""Class indices to the labels of a class mode."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def encode_labels(
    indices: NDArray[np.int32], class_mode: str, n_classes: int
) -> NDArray[np.int64] | NDArray[np.float32]:
    """Return class indices as labels of a class mode, as the file stores them.

    Returns
    -------
    ndarray of int64, shape (n,), or of float32, shape (n, n_classes)
        Sparse and binary: the index; categorical: one-hot.
    """
    if class_mode != "categorical":
        return indices.astype("<i8")
    one_hot = np.zeros((len(indices), n_classes), "<f4")
    one_hot[np.arange(len(indices)), indices] = 1
    return one_hot
