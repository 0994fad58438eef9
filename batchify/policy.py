"""What becomes of a build when images cannot be used."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from batchify import schema
from batchify.errors import OptionError
from batchify.options import choice


@dataclass(frozen=True, slots=True)
class MaxSkipped:
    """The most images that may be left out: a count, or a share of all images.

    Parameters
    ----------
    text : str
        ``"10"`` or ``"2.5%"``.
    """

    text: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d+|\d+(\.\d+)?%", self.text):
            raise OptionError(
                f"max skipped must be a count (10) or a share (1%), not {self.text!r}"
            )
        if self.text.endswith("%") and float(self.text[:-1]) > 100:
            raise OptionError(f"max skipped cannot be more than 100%, not {self.text!r}")

    def count(self, images: int) -> int:
        """Return how many of `images` images may be left out."""
        from fractions import Fraction  # slow to import, and rarely needed

        if self.text.endswith("%"):
            return math.floor(Fraction(self.text[:-1]) * images / 100)
        return int(self.text)


def check_policy(on_error: str, max_skipped: str | int | None) -> MaxSkipped | None:
    """Return the bound on skipped images; refuse a policy that cannot be meant.

    Raises
    ------
    OptionError
    """
    choice("on error", on_error, schema.ON_ERRORS)
    if max_skipped is None:
        return None
    limit = MaxSkipped(str(max_skipped))
    if on_error == "fail":
        raise OptionError("--max-skipped bounds --on-error skip; give both")
    return limit
