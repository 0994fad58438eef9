"""Write the columns that a plan knows: labels, paths, where encoded files go, …."""

from __future__ import annotations

import numpy as np

from batchify.datasets.dataset import PATHS_AT_ONCE, sample_labels
from batchify.format import schema
from batchify.format.rows import RowWriter
from batchify.format.structure import as_bytes, text_dtype
from batchify.planning.plan import BuildPlan
from batchify.planning.split_plan import SplitPlan


def write_planned_columns(writer: RowWriter, plan: BuildPlan) -> None:
    """Write the columns that a plan knows: labels, paths, where encoded files go, …."""
    for split in plan.splits:
        _write_split(writer, split, plan)
        if plan.options.store.keeps_files:
            _write_extents(writer, split, plan)


def _write_extents(writer: RowWriter, split: SplitPlan, plan: BuildPlan) -> None:
    """Write the extent of each row's encoded file; they are contiguous."""
    end = 0
    for start in range(0, len(split), PATHS_AT_ONCE):
        sizes = plan.file_sizes(split, start, start + PATHS_AT_ONCE)
        ends = end + sizes.cumsum()
        extents = np.stack([ends - sizes, sizes], axis=1).astype("<i8")
        writer.put(split.name, start, {"image_extents": extents})
        end = int(ends[-1])


def _write_split(writer: RowWriter, split: SplitPlan, plan: BuildPlan) -> None:
    """Write labels, paths and columns of a table in pieces of some thousand rows."""
    samples, annotations = plan.dataset.samples, plan.dataset.annotations
    mode = plan.options.store.class_mode
    row_nbytes = max(c.row_nbytes for c in split.columns if c.filled_by == "plan")
    at_once = max(1, min(PATHS_AT_ONCE, schema.PIECE_NBYTES // row_nbytes))
    dtype = text_dtype(samples.path_nbytes)
    for start in range(0, len(split), at_once):
        rows = split.rows[start : start + at_once]
        paths = np.array(samples.paths(rows), dtype)
        writer.put(split.name, start, {"paths": as_bytes(paths)})
        if (labels := sample_labels(plan.dataset, rows, mode)) is not None:
            writer.put(split.name, start, {"labels": labels})
        if annotations.weights is not None:
            weights = annotations.weights[rows].astype("<f4", copy=False)
            writer.put(split.name, start, {"weights": weights})
        if annotations.masks is not None:
            masks = np.array(annotations.masks.paths(rows), text_dtype(annotations.masks.width))
            writer.put(split.name, start, {"label_paths": as_bytes(masks)})
        for column in annotations.kept:
            writer.put(split.name, start, {column.name: as_bytes(column.rows(rows))})
