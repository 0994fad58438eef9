"""Writes what is known of the rows before an image is decoded: labels, paths, places of bytes."""

from __future__ import annotations

import numpy as np

from batchify import schema
from batchify.labels import known_labels
from batchify.plan import PATHS_AT_ONCE, BuildPlan, SplitPlan
from batchify.rows import RowWriter
from batchify.structure import raw, text_dtype


def write_known(writer: RowWriter, plan: BuildPlan) -> None:
    """Write labels and paths of all rows, and where their bytes will be, into an allocated file.

    Raises
    ------
    OutputIOError
    """
    for split in plan.splits:
        _write_split(writer, split, plan)
        if plan.options.store.is_encoded:
            _write_extents(writer, split, plan)


def _write_extents(writer: RowWriter, split: SplitPlan, plan: BuildPlan) -> None:
    """Write where the bytes of each row will be, one after another."""
    end = 0
    for start in range(0, len(split), PATHS_AT_ONCE):
        sizes = plan.file_sizes(split, start, start + PATHS_AT_ONCE)
        ends = end + sizes.cumsum()
        extents = np.stack([ends - sizes, sizes], axis=1).astype("<i8")
        writer.put(split.name, start, {"image_extents": extents})
        end = int(ends[-1])


def _write_split(writer: RowWriter, split: SplitPlan, plan: BuildPlan) -> None:
    """Write labels, weights and paths, some thousand rows at a time."""
    samples, annotations = plan.dataset.samples, plan.dataset.annotations
    mode = plan.options.store.class_mode
    label_nbytes = max((c.row_nbytes for c in split.columns if c.name == "labels"), default=1)
    at_once = max(1, min(PATHS_AT_ONCE, schema.PIECE_NBYTES // label_nbytes))
    dtype = text_dtype(samples.path_nbytes)
    for start in range(0, len(split), at_once):
        rows = split.rows[start : start + at_once]
        paths = np.array(samples.paths(rows), dtype)
        writer.put(split.name, start, {"paths": raw(paths)})
        if (labels := known_labels(plan.dataset, rows, mode)) is not None:
            writer.put(split.name, start, {"labels": labels})
        if annotations.weights is not None:
            weights = annotations.weights[rows].astype("<f4", copy=False)
            writer.put(split.name, start, {"weights": weights})
        if annotations.masks is not None:
            masks = np.array(annotations.masks.paths(rows), text_dtype(annotations.masks.width))
            writer.put(split.name, start, {"label_paths": raw(masks)})
