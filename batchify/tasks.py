"""The rows of a plan: cut into tasks for the workers, and counted when they are filled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from batchify import schema
from batchify.fill import FillTask
from batchify.plan import PATHS_AT_ONCE, BuildPlan, SplitPlan
from batchify.resume import Masks, runs
from batchify.rows import RowReader

TASK_NBYTES = 8 << 20
TASK_ROWS = 512
"""Rows that go to a worker at once: small images several batches, large ones a single batch."""


def task_rows(plan: BuildPlan) -> int:
    """Return how many rows a task has: whole batches, about 8 MiB, and a 64th of all at most.

    The last bound is for large photos that become small rows.
    """
    rows = min(TASK_ROWS, TASK_NBYTES // plan.row_nbytes, plan.images // 64)
    return plan.options.batch_size * max(1, rows // plan.options.batch_size)


def count_rows(masks: Masks) -> int:
    """Return how many rows are marked."""
    return sum(int(mask.sum()) for mask in masks.values())


def count_tasks(plan: BuildPlan, wanted: Masks) -> int:
    """Return how many tasks some rows of a plan make."""
    return sum(1 for _ in _pieces(plan, wanted))


def fill_tasks(plan: BuildPlan, wanted: Masks) -> Iterator[FillTask]:
    """Yield the tasks of some rows of a plan, in the order of the file."""
    for split, start, stop in _pieces(plan, wanted):
        rows = split.rows[start:stop]
        dataset = plan.dataset
        yield FillTask(
            split.name, start, dataset.samples.files(rows), dataset.annotations.mask_files(rows)
        )


def _pieces(plan: BuildPlan, wanted: Masks) -> Iterator[tuple[SplitPlan, int, int]]:
    """Yield runs of wanted rows, none longer than a task."""
    splits = {split.name: split for split in plan.splits}
    for name, start, stop in runs(wanted, task_rows(plan)):
        yield splits[name], start, stop


def count_flags(rows: RowReader, plan: BuildPlan) -> dict[str, int]:
    """Return how many rows of a filled file have each flag of `schema.FLAGS`."""
    counts = dict.fromkeys(schema.FLAGS, 0)
    for split in plan.splits:
        for start in range(0, len(split), PATHS_AT_ONCE):
            stop = min(start + PATHS_AT_ONCE, len(split))
            flags = np.frombuffer(rows.get(split.name, "source_flags", start, stop), "<u2")
            for name in counts:
                counts[name] += int(np.count_nonzero(flags & schema.flag_bit(name)))
    return counts
