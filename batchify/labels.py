"""Class indices, and what a manifest says, to the labels of a class mode."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchify.dataset import Dataset


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


def known_labels(dataset: Dataset, rows: NDArray[np.int32], class_mode: str) -> NDArray[Any] | None:
    """Return the labels of some samples, as the file stores them; None for those of no label.

    Masks, which are read as images are, are not known either.

    Parameters
    ----------
    dataset : Dataset
    rows : ndarray of int32
        Sample indices.
    class_mode : str
    """
    if class_mode in ("none", "mask"):
        return None
    values = dataset.annotations.values
    if values is None:
        return encode_labels(dataset.samples.labels[rows], class_mode, len(dataset.classes))
    found = values[rows].astype("<f4", copy=False)
    is_single = class_mode == "regression" and found.shape[1] == 1
    return found[:, 0].copy() if is_single else found
