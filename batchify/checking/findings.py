"""Findings and problems, as values and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from batchify._version import JSON_VERSION
from batchify.choices import (
    Limit,
    check_at_least,
    check_near_distance,
    check_pattern,
    check_positive,
)
from batchify.common.text import plural, printable
from batchify.decoding.losses import LOSSES
from batchify.errors import OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KEPT = 1000
"""How many findings of one code are listed; all are counted."""

SHOWN = 5
"""How many examples of a problem a report shows."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A single problem, with the row or file that it is about.

    Parameters
    ----------
    code : str
        A key of `CHECK_CODES` or of `batchify.checking.verification.VERIFY_CODES`.
    message : str
        One line.
    split : str
        Empty if it is not about a row.
    row : int, or None
    path : bytes
        Path of the image file; empty if there is none.
    other : tuple of (str, int), or None
        Split and row of the image that it looks like.
    """

    code: str
    message: str
    split: str = ""
    row: int | None = None
    path: bytes = b""
    other: tuple[str, int] | None = None

    @property
    def where(self) -> str:
        """Split, row and path as text: ``train row 17 (cat/1.jpg)``."""
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


SEVERITIES = ("error", "warning", "notice")
"""Notices never fail: they are about images that may well be as they should be."""

Rows = Mapping[str, "NDArray[np.int64]"]
"""Rows of each split, ascending; splits without one are missing."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a check finds.

    Parameters
    ----------
    message : str
        One line.
    count : int
        How many images, classes or groups are affected.
    examples : iterable of Finding
        Without a code; made when needed.
    rows : callable
        Returns the rows of the affected images; none if it is not about images of the file.
    """

    message: str
    count: int
    examples: Iterable[Finding] = ()
    rows: Callable[[], Rows] = dict


class Code(NamedTuple):
    """The severity of a kind of problem, and what to do about it.

    Parameters
    ----------
    severity : str
        One of `SEVERITIES`.
    advice : str
        What a user can do; empty if the message says it.
    limit : str
        The field of `CheckLimits` that turns a warning into an error, if it is given.
    split_advice : str
        What a user can do instead if the dataset itself says which image is in which split.
    """

    severity: str
    advice: str
    limit: str = ""
    split_advice: str = ""


THRESHOLDS = {
    "dark": 0.32,
    "bright": 0.05,
    "blurry": 0.29,
    "low-information": 0.3,
    "odd-size": 3.0,
    "odd-aspect-ratio": 0.35,
    "class-outlier": 3.0,
    "near-leak": 4.0,
    "near-duplicate": 4.0,
}
"""The thresholds of images that look unusual or alike, by code; see the page `check` of the
documentation."""

CHECK_CODES = {
    "unreadable": Code("error", "fix or remove them, or build with --on-error skip"),
    "damaged": Code(
        "warning",
        "replace or remove them, or build with --strict-decode, which refuses them",
    ),
    "leak": Code(
        "error",
        "remove the copies, or build with --split stratified --group-duplicates",
        split_advice="remove the copies from all splits but one",
    ),
    "near-leak": Code(
        "warning",
        "remove the copies, or build with --split stratified --group-near-duplicates 4",
        split_advice="move images that look alike into one split, or remove them",
    ),
    "group-leak": Code(
        "error",
        "build with --split stratified --group-by and the same pattern",
        split_advice="move each group into one split",
    ),
    "label-conflict": Code("error", "keep each image in one class only"),
    "duplicate": Code(
        "warning", "remove the copies, or let them count several times", "max_duplicates"
    ),
    "linked-class": Code("error", "read it with --follow-links, or skip it with --on-error skip"),
    "empty-split": Code("error", "take a larger share for it, or more images"),
    "empty-class": Code("error", "add images, or remove these classes"),
    "missing-class": Code(
        "warning",
        "add images of these classes, or build with --split stratified",
        split_advice="move images of these classes there, or remove them",
    ),
    "similar-classes": Code(
        "warning", "if they are one class, give their folders, or labels, the same name"
    ),
    **{code: Code("warning", "") for code in ("nested-classes", "kinds", "loose", "links")},
    "tiny-class": Code("warning", "add images, or remove these classes", "min_class_size"),
    "imbalance": Code("warning", "add images, or use class weights", "max_imbalance"),
    "skipped": Code(
        "warning", "fix the images: batchify inspect lists them with the reasons", "max_skipped"
    ),
    "ignored": Code("warning", "or exclude them with --exclude"),
    **{loss.code: Code("warning", loss.advice) for loss in LOSSES},
    "low-psnr": Code(
        "warning", "build with a higher --quality, or with --store png, which loses nothing"
    ),
    "upscaled": Code("warning", "build with a smaller --target-size, or remove them"),
    "near-duplicate": Code("notice", "remove them, or let them count several times"),
    **{
        code: Code("notice", "look at them, and exclude those that are wrong")
        for code in THRESHOLDS
        if not code.startswith("near-")
    },
}
"""Severity and advice of each code; `batchify.checking.check.CHECKS` has the checks."""

FOLD_CODES = {
    "fold-leak": Code("error", "build all folds again with --group-duplicates"),
    "fold-mismatch": Code("error", "build all folds again from the same dataset"),
}
"""The same for the files of a cross-validation; see `batchify.checking.folds`."""


@dataclass(frozen=True, slots=True)
class CheckLimits:
    """Limits of a check; exceeding a limit that you set is an error instead of a warning.

    Parameters
    ----------
    max_imbalance : float, optional
        Images of the largest class per image of the smallest, in training; above 10, a warning.
    max_skipped : str or int, optional
        Skipped images, ``10`` or ``"1%"`` of all; above 0, a warning.
    max_duplicates : str or int, optional
        Copies of images within a split, ``10`` or ``"1%"``; above 0, a warning.
    min_class_size : int, optional
        Images of a class, in all splits; below 10, a warning.
    group_by : str
        A regular expression: rows whose paths match with the same first group must be in one split.
    thresholds : Mapping of str to float
        Thresholds instead of `THRESHOLDS`, by code.
    """

    max_imbalance: float | None = None
    max_skipped: str | int | None = None
    max_duplicates: str | int | None = None
    min_class_size: int | None = None
    group_by: str = ""
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_imbalance is not None:
            check_positive("max imbalance", self.max_imbalance)
            if self.max_imbalance < 1:
                raise OptionError(f"max imbalance must be 1 or more, not {self.max_imbalance}")
        for name in ("max_skipped", "max_duplicates"):
            value = getattr(self, name)
            if value is not None:
                Limit(str(value), name.replace("_", " "))
        if self.min_class_size is not None:
            check_at_least("min class size", self.min_class_size, 1)
        if self.group_by:
            check_pattern("group by", self.group_by)
        for code, value in self.thresholds.items():
            if code not in THRESHOLDS:
                raise OptionError(f"{code!r} has no threshold, only {', '.join(THRESHOLDS)}")
            check_positive(f"threshold of {code}", value)
            if code.startswith("near-"):
                check_near_distance(f"threshold of {code}", value)

    def threshold(self, code: str) -> float:
        """Return a threshold, given a key of `THRESHOLDS`."""
        return self.thresholds.get(code, THRESHOLDS[code])


def allowed(limit: str | int | None, images: int) -> int:
    """Return how many of all images a limit such as ``10`` or ``"1%"`` allows; 0 if not given."""
    return 0 if limit is None else Limit(str(limit)).count(images)


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a dataset that may hurt training.

    Parameters
    ----------
    code : str
        A key of `CHECK_CODES`.
    severity : str
        One of `SEVERITIES`.
    message : str
        One line.
    advice : str
        What a user can do; empty if the message says it.
    count : int
        How many images, classes or groups are affected.
    examples : tuple of Finding
        The first thousand of them.
    ignored : bool
        The user ignores this code.
    rows : Mapping of str to ndarray of int64
        The rows of all affected images, by split; empty if it is not about images of the file.
    """

    code: str
    severity: str
    message: str
    advice: str
    count: int
    examples: tuple[Finding, ...]
    ignored: bool = False
    rows: Rows = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return f"{self.message}; {self.advice}" if self.advice else self.message

    def __repr__(self) -> str:
        return f"<batchify {self.severity} {self.code}: {self.message}>"

    def lines(self) -> list[str]:
        """Return the problem, the first examples and the advice as lines of a report."""
        if self.ignored:
            return [f"  ignored {self.code}: {self.message}"]
        lines = [f"  {self.severity} {self.code}: {self.message}"]
        lines += [f"    - {each.where}: {each.message}" for each in self.examples[:SHOWN]]
        # a leak counts images, but lists their rows
        more = max(self.count, len(self.examples)) - SHOWN
        if more > 0 and self.examples:
            lines.append(f"    … and {more:,} more")
        return [*lines, f"    {self.advice}"] if self.advice else lines

    def as_json(self) -> dict[str, Any]:
        """Return the problem as plain JSON values."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "advice": self.advice,
            "count": self.count,
            "ignored": self.ignored,
            "examples": [finding.as_json() for finding in self.examples],
        }


@dataclass(frozen=True)
class CheckReport:
    """The result of a check.

    Parameters
    ----------
    path : bytes
        The file or folder.
    images, classes : int
    problems : tuple of Problem
        Errors first.
    strict : bool
        A warning fails as well.
    notes : tuple of str
        What was not looked for, and why.
    """

    path: bytes
    images: int
    classes: int
    problems: tuple[Problem, ...]
    strict: bool = False
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<batchify check of {printable(self.path)}: {self.tally}>"

    def __str__(self) -> str:
        classes = f", {plural(self.classes, 'class', 'classes')}" if self.classes else ""
        head = f"{printable(self.path)}: {self.tally} ({plural(self.images, 'image')}{classes})"
        notes = (f"  note: {note}" for note in self.notes)
        return "\n".join([head, *(line for each in self.problems for line in each.lines()), *notes])

    @property
    def is_ok(self) -> bool:
        """Whether nothing fails: errors, or with `strict` warnings too, that are not ignored."""
        failing = ("error", "warning") if self.strict else ("error",)
        return not any(p.severity in failing and not p.ignored for p in self.problems)

    @property
    def tally(self) -> str:
        """How many errors, warnings and notices there are, as text."""
        counted = Counter(problem.severity for problem in self.problems if not problem.ignored)
        found = [plural(counted[kind], kind) for kind in SEVERITIES if counted[kind]]
        return ", ".join(found) or "no problems found"

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values; see the page `json` of the documentation."""
        return {
            "json_version": JSON_VERSION,
            "path": printable(self.path),
            "ok": self.is_ok,
            "images": self.images,
            "classes": self.classes,
            "findings": [problem.as_json() for problem in self.problems],
            "notes": list(self.notes),
        }
