"""The types of options: convert texts from the command line or a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from batchify.choices import names_by_number
from batchify.common.text import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    # generic from click 8.4 on, to type checkers alone
    _SizeType = click.ParamType[tuple[int, int]]
    _NamesType = click.ParamType[tuple[str, ...]]
    _CountType = click.ParamType[int | str]
    _PatternType = click.ParamType[str]
    _ThresholdsType = click.ParamType[dict[str, float]]
else:
    _SizeType = _NamesType = _CountType = _PatternType = _ThresholdsType = click.ParamType


class TargetSize(_SizeType):
    """``HxW``, or one number for a square; in a configuration file also ``[H, W]``."""

    name = "HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return (height, width)."""
        if isinstance(value, list | tuple) and len(value) == 2:
            value = "x".join(map(str, value))
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:[xX×]\s*(\d{1,6})\s*)?", str(value))
        if match is None:
            self.fail(f"{value!r} is not a size such as 150x150 (height x width)", param, ctx)
        height, width = int(match[1]), int(match[2] or match[1])
        if not height or not width:
            self.fail(f"{value!r} has a side of 0 pixels", param, ctx)
        return height, width


class Share(click.types.FloatParamType):
    """A share of the images, as a number from 0 to 1."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the share."""
        try:
            return float(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is not a share such as 0.2", param, ctx)


class Names(_NamesType):
    """Comma-separated names; in a configuration file also a list."""

    name = "NAMES"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names."""
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(part.strip() for part in map(str, parts) if part.strip())


class SomeOf(Names):
    """Comma-separated names, each one of `choices`."""

    def __init__(self, *choices: str) -> None:
        self._choice = click.Choice(choices)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names."""
        names = super().convert(value, param, ctx)
        known = [str(choice) for choice in self._choice.choices]
        for name in names:
            if name not in known:
                import difflib  # for this error alone

                if close := difflib.get_close_matches(name, known, 1):
                    hint = f"did you mean {close[0]!r}?"
                    self.fail(f"{name!r} is not one of {len(known)} names; {hint}", param, ctx)
        return tuple(self._choice.convert(name, param, ctx) for name in names)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the choices that begin with a text."""
        return self._choice.shell_complete(ctx, param, incomplete)


class ClassNames(Names):
    """Comma-separated names, or ``@FILE``: one name per line, or a class index in JSON."""

    name = "NAMES|@FILE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names."""
        if not isinstance(value, str) or not value.startswith("@"):
            return super().convert(value, param, ctx)
        import io

        from batchify.common.system import open_regular

        try:
            opened = open_regular(value[1:])
            with io.TextIOWrapper(opened, "utf-8-sig", "surrogateescape") as file:
                if value.lower().endswith(".json"):
                    return _class_index(file.read())
                names = tuple(map(str.strip, file.read().strip().split("\n")))
            if "" in names[1:]:  # skipped, it would give all names after it another number
                raise ValueError(f"line {names.index('', 1) + 1} is empty")
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            self.fail(f"{printable(value[1:])} cannot be read: {reason}", param, ctx)
        if names == ("",):
            self.fail(f"{printable(value[1:])} lists no classes", param, ctx)
        return names


def _class_index(text: str) -> tuple[str, ...]:
    """Return the names in a JSON file, an index or a list; raise ValueError if it has none."""
    import json  # rarely needed

    found = json.loads(text, object_pairs_hook=_distinct)
    if isinstance(found, dict):
        found = names_by_number(found)
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) for name in found):
        raise ValueError("it is neither a list of names nor names with their numbers")
    if not found:
        raise ValueError("it lists no classes")
    return tuple(found)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raise ValueError if a name is repeated, of which one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it names a class or a number more than once")
    return found


class Pattern(_PatternType):
    """A pattern as in a ``.gitignore`` file; environment variables have one per line."""

    name = "GLOB"

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Return the lines."""
        return [line for line in rv.splitlines() if line.strip()]


class CountOrAll(_CountType):
    """A whole number of at least 1, or ``all``."""

    name = "N|all"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return the number, or ``all``."""
        if value == "all":
            return "all"
        if not re.fullmatch(r"\d{1,18}", str(value)) or not int(value):
            self.fail(f"{value!r} is neither a number of at least 1 nor all", param, ctx)
        return int(value)


class Thresholds(_ThresholdsType):
    """Comma-separated numbers with names, ``a=1,b=2``; in a configuration file also a list."""

    name = "CODE=N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, float]:
        """Return the numbers by name."""
        if isinstance(value, dict):
            return value
        found = {}
        for part in Names().convert(value, param, ctx):
            name, _, number = part.partition("=")
            try:
                found[name.strip()] = float(number)
            except ValueError:
                self.fail(f"{part!r} is not a name and a number such as odd-size=4", param, ctx)
        return found
