"""The shape of the package, for people to find their way in it."""

from __future__ import annotations

import ast
import pkgutil
from pathlib import Path

import pytest

import batchify

TOP = Path(batchify.__file__).parent


def test_no_package_bears_a_public_name() -> None:
    """Importing a package ``batchify.build`` would overwrite the function `batchify.build`."""
    modules = {module.name for module in pkgutil.iter_modules(batchify.__path__)}
    assert modules.isdisjoint(batchify.__all__)


def test_few_modules_are_not_in_a_package() -> None:
    """Who looks for a thing reads the names of the packages first."""
    assert len(list(TOP.glob("*.py"))) <= 8


@pytest.mark.parametrize(
    "package",
    [path.parent.relative_to(TOP).as_posix() for path in sorted(TOP.rglob("*/__init__.py"))],
)
def test_a_package_says_what_it_is_for_and_no_more(package: str) -> None:
    """Nothing is imported, or defined, in a package itself; the command group is the exception."""
    body = ast.parse((TOP / package / "__init__.py").read_text(encoding="utf-8")).body
    assert isinstance(body[0], ast.Expr)
    assert len(body) == 1 or package == "cli"


def test_modules_are_short() -> None:
    """A long one has a second job in it, which people look for elsewhere."""
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in TOP.rglob("*.py")}
    assert {path.name: count for path, count in lines.items() if count > 400} == {}
