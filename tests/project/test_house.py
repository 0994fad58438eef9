"""The shape of the package, for people to find their way in it."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
from collections.abc import Iterator
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


def internal_docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and docstring of what a module defines, without what is in `batchify.__all__`."""
    parts = path.relative_to(TOP.parent).with_suffix("").parts
    found: list[tuple[str, ast.AST]] = [
        (".".join(parts), ast.parse(path.read_text(encoding="utf-8")))
    ]
    while found:
        outer, parent = found.pop()
        for node in ast.iter_child_nodes(parent):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            name = f"{outer}.{node.name}"
            public = getattr(batchify, node.name, None) if node.name in batchify.__all__ else None
            if public is None or f"{public.__module__}.{public.__qualname__}" != name:
                found.append((name, node))
                yield name, ast.get_docstring(node) or ""


def wordless_entries(docstring: str) -> list[str]:
    """Return the entries of Parameters and Raises that have no text, nor the shape of an array."""
    entries = []
    for kind, section in re.findall(
        r"^(Parameters|Raises)\n-+\n(.*?)(?=\n\n|\Z)", docstring, flags=re.MULTILINE | re.DOTALL
    ):
        bare = r"^[\w, ]+$" if kind == "Raises" else r"^(?!.*shape)\S.*$"
        entries += re.findall(rf"{bare}(?!\n )", section, flags=re.MULTILINE)
    return entries


def test_internal_docstrings_do_not_repeat_the_signature() -> None:
    """Public ones are a reference, and complete; elsewhere an entry says what the types do not."""
    assert {
        name: entries
        for path in TOP.rglob("*.py")
        for name, docstring in internal_docstrings(path)
        if (entries := wordless_entries(docstring))
    } == {}


def test_entries_without_a_word_are_found() -> None:
    """The check above would find nothing if it read docstrings wrongly."""
    docstring = """Do it.

    Parameters
    ----------
    a : int
        Has words.
    b : str
    c : ndarray, shape (n,)

    Raises
    ------
    OSError
    As `open`.
    """
    assert wordless_entries(inspect.cleandoc(docstring)) == ["b : str", "OSError"]
