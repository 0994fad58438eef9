"""Read options from a configuration file: ``[tool.batchify.COMMAND]`` in TOML."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import click

from batchify.cli.option_types import Names, TargetSize, Thresholds
from batchify.common.text import printable

_FILES = ("batchify.toml", "pyproject.toml")
_FOUND = "batchify.config"


def load_config(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    """Take the defaults of a command from its table, and for options of ``build`` from that, too.

    Without ``--config``, the file is the first of ``batchify.toml`` and ``pyproject.toml`` in the
    current folder that has a table ``[tool.batchify]``. The command line and the environment
    override it.
    """
    if context.resilient_parsing:
        return
    for path in [value] if value else filter(os.path.isfile, _FILES):
        tables = _read(path)
        if tables is not None:
            break
    else:
        if value:
            raise click.UsageError(f"{printable(value)} has no table [tool.batchify]")
        return
    given = _checked(tables, path, getattr(context.find_root().command, "commands", {}))
    own_options = _options(context.command)
    of_build = {
        name: value
        for name, value in given.get("build", {}).items()
        if getattr(own_options.get(name), "of_build", False)
    }
    own = given.get(str(context.command.name), {})
    context.default_map = {**(context.default_map or {}), **of_build, **own}
    context.meta[_FOUND] = path, given


def config_path(context: click.Context) -> str:
    """Return the configuration file that a command has read; empty if there is none."""
    path, _ = context.meta.get(_FOUND, ("", {}))
    return str(path)


def own_variable(context: click.Context, name: str) -> str:
    """Return the environment variable for an option of the running command alone."""
    return f"{context.auto_envvar_prefix}_{name.upper()}"


def is_own(context: click.Context, name: str) -> bool:
    """Return whether the table or the environment variable of the command itself has an option."""
    in_table = name in own_table(context, str(context.command.name))
    return in_table or bool(os.environ.get(own_variable(context, name)))


def own_table(context: click.Context, command: str) -> dict[str, Any]:
    """Return the options in the table of a command, whichever is running."""
    _, given = context.meta.get(_FOUND, ("", {}))
    table: dict[str, Any] = given.get(command, {})
    return table


def _read(path: str) -> Any:
    """Return the table ``tool.batchify`` of a file; None if it has none."""
    import tomllib

    from batchify.common.system import open_regular

    try:
        with open_regular(path) as file:
            content: Any = tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        reason = printable(getattr(error, "strerror", None) or str(error))
        raise click.UsageError(f"{printable(path)} cannot be read: {reason}") from error
    for key in ("tool", "batchify"):
        content = content.get(key)
        if not isinstance(content, dict):
            return content
    return content


def _checked(
    tables: Any, path: str, commands: dict[str, click.Command]
) -> dict[str, dict[str, Any]]:
    """Return the options of all tables, by command and name; refuse unknown ones."""
    where = f"of {printable(path)}"
    if not isinstance(tables, dict):
        raise click.UsageError(f"[tool.batchify] {where} is not a table")
    allowed = {name: found for name, each in commands.items() if (found := _options(each))}
    checked = {}
    for name, table in tables.items():
        if name not in allowed:
            if not isinstance(table, dict) and _option_name(name) in allowed["build"]:
                hint = "; options of build belong to [tool.batchify.build]"
            else:
                hint = _hint(name, [f"[tool.batchify.{each}]" for each in allowed], allowed)
            raise click.UsageError(
                f"[tool.batchify] {where} has {printable(name)!r}, which is no command with "
                f"options{hint}"
            )
        checked[name] = _table(table, allowed[name], f"[tool.batchify.{name}] {where}")
    return checked


def _options(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command that a file may set, by name."""
    return {
        str(each.name): each
        for each in command.params
        if isinstance(each, click.Option) and not each.is_eager and not each.hidden
    }


def _option_name(key: str) -> str:
    return key.replace("-", "_")


def _table(table: Any, allowed: dict[str, click.Option], where: str) -> dict[str, Any]:
    """Return the options of a table, by name; refuse unknown ones."""
    if not isinstance(table, dict):
        raise click.UsageError(f"{where} is not a table")
    options: dict[str, Any] = {}
    for key, value in table.items():
        name = _option_name(key)
        if name in options:
            raise click.UsageError(f"{where} has {name} twice")
        if name not in allowed:
            hint = _hint(name, [each.replace("_", "-") for each in allowed], allowed)
            raise click.UsageError(f"{where} has {printable(key)!r}, which is not an option{hint}")
        options[name] = _value(value, allowed[name], f"{where}: {name}")
    return options


def _hint(name: str, shown: Iterable[str], allowed: Iterable[str]) -> str:
    """Return the allowed name that may be meant, for the message."""
    import difflib

    close = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean {dict(zip(allowed, shown, strict=True))[close[0]]}?" if close else ""


def _value(value: Any, option: click.Option, where: str) -> Any:
    """Return a value as the command line would pass it, so that both are checked the same way."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise click.UsageError(f"{where} must be true or false")
        return value
    if isinstance(value, list) and isinstance(option.type, TargetSize | Names | Thresholds):
        if not all(type(item) in (str, int) for item in value):
            raise click.UsageError(f"{where} must be a list of names or of numbers")
        return value
    if option.multiple:
        if type(value) is not str and not (
            isinstance(value, list) and all(type(item) is str for item in value)
        ):
            raise click.UsageError(f"{where} must be a string or a list of strings")
        return [value] if isinstance(value, str) else value
    if type(value) not in (str, int, float):
        raise click.UsageError(f"{where} must be a string or a number")
    return str(value)
