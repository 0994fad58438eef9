"""Print results: texts and JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from batchify.cli.style import styled
from batchify.cli.verbosity import is_quiet


def echo(result: str | Mapping[str, Any], *, always: bool = False) -> None:
    """Print a text, or plain values as JSON, to stdout; with ``--quiet``, a text only if `always`.

    Characters that its encoding lacks are escaped (a Windows pipe may be cp1252).
    """
    if isinstance(result, str):
        if is_quiet() and not always:
            return
        result = styled(result)
    else:
        import json  # not for the help

        result = json.dumps(result, indent=2)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        result.encode(encoding)
    except UnicodeEncodeError:
        for fancy, plain in (("█", "#"), ("×", "x"), ("…", "...")):
            result = result.replace(fancy, plain)
        result = result.encode(encoding, "backslashreplace").decode(encoding)
    click.echo(result)
