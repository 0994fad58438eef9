"""Reads a report as a browser would: its tables, its text, and every element."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "wbr"}


@dataclass
class Page:
    """What is in a page.

    Parameters
    ----------
    text : str
        Of the body, spaces folded.
    tables : dict of str to list of rows
        By their label; the first row is the head.
    elements : list of (str, dict)
        Tag and attributes, in order.
    """

    text: str = ""
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def all(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of all elements of a tag."""
        return [attributes for name, attributes in self.elements if name == tag]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self.open: list[str] = []
        self.region = ""
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs), "an attribute twice"
        self.page.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if attributes.get("role") == "region":
            self.region = attributes["aria-label"]
        if tag == "table":
            assert self.region not in self.page.tables, "two tables of one label"
            self.page.tables[self.region] = []
        elif tag == "tr":
            self.page.tables[self.region].append([])
        elif tag in ("th", "td"):
            self.page.tables[self.region][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} is closed out of turn"

    def handle_data(self, data: str) -> None:
        if "style" in self.open or "title" in self.open:
            return
        self.words.append(data)
        if "table" in self.open and ("th" in self.open or "td" in self.open):
            self.page.tables[self.region][-1][-1] += data


def read_page(path: Path) -> Page:
    """Return what is in a page; it must be well formed."""
    return parse(path.read_text("utf-8"))


def parse(html: str) -> Page:
    """Return what is in the HTML of a page; every element in it must be closed."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    reader.page.text = " ".join(" ".join(reader.words).split())
    return reader.page
