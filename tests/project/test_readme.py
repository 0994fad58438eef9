"""The README stays true: its blocks run, in their order, in a folder with a dataset."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from helpers.drawing import draw_dataset

from batchify.building.build import build
from batchify.cli import main
from batchify.format import schema

TOP = Path(__file__).parents[2]
README = (TOP / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)

FRAMEWORKS = ("datasets", "torch", "keras", "tensorflow", "grain")
"""A block is of the first that it needs."""


def frameworks_of(text: str) -> list[str]:
    """Return the frameworks that a block needs."""
    needed = re.findall(r"^(?:import|from) (\w+)", text, flags=re.MULTILINE)
    if ".to_hf()" in text:
        needed.append("datasets")
    return [name for name in FRAMEWORKS if name in needed]


posix = pytest.mark.skipif(sys.platform == "win32", reason="the blocks are for a POSIX shell")


def test_the_blocks_are_of_known_kinds() -> None:
    """So that none is left out by a typing error."""
    assert {kind for kind, _ in BLOCKS} == {"sh", "python", "toml", "text", "yaml"}


@posix
def test_every_block_runs(tmp_path: Path) -> None:
    """Shell and Python blocks, one after another, as a reader would type them.

    What sets up an environment of its own is checked for its words alone: scripts/test is what
    runs this test.
    """
    draw_dataset(tmp_path / "dataset", {"cat": 15, "dog": 25})
    commands = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": commands + os.pathsep + os.environ["PATH"]}
    ran = 0
    for kind, text in BLOCKS:
        if kind == "sh" and "scripts/" in text:
            for line in text.splitlines():
                name = line.split()[0]
                assert os.access(TOP / name, os.X_OK), f"{name} has no run bit"
                subprocess.run(["bash", "-n", TOP / name], check=True)
            continue
        if kind not in ("sh", "python") or frameworks_of(text):
            continue
        command = ["bash", "-euc", text] if kind == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        ran += 1
    assert ran >= 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the file that the training loops read."""
    folder = tmp_path_factory.mktemp("training")
    draw_dataset(folder / "dataset", {"cat": 15, "dog": 25})
    build(folder / "dataset", folder / "out.h5")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=getattr(pytest.mark, "tensorflow" if name == "tensorflow" else "frameworks")
        )
        for name in FRAMEWORKS
    ],
)
def test_every_training_loop_runs(folder: Path, name: str) -> None:
    """The one of each framework, where it is installed."""
    ((needed, text),) = [
        (frameworks_of(text), text)
        for kind, text in BLOCKS
        if kind == "python" and frameworks_of(text)[:1] == [name]
    ]
    for each in {*needed, "torch"} if name == "keras" else needed:
        if importlib.util.find_spec(each) is None:
            pytest.skip(f"{each} is not installed here")
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=folder,
        env={**os.environ, "HF_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@posix
def test_the_demo_runs(tmp_path: Path) -> None:
    """On the shapes that it draws, and on a dataset that it is given."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    draw_dataset(tmp_path / "mine", {"cat": 5, "dog": 5})
    for arguments in ([], [str(tmp_path / "mine")]):
        done = subprocess.run(
            [TOP / "scripts" / "demo", *arguments],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "classes: " in done.stdout
        assert "sheet.png" in done.stdout.splitlines()[-2]


def test_the_configuration_block_is_valid() -> None:
    """Its keys are options."""
    (text,) = [text for kind, text in BLOCKS if kind == "toml"]
    options = {parameter.name for parameter in main.commands["build"].params}
    table = tomllib.loads(text)["tool"]["batchify"]["build"]
    assert {name.replace("-", "_") for name in table} <= options


def test_every_option_is_in_the_readme() -> None:
    """With its default, where it has one that is a word or a number."""
    for command in main.commands.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[0] in README, parameter.opts[0]
    for parameter in main.commands["build"].params:
        if isinstance(parameter, click.Option):
            assert f"`{parameter.opts[0]}" in README, parameter.opts[0]
            if isinstance(parameter.type, click.Choice):
                assert str(parameter.default) in README


def test_every_column_is_in_the_readme() -> None:
    """The layout names what a file holds."""
    columns = schema.split_columns(1, (1, 1, 3), "uint8", "sparse", 1, 1)
    encoded = schema.split_columns(1, (1, 1, 3), "uint8", "sparse", 1, 1, 1)
    masks = schema.split_columns(1, (1, 1, 3), "uint8", "mask", 1, 1, weights=True)
    for column in (*columns, *encoded, *masks):
        assert f"\n  {column.name} " in README


@pytest.mark.long
@posix
@pytest.mark.parametrize(
    ("bench", "scale", "count"),
    [
        ("build", "0.004", 9),
        ("resume", "0.006", 8),
        ("check", "0.004", 6),
        ("read --only ^(rows|batches)", "0.005", 4),
    ],
)
def test_the_benchmarks_run(bench: str, scale: str, count: int) -> None:
    """On a handful of images; what they print is a table and a line of JSON."""
    # The benchmarks import each other from their folder, which a safe path leaves out.
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, TOP / "scripts" / "benchmarks" / "main.py", *bench.split(),
         "--runs", "1", "--scale", scale],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert len(figures) == count
    assert all(figure["ratio"] > 0 for figure in figures)
