"""What a verification finds, as values and as plain JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from batchify.names import printable

JSON_VERSION = 1
KEPT = 1000
"""Findings of one code that are kept; all are counted."""

CODES = {
    "structure": "what is in the file is not what schema 1 says",
    "digest": "names, attributes, types, shapes or records are not those that were written",
    "record": "a label, path, hash or size is not the one that was written",
    "label": "a label is not of a class",
    "image": "a stored image is not the one that was written",
    "missing": "a source is not in the folder any more",
    "changed": "a source is not the one that was decoded",
    "new": "a source is not in the file",
    "pixels": "decoding a source again gives other pixels",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Parameters
    ----------
    code : str
        A key of `CODES`.
    message : str
        One line.
    split : str
        Empty where it is not about rows.
    row : int, or None
    path : bytes
        Of the source image; empty where there is none.
    """

    code: str
    message: str
    split: str = ""
    row: int | None = None
    path: bytes = b""

    @property
    def where(self) -> str:
        """The place, for people: ``train row 17 (cat/1.jpg)``."""
        parts = [] if self.row is None else [f"{self.split} row {self.row:,}"]
        if self.path:
            name = printable(self.path)
            parts.append(f"({name})" if parts else name)
        return " ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return the finding as plain JSON values."""
        return {
            "code": self.code,
            "message": self.message,
            "split": self.split or None,
            "row": self.row,
            "path": printable(self.path) if self.path else None,
        }


class Findings:
    """Collects findings: counts all, keeps the first of each code.

    Attributes
    ----------
    shard : str
        The file, of several, that findings are of from now on.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.kept: list[Finding] = []
        self.shard = ""

    def add(self, finding: Finding) -> None:
        """Take note of a finding."""
        self.counts[finding.code] += 1
        if self.counts[finding.code] <= KEPT:
            message = f"{self.shard}: {finding.message}" if self.shard else finding.message
            self.kept.append(replace(finding, message=message))


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Parameters
    ----------
    path : bytes
    rows : int
        Of all splits; their labels, paths and hashes were checked.
    images, sources, decoded : int
        How many stored images were read, sources were hashed, and sources were decoded again.
    counts : Mapping of str to int
        How many findings there are of each code.
    findings : tuple of Finding
        The first thousand of each code.
    """

    path: bytes
    rows: int
    images: int
    sources: int
    decoded: int
    counts: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def is_whole(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values; the schema is in the README."""
        return {
            "json_version": JSON_VERSION,
            "path": printable(self.path),
            "whole": self.is_whole,
            "rows": self.rows,
            "images_read": self.images,
            "sources_hashed": self.sources,
            "sources_decoded": self.decoded,
            "counts": dict(self.counts),
            "findings": [finding.as_json() for finding in self.findings],
        }
