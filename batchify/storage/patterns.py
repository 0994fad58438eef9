"""Match files and folders with the patterns of --include and --exclude."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from batchify.common.excluded import PathList, is_recorded_list
from batchify.common.text import plural, printable
from batchify.dataset_options import DiscoverOptions
from batchify.errors import BatchifyWarning, OptionError

if TYPE_CHECKING:
    from pathspec.pattern import Pattern

_SHOWN = 16


class PathFilter:
    """Decides which paths of a dataset are taken, and records which patterns matched nothing.

    Patterns are those of ``.gitignore`` (https://git-scm.com/docs/gitignore), relative to the
    dataset, or to its only folder if that is taken as the dataset. If several match a path, the
    last one counts. Files in a list of paths are never taken.

    Raises
    ------
    OptionError
        If a pattern is not valid, or is a list whose paths are not known.
    """

    def __init__(self, options: DiscoverOptions) -> None:
        self._lists = [each for each in options.exclude if isinstance(each, PathList)]
        self._listed = frozenset().union(*(each.paths for each in self._lists))
        self._found: set[bytes] = set()
        exclude = [each for each in options.exclude if not isinstance(each, PathList)]
        if any(map(is_recorded_list, exclude)):
            raise OptionError(
                "the file records which list of paths it was built without, not paths"
            )
        self._include = _compiled("--include", options.include)
        self._exclude = _compiled("--exclude", exclude)
        self._heads = [_segments(pattern) for pattern in options.include]
        self._by_depth: dict[int, list[Pattern]] = {}
        self._unused = {
            id(pattern): (option, text)
            for option, texts, patterns in (
                ("--include", options.include, self._include),
                ("--exclude", exclude, self._exclude),
            )
            for text, pattern in zip(texts, patterns, strict=True)
        }

    def takes(self, *paths: bytes, is_folder: bool) -> bool:
        """Return whether a file is taken, or whether a folder may hold files that are.

        Parameters
        ----------
        paths : bytes
            The path of the file or folder, relative to each folder that patterns start at.
        """
        if self._listed and not is_folder and (found := self._listed.intersection(paths)):
            self._found |= found
            return False
        names = [os.fsdecode(path) + ("/" if is_folder else "") for path in paths]
        excluded = self._last_match(self._exclude, names, _matches_itself)
        included = self._last_match(self._include, names, _matches)
        if excluded:
            return False
        if not self._include or included:
            return True
        return is_folder and any(map(self._may_hold, names))

    @property
    def includes(self) -> bool:
        """Whether there are patterns of --include."""
        return bool(self._include)

    def excludes(self, path: bytes) -> bool:
        """Return whether --exclude has a path, or a folder that it is in; --include is ignored."""
        if path in self._listed:
            self._found.add(path)
            return True
        return self._last_match(self._exclude, [os.fsdecode(path)], _matches)

    def warnings(self) -> list[BatchifyWarning]:
        """Return a warning for each pattern that matched nothing so far, and for each list."""
        lists = [(each, sorted(each.paths - self._found)) for each in self._lists]
        return [
            BatchifyWarning(
                "unused-pattern",
                f"{len(missing):,} of {plural(len(each.paths), 'path')} in {each.shown} "
                f"{'is' if len(missing) == 1 else 'are'} not in the dataset, such as "
                f"{printable(missing[0])}",
            )
            for each, missing in lists
            if missing
        ] + [
            BatchifyWarning(
                "unused-pattern",
                f"{option} {printable(text)} matches nothing in the dataset; patterns are relative "
                "to DATASET, as in a .gitignore file",
            )
            for option, text in self._unused.values()
        ]

    def _last_match(
        self, patterns: Sequence[Pattern], names: list[str], match: Callable[[Pattern, str], bool]
    ) -> bool:
        """Return whether the last pattern that matches one of the names takes it."""
        for pattern in reversed(patterns):
            if any(match(pattern, name) for name in names):
                if self._unused:
                    for each in patterns:
                        if id(each) in self._unused and any(match(each, name) for name in names):
                            del self._unused[id(each)]
                return bool(pattern.include)
        return False

    def _may_hold(self, folder: str) -> bool:
        """Return whether a file below a folder may match a pattern of --include."""
        depth = folder.count("/")
        if depth not in self._by_depth:
            heads = [None if head is None else head[:depth] for head in self._heads]
            if any(head is None or "**" in head for head in heads):
                heads = [["**"]]
            texts = ["/" + "/".join(head) for head in heads if head]
            self._by_depth[depth] = _compiled("--include", texts)
        return any(_matches(pattern, folder) for pattern in self._by_depth[depth])


def escaped(name: bytes | str) -> str:
    """Return a pattern that matches a name or path, with ``?`` for characters that do not print."""
    text = re.sub(r"([\\*?\[\]])", r"\\\1", os.fsdecode(name))
    text = "".join(char if char.isprintable() else "?" for char in text)
    if text.startswith(("!", "#")):
        text = "\\" + text
    return re.sub(" $", r"\\ ", text)


def exclude_options(patterns: Iterable[str]) -> str:
    """Return the --exclude options of some patterns, for a command line."""
    found = list(patterns)
    options = " ".join(f"--exclude {shlex.quote(pattern)}" for pattern in found[:_SHOWN])
    return options + (" …" if len(found) > _SHOWN else "")


def _matches(pattern: Pattern, name: str) -> bool:
    """Return whether a pattern matches a path or a folder that the path is in."""
    return pattern.match_file(name) is not None


def _matches_itself(pattern: Pattern, name: str) -> bool:
    """Return whether a pattern matches a path itself; its folders were checked before, like git."""
    found = pattern.match_file(name)
    if found is None:
        return False
    match = found.match  # its group ps_d is the slash after a folder
    return match.groupdict().get("ps_d") is None or match.end() == len(name)


def _segments(pattern: str) -> list[str] | None:
    """Return the parts of a pattern; None if it may match at any depth, [] for exceptions."""
    if pattern.startswith("!"):
        return []
    parts = pattern.removeprefix("/").removesuffix("/").split("/")
    return parts if len(parts) > 1 or pattern.startswith("/") else None


def _compiled(option: str, patterns: Sequence[str]) -> list[Pattern]:
    from pathspec import GitIgnoreSpec  # slow: only if there are patterns

    found: list[Pattern] = []
    for text in patterns:
        try:
            (pattern,) = GitIgnoreSpec.from_lines([text]).patterns
        except ValueError:
            pattern = None
        if pattern is None or pattern.include is None:
            raise OptionError(f"{option} {text!r} is not a valid .gitignore pattern")
        found.append(pattern)
    return found
