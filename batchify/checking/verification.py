"""The findings of a verification, collected, and as text and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from batchify._version import JSON_VERSION
from batchify.checking.findings import KEPT, Finding
from batchify.common.text import plural, printable

_SHOWN = 20
"""How many findings of a code a report shows."""

VERIFY_CODES = {
    "structure": "does not match schema 1",
    "digest": "names, attributes, types, shapes or records have changed",
    "record": "a label, path, hash or size does not match its checksum",
    "label": "a label is not one of the classes",
    "image": "a stored image does not match its checksum",
    "missing": "an image file is no longer in the dataset",
    "changed": "an image file has changed since it was decoded",
    "new": "an image file of the dataset is not in the file",
    "pixels": "decoding an image file again gives different pixels",
}


class Findings:
    """Collects findings: counts all, lists the first of each code.

    Attributes
    ----------
    shard : str
        The file that later findings are about, if there are several.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.kept: list[Finding] = []
        self.shard = ""

    def add(self, finding: Finding) -> None:
        """Count a finding, and list it if it is among the first."""
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
        Rows of all splits; their labels, paths and hashes were checked.
    images, sources, decoded : int
        How many stored images were read, image files hashed, and image files decoded again.
    counts : Mapping of str to int
        How many findings each code has.
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

    def __repr__(self) -> str:
        found = plural(sum(self.counts.values()), "problem") if self.counts else "OK"
        return f"<batchify verification of {printable(self.path)}: {found}>"

    def __str__(self) -> str:
        checked = [plural(self.rows, "row"), "the digest"] if self.rows else []
        if self.images:
            checked.append(plural(self.images, "stored image"))
        if self.sources:
            again = f", {self.decoded:,} of them decoded again" if self.decoded else ""
            checked.append(plural(self.sources, "image file") + again)
        verified = " and ".join(filter(None, (", ".join(checked[:-1]), *checked[-1:])))
        path = printable(self.path)
        if self.is_ok:
            return f"{path}: OK: verified {verified}"
        found = plural(sum(self.counts.values()), "finding")
        lines = [f"{path}: {found} ({f'checked {verified}' if verified else 'it cannot be read'})"]
        for code, count in self.counts.items():
            lines.append(f"  {code}: {count:,} ({VERIFY_CODES[code]})")
            of_code = [finding for finding in self.findings if finding.code == code]
            lines += [
                f"    - {finding.where}: {finding.message}"
                if finding.where
                else f"    - {finding.message}"
                for finding in of_code[:_SHOWN]
            ]
            if count > _SHOWN:
                kept = "" if count > len(of_code) else " (--json lists them)"
                lines.append(f"    … and {count - _SHOWN:,} more{kept}")
        return "\n".join(lines)

    @property
    def is_ok(self) -> bool:
        """Whether there are no findings."""
        return not self.counts

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values; see the page `json` of the documentation."""
        return {
            "json_version": JSON_VERSION,
            "path": printable(self.path),
            "ok": self.is_ok,
            "rows": self.rows,
            "images_read": self.images,
            "sources_hashed": self.sources,
            "sources_decoded": self.decoded,
            "counts": dict(self.counts),
            "findings": [finding.as_json() for finding in self.findings],
        }
