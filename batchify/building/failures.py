"""Collect images that fail in a build; decide whether to skip them; report and list them."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from batchify.choices import Limit
from batchify.common import durable
from batchify.common.text import plural, printable
from batchify.errors import BadImagesError, OutputIOError, Skipped
from batchify.options import RunOptions
from batchify.planning.plan import BuildPlan

if TYPE_CHECKING:
    from batchify.building.fill import FilledRows


class BadImages:
    """The failed images of a build; refuses them unless they may be skipped.

    Attributes
    ----------
    rows : dict of str to list of (int, Skipped)
        For each split, the rows whose file failed, and why.
    """

    def __init__(self, plan: BuildPlan, run: RunOptions) -> None:
        self._plan = plan
        self._run = run
        self.rows: dict[str, list[tuple[int, Skipped]]] = {split.name: [] for split in plan.splits}
        self.count = 0

    def add(self, rows: FilledRows) -> None:
        """Add the failed images of some rows.

        Raises
        ------
        BadImagesError
            If more images are skipped now than may be.
        """
        if rows.bad:
            self.rows[rows.split] += rows.bad
            self.count += len(rows.bad)
            check_limit(self._plan, self._run.limit, self._found)

    def check_at_end(self) -> None:
        """Refuse failed images that must not be skipped, or a file without images."""
        is_part = self._plan.shard is not None  # a shard may end up empty
        if not self.count or (self._run.skip and (is_part or self.count < self._plan.images)):
            return
        raise failed_error(self._found, self._plan.images)

    @property
    def _found(self) -> list[Skipped]:
        return [entry for rows in self.rows.values() for _, entry in rows]


def check_limit(plan: BuildPlan, limit: Limit | None, failed: Sequence[Skipped] = ()) -> None:
    """Refuse to skip more images than a limit, in the plan and among those that failed."""
    skipped = (*plan.skipped, *failed)
    if limit is not None and len(skipped) > limit.count(plan.images + len(plan.skipped)):
        raise BadImagesError(
            f"{plural(len(skipped), 'image is', 'images are')} skipped, more than --max-skipped "
            f"allows:\n"
            f"{listing(skipped)}\n"
            "the rows that are decoded are kept: fix or remove these files, or raise "
            "--max-skipped, and run the same command again",
            skipped,
        )


def failed_error(found: Sequence[Skipped], images: int) -> BadImagesError:
    """Return the error of images that failed, out of `images`, with what to do."""
    advice = "no images are left"
    if left := images - len(found):
        others = "the other row is" if left == 1 else f"the other {left:,} rows are"
        advice = (
            f"{others} kept: fix or remove these files and run the same command again, or pass "
            "--on-error skip to skip them"
        )
    return BadImagesError(
        f"{len(found):,} of {images:,} images failed:\n{listing(found)}\n{advice}",
        tuple(found),
    )


EXAMPLES = 10
"""How many files of a reason, and how many reasons, a message names at most."""


def listing(entries: Iterable[Skipped]) -> str:
    """Return files grouped by reason, the most frequent first, with examples."""
    groups = group_by_reason(entries)
    # A bullet before the path: a name at the start of a line could be a command to a CI system.
    lines = []
    for reason, group in groups[:EXAMPLES]:
        if len(group) == 1:
            lines.append(f"  - {printable(group[0].path)}: {group[0].reason}")
            continue
        lines.append(f"  {reason} ({len(group):,} images):")
        same = all(entry.reason == reason for entry in group)
        lines += [
            f"  - {printable(entry.path)}" + ("" if same else f": {entry.reason}")
            for entry in group[:EXAMPLES]
        ]
        if len(group) > EXAMPLES:
            lines.append(f"    … and {len(group) - EXAMPLES:,} more")
    others = [entry for _, group in groups[EXAMPLES:] for entry in group]
    if others:
        reasons = plural(len(groups) - EXAMPLES, "more reason")
        lines.append(f"  … and {plural(len(others), 'image')} for {reasons}")
    return "\n".join(lines)


_NUMBER = re.compile(r"\d+(?:[,.]\d+)*")
_MASK = re.compile(r"^its mask .*?: ", re.DOTALL)


def group_by_reason(entries: Iterable[Skipped]) -> list[tuple[str, list[Skipped]]]:
    """Return (reason, files sorted by path) of reasons that differ by more than numbers.

    If reasons differ only by numbers, each number is shown as ``N``. The most frequent reason comes
    first.
    """
    groups: dict[str, list[Skipped]] = {}
    for entry in sorted(entries, key=lambda entry: entry.path):
        kind = _NUMBER.sub("N", _MASK.sub("its mask: ", entry.reason))
        groups.setdefault(kind, []).append(entry)
    named = [
        (group[0].reason if len({entry.reason for entry in group}) == 1 else kind, group)
        for kind, group in groups.items()
    ]
    return sorted(named, key=lambda item: (-len(item[1]), item[0]))


LIST = b".errors.txt"
"""Ending of the list of all images that failed, next to the target."""

_HEAD = b"# batchify: images that failed, and why (path, tab, reason)\n"
"""The first line of such a list; a file without it is not ours."""


@contextlib.contextmanager
def listed_failures(target: bytes | None) -> Iterator[None]:
    """Write the list if a build fails because of its images; remove it if the build succeeds.

    A file of that name that is not such a list is not changed.

    Parameters
    ----------
    target : bytes or None
        The local target; without one (None), there is no list.
    """
    if target is None:
        yield
        return
    path = target + LIST
    try:
        yield
    except BadImagesError as error:
        raise BadImagesError(f"{error}\n{_write_list(path, error.bad)}", error.bad) from error
    if _is_list(path):
        with contextlib.suppress(OutputIOError):
            durable.remove(path)


def _write_list(path: bytes, bad: Iterable[Skipped]) -> str:
    """Write the list; return a line that says where it is, or why there is none."""
    name = printable(path)
    if os.path.lexists(path) and not _is_list(path):
        return f"(they are not listed in {name}, which is another file)"
    lines = [
        f"{printable(entry.path)}\t{entry.reason}\n"
        for _, group in group_by_reason(bad)
        for entry in group
    ]
    try:
        durable.write_atomically(path, _HEAD + "".join(lines).encode("utf-8", "replace"))
    except OutputIOError as error:
        return f"(the list of all of them cannot be written: {error})"
    return f"all of them are listed in {name}"


def _is_list(path: bytes) -> bool:
    """Return whether a path is a list that a build wrote; a link or a pipe is not opened."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return file.read(len(_HEAD)) == _HEAD
    except OSError:
        return False
