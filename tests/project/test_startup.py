"""The start of the command: nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("numpy", "h5py", "PIL", "tqdm", "fsspec", "pathspec")


@pytest.mark.parametrize(
    "statement",
    [
        "import batchify",
        "from batchify.cli import main; main(['--help'], standalone_mode=False)",
        "from batchify.cli import main; main(['build', '--help'], standalone_mode=False)",
    ],
)
def test_help_imports_nothing_heavy(statement: str) -> None:
    """What `scripts/bench start` times is kept by what is imported."""
    code = f"{statement}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("module", "others"),
    [
        # A worker decodes and writes by offset; h5py would cost it memory and a moment.
        (
            "batchify.building.fill",
            (
                "h5py",
                "click",
                "email",
                "batchify.planning.plan",
                "batchify.building.jobs",
                "batchify.datasets.dataset",
                "batchify.options",
                "batchify.workers.engine",
            ),
        ),
        # HDF5 loads while workers start, and asyncio is for URLs alone.
        ("batchify.building.build", ("h5py", "asyncio", "http", "ssl")),
        ("batchify.sharding.task", ("h5py", "asyncio", "http", "ssl")),
    ],
)
def test_modules_import_only_what_they_need_at_once(module: str, others: tuple[str, ...]) -> None:
    """What takes long to import is imported when it is needed, or while workers start."""
    code = f"import {module}, sys; print([m for m in {others} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    """The lazy table and the list agree."""
    import batchify

    for name in batchify.__all__:
        assert getattr(batchify, name) is not None
    assert set(dir(batchify)) == set(batchify.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        batchify.nothing  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    """What is imported for them alone is what the lazy table finds, each name from its module."""
    import batchify

    tree = ast.parse(Path(str(batchify.__file__)).read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {name: f"batchify.{home}" for name, home in batchify._HOMES.items()}
