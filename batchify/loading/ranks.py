"""Which rows each rank trains on, where several processes train together.

All ranks agree on the order of an epoch, and share its rows step by step: a step of W ranks is the
next ``batch_size * W`` rows, and each rank gets a part of them. So with the same global batch size
the rows of a step do not depend on the number of ranks.
"""

from __future__ import annotations

import numpy as np

from batchify.choices import check_at_least
from batchify.common.text import plural
from batchify.errors import OptionError
from batchify.loading.indexing import Rows


def check_ranks(rank: int, world_size: int) -> None:
    """Refuse a rank that is not one of 0 to ``world_size - 1``."""
    check_at_least("world size", world_size, 1)
    check_at_least("rank", rank, 0)
    if rank >= world_size:
        raise OptionError(
            f"rank must be below the world size, {world_size}, not {rank}: ranks count from 0"
        )


def step_ends(
    rows: int, batch_size: int, world_size: int = 1, *, drop_last: bool = False, start: int = 0
) -> Rows:
    """Return the positions in an epoch's order where its steps end.

    The rows after the last full step are one more step, dealt evenly. If there are fewer of them
    than ranks, they go to the step before, so that no rank has an empty batch.

    Parameters
    ----------
    rows : int
        Rows in an epoch.
    batch_size : int
        Rows of a full batch of one rank.
    drop_last : bool
        Drop the rows after the last full step.
    start : int
        Position at which the epoch is resumed.

    Returns
    -------
    ndarray of intp, shape (S + 1,)
        `start`, and the end of each of the S steps.

    Raises
    ------
    OptionError
        If rows are left, but too few for all ranks.
    """
    full, rest = divmod(rows - start, batch_size * world_size)
    ends = start + batch_size * world_size * np.arange(full + 1, dtype=np.intp)
    if drop_last or not rest:
        return ends
    if rest >= world_size:
        return np.append(ends, rows)
    if not full:
        raise _too_few(rows, rest, world_size)
    ends[-1] = rows
    return ends


def _too_few(rows: int, rest: int, world_size: int) -> OptionError:
    if rest == rows:
        return OptionError(
            f"{plural(rows, 'row')} cannot be shared by {world_size} ranks: each needs one at least"
        )
    return OptionError(
        f"{plural(rest, 'row')} left in this epoch cannot be shared by {world_size} ranks; resume "
        "with fewer ranks, or with the next epoch (batches.epoch)"
    )


def shares(order: Rows, ends: Rows, rank: int, world_size: int) -> list[Rows]:
    """Return the rows of each step that a rank gets; those of two ranks differ by one at most.

    Parameters
    ----------
    order : ndarray of intp, shape (N,)
        The row numbers of an epoch.
    ends : ndarray of intp, shape (S + 1,)
        Where steps end; see `step_ends`.
    """
    sizes = np.diff(ends)
    firsts = ends[:-1] + sizes * rank // world_size
    stops = ends[:-1] + sizes * (rank + 1) // world_size
    return [order[first:stop] for first, stop in zip(firsts.tolist(), stops.tolist(), strict=True)]


def largest_share(rows: int, batch_size: int, world_size: int) -> int:
    """Return the most rows that a rank gets in a step, wherever an epoch is resumed."""
    return min(batch_size + (world_size > 1), -(-rows // world_size))
