"""What becomes of a build when images cannot be used."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchify import schema
from batchify.errors import BadImagesError, OptionError, Skipped
from batchify.names import printable
from batchify.values import choice

if TYPE_CHECKING:
    from batchify.plan import BuildPlan
    from batchify.rows import Rows


MEND = "mend or remove them, or pass --on-error skip to leave them out"


@dataclass(frozen=True, slots=True)
class Limit:
    """The most images that something may be: a count, or a share of all images.

    Parameters
    ----------
    text : str
        ``"10"`` or ``"2.5%"``.
    name : str
        What it bounds.
    """

    text: str
    name: str = "max skipped"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d+|\d+(\.\d+)?%", self.text):
            raise OptionError(
                f"{self.name} must be a count (10) or a share (1%), not {self.text!r}"
            )
        if self.text.endswith("%") and float(self.text[:-1]) > 100:
            raise OptionError(f"{self.name} cannot be more than 100%, not {self.text!r}")

    def count(self, images: int) -> int:
        """Return how many of `images` images that is."""
        from fractions import Fraction  # slow to import, and rarely needed

        if self.text.endswith("%"):
            return math.floor(Fraction(self.text[:-1]) * images / 100)
        return int(self.text)


def check_policy(on_error: str, max_skipped: str | int | None) -> Limit | None:
    """Return the bound on skipped images; refuse a policy that cannot be meant.

    Raises
    ------
    OptionError
    """
    choice("on error", on_error, schema.ON_ERRORS)
    if max_skipped is None:
        return None
    limit = Limit(str(max_skipped))
    if on_error == "fail":
        raise OptionError("--max-skipped bounds --on-error skip; give both")
    return limit


class BadImages:
    """The images of a build that cannot be used, and what becomes of the build for it.

    Parameters
    ----------
    plan : BuildPlan
    on_error : str
        One of `schema.ON_ERRORS`.
    limit : Limit or None
        The most images that may be left out, those of the plan included.

    Attributes
    ----------
    rows : dict of str to list of (int, Skipped)
        For each split, the rows whose file is bad, and why.

    Raises
    ------
    BadImagesError
        If the plan leaves more out already than it may.
    """

    def __init__(self, plan: BuildPlan, on_error: str, limit: Limit | None) -> None:
        self._plan = plan
        self.skip = on_error == "skip"
        self._most = limit.count(plan.images + len(plan.skipped)) if limit else None
        self.rows: dict[str, list[tuple[int, Skipped]]] = {split.name: [] for split in plan.splits}
        self.count = 0
        self._check_limit()

    def add(self, rows: Rows) -> None:
        """Take note of the bad ones of some rows.

        Raises
        ------
        BadImagesError
            If more images are left out now than may be.
        """
        if rows.bad:
            self.rows[rows.split] += rows.bad
            self.count += len(rows.bad)
            self._check_limit()

    def check(self) -> None:
        """Decide, at the end.

        Raises
        ------
        BadImagesError
            If there are any and they were not to be skipped, or no image is left.
        """
        is_part = self._plan.shard is not None  # which may be left with nothing
        if not self.count or (self.skip and (is_part or self.count < self._plan.images)):
            return
        advice = MEND
        if self.count == self._plan.images:
            advice = "there would be nothing in the file"
        raise unusable(self._found, self._plan.images, advice)

    @property
    def _found(self) -> list[Skipped]:
        return [entry for rows in self.rows.values() for _, entry in rows]

    def _check_limit(self) -> None:
        if self._most is not None and len(self._plan.skipped) + self.count > self._most:
            raise too_many([*self._plan.skipped, *self._found])


def unusable(found: Sequence[Skipped], images: int, advice: str) -> BadImagesError:
    """Return the error of images that cannot be used, of so many."""
    return BadImagesError(
        f"{len(found):,} of {images:,} images cannot be used:\n{listing(found)}\n{advice}",
        tuple(found),
    )


def too_many(left_out: Sequence[Skipped]) -> BadImagesError:
    """Return the error of more images left out than may be."""
    return BadImagesError(
        f"{len(left_out):,} images are left out already, more than --max-skipped allows:\n"
        + listing(left_out),
        tuple(left_out),
    )


def listing(entries: Iterable[Skipped]) -> str:
    """Return files with their reasons, one a line."""
    # A bullet before the path: at the start of a line a name could be a command to a CI system.
    return "\n".join(f"  - {printable(entry.path)}: {entry.reason}" for entry in entries)
