"""Plan the rows and columns of one split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchify.datasets.dataset import Dataset
from batchify.format import schema
from batchify.format.schema import SplitShape
from batchify.options import BuildOptions
from batchify.planning.policies import Indices


@dataclass(frozen=True, eq=False)
class SplitPlan(SplitShape):
    """The rows of one split.

    Parameters
    ----------
    rows : ndarray of int32, shape (N,)
        Sample index of each row, in file order.
    """

    rows: Indices

    def __len__(self) -> int:
        return len(self.rows)


def split_class_mode(split: str, dataset: Dataset, options: BuildOptions) -> str:
    """Return the class mode of a split: ``none`` if only this split has no labels."""
    return "none" if split in dataset.unlabelled else options.store.class_mode


def split_plan(name: str, rows: Indices, dataset: Dataset, options: BuildOptions) -> SplitPlan:
    """Return the plan of one split, given the sample of each row."""
    masks = dataset.annotations.masks
    columns = schema.split_columns(
        len(rows),
        options.decode.image_shape,
        options.store.dtype,
        split_class_mode(name, dataset, options),
        len(dataset.classes),
        dataset.samples.path_nbytes,
        _encoded_nbytes(rows, dataset, options),
        store=options.store.store,
        slots=options.store.is_reencoded,
        appearance=options.store.appearance,
        weights=dataset.annotations.weights is not None,
        label_path_nbytes=masks.width if masks is not None else 1,
        kept=[(column.name, column.dtype) for column in dataset.annotations.kept],
    )
    return SplitPlan(name, columns, rows)


def _encoded_nbytes(rows: Indices, dataset: Dataset, options: BuildOptions) -> int | None:
    """Return the bytes of the encoded images of some rows: the most, if that is not known yet."""
    if options.store.is_reencoded:
        return len(rows) * options.slot_nbytes
    return int(file_sizes(dataset)[rows].sum()) if options.store.keeps_files else None


def file_sizes(dataset: Dataset) -> NDArray[np.int64]:
    """Return the size of the file of each sample, which builds that store files look up."""
    if dataset.samples.sizes is None:
        raise ValueError(
            "the sizes of the files are not known; see batchify.planning.planner.with_file_sizes"
        )
    return dataset.samples.sizes
