"""The kept columns of a split that is in several files."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from batchify.loading.columns import KeptColumns, joined_rows

PARTS = [np.array([b"a", b"\xc3\xa9"]), np.array([], "S1"), np.array([b"ccc"]), np.array([b"d"])]
TEXTS = ["a", "é", "ccc", "d"]


@pytest.mark.parametrize("selected", [None, range(1, 4), np.array([3, 0, 1]), np.arange(0)])
def test_some_rows_are_those_of_the_whole_column(
    selected: range | NDArray[np.int64] | None,
) -> None:
    """From one file or several, none included."""
    numbers = [np.arange(len(part)) + 10 * i for i, part in enumerate(PARTS)]
    columns = KeptColumns({"text": PARTS, "number": numbers}, selected)
    chosen = np.arange(4)[slice(None) if selected is None else np.asarray(selected)]
    for start in range(len(chosen) + 1):
        for stop in range(start, len(chosen) + 1):
            expected = [TEXTS[row] for row in chosen[start:stop]]
            assert columns.rows("text", start, stop).tolist() == expected
            found = columns.rows("number", start, stop)
            assert found.tolist() == columns["number"][start:stop].tolist()
            assert found.dtype == np.int64


def test_adjacent_rows_of_one_of_several_files_are_not_copied() -> None:
    """They are rows of the mapped column; rows of two files are copied."""
    parts = [np.arange(5), np.arange(5, 9)]
    assert np.shares_memory(joined_rows(parts, range(6, 9)), parts[1])
    assert not np.shares_memory(joined_rows(parts, range(4, 6)), parts[0])
    assert joined_rows(parts, range(4, 6)).tolist() == [4, 5]
