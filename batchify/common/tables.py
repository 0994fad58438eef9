"""Tables of text, as reports have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batchify.common.text import columns_of, printable


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return rows as aligned columns, those numbered in `right` flush right."""
    widths = [max(map(columns_of, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        spaces = [" " * (width - columns_of(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [
            space + cell if i in right else cell + space
            for i, (cell, space) in enumerate(zip(row, spaces, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


MOST_CLASSES = 20
"""If there are more classes, only the largest and the smallest are shown."""

_ENDS = 8
_BAR_WIDTH = 20


def class_table(
    what: str, names: Sequence[bytes], counts: Mapping[str, Sequence[int]], *, show_all: bool
) -> str:
    """Return a table with the counts and a bar of each class, or label column.

    Parameters
    ----------
    what : str
        ``class`` or ``label``.
    counts : Mapping of str to sequence of int
        The images of each class, by split.
    show_all : bool
        Show every class, in the order of the labels, however many there are.
    """
    totals = [sum(of_splits) for of_splits in zip(*counts.values(), strict=True)]
    most = max([*totals, 1])

    def row(index: int) -> list[str]:
        bar = "█" * -(-totals[index] * _BAR_WIDTH // most)
        numbers = [f"{of_split[index]:,}" for of_split in counts.values()]
        return [f"  {index}", printable(names[index]), *numbers, bar]

    rows = [["", what, *counts, ""]]
    if show_all or len(names) <= MOST_CLASSES:
        rows += map(row, range(len(names)))
    else:
        order = sorted(range(len(names)), key=lambda index: -totals[index])
        others = order[_ENDS:-_ENDS]
        sums = [f"{sum(of_split[i] for i in others):,}" for of_split in counts.values()]
        each = dict.fromkeys(f"{totals[index]:,}" for index in (others[-1], others[0]))
        rows += map(row, order[:_ENDS])
        rows.append(["  …", f"{len(others):,} more, {' to '.join(each)} each", *sums, ""])
        rows += map(row, order[-_ENDS:])
    return table(rows, right=(0, *range(2, 2 + len(counts))))
