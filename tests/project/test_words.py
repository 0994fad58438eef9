"""Texts are in plain English: no phrase that a reader has to read twice, one word for one thing."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]

BANNED = {
    # What nobody says, and what to say.
    r"\banew\b|\bafresh\b": "again, from scratch",
    r"\bbeside\b": "next to, in addition to",
    r"\bthe very\b": "the same, this",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\blearnt\b": "learned",
    r"\bcrew\b": "workers",
    r"\bwhoever\b|\bnobody\b": "the caller, the reader, no one",
    r"\bparted by\b": "separated by",
    r"\bh(o|e)ld(s|ing)? \w+ against\b|\bheld against\b": "compare with",
    r"\blet(s|ting)? go of\b": "close, release",
    r"\bl(ies|ay|ain)\b": "is",
    r"\bstands?\b(?! for\b)|\bstood\b(?!\")": "is up to date",
    r"\bis due\b": "is out of date",
    r"\b(leave|leaves|leaving|left) ([\w-]+ )?out\b": "remove, skip, ignore, drop",
    r"\bgives up on\b|\bgive (it|an image) up\b": "skip, time out",
    r"\bgoes on\b": "continues",
    r"\bin hand\b": "in progress",
    r"\bfiles' own bytes\b": "the image files",
    r"\blacks? (its|their) end\b": "is incomplete",
    r"\b(is|are|was|were) of (a|an|the|one|no|that)\b": "belongs to, has, comes from",
    r"\bis another\b(?= *($|[.,;:]))": "has changed, does not match",
    r"\b(has|have) not\b(?! (\w+ed|\w+en|been|begun|yet|come|run|read|had)\b)": "does not have",
    r"(^|[.:;!?] )Of (?!course\b)": "turn the sentence round",
    r"\bWhere [A-Z]+ (is|are|was)\b": "If … is",
    r"\bat one batch of memory\b": "using one batch of memory",
    r"\bwhole or not at all\b": "only when it is complete",
    r"\bcannot be meant\b": "is not valid",
    r"\bcannot be used\b": "failed",
    r"\btold apart\b|\btell \w+ apart\b": "distinguished",
    r"\bis not a text\b": "is not a string",
    r"\bthe one file\b": "the single file",
    r"\bdoes not tell\b|\bis told\b|\bare told\b|\btold of\b": "report",
    r"(?<![\d.,])\b1 (class|imag|row|file|shard|split|folder|warning|error)e?s\b": "singular",
    r"\ban? (object|line|name|row) an? (line|row|split|class|shard)\b": "one … per …",
    # American spelling, as the names of options and functions have it.
    r"(?i)\b(colou|grey|centre|behaviou|neighbou|favou|honou|licence|catalogue(?!<))": "US",
    r"(?i)\b(normali|recogni|initiali|seriali|summari|optimi|organi|minimi|maximi)s(e|ing)": "-ize",
    r"(?i)(?<!un)(?<!_)labelled\b": "US: labeled; unlabelled is an option",
    # One word for one thing.
    r"(?i)\bmanifests? (of|that lists) (the )?shards\b|\bshard manifest\b": "shard index",
    r"(?i)\b(bad|failed|damaged) images? (is|are|was|were) ignored\b": "skipped",
    r"(?i)\b(hidden|system) files? (is|are|was|were) skipped\b": "ignored",
}
"""Regular expressions, and what to write instead."""

TEXTS = [
    TOP / "README.md",
    TOP / "CHANGELOG.md",
    *sorted((TOP / ".github").rglob("*.md")),
    *sorted((TOP / ".github").rglob("*.yml")),
    *sorted((TOP / "batchify" / "docs").glob("*.md")),
    *sorted((TOP / "scripts" / "docs_site").glob("*.md")),
    *sorted(
        path
        for path in (TOP / "scripts").iterdir()
        if path.is_file() and path.suffix in ("", ".sh")
    ),
]
CODE = sorted(
    path for name in ("batchify", "scripts", ".github") for path in (TOP / name).rglob("*.py")
)


def paragraphs(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each paragraph, list item and row of a table; comments without #."""
    start, lines = 1, list[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        bare = re.sub(r"^\s*# ?", "", line) if path.suffix != ".md" else line
        if lines and (not bare.strip() or re.match(r"\s*([-*|#]|\d+\.) ?", bare)):
            yield start, " ".join(lines)
            start, lines = number, []
        lines.append(re.sub(r"^\s*[-*|#]+ ", "", bare))
    yield start, " ".join(lines)


def strings_and_comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of what a module says: docstrings, other strings, blocks of comments."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    block: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if block and token.start[0] != block[-1].start[0] + 1:
                yield block[0].start[0], " ".join(each.string.lstrip("# ") for each in block)
                block = []
            block.append(token)
    if block:
        yield block[0].start[0], " ".join(each.string.lstrip("# ") for each in block)


def hits(texts: Iterator[tuple[int, str]]) -> list[str]:
    """Return the banned phrases of some texts, each with its line and what to say."""
    found = []
    for line, text in texts:
        flat = re.sub(r"\s+", " ", re.sub(r"\n\n\s*", ". ", text)).strip()
        for phrase, better in BANNED.items():
            for match in re.finditer(phrase, flat):
                shown = flat[max(0, match.start() - 30) : match.end() + 20]
                found.append(f"line {line}: …{shown}…: {better}")
    return found


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(TOP).as_posix())
def test_pages_are_in_plain_english(path: Path) -> None:
    """README, documentation, changelog, and the comments of scripts and workflows."""
    assert hits(paragraphs(path)) == []


@pytest.mark.parametrize("package", sorted({path.parent for path in CODE}), ids=lambda p: p.name)
def test_code_speaks_plain_english(package: Path) -> None:
    """Docstrings, comments, messages and helps."""
    found = {path.name: hits(strings_and_comments(path)) for path in CODE if path.parent == package}
    assert {name: each for name, each in found.items() if each} == {}


@pytest.mark.parametrize(
    "text", ["Of these, two.", "It lies there.", "found 1 classes", "in grey", "1 row has not one"]
)
def test_banned_phrases_are_found(text: str) -> None:
    """The checks above would find nothing if the expressions were wrong."""
    assert hits(iter([(1, text)]))
