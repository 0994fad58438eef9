"""Options from a file: ``[tool.batchify.build]`` of pyproject.toml, or batchify.toml."""

from __future__ import annotations

import os
from typing import Any

import click

from batchify.cli.types import Names, TargetSize
from batchify.names import printable

_FILES = ("batchify.toml", "pyproject.toml")


def load_config(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    """Make the options of ``build`` in a configuration file the defaults of the command.

    Without ``--config``, ``batchify.toml`` and then ``pyproject.toml`` of the current folder are
    looked at. Command line and environment win over them.
    """
    if context.resilient_parsing:
        return
    paths = [value] if value else list(filter(os.path.isfile, _FILES))
    for path in paths:
        table = _table(path)
        if table is None:
            continue
        options = _checked(table, path)
        # a command's own option of the same name (check --max-skipped) is another one
        given = {p.name for p in context.command.params if p.envvar}
        options = {name: value for name, value in options.items() if name in given}
        context.default_map = {**(context.default_map or {}), **options}
        return
    if value:
        raise click.UsageError(f"{value} has no table [tool.batchify.build]")


def _table(path: str) -> Any:
    """Return the options in a file, None where it has none."""
    import tomllib

    try:
        with open(path, "rb") as file:
            content: Any = tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise click.UsageError(
            f"{printable(path)} cannot be read: {printable(str(error))}"
        ) from error
    for key in ("tool", "batchify", "build"):
        content = content.get(key)
        if not isinstance(content, dict):
            return content
    return content


def _checked(table: Any, path: str) -> dict[str, Any]:
    """Return a table as option name to value; refuse what is not an option."""
    where = f"[tool.batchify.build] of {printable(path)}"
    if not isinstance(table, dict):
        raise click.UsageError(f"{where} is not a table")
    from batchify.cli.options import build_option_of  # which has this as a callback

    known = build_option_of()
    del known["config"]
    options: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in options:
            raise click.UsageError(f"{where} has {name} twice")
        options[name] = value
        if name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise click.UsageError(f"{where} has {name!r}, which is not an option{hint}")
        options[name] = _value(value, known[name], f"{where}: {name}")
    return options


def _value(value: Any, option: click.Option, where: str) -> Any:
    """Return a value as the command line would hand it over, so that it is judged alike."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise click.UsageError(f"{where} must be true or false")
        return value
    if isinstance(value, list) and isinstance(option.type, TargetSize | Names):
        if not all(type(item) in (str, int) for item in value):
            raise click.UsageError(f"{where} must be a list of names or of numbers")
        return value
    if type(value) not in (str, int, float):
        raise click.UsageError(f"{where} must be a text or a number")
    return str(value)
