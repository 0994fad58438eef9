"""The command ``batchify presets``: what ``--preset`` stands for."""

from __future__ import annotations

from typing import Any

import click

from batchify._version import JSON_VERSION
from batchify.cli.boundary import boundary
from batchify.cli.help import Command
from batchify.cli.options import JSON, give_options
from batchify.cli.output import echo
from batchify.common.presets import PRESETS
from batchify.common.tables import table


@click.command(cls=Command, general=False)
@give_options((JSON,))
def presets(json: bool) -> None:
    """List the presets of build: several options under one name.

    A file records the options of its preset. Options that are given in addition override them.

    \b
    Examples:
        batchify presets
        batchify build dataset/ out.h5 --preset imagenet
        batchify build dataset/ out.h5 --preset photos --target-size 384
    """
    with boundary(json=json):
        echo(_as_json() if json else _text())


def _as_json() -> dict[str, Any]:
    found = {
        name: {"purpose": each.purpose, "options": dict(each.options)}
        for name, each in PRESETS.items()
    }
    return {"json_version": JSON_VERSION, "presets": found}


def _text() -> str:
    """Return the table of all options and presets, and what each is for."""
    names = list(dict.fromkeys(name for each in PRESETS.values() for name in each.options))
    rows = [["option", *PRESETS]]
    for name in names:
        values = [_shown(each.options.get(name)) for each in PRESETS.values()]
        rows.append([name.replace("_", "-"), *values])
    purposes = [[name, each.purpose] for name, each in PRESETS.items()]
    return f"{table(rows)}\n\n{table(purposes)}"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
