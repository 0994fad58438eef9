"""The map of the code shows what is there."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

import batchify

TOP = Path(batchify.__file__).parent
PAGE = (TOP / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = sorted(path.parent.name for path in TOP.glob("*/__init__.py"))
NAMES = sorted(
    set(
        re.findall(
            rf"`((?:{'|'.join([*PACKAGES, 'options', 'choices', 'errors'])})\.[\w.]+)`", PAGE
        )
    )
)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_map_names_is_there(name: str) -> None:
    """Modules, functions, classes and their methods."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(["batchify", *parts[:count]]))
        except ModuleNotFoundError:
            continue
        reduce(getattr, parts[count:], module)
        return
    raise AssertionError(name)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_shows_every_package(package: str) -> None:
    """In the table of the layers."""
    table = PAGE.split("```text\n")[1].split("```")[0]
    assert package in re.findall(r"\w+", " ".join(line[:34] for line in table.splitlines()))
