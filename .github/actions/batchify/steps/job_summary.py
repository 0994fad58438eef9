"""Render the job summary: Markdown that no name can break, within GitHub's size limit."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LIMIT = 1024 * 1024
"""Bytes of the summary of a step; GitHub shows none of a longer one:
https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#step-isolation-and-limits
"""
BUDGETS = {"findings": 250_000, "classes": 400_000, "skipped": 150_000}
"""Bytes of each table that grows with the dataset; all else is a few lines of bounded length."""
TEXT_CHARS = 300
LONG_CHARS = 1000
LOG_CHARS = 20_000
NOTE_NBYTES = 200
OPEN_ROWS = 20
"""Longer tables are folded."""
BAR_WIDTH = 20
EXAMPLES = 3
SEVERITIES = ("error", "warning")


def text(value: object, limit: int = TEXT_CHARS) -> str:
    """Return `value` as Markdown that shows exactly these characters, on one line.

    Every ASCII sign becomes a character reference, which is never markup:
    https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references. Unprintable
    characters are escaped, and an @ does not mention anyone.
    """
    plain = str(value)
    if len(plain) > limit:
        plain = plain[: limit - 1] + "…"
    return "".join(map(_sign, plain))


def _sign(char: str) -> str:
    if not char.isprintable():
        return "".join(f"&#{ord(c)};" if not c.isalnum() else c for c in ascii(char)[1:-1])
    if char == "@":
        return "&#64;<!-- -->"
    return char if char == " " or char.isalnum() or ord(char) > 127 else f"&#{ord(char)};"


def code(value: object, limit: int = TEXT_CHARS) -> str:
    """Return `value` as code within a line or a cell."""
    return f"<code>{text(value, limit)}</code>"


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], count: int, budget: int, more: str
) -> str:
    """Return a table that is cut at a row, with a note, if it would exceed `budget` bytes.

    Parameters
    ----------
    head : sequence of str
        Titles; one that ends in ``:`` is for a column of numbers.
    rows : iterable of sequences of str
        Cells, as Markdown; used as long as there is room.
    count : int
        How many rows there are.
    budget : int
        Bytes of UTF-8.
    more : str
        Where the other rows are.
    """
    titles = " | ".join(title.removesuffix(":") for title in head)
    ruler = " | ".join("---:" if title.endswith(":") else "---" for title in head)
    lines = [f"| {titles} |", f"| {ruler} |"]
    left = budget - sum(map(_nbytes, lines)) - NOTE_NBYTES
    for i, row in enumerate(rows):
        line = f"| {' | '.join(row)} |"
        left -= _nbytes(line)
        if left < 0:
            lines += ["", f"… and {count - i:,} more of {count:,}: {more}"]
            break
        lines.append(line)
    return "\n".join(lines)


def _nbytes(line: str) -> int:
    return len(line.encode()) + 1


def render(
    *,
    output: str,
    facts: Sequence[str],
    failure: str,
    inspected: Mapping[str, Any] | None,
    checked: Mapping[str, Any] | None,
    artifact_url: str,
) -> str:
    """Return the summary, of fewer than `LIMIT` bytes.

    Parameters
    ----------
    output : str
        The file.
    facts : sequence of str
        Parts of the first line, as Markdown.
    failure : str
        The output of a command that failed, or empty.
    inspected, checked : Mapping or None
        JSON of ``batchify inspect`` and ``batchify check``.
    artifact_url : str
        Where to download sheet and report, or empty.
    """
    others = "in the artifact" if artifact_url else "`batchify inspect --json` lists all"
    parts = [f"### batchify: {code(output)}", " · ".join(facts)]
    if artifact_url:
        parts.append(f'<a href="{html.escape(artifact_url)}">Download sheet and report</a>')
    if failure:
        log = html.escape(failure[-LOG_CHARS:]).replace("@", "@<!-- -->")
        parts.append(f"#### ❌ Failed\n\n<pre>{log}</pre>")
    if checked is not None:
        parts.append(_findings(checked, others))
    if inspected is not None:
        parts += _content(inspected, others)
    whole = "\n\n".join(parts) + "\n"
    # Each part is bounded; this is a safeguard against a mistake in one of them.
    cut = whole.encode("utf-8", "replace")[: LIMIT - 1]
    return cut.decode("utf-8", "ignore")


def _findings(checked: Mapping[str, Any], others: str) -> str:
    found = sorted(
        checked["findings"],
        key=lambda each: (
            bool(each.get("ignored")),
            SEVERITIES.index(each["severity"]) if each["severity"] in SEVERITIES else 9,
        ),
    )
    if not found:
        return "#### ✅ Check\n\nNothing was found."
    head = ["severity", "code", "count:", "finding", "what to do"]
    rows = map(_finding, found)
    title = "✅ Check" if checked.get("ok") else "❌ Check"
    return f"#### {title}\n\n{table(head, rows, len(found), BUDGETS['findings'], others)}"


def _finding(found: Mapping[str, Any]) -> list[str]:
    severity = "ignored" if found.get("ignored") else found["severity"]
    mark = {"error": "❌", "warning": "⚠️"}.get(severity, "➖")
    examples = map(_example, found.get("examples", [])[:EXAMPLES])
    return [
        f"{mark} {text(severity)}",
        code(found["code"]),
        f"{found['count']:,}" if isinstance(found.get("count"), int) else "",
        "<br>".join([text(found["message"], LONG_CHARS), *map(code, examples)]),
        text(found["advice"], LONG_CHARS),
    ]


def _example(example: object) -> str:
    if not isinstance(example, Mapping):
        return str(example)
    where, message = example.get("path") or example.get("split"), example.get("message", "")
    return f"{where}: {message}" if where else str(message)


def _content(inspected: Mapping[str, Any], others: str) -> list[str]:
    splits = inspected["splits"]
    rows = []
    for name, split in splits.items():
        size = "×".join(str(side) for side in split["shape"][1:])
        cells = [code(name), f"{split['rows']:,}", size, text(split["dtype"])]
        for constants in (split.get("mean"), split.get("std")):
            numbers = ", ".join(f"{float(number):.4f}" for number in constants or ())
            cells.append(f"<code>{numbers}</code>" if numbers else "")
        rows.append([*cells, size_text(split["bytes"])])
    head = ["split", "rows:", "image", "dtype", "mean", "standard deviation", "bytes:"]
    parts = [
        f"#### Splits\n\n{table(head, rows, len(rows), 20_000, others)}",
        _classes(inspected, others),
    ]
    if skipped := inspected["skipped"]:
        listed = table(
            ["path", "reason"],
            ([code(each["path"]), text(each["reason"])] for each in skipped),
            len(skipped),
            BUDGETS["skipped"],
            others,
        )
        parts.append(f"#### Skipped: {len(skipped):,}\n\n{folded(listed, len(skipped))}")
    return parts


def _classes(inspected: Mapping[str, Any], others: str) -> str:
    names, splits = inspected["classes"], inspected["splits"]
    title = f"#### Classes: {len(names):,}"
    counts = {name: split["class_counts"] for name, split in splits.items()}
    if any(each is None for each in counts.values()):
        return f"{title}\n\nNo labels are stored."
    totals = [sum(each[i] for each in counts.values()) for i in range(len(names))]
    most, whole = max(totals, default=0), sum(totals)

    def cells(i: int, name: str) -> list[str]:
        numbers = [f"{each[i]:,}" for each in counts.values()]
        bar = "█" * round(BAR_WIDTH * totals[i] / most) if most else ""
        share = f"{totals[i] / whole:.1%}" if whole else ""
        return [str(i), code(name), *numbers, share, bar]

    head = [":", "class", *(f"{code(name)}:" for name in splits), "share:", "balance"]
    rows = (cells(i, name) for i, name in enumerate(names))
    listed = table(head, rows, len(names), BUDGETS["classes"], others)
    return f"{title}\n\n{folded(listed, len(names))}"


def folded(block: str, rows: int) -> str:
    """Return a table, folded if it is long."""
    if rows <= OPEN_ROWS:
        return block
    return f"<details><summary>{rows:,} rows</summary>\n\n{block}\n\n</details>"


def size_text(nbytes: float) -> str:
    """Return a number of bytes for people, in decimal units."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:,.0f} {unit}" if unit == "bytes" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:,.1f} TB"
