"""Build HTML elements, in which all text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from batchify.common.text import printable


class Html(str):
    """Text that is already HTML; functions here escape all other text."""

    __slots__ = ()


NAME_LENGTH = 80
"""The most characters of a class name that are shown; of longer ones, both ends."""

PATH_LENGTH = 120


def escape(text: str) -> Html:
    """Return HTML that shows a text; `Html` is returned unchanged."""
    return text if isinstance(text, Html) else Html(html.escape(text, quote=True))


def shorten(text: str, length: int) -> str:
    """Return at most `length` characters of a text: both ends of a longer one."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[head + 1 - length :]}"


def named(name: bytes | str, length: int = NAME_LENGTH) -> Html:
    """Return a name from a file, on one line, isolated from the text direction around it."""
    text = shorten(printable(name), length)
    return tag("bdi", text if text.strip() else f"'{text}'")


def captioned(name: bytes, length: int) -> Html:
    """Return the name of a file as `named`, with a line break allowed before its extension."""
    stem, dot, extension = shorten(printable(name), length).rpartition(".")
    content = (stem, Html("<wbr>" if stem else ""), dot + extension)
    return tag("bdi", *content, dir="ltr")  # or folders with right-to-left names would swap


def join(parts: Iterable[str], between: str = "") -> Html:
    """Return the parts one after another, with literal HTML between them."""
    return Html(between.join(map(escape, parts)))


def tag(_name: str, *content: str, **attributes: str) -> Html:
    """Return an element.

    Parameters
    ----------
    *content : str
        Escaped here, unless it is `Html`.
    **attributes : str
        Escaped here. ``class_`` is class, ``aria_label`` is aria-label. Empty ones are omitted,
        except ``alt``: an empty one says that the image is decoration.
    """
    return Html(f"{_opening(_name, attributes)}{join(content)}</{_name}>")


def void(_name: str, **attributes: str) -> Html:
    """Return an element without content, such as an image; attributes as in `tag`."""
    return Html(_opening(_name, attributes))


def _opening(name: str, attributes: dict[str, str]) -> str:
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
        if value or key == "alt"
    )
    return f"<{name}{given}>"


def paragraph(text: str, class_: str = "") -> Html:
    """Return a paragraph."""
    return tag("p", text, class_=class_)


def split_tag(name: str) -> Html:
    """Return the name of a split, in its color."""
    return tag("span", name, class_=f"split {name}")


def bar(value: float, most: float, class_: str = "") -> Html:
    """Return a bar whose length is the share of `value` in `most`; show the number next to it.

    Attributes draw it, since the page's policy allows no styles but those of its style sheet.
    """
    percent = 100 * value / most if most else 0
    if value:
        percent = max(percent, 0.7)  # or it would be invisible
    length = tag("rect", width=f"{percent:.4g}%", height="100%")
    return tag("svg", length, class_=f"bar {class_}".strip(), aria_hidden="true")


def table(
    label: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
    class_: str = "",
) -> Html:
    """Return a table that scrolls within itself, also by keyboard, if it is wider than the page.

    Parameters
    ----------
    label : str
        What it shows, for screen readers.
    rows : sequence of sequences of str
        Each as long as the head; the first cell names the row.
    numbers : sequence of int
        Columns that are aligned to the right.
    """
    aligned = ["num" if i in numbers else "" for i in range(len(head))]
    heads = [
        tag("th", text, scope="col", class_=each) for text, each in zip(head, aligned, strict=True)
    ]
    body = []
    for row in rows:
        cells = [tag("th", row[0], scope="row", class_=aligned[0])]
        cells += [
            tag("td", cell, class_=each) for cell, each in zip(row[1:], aligned[1:], strict=True)
        ]
        body.append(tag("tr", *cells))
    whole = tag(
        "table", tag("thead", tag("tr", *heads)), tag("tbody", join(body, "\n")), class_=class_
    )
    return tag("div", whole, class_="scroll", role="region", aria_label=label, tabindex="0")


def code(text: str) -> Html:
    """Return text to copy."""
    return tag("pre", tag("code", text))


def folded(title: str, content: str) -> Html:
    """Return content that is shown when the reader opens its title."""
    return tag("details", tag("summary", title), content)
