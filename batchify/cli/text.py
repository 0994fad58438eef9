"""Numbers and tables for people."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return rows as aligned columns; those numbered in `right` end at the same place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def echo(text: str) -> None:
    """Print to stdout, with what its encoding lacks replaced (a Windows pipe may be cp1252)."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        for fancy, plain in (("█", "#"), ("×", "x"), ("…", "...")):
            text = text.replace(fancy, plain)
        text = text.encode(encoding, "replace").decode(encoding)
    click.echo(text)
